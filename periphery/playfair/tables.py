"""A table in memory, by columns: numbers and times as doubles, texts as indices into what there is of them."""

import math
import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from periphery.playfair.limits import CELL_CHARACTERS, LEVELS, NAME_CHARACTERS
from protos.errors import Exhausted

Kind = Literal["quantitative", "temporal", "nominal"]

MOST = 1e150  # beyond, a number counts as missing: its square would be infinite

_NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d*)?(?:[eE][-+]?\d{1,12})?")
_COMMA = re.compile(r"[-+]?(?:\d+(?:\.\d{3})+|\d+),\d+")
_MONEY = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_NULLS = frozenset(
    ("", "-", "—", "?", "na", "n/a", "nan", "null", "none", "nil", "inf", "-inf", "infinity", "-infinity")
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR = re.compile(r"(?:1[5-9]|2[01])\d\d")
_DATE = re.compile(
    r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})(?:[-/.](?P<d>\d{1,2}))?"
    r"(?:[T ](?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:\.\d+)?)?\s*(?P<z>Z|[-+]\d{2}:?\d{2})?)?"
)
_WORDS = re.compile(r"(?:(?P<d>\d{1,2})[ -])?(?P<m>[A-Za-z]{3,9})\.?[ -](?:(?P<d2>\d{1,2}),? )?(?P<y>\d{4})")
_SLASHED = re.compile(r"(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4})")
_QUARTER = re.compile(r"(?:(?P<y>\d{4})[ -]?[Qq](?P<q>[1-4])|[Qq](?P<q2>[1-4])[ -/]?(?P<y2>\d{4}))")
_HIDDEN = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
_UNIT = re.compile(r"[\s_]*[(\[]\s*([^()\[\]]{1,12})\s*[)\]]\s*$")


@dataclass
class Column:
    """One column. `values` has a double for each row, not-a-number where there is none, or an index into `levels`."""

    name: str
    kind: Kind
    values: "array[Any]"
    levels: list[str] = field(default_factory=list)  # of texts; index -1 is none
    unit: str = ""
    strange: int = 0  # values that were none of its kind, and count as missing
    digits: bool = False  # of numbers: all are whole

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class Table:
    """Columns of one length, and what a reader should be told of how they came to be."""

    columns: list[Column]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def column(self, name: str) -> Column:
        return next(each for each in self.columns if each.name == name)


def clean(text: str, most: int = CELL_CHARACTERS) -> str:
    """Text as a person can see it: no controls, nothing that turns the direction of what follows, nothing invisible."""
    text = _HIDDEN.sub("", text[: most * 2])
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(each) in ("Cc", "Cs", "Co", "Cn") else each for each in text)
    return " ".join(text.split())[:most]


def names_of(given: Iterable[object]) -> list[str]:
    """Names for columns: none empty, none twice."""
    names: list[str] = []
    taken: set[str] = set()
    for number, each in enumerate(given, 1):
        plain = clean(str(each), NAME_CHARACTERS) or f"column {number}"
        name, count = plain, 1
        while name.casefold() in taken:
            count += 1
            name = f"{plain} ({count})"
        taken.add(name.casefold())
        names.append(name)
    return names


def number_of(text: str, comma: bool = False) -> tuple[float, str] | None:
    """A number as people write it, with its unit; not-a-number where it stands for none; None where it is text."""
    text = text.strip()
    if text.casefold() in _NULLS:
        return math.nan, ""
    unit = ""
    if text[-1] == "%":
        text, unit = text[:-1].rstrip(), "%"
    elif text[0] in _MONEY or (text[0] == "-" and text[1:2] in _MONEY):
        sign = "-" if text[0] == "-" else ""
        text = text.removeprefix("-")
        text, unit = sign + text[1:].lstrip(), _MONEY[text[0]]
    if comma and _COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", ""))
    return (value if abs(value) <= MOST else math.nan), unit


