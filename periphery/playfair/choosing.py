"""Chooses a chart, by plain rules: from what the columns hold, what was asked for, and what the request says in words.

What was asked for outright comes first, then the words, then the types: something over time is a line, something by
kind is a row of bars, two numbers are points, one is a distribution. Each choice that nobody made is told in a note.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from periphery.playfair.profile import Facts
from periphery.playfair.tables import Kind
from periphery.playfair.words import Aggregate, Mark, Unit, Wish, nearest
from protos.errors import InvalidArgument

SERIES, SLICES, CELLS = 7, 6, 30  # categories that a person still tells apart; the rest is "Other"
PERIODS = 400
_SPANS: tuple[tuple[Unit, float], ...] = (
    ("hour", 3600),
    ("day", 86_400),
    ("week", 7 * 86_400),
    ("month", 30.44 * 86_400),
    ("quarter", 91.3 * 86_400),
    ("year", 365.25 * 86_400),
)


@dataclass(frozen=True)
class Channel:
    """What one direction of a chart shows. No column: the number of rows."""

    column: str
    kind: Kind
    aggregate: Aggregate | None = None
    unit: Unit | None = None  # times are gathered by it
    most: int = 0  # categories that are kept; 0 is all
    label: str = ""  # unit of measure, as "kg"
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A chart that was chosen."""

    mark: Mark
    x: Channel
    y: Channel
    color: Channel | None = None
    share: bool = False
    stack: bool = False
    log: bool = False
    only_top: bool = False  # what is beyond `most` is left out instead of gathered
    lowest: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What a caller fixes outright; empty where he does not. There is room for so many bars beneath each other."""

    mark: Mark | None = None
    x: str = ""
    y: str = ""
    color: str = ""
    bars: int = 20


COUNT = Channel("", "quantitative", "count")


def choose(facts: Sequence[Facts], wish: Wish, asked: Asked = Asked()) -> Plan:
    """
    Raises:
        InvalidArgument: a column that was asked for does not exist, or there is nothing to draw.
    """
    return _Choice(facts, wish, asked).plan()


def misnamed(names: Sequence[str], wish: Wish, asked: Asked = Asked(), *, strict: bool = True) -> list[str]:
    """What a person must know of a request that names columns which are not there.

    Raises:
        InvalidArgument: where it is `strict`, it names some in quotes and none that is there: any chart would be of
            something else.
    """
    if not wish.unknown or (asked.x and asked.y):
        return []
    known = f"There are: {_listed(names)}."
    if strict and wish.quoted and not (wish.columns or asked.x or asked.y or asked.color):
        raise InvalidArgument(f"There is no column {_listed(wish.unknown, 'or')}.", next=known)
    told = []
    for each in wish.unknown:
        near = nearest(each, names)
        meant = f"Called nearly so: {_listed(near)}." if near else known
        told.append(f"There is no column {_listed([each])}, and the chart shows something else. {meant}")
    return told


def _listed(names: Sequence[str], word: str = "") -> str:
    """Names as a sentence has them, of many the first."""
    shown = [repr(each[:60]) for each in names[:20]]
    if word and len(shown) > 1:
        return f"{', '.join(shown[:-1])} {word} {shown[-1]}"
    return ", ".join(shown)


class _Choice:
    def __init__(self, facts: Sequence[Facts], wish: Wish, asked: Asked) -> None:
        self._facts = {each.name: each for each in facts}
        self._wish = wish
        self._notes: list[str] = []
        self._x, self._y, self._color = (self._named(each) for each in (asked.x, asked.y, asked.color))
        self._mark = asked.mark or wish.mark
        self._fixed = asked.mark is not None
        self._bars = asked.bars
        there = [each for each in facts if each.count]
        if not there:
            raise InvalidArgument("No column has any value.", next="Give data with values.")
        said = [self._facts[name] for name in wish.columns if self._facts[name].count]
        self._said = said
        self._numbers = [each for each in there if each.kind == "quantitative" and not each.is_id]
        self._times = [each for each in there if each.kind == "temporal"]
        self._texts = [each for each in there if each.kind == "nominal" and not each.is_id]
        self._there = there

    def _named(self, name: str) -> Facts | None:
        if not name:
            return None
        low = {each.casefold(): facts for each, facts in self._facts.items()}
        if name.casefold() not in low:
            raise InvalidArgument(
                f"There is no column {_listed([name])}.", next=f"There are: {_listed(list(self._facts))}."
            )
        return low[name.casefold()]

    def _of(self, kind: Kind, *not_these: Facts | None) -> list[Facts]:
        """Those named in the request first, then the others, of one kind."""
        pool = {"quantitative": self._numbers, "temporal": self._times, "nominal": self._texts}[kind]
        every = [*(each for each in self._said if each.kind == kind), *pool]
        return [each for each in dict.fromkeys(every) if each not in not_these]

    def _said_of(self, kind: Kind, *not_these: Facts | None) -> list[Facts]:
        return [each for each in self._said if each.kind == kind and each not in not_these]

    def plan(self) -> Plan:
        match self._mark:
            case "scatter" if self._is_scatter():
                return self._scatter()
            case "histogram":
                return self._distribution()
            case "box" if self._of("quantitative"):
                return self._box()
            case "heatmap":
                if (made := self._heatmap()) is not None:
                    return made
        if self._mark in ("scatter", "box", "heatmap"):
            if self._fixed:
                self._notes.append(f"The data has not the columns that a {self._mark} needs; another chart was chosen.")
            self._mark = None
        return self._by_dimension()

    def _is_scatter(self) -> bool:
        if self._fixed or (self._x and self._y):
            chosen = [each for each in (self._x, self._y) if each is not None]
            return len(chosen) + len([e for e in self._of("quantitative") if e not in chosen]) >= 2
        named = self._said_of("quantitative")
        return len(named) >= 2 or (not self._said and len(self._numbers) >= 2)

    def _scatter(self) -> Plan:
        others = iter(self._of("quantitative", self._x, self._y))
        y = self._y or next(others, None)
        x = self._x or next(others, None)
        if x is None or y is None:
            return self._distribution()
        color = self._color or next(iter(self._said_of("nominal")), None)
        if color is None and not self._said and self._x is None:
            color = next((each for each in self._texts if 2 <= each.distinct <= SERIES), None)
            if color:
                self._notes.append(f"Coloured by {color.name!r}: it has {color.distinct} different values.")
        return Plan("scatter", _plain(x), _plain(y), self._series(color), log=self._wish.log, notes=self._notes)

    def _distribution(self) -> Plan:
        target = self._x or self._y or next(iter(self._said), None) or next(iter(self._of("quantitative")), None)
        target = target or self._there[0]
        if target.kind != "quantitative":
            self._mark = "bar"
            self._x, self._wish = target, replace(self._wish, aggregate="count", columns=())
            self._notes.append(f"{target.name!r} holds no numbers: how often each value occurs is shown.")
            return self._by_dimension()
        by = self._said_of("nominal")
        if by and not self._fixed:
            self._notes.append("A distribution of each group is a box plot.")
            self._y, self._x = target, by[0]
            return self._box()
        if not self._said and not self._x:
            self._notes.append(f"Nothing was named: the distribution of {target.name!r} is shown.")
        return Plan("histogram", _plain(target), COUNT, log=self._wish.log, notes=self._notes)

    def _box(self) -> Plan:
        y = self._y or self._of("quantitative", self._x)[0]
        by = self._x or next(iter(self._of("nominal", y)), None)
        if by is None:
            self._mark, self._x = None, y
            return self._distribution()
        return Plan("box", self._category(by, self._bars), _plain(y), log=self._wish.log, notes=self._notes)

    def _heatmap(self) -> Plan | None:
        few = [
            each
            for each in self._of("quantitative")
            if each.whole and each.distinct <= CELLS * 2 and each in self._said
        ]
        ways = [*self._of("temporal"), *(each for each in self._of("nominal") if each.distinct <= CELLS * 4), *few]
        ways.sort(key=lambda each: self._said.index(each) if each in self._said else len(self._said))
        chosen = [each for each in (self._x, self._y) if each is not None and each.kind != "quantitative"]
        chosen += [each for each in ways if each not in chosen]
        if len(chosen) < 2:
            return None
        x, y = sorted(chosen[:2], key=lambda each: each.kind == "nominal") if not self._x else chosen[:2]
        value = self._color or next(iter(self._of("quantitative", x, y)), None)
        color = self._measure(value if self._wish.aggregate != "count" else None)
        return Plan("heatmap", self._category(x, CELLS), self._category(y, CELLS), color, notes=self._notes)

    def _by_dimension(self) -> Plan:
        dimension = self._dimension()
        if dimension is None:
            numbers = self._of("quantitative")
            if len(numbers) >= 2 and self._mark in (None, "scatter"):
                return self._scatter()
            return self._distribution()
        measure = self._value(dimension)
        series = self._split(dimension)
        if dimension.kind == "quantitative":
            if measure is not None and self._mark not in ("line", "area", "bar"):
                self._x, self._y = dimension, measure
                return self._scatter()
            x = _plain(dimension)
        else:
            x = self._category(dimension, self._wish.top or (SLICES if self._mark == "pie" else self._bars))
        y = self._measure(measure)
        mark = self._mark if self._mark in ("bar", "line", "area", "pie") else None
        if mark == "line" and not self._fixed and series and (self._wish.share or self._wish.stack):
            mark = "area"  # "over time" says the direction, not the mark
        if mark == "pie" and (dimension.kind != "nominal" or series):
            self._notes.append("A pie shows parts of one whole only; bars were chosen.")
            mark = "bar"
        if mark is None:
            mark = "bar"
            if dimension.kind == "temporal" and x.unit != "weekday" and dimension.distinct > 2:
                mark = "area" if series and (self._wish.share or self._wish.stack) else "line"
            elif dimension.kind == "quantitative":
                mark = "line"
        share = self._wish.share or mark == "pie"
        return Plan(
            mark,
            x,
            y,
            self._series(series),
            share=share and y.aggregate in ("sum", "count"),
            stack=mark == "area" or self._wish.stack or share,
            log=self._wish.log and mark == "line",
            only_top=bool(self._wish.top),
            lowest=self._wish.lowest,
            notes=self._notes,
        )

    def _dimension(self) -> Facts | None:
        """What the values are spread over."""
        if self._x is not None:
            return self._x
        by = [each for each in self._said if each.name in self._wish.by and each.kind != "quantitative"]
        timely = self._wish.unit is not None or self._mark in ("line", "area")
        if timely and self._times:
            return self._of("temporal")[0]
        if found := [*self._said_of("temporal"), *by, *self._said_of("nominal", self._color)]:
            return found[0]
        if self._mark == "pie" and self._texts:
            return self._texts[0]
        if self._wish.top and self._texts:
            return self._widest()
        if self._times:
            self._notes.append(f"Over time, by {self._times[0].name!r}: the data has dates.")
            return self._times[0]
        if self._texts and not (len(self._said_of("quantitative")) >= 2):
            chosen = self._texts[0]
            self._notes.append(f"By {chosen.name!r}: the first column of categories.")
            return chosen
        names = [each for each in self._there if each.kind == "nominal" and each.count <= 60]
        return names[0] if names and self._numbers else None

    def _widest(self) -> Facts:
        return max(self._texts, key=lambda each: each.distinct)

    def _value(self, dimension: Facts) -> Facts | None:
        """What is measured; None is how many rows there are."""
        if self._y is not None:
            return self._y
        named = self._said_of("quantitative", dimension)
        if self._wish.aggregate == "count" and not (named and self._wish.mark):
            return None
        if named:
            return named[0]
        others = self._of("quantitative", dimension)
        if not others:
            self._notes.append("No column holds amounts: rows are counted.")
            return None
        self._notes.append(f"The amount is {others[0].name!r}: the first column of numbers.")
        return others[0]

    def _split(self, dimension: Facts) -> Facts | None:
        """What makes the series."""
        if self._color is not None:
            return self._color if self._color.name != dimension.name else None
        named = self._said_of("nominal", dimension)
        if named:
            return named[0]
        if dimension.kind == "temporal" and not self._said and dimension.count > dimension.distinct:
            found = next((each for each in self._texts if 2 <= each.distinct <= SERIES), None)
            if found:
                self._notes.append(f"A line for each {found.name!r}: it has {found.distinct} different values.")
            return found
        return None

    def _measure(self, facts: Facts | None) -> Channel:
        if facts is None or facts.kind != "quantitative":
            return COUNT
        aggregate = self._wish.aggregate
        if aggregate is None or aggregate == "count":
            aggregate = "sum" if facts.adds_up else "mean"
        return Channel(facts.name, "quantitative", aggregate, label=facts.unit)

    def _category(self, facts: Facts, most: int) -> Channel:
        if facts.kind == "temporal":
            return Channel(facts.name, "temporal", unit=self._unit(facts))
        if facts.kind == "quantitative":
            return _plain(facts)
        if facts.order and not self._wish.top:
            return Channel(facts.name, "nominal", order=facts.order)
        return Channel(facts.name, "nominal", most=most)

    def _unit(self, facts: Facts) -> Unit | None:
        if self._wish.unit:
            return self._wish.unit
        span = facts.high - facts.low
        limit = 40 if self._mark in ("bar", "heatmap") else PERIODS
        if facts.distinct <= limit:
            return None
        unit: Unit = next((unit for unit, seconds in _SPANS if span / seconds <= limit), "year")
        self._notes.append(f"Times were gathered by {unit}: there are too many for one mark each.")
        return unit

    def _series(self, facts: Facts | None) -> Channel | None:
        if facts is None:
            return None
        if facts.kind == "nominal":
            return Channel(
                facts.name, "nominal", most=0 if facts.order and facts.distinct <= 12 else SERIES, order=facts.order
            )
        return Channel(facts.name, facts.kind, label=facts.unit)


def _plain(facts: Facts) -> Channel:
    return Channel(facts.name, facts.kind, label=facts.unit, order=facts.order)
