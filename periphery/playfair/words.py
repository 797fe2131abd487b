"""Reads a request in simple words, by plain code: "average price by month", "share of", "top 10", "x vs y".

Not every word is known, so what is not understood is no mistake. But what stands where a column stands (in quotes,
with an underscore, behind "by" or beside "vs") and is none is told, with the columns that are called nearly so.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, TypeVar

Aggregate = Literal["sum", "mean", "median", "min", "max", "count"]
Unit = Literal["year", "quarter", "month", "week", "day", "hour", "weekday"]
Mark = Literal["bar", "line", "area", "scatter", "histogram", "heatmap", "pie", "box"]

MARKS: tuple[Mark, ...] = ("bar", "line", "area", "scatter", "histogram", "heatmap", "pie", "box")
_MARKS: dict[str, Mark] = {
    r"bars?|columns? chart|ranking|rank": "bar",
    r"lines?|trends?|over time|timeline|time ?series|develop\w*|evolution": "line",
    r"areas?|stacked area": "area",
    r"scatter\w*|correlat\w+|relation\w*|against|vs\.?|versus": "scatter",
    r"histograms?|distribution|distributed|spread|frequency": "histogram",
    r"heat ?maps?|matrix": "heatmap",
    r"pies?|donuts?|doughnuts?": "pie",
    r"box ?plots?|boxes|quartiles|outliers": "box",
}
_AGGREGATES: dict[str, Aggregate] = {
    r"average|avg|mean": "mean",
    r"median|typical": "median",
    r"sum|total|totals": "sum",
    r"max|maximum|highest|peak": "max",
    r"min|minimum|lowest": "min",
    r"count|counts|number of|how many|how often": "count",
}
_UNITS: dict[str, Unit] = {
    r"years?|yearly|annual\w*": "year",
    r"quarters?|quarterly": "quarter",
    r"months?|monthly": "month",
    r"weeks?|weekly": "week",
    r"weekdays?|days? of (?:the )?week": "weekday",
    r"days?|daily": "day",
    r"hours?|hourly": "hour",
}
_TOP = re.compile(r"\b(top|first|largest|biggest|highest|most|bottom|smallest|lowest|least)\s+(\d{1,3})\b")
_SHARE = re.compile(r"\b(shares?|proportions?|percent\w*|fraction|breakdown|composition|part of)\b|%")
_STACK = re.compile(r"\b(stack\w*)\b")
_LOG = re.compile(r"\blog(?:arithmic)?(?: scale)?\b")
_CUT = re.compile(r"\b(?:by|per|for each|each|over|across|grouped by|split by|colou?red by)\b")
_SPLIT = re.compile(r"[^\w%]+")
_QUOTED = re.compile(r"""(?<!\w)(?:"([^"]+)"|'([^']+)'|`([^`]+)`|[“„]([^“”]+)[“”])(?!\w)""")
_JOINED = re.compile(r"(?<!\w)[^\W\d_]\w*_\w*[^\W_](?!\w)")
_NAME = r"([^\W\d_][\w-]*(?: [\w-]+){0,2}?)"
_STOPS = (
    r"(?=\s*(?:$|[\0,.;:!?()]|\b(?:and|or|in|on|at|as|of|to|for|from|with|where|when|since|between|than|sorted|"
    r"ordered|using|by|per|over|across|against|vs|versus)\b))"
)
_ASKED = tuple(  # words that stand where a column stands
    re.compile(each)
    for each in (
        rf"\b(?:by|per|for each|over|across|against|vs\.?|versus) (?:(?:the|each|every) )?{_NAME}{_STOPS}",
        r"(?<!\w)([^\W\d_][\w-]*) (?:against|vs\.?|versus)(?!\w)",
        r"^(?:(?:show|plot|draw|chart|compare|me|the|total|average|mean|median|sum|of) )*([^\W\d_][\w-]*) (?:by|per) ",
    )
)
_FILLERS = "time|dates?|all|everything|it|them|data|rows?|records?|entries|values?|items?|figures|numbers?|chart|graph"
Word = TypeVar("Word")


@dataclass(frozen=True)
class Wish:
    """What a request asks for; empty where it says nothing."""

    mark: Mark | None = None
    aggregate: Aggregate | None = None
    unit: Unit | None = None
    top: int = 0
    lowest: bool = False
    share: bool = False
    stack: bool = False
    log: bool = False
    columns: tuple[str, ...] = ()  # named, in the order in which they stand
    by: frozenset[str] = field(default_factory=frozenset)  # those after "by" and the like
    unknown: tuple[str, ...] = ()  # what stands where a column would, and is none
    quoted: bool = False  # one of them stands in quotes: it was meant to the letter


