"""What a person types, understood: words, "phrases", beginnings*, -not, OR, and fields such as from:hopper.

Everything means something, or is refused in one sentence: so is a quotation mark that is never closed, and so is a
field that is none of ours, for whoever slips (`form:ann`) would be told that nothing was found. What only looks like a
field ("https://x", "std::map", "localhost:8080") is words. Several values of one field mean any of them; a tag may be
written #tag. A day stands for its beginning in UTC: `before:2026-11-22` is what was said before that day.

Filters become words of the index, too (`key`), so that FTS5 itself leaves out what does not fit: who asks for the
messages of one participant never pays for those of all, and what a client may not see is not even looked at.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b

from core.dewey.words import Term, term_of
from protos.errors import InvalidArgument

KINDS = ("message", "run", "finding", "act")
FIELDS = ("from", "to", "mad", "kind", "tag", "conversation", "run", "before", "after")
MOST_CHARACTERS = 1000
MOST_TERMS = 32
QUOTE = '"'
UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
EVERYTHING = "all"  # the key that every document has
EXAMPLE = "from:hopper kind:run after:7d"
HELP = 'words, "a phrase", begin*, -not, this OR that, from: to: mad: kind: tag: conversation: run: before: after:'

_PIECE = re.compile(
    r"""(?P<minus>-?)
        (?:(?P<field>[A-Za-z]+):(?P<value>"[^"]*"|[^\s"]*)
         |"(?P<phrase>[^"]*)"
         |(?P<word>[^\s"]+))""",
    re.VERBOSE,
)
_NO_VALUE = re.compile(r"[:/\\].*|[0-9]*")  # what follows the colon of an address, a path, a name of C++, or of a host


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    match: str  # in the language of FTS5; made of letters, digits and its operators alone
    groups: tuple[tuple[Term, ...], ...] = ()  # words: something of each group
    since: float | None = None  # seconds since the epoch
    until: float | None = None
    is_narrowed: bool = False  # to what whoever asks may see: nothing in the answer tells of the rest

    @property
    def terms(self) -> tuple[Term, ...]:
        """What to show in what is found; where there is nothing, the newest is the best."""
        return tuple(term for group in self.groups for term in group)


def key(name: str, value: str) -> str:
    """A filter as one word of the index: the same for all lengths and alphabets, and no word that anybody types."""
    return f"k{blake2b(f'{name}:{value}'.encode('utf-8', 'replace'), digest_size=9).hexdigest()}"


def parse(
    text: str, given: Mapping[str, Iterable[str]] | None = None, *, now: Callable[[], float] = time.time
) -> Query:
    """What `text` asks for; `given` are values of fields that came beside it.

    Raises:
        InvalidArgument: it is too long, a field or its value is none, or a quotation mark is never closed.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidArgument(
            f"a search of {len(text):,} characters; it may have {MOST_CHARACTERS:,}", next="look for fewer words"
        )
    if text.count(QUOTE) % 2:
        raise InvalidArgument(
            f"a quotation mark is never closed: {text[text.rindex(QUOTE) :][:40]}",
            next='close it, as in "a phrase", or leave it out',
        )
    wanted: dict[str, list[str]] = {}
    unwanted: dict[str, list[str]] = {}
    groups: list[list[Term]] = []  # all of them, and of each any
    nots: list[Term] = []
    joins = False  # the next word is another one for the last group
    for name, values in (given or {}).items():
        for value in values:
            _take(wanted, name, value)
    for piece in _PIECE.finditer(text):
        minus, name = bool(piece["minus"]), (piece["field"] or "").lower()
        if name in FIELDS:
            value = piece["value"].strip('"')
            if not value:
                continue  # the field is being typed
            if minus and name in ("before", "after"):
                name, minus = "after" if name == "before" else "before", False
            _take(unwanted if minus else wanted, name, value)
            continue
        if name and not _NO_VALUE.fullmatch(piece["value"]):
            raise _no_field(name, piece[0].removeprefix("-"))
        word = piece["phrase"] if piece["phrase"] is not None else piece["word"] or piece[0].removeprefix("-")
        if word.startswith("#") and term_of(word[1:]) and " " not in word:
            _take(unwanted if minus else wanted, "tag", word[1:])
            continue
        if word in ("OR", "|") and not minus:
            joins = bool(groups)
            continue
        if word in ("AND", "&", "&&") and not minus:
            continue
        term = term_of(word, prefix=piece["phrase"] is None and word.endswith("*"))
        if term is None:
            continue
        if minus:
            nots.append(term)
        elif joins:
            groups[-1].append(term)
        else:
            groups.append([term])
        joins = False
    count = sum(map(len, groups)) + len(nots) + sum(map(len, (*wanted.values(), *unwanted.values())))
    if count > MOST_TERMS:
        raise InvalidArgument(f"{count} things to look for; {MOST_TERMS} may be", next="look for fewer words")
    if text.strip() and not (groups or nots or wanted or unwanted) and not _is_unfinished(text):
        raise InvalidArgument(f"{text.strip()[:40]!r} holds no word to look for", next=f"a search knows {HELP}")
    moment = now()
    since = [_moment("after", each, moment) for each in wanted.pop("after", ())]
    until = [_moment("before", each, moment) for each in wanted.pop("before", ())]
    keys = tuple(" OR ".join(f'"{key(name, each)}"' for each in values) for name, values in wanted.items())
    return Query(
        _expression(groups, nots, keys, [key(name, each) for name, values in unwanted.items() for each in values]),
        tuple(map(tuple, groups)),
        max(since, default=None),
        min(until, default=None),
    )


def within(query: Query, keys: Iterable[str]) -> Query:
    """`query`, among those documents alone that have one of `keys`."""
    allowed = " OR ".join(f'"{each}"' for each in keys)
    match = f"keys : ({allowed}) AND ({query.match})"
    return replace(query, match=match, is_narrowed=True)


def _expression(groups: list[list[Term]], nots: list[Term], keys: tuple[str, ...], unwanted: list[str]) -> str:
    words = [f"({' OR '.join(map(said, group))})" for group in groups]
    parts = [f"{{title body}} : ({' AND '.join(words)})"] if words else []
    parts += [f"keys : ({each})" for each in keys]
    whole = " AND ".join(parts) or f'keys : "{key(EVERYTHING, "")}"'
    out = [f"{{title body}} : {said(each)}" for each in nots] + [f'keys : "{each}"' for each in unwanted]
    return f"({whole}) NOT ({' OR '.join(out)})" if out else whole


def said(term: Term) -> str:
    """A term in the language of FTS5."""
    return f'"{" ".join(term.words)}"' + (" *" if term.prefix else "")


def _take(into: dict[str, list[str]], name: str, value: str) -> None:
    """
    Raises:
        InvalidArgument: there is no such field, or no such kind.
    """
    if name not in FIELDS:
        raise _no_field(name, f"{name}:{value}")
    if name == "kind":
        value = value.lower().removesuffix("s")
        if value not in KINDS:
            raise InvalidArgument(f"kind: {value[:40]!r} is none of {', '.join(KINDS)}", next="write one of them")
    elif name == "tag":
        value = value.removeprefix("#").lower()
    into.setdefault(name, []).append(value)


def _no_field(name: str, piece: str) -> InvalidArgument:
    known, words = " ".join(f"{each}:" for each in FIELDS), piece.replace(QUOTE, "")[:40]
    return InvalidArgument(
        f"there is no field {name[:40]!r}",
        next=f'the fields are {known} (for example {EXAMPLE}); as words it is "{words}", in quotation marks',
    )


def _moment(name: str, text: str, now: float) -> float:
    """Seconds since the epoch: of a day, a time, or so long ago (30m, 2h, 7d, 4w).

    Raises:
        InvalidArgument: it is none of them.
    """
    if span := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return now - int(span[1]) * UNITS_S[span[2]]
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    if text in ("today", "yesterday"):
        day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return day.timestamp() - (UNITS_S["d"] if text == "yesterday" else 0)
    try:
        if re.fullmatch(r"\d{4}(-\d\d)?", text):
            text += "-01-01"[len(text) - 4 :]
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{name}: {text[:40]!r} is no time", next="write a day (2026-11-22), a time, or a span (30m, 2h, 7d, 4w)"
        ) from None


def _is_unfinished(text: str) -> bool:
    """Whether a field or a tag is just being typed."""
    return bool(re.search(r"[A-Za-z]+:\s*$|^\s*-?[#-]\s*$", text))
