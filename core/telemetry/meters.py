"""Counters, gauges and histograms: what is counted in this process, and what of it is told.

Instruments are named as OpenTelemetry names them ("http.server.request.duration", unit "s"); the name in Prometheus
follows from name, unit and kind. Every instrument has at most `MOST` combinations of labels: what comes beyond is
counted under "other", so nobody who chooses a name can make the lab, or whoever reads it, hold ever more of them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MOST = 200  # combinations of labels of one instrument
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LONG_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


class Kind(StrEnum):
    """How a figure behaves."""

    COUNTER = "counter"  # only grows
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values are spread: `counts` has one more than `bounds`, for what is above the last."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Point:
    """One figure under its labels."""

    labels: Mapping[str, str]
    value: float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """Figures of one name, as they stand at one moment."""

    name: str
    kind: Kind
    help: str
    unit: str = ""  # in UCUM: "s", "By"; what stands in braces is a word for people
    points: Sequence[Point] = ()


def gauge(name: str, help: str, value: float | Sequence[Point], unit: str = "") -> Family:
    """A gauge of one figure, or of several."""
    return Family(name, Kind.GAUGE, help, unit, _points(value))


def counter(name: str, help: str, value: float | Sequence[Point], unit: str = "") -> Family:
    """A counter that somebody else keeps."""
    return Family(name, Kind.COUNTER, help, unit, _points(value))


def _points(value: float | Sequence[Point]) -> Sequence[Point]:
    return [Point({}, value)] if isinstance(value, int | float) else value


@dataclass
class Counter:
    """Counts, under labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    _series: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, *values: str, by: float = 1) -> None:
        """Counts under the labels' `values`, in the order of their names."""
        key = _within(self._series, values)
        self._series[key] = self._series.get(key, 0) + by

    def family(self) -> Family:
        """As it stands."""
        points = [Point(dict(zip(self.labels, each, strict=True)), value) for each, value in self._series.items()]
        return Family(self.name, Kind.COUNTER, self.help, self.unit, points)


@dataclass
class _Buckets:
    counts: list[int]
    sum: float = 0.0


@dataclass
class Histogram:
    """Counts values by size, under labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = "s"
    bounds: tuple[float, ...] = SECONDS
    _series: dict[tuple[str, ...], _Buckets] = field(default_factory=dict)

    def record(self, value: float, *values: str) -> None:
        """Takes in one value under the labels' `values`, in the order of their names."""
        key = _within(self._series, values)
        buckets = self._series.get(key)
        if buckets is None:
            buckets = self._series[key] = _Buckets([0] * (len(self.bounds) + 1))
        buckets.counts[bisect_left(self.bounds, value)] += 1
        buckets.sum += value

    def family(self) -> Family:
        """As it stands."""
        points = [
            Point(dict(zip(self.labels, key, strict=True)), Distribution(self.bounds, tuple(each.counts), each.sum))
            for key, each in self._series.items()
        ]
        return Family(self.name, Kind.HISTOGRAM, self.help, self.unit, points)


def _within(series: Mapping[tuple[str, ...], object], values: tuple[str, ...]) -> tuple[str, ...]:
    return values if values in series or len(series) < MOST else (OTHER,) * len(values)
