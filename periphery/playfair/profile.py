"""What there is to know of a table before a chart of it is chosen: facts of its columns, and a few values."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from periphery.playfair.tables import Column, Kind, Table

DISTINCT = 5_000  # counted no further
_ID = re.compile(r"(?:^|[\s_.-])(?:id|uuid|guid|key|index|idx|no|nr|number|zip|postcode)$", re.I)
_MEANT = re.compile(
    r"rate|ratio|percent|pct|share|price|avg|average|mean|median|score|rating|temp|age\b|speed|latency|duration|density|"
    r"height|weight|length|width|depth|ph\b|index|level|humidity|pressure|p\d\d",
    re.I,
)
_ORDERS = (
    ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ("none", "info", "low", "medium", "high", "critical"),
    ("very low", "low", "medium", "high", "very high"),
    ("small", "medium", "large"),
    ("xs", "s", "m", "l", "xl", "xxl"),
    ("first", "second", "third", "fourth"),
    ("q1", "q2", "q3", "q4"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
)


@dataclass(frozen=True)
class Facts:
    """One column as a chooser sees it."""

    name: str
    kind: Kind
    count: int  # of values that are there
    missing: int
    distinct: int  # DISTINCT means at least so many
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    unit: str = ""
    order: tuple[str, ...] = ()  # of its levels, where they have one of their own

    @property
    def is_id(self) -> bool:
        """Whether it only tells rows apart."""
        if self.kind == "quantitative":
            dense = self.whole and self.distinct in (self.count, DISTINCT) and self.high - self.low == self.count - 1
            return self.whole and self.count > 3 and (dense or _ID.search(self.name) is not None)
        return self.kind == "nominal" and self.count > 20 and self.distinct >= min(self.count, DISTINCT)

    @property
    def adds_up(self) -> bool:
        """Whether a sum of it means something."""
        return self.unit != "%" and _MEANT.search(self.name.replace("_", " ")) is None

    def as_json(self) -> dict[str, Any]:
        """What the answer says of it."""
        said = {key: value for key, value in asdict(self).items() if key in ("name", "kind", "missing", "distinct")}
        if self.kind == "quantitative":
            said |= {"low": self.low, "high": self.high}
        elif self.kind == "temporal" and self.count:
            said |= {"from": stamp(self.low), "to": stamp(self.high)}
        return said | ({"unit": self.unit} if self.unit else {})


def facts_of(table: Table) -> list[Facts]:
    """The facts of each column, in their order."""
    return [_facts(each) for each in table.columns]


def _facts(column: Column) -> Facts:
    if column.kind == "nominal":
        missing = sum(1 for each in column.values if each < 0)
        levels = column.levels
        return Facts(
            column.name,
            "nominal",
            len(column) - missing,
            missing,
            min(len(levels), DISTINCT),
            unit="",
            order=_order(levels) if 1 < len(levels) <= 40 else (),
        )
    known = [each for each in column.values if each == each]
    some: set[float] = set()
    for each in known:
        some.add(each)
        if len(some) >= DISTINCT:
            break
    return Facts(
        column.name,
        column.kind,
        len(known),
        len(column) - len(known),
        len(some),
        min(known, default=0.0),
        max(known, default=0.0),
        whole=column.kind == "quantitative" and column.digits,
        unit=column.unit,
    )


def _order(levels: Sequence[str]) -> tuple[str, ...]:
    """The levels in the order of what they mean, such as days of the week; empty where there is none."""
    low = {each: each.casefold() for each in levels}
    for words in _ORDERS:
        ranks = {}
        for each, text in low.items():
            short = text[:3] if len(words[0]) == 3 else text
            if short not in words:
                break
            ranks[each] = words.index(short)
        else:
            if len(set(ranks.values())) > 1:
                return tuple(sorted(levels, key=lambda each: ranks[each]))
    numbers = [
        re.match(r"[<>≥≤]?\s*(\d+(?:\.\d+)?)\s*(?:[-\u2013+]|to\b|and\b)", each) for each in levels
    ]  # 18-24, 65+
    if all(numbers) and len(levels) > 2:
        return tuple(sorted(levels, key=lambda each: float(numbers[levels.index(each)][1])))  # type: ignore[index]
    return ()


def stamp(seconds: float) -> str:
    """A time for people; the day alone where it is midnight."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"
    return at.strftime("%Y-%m-%d") if seconds % 86_400 == 0 else at.strftime("%Y-%m-%d %H:%M")


def sample(table: Table, rows: int = 5, characters: int = 60) -> list[dict[str, Any]]:
    """The first rows, cut short: what a model may see of the values."""
    found = []
    for at in range(min(rows, table.rows)):
        row: dict[str, Any] = {}
        for column in table.columns[:40]:
            value = column.values[at]
            if column.kind == "nominal":
                row[column.name] = column.levels[int(value)][:characters] if value >= 0 else None
            elif math.isnan(value):
                row[column.name] = None
            else:
                row[column.name] = stamp(value) if column.kind == "temporal" else value
        found.append(row)
    return found