def time_of(text: str) -> float | None:
    """Seconds since 1970 in UTC of a date as people write it; None where it is none."""
    text = text.strip()
    try:
        if match := _DATE.fullmatch(text):
            hour, minute, second = (int(match[each] or 0) for each in "HMS")
            at = datetime(int(match["y"]), int(match["m"]), int(match["d"] or 1), hour, minute, second, tzinfo=UTC)
            zone = match["z"] or "Z"
            offset = 0 if zone == "Z" else int(zone[:3]) * 3600 + int(zone[0] + zone[-2:]) * 60
            return at.timestamp() - offset
        if match := _QUARTER.fullmatch(text):
            quarter = int(match["q"] or match["q2"])
            return datetime(int(match["y"] or match["y2"]), quarter * 3 - 2, 1, tzinfo=UTC).timestamp()
        if match := _SLASHED.fullmatch(text):
            first, second = int(match["a"]), int(match["b"])
            month, day = (second, first) if first > 12 or "." in text else (first, second)
            return datetime(int(match["y"]), month, day, tzinfo=UTC).timestamp()
        if (match := _WORDS.fullmatch(text)) and match["m"][:3].casefold() in _MONTHS:
            month = _MONTHS.index(match["m"][:3].casefold()) + 1
            return datetime(int(match["y"]), month, int(match["d"] or match["d2"] or 1), tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return None


def guess(texts: Sequence[str], name: str, comma: bool = False) -> Kind:
    """What a column most likely holds, by some of its values."""
    known = [each for each in texts if each.strip().casefold() not in _NULLS]
    if not known:
        return "nominal"
    enough = len(known) * 0.95
    if "year" in name.casefold() and sum(_YEAR.fullmatch(each.strip()) is not None for each in known) >= enough:
        return "temporal"
    if sum(number_of(each, comma) is not None for each in known) >= enough:
        padded = sum(len(each) > 1 and each[0] == "0" and each.isdigit() for each in known)  # 00501 is a name
        return "nominal" if padded > len(known) * 0.05 else "quantitative"
    return "temporal" if sum(time_of(each) is not None for each in known) >= enough else "nominal"


class Filling:
    """A column while it is read."""

    def __init__(self, name: str, kind: Kind, comma: bool = False) -> None:
        unit = _UNIT.search(name)
        self.column = Column(name, kind, array("i" if kind == "nominal" else "d"), digits=True)
        self.column.unit = unit[1] if unit else ""
        self._comma = comma
        self._known: dict[str, int] = {}
        self._times: dict[str, float] = {}

    def extend(self, texts: Sequence[str]) -> None:
        """Takes the next values.

        Raises:
            Exhausted: it has too many different texts to be kept.
        """
        match self.column.kind:
            case "quantitative":
                self._add_numbers(texts)
            case "temporal":
                self.column.values.extend(map(self._time, texts))
            case "nominal":
                known = self._known
                try:
                    self.column.values.extend([known[each] for each in texts])
                except KeyError:
                    self.column.values.extend([self._level(each) for each in texts])

    def _add_numbers(self, texts: Sequence[str]) -> None:
        column = self.column
        try:
            found = array("d", map(float, texts))  # the short way for most
            plain = not any("_" in each for each in texts)
        except ValueError:
            plain = False
        if not plain:
            found = array("d", map(self._number, texts))
        if any(abs(each) > MOST for each in found):
            found = array("d", (each if abs(each) <= MOST else math.nan for each in found))
        column.digits = column.digits and all(each != each or each.is_integer() for each in found)
        column.values.extend(found)

    def _number(self, text: str) -> float:
        read = number_of(text, self._comma)
        if read is None:
            self.column.strange += 1
            return math.nan
        self.column.unit = self.column.unit or read[1]
        return read[0]

    def _time(self, text: str) -> float:
        found = self._times.get(text)
        if found is None:
            read = year_of(text) if len(text) == 4 else time_of(text)
            self.column.strange += read is None and text.strip().casefold() not in _NULLS
            found = math.nan if read is None else read
            if len(self._times) < LEVELS:
                self._times[text] = found
        return found

    def _level(self, text: str) -> int:
        levels = self.column.levels
        index = self._known.get(text)
        if index is None:
            plain = clean(text)
            index = -1 if plain.casefold() in _NULLS else self._known.get(plain, len(levels))
            if index == len(levels):
                if index >= LEVELS:
                    raise Exhausted(
                        f"The column {self.column.name[:60]!r} has more than {LEVELS:,} different texts.",
                        next="Leave the column out, or aggregate beforehand.",
                    )
                levels.append(plain)
                self._known[plain] = index
            if len(self._known) < LEVELS * 2:
                self._known[text] = index
        return index


def year_of(text: str) -> float | None:
    """The start of a year, in seconds since 1970."""
    if not _YEAR.fullmatch(text):
        return None
    return datetime(int(text), 1, 1, tzinfo=UTC).timestamp()
