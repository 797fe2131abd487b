"""Makes the few rows that a chart draws from the many that there are: gathers, cuts to the top, bins, thins out."""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from periphery.playfair.choosing import Channel, Plan
from periphery.playfair.limits import Limits
from periphery.playfair.tables import Column, Table
from periphery.playfair.words import Aggregate, Unit

OTHER = "Other"
MISSING = "(none)"
POINTS = 2_000  # beyond, a cloud says no more
BINS = 40
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

Key = float | str


@dataclass
class Shaped:
    """What is drawn: rows with `x`, `y`, `color` and what the mark needs, and the orders of categories."""

    rows: list[dict[str, Any]]
    gathered: bool = False  # whether several rows of the data make one
    x_order: list[str] = field(default_factory=list)
    y_order: list[str] = field(default_factory=list)
    color_order: list[str] = field(default_factory=list)
    step: float = 0.0  # of bins
    notes: list[str] = field(default_factory=list)


def shape(table: Table, plan: Plan, limits: Limits) -> Shaped:
    """
    Raises:
        Exhausted: there would be more marks than the cap.
    """
    made = _SHAPES.get(plan.mark, _gathered)(table, plan, limits)
    limits.check("marks", len(made.rows), f"The chart would have {len(made.rows):,} marks")
    return made


def _gathered(table: Table, plan: Plan, limits: Limits) -> Shaped:
    value = plan.color if plan.mark == "heatmap" else plan.y
    second = plan.y if plan.mark == "heatmap" else plan.color
    assert value is not None
    made = Shaped([])
    first_keys, first_order = _keys(table, plan.x, value, plan, made)
    second_keys, second_order = _keys(table, second, value, plan, made) if second else ([""] * table.rows, [])
    groups: dict[tuple[Key, Key], _Pile] = {}
    amounts = _amounts(table, value)
    most = limits.marks * 4
    for a, b, amount in zip(first_keys, second_keys, amounts, strict=True):
        if a is None or b is None or amount != amount:
            continue
        pile = groups.get((a, b))
        if pile is None:
            if len(groups) > most:
                limits.check("marks", len(groups), f"The chart would have more than {most:,} marks")
            pile = groups[(a, b)] = _Pile(value.aggregate == "median")
        pile.add(amount)
    made.gathered = value.aggregate == "count" or any(each.count > 1 for each in groups.values())
    results = {keys: pile.result(value.aggregate or "sum") for keys, pile in groups.items()}
    if plan.share:
        results = _shares(results, by_first=bool(second))
    name, third = ("color", "y") if plan.mark == "heatmap" else ("y", "color")
    for (a, b), result in results.items():
        made.rows.append({"x": a, name: result} | ({third: b} if second else {}))
    made.x_order = _ordered(first_order, plan.x, made.rows, "x", name, plan)
    second_list = _ordered(second_order, second, made.rows, third, name, plan) if second else []
    if plan.mark == "heatmap":
        made.y_order = second_list
    else:
        made.color_order = second_list
    rank = {each: at for at, each in enumerate(made.x_order)}
    other = {each: at for at, each in enumerate(second_list)}
    made.rows.sort(key=lambda row: (rank.get(row["x"], 0), _sortable(row["x"]), other.get(row.get(third, ""), 0)))
    return made


class _Pile:
    """The amounts of one mark, as far as they are needed."""

    __slots__ = ("all", "count", "high", "low", "sum")

    def __init__(self, keep: bool) -> None:
        self.count, self.sum, self.low, self.high = 0, 0.0, math.inf, -math.inf
        self.all: array[float] | None = array("d") if keep else None

    def add(self, amount: float) -> None:
        self.count += 1
        self.sum += amount
        self.low = min(self.low, amount)
        self.high = max(self.high, amount)
        if self.all is not None:
            self.all.append(amount)

    def result(self, aggregate: Aggregate) -> float:
        match aggregate:
            case "count":
                return self.count
            case "mean":
                return self.sum / self.count
            case "min":
                return self.low
            case "max":
                return self.high
            case "median":
                return median(self.all or [0.0])
        return self.sum


