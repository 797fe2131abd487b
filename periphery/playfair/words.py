"""Reads a request in simple words, by plain code: "average price by month", "share of", "top 10", "x vs y"."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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


def read_wish(text: str, columns: Sequence[str]) -> Wish:
    """What `text` asks for, of a table with these columns."""
    low = text.casefold()[:2000]
    places = _places(low, columns)
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