def read_wish(text: str, columns: Sequence[str]) -> Wish:
    """What `text` asks for, of a table with these columns."""
    low = text.casefold()[:2000]
    places = _places(low, columns)
    unknown, quoted = _unknown(low, places)
    rest = low
    for start, end, _ in sorted(places, reverse=True):  # what is a column's name is no other word
        rest = rest[:start] + " " * (end - start) + rest[end:]
    cuts = [match.end() for match in _CUT.finditer(rest)]
    rank, top = "", 0
    if match := _TOP.search(rest):
        rank, top = match[1], int(match[2])
        rest = rest[: match.start()] + " " * (match.end() - match.start()) + rest[match.end() :]
    return Wish(
        mark=_first(rest, _MARKS),
        aggregate=_first(rest, _AGGREGATES),
        unit=_first(rest, _UNITS),
        top=top,
        lowest=rank in ("bottom", "smallest", "lowest", "least"),
        share=_SHARE.search(rest) is not None,
        stack=_STACK.search(rest) is not None,
        log=_LOG.search(rest) is not None,
        columns=tuple(dict.fromkeys(name for _, _, name in sorted(places))),
        by=frozenset(name for start, _, name in places if cuts and start >= cuts[0]),
        unknown=unknown,
        quoted=quoted,
    )


def nearest(name: str, columns: Sequence[str]) -> list[str]:
    """The columns that are called nearly so, the nearest first."""
    low = {each.casefold().replace("_", " "): each for each in reversed(columns)}
    return [low[each] for each in get_close_matches(name.casefold().replace("_", " "), low, n=3, cutoff=0.6)]


def _unknown(text: str, places: Sequence[tuple[int, int, str]]) -> tuple[tuple[str, ...], bool]:
    """What `text` calls a column and is none, in the order in which it stands; and whether some of it is quoted."""
    rest = text
    for start, end, _ in places:
        rest = rest[:start] + "\0" * (end - start) + rest[end:]
    found: list[tuple[int, str]] = []
    for match in _QUOTED.finditer(rest):
        group = match.lastindex or 0
        if "\0" not in match[group] and match[group].strip():
            found.append((match.start(group), match[group].strip()))
        rest = rest[: match.start()] + "\0" * (match.end() - match.start()) + rest[match.end() :]
    quoted = bool(found)
    for match in _JOINED.finditer(rest):
        found.append((match.start(), match[0]))
        rest = rest[: match.start()] + "\0" * (match.end() - match.start()) + rest[match.end() :]
    found += [(match.start(1), match[1]) for each in _ASKED for match in each.finditer(" ".join(rest.split()))]
    return tuple(dict.fromkeys(each for _, each in sorted(found) if not _is_word(each))), quoted


def _is_word(phrase: str) -> bool:
    """Whether it means something else than a column, as "the last two years" or "share" does."""
    known = "|".join((*_MARKS, *_AGGREGATES, *_UNITS, _FILLERS))
    words = phrase.split()
    return (
        all(re.fullmatch(known, each) for each in words)
        or re.fullmatch("|".join(_UNITS), words[-1]) is not None
        or any(pattern.search(phrase) for pattern in (_TOP, _SHARE, _STACK, _LOG))
    )


def _first(text: str, words: dict[str, Word]) -> Word | None:
    """What the first of the words means that stand in the text."""
    found = [
        (match.start(), -len(match[0]), word) for pattern, word in words.items() if (match := _find(pattern, text))
    ]
    return min(found, key=lambda each: each[:2])[2] if found else None


def _find(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(rf"\b(?:{pattern})(?!\w)", text)


def _places(text: str, columns: Iterable[str]) -> list[tuple[int, int, str]]:
    """Where the columns are named: the longest names first, as words, with blanks for underscores and plurals."""
    found: list[tuple[int, int, str]] = []
    for name in sorted(columns, key=len, reverse=True):
        words = [re.escape(each) for each in _SPLIT.split(name.casefold().replace("_", " ")) if each]
        if not words:
            continue
        last = words[-1]
        plural = f"{last}(?:s|es)?" if not last.endswith("s") else last[:-1] + "s?"
        if last.endswith("y"):
            plural = f"(?:{last}|{last[:-1]}ies)"
        for match in re.finditer(r"(?<!\w)" + r"[\W_]+".join([*words[:-1], plural]) + r"(?!\w)", text):
            if not any(start < match.end() and match.start() < end for start, end, _ in found):
                found.append((match.start(), match.end(), name))
    return found