def _shares(results: Mapping[tuple[Key, Key], float], *, by_first: bool) -> dict[tuple[Key, Key], float]:
    totals: dict[Key, float] = {}
    for (a, _), result in results.items():
        whole = a if by_first else ""
        totals[whole] = totals.get(whole, 0.0) + abs(result)
    return {(a, b): result / (totals[a if by_first else ""] or 1.0) for (a, b), result in results.items()}


def _amounts(table: Table, value: Channel) -> Iterable[float]:
    if not value.column:
        return [1.0] * table.rows
    return table.column(value.column).values


def _keys(
    table: Table, channel: Channel, value: Channel, plan: Plan, made: Shaped
) -> tuple[list[Key | None], list[str]]:
    """Which mark each row of the data goes to; None: to none."""
    column = table.column(channel.column)
    if column.kind == "temporal":
        bucket = _bucket(channel.unit)
        known: dict[float, Key] = {}
        keys: list[Key | None] = []
        for each in column.values:
            if each != each:
                keys.append(None)
                continue
            found = known.get(each)
            if found is None:
                found = known[each] = bucket(each)
            keys.append(found)
        return keys, list(WEEKDAYS) if channel.unit == "weekday" else []
    if column.kind == "quantitative":
        return [None if each != each else each for each in column.values], []
    names = _named_levels(table, column, channel, value, plan, made)
    return [names[int(each)] for each in column.values], []


def _named_levels(
    table: Table, column: Column, channel: Channel, value: Channel, plan: Plan, made: Shaped
) -> list[Key | None]:
    """What each level is called, by its index; the last is for rows without one."""
    names: list[Key | None] = [*column.levels, MISSING]
    if not channel.most or len(column.levels) <= channel.most:
        return names
    piles: dict[int, _Pile] = {}
    for at, amount in zip(column.values, _amounts(table, value), strict=True):
        if amount == amount:
            piles.setdefault(int(at), _Pile(value.aggregate == "median")).add(amount)
    sign = 1 if plan.lowest else -1
    ranked = sorted(piles, key=lambda at: (sign * piles[at].result(value.aggregate or "sum"), str(names[at])))
    explicit = plan.only_top and channel is plan.x
    kept = set(ranked[: channel.most if explicit else channel.most - 1])
    rest = len(column.levels) - len(kept - {-1})
    which = "lowest" if plan.lowest else "largest"
    if explicit:
        made.notes.append(f"The {which} {len(kept)} of {len(column.levels):,} {channel.column!r} are shown.")
    else:
        made.notes.append(f"{rest:,} of {len(column.levels):,} {channel.column!r} are gathered as {OTHER!r}.")
    last = len(names) - 1
    return [
        name if (at if at < last else -1) in kept else (None if explicit else OTHER) for at, name in enumerate(names)
    ]


def _ordered(
    known: list[str], channel: Channel | None, rows: list[dict[str, Any]], key: str, amount: str, plan: Plan
) -> list[str]:
    """The categories of a direction in the order in which they are shown."""
    if channel is None or (channel.kind != "nominal" and not known):
        return []
    there = {row[key] for row in rows}
    if known or channel.order:
        wanted = [each for each in known or channel.order if each in there]
        return [*wanted, *sorted(str(each) for each in there if each not in wanted)]
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row[key]] += row[amount]
    sign = 1 if plan.lowest else -1
    return sorted(totals, key=lambda each: (each in (OTHER, MISSING), each == OTHER, sign * totals[each], each))


def _sortable(value: Key) -> float:
    return value if isinstance(value, float | int) else 0.0


def _bucket(unit: Unit | None) -> Callable[[float], Key]:
    if unit is None:
        return lambda seconds: seconds

    def of(seconds: float) -> Key:
        try:
            at = datetime.fromtimestamp(seconds, UTC).replace(minute=0, second=0, microsecond=0)
        except (OverflowError, ValueError, OSError):
            return seconds
        match unit:
            case "hour":
                return at.timestamp()
            case "weekday":
                return WEEKDAYS[at.weekday()]
        at = at.replace(hour=0)
        match unit:
            case "week":
                at -= timedelta(days=at.weekday())
            case "month":
                at = at.replace(day=1)
            case "quarter":
                at = at.replace(day=1, month=at.month - (at.month - 1) % 3)
            case "year":
                at = at.replace(day=1, month=1)
        return at.timestamp()

    return of


def _points(table: Table, plan: Plan, limits: Limits) -> Shaped:
    made = Shaped([])
    x, y = (table.column(each.column) for each in (plan.x, plan.y))
    keys: list[Key | None] = [""] * table.rows
    if plan.color:
        keys, _ = _keys(table, plan.color, Channel("", "quantitative", "count"), plan, made)
    whole = [at for at in range(table.rows) if x.values[at] == x.values[at] and y.values[at] == y.values[at]]
    most = min(POINTS, limits.marks)
    if len(whole) > most:
        made.notes.append(f"{most:,} of {len(whole):,} points are drawn, evenly chosen.")
        whole = [whole[at * len(whole) // most] for at in range(most)]
    colored = plan.color is not None
    made.rows = [
        {"x": x.values[at], "y": y.values[at]} | ({"color": keys[at]} if colored else {})
        for at in whole
        if keys[at] is not None
    ]
    if plan.color and plan.color.kind == "nominal":
        counts = Counter(str(row["color"]) for row in made.rows)
        order = [each for each in plan.color.order if each in counts]
        made.color_order = order or sorted(counts, key=lambda each: (each in (OTHER, MISSING), -counts[each], each))
    return made


def _bins(table: Table, plan: Plan, limits: Limits) -> Shaped:
    del limits
    known = sorted(each for each in table.column(plan.x.column).values if each == each)
    made = Shaped([], gathered=True)
    low, high = known[0], known[-1]
    if low == high:
        made.rows, made.step = [{"x": low - 0.5, "x2": low + 0.5, "y": len(known)}], 1.0
        return made
    spread = known[len(known) * 3 // 4] - known[len(known) // 4]
    width = 2 * spread / len(known) ** (1 / 3) if spread else (high - low) / 10
    width = max(width, (high - low) / BINS)
    step = nice(min(width, (high - low) / 16))
    if table.column(plan.x.column).digits:
        step = max(1.0, step)
    start = math.floor(low / step)
    counts = Counter(math.floor(each / step) - start for each in known)
    made.step = step
    made.rows = [
        {"x": _round((start + at) * step), "x2": _round((start + at + 1) * step), "y": counts[at]}
        for at in range(max(counts) + 1)
    ]
    return made


def nice(width: float) -> float:
    """The next step at or above `width` that people count in: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(each * power for each in (1.0, 2.0, 5.0, 10.0) if each * power >= width * 0.999)


def _round(value: float) -> float:
    return float(f"{value:.12g}")


def _boxes(table: Table, plan: Plan, limits: Limits) -> Shaped:
    made = Shaped([], gathered=True)
    keys, _ = _keys(table, plan.x, Channel(plan.y.column, "quantitative", "median"), plan, made)
    groups: dict[Key, array[float]] = {}
    for key, amount in zip(keys, table.column(plan.y.column).values, strict=True):
        if key is not None and amount == amount:
            groups.setdefault(key, array("d")).append(amount)
    limits.check("marks", len(groups), f"The chart would have {len(groups):,} boxes")
    outside = 0
    for key, values in groups.items():
        known = sorted(values)
        first, middle, third = (_quantile(known, each) for each in (0.25, 0.5, 0.75))
        reach = 1.5 * (third - first)
        inside = [each for each in known if first - reach <= each <= third + reach]
        outside += len(known) - len(inside)
        made.rows.append(
            {"x": key, "low": inside[0], "q1": first, "y": middle, "q3": third, "high": inside[-1], "n": len(known)}
        )
    made.x_order = list(plan.x.order) or sorted(
        (str(each) for each in groups), key=lambda each: (each == OTHER, -_quantile(sorted(groups[each]), 0.5), each)
    )
    if outside:
        made.notes.append(f"{outside:,} values beyond 1.5 times the middle half are not drawn.")
    return made


def _quantile(known: list[float], part: float) -> float:
    at = part * (len(known) - 1)
    low = math.floor(at)
    high = min(low + 1, len(known) - 1)
    return known[low] + (known[high] - known[low]) * (at - low)


_SHAPES: dict[str, Callable[[Table, Plan, Limits], Shaped]] = {
    "scatter": _points,
    "histogram": _bins,
    "box": _boxes,
}
