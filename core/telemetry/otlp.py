"""What is told of the lab, as nouns, and each of them as OTLP writes it.

The encoding is that of opentelemetry-proto 1.x (trace/v1, metrics/v1, logs/v1, common/v1, resource/v1): field numbers
are in the calls below, in the order of those files. A test reads everything back with the official classes.

Times are seconds since the epoch. An attribute is a text, a whole number, a number or a truth.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from core.telemetry.meters import Distribution, Family, Kind
from core.telemetry.protobuf import (
    double,
    fixed32,
    fixed64,
    integer,
    message,
    octets,
    packed_double,
    packed_fixed64,
    text,
)

Value = str | bool | int | float
Attributes = Mapping[str, Value]
Clean = Callable[[str], str]

SAMPLED = 1
CUMULATIVE = 2
STATUS_ERROR = 2
SEVERITY = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}


class SpanKind(IntEnum):
    """What a span is to whom it talks with."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened within a span."""

    name: str
    at: float
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Another span, perhaps of another trace, that has to do with this one."""

    trace: bytes
    span: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work, from its start to its end."""

    trace: bytes  # 16 bytes
    id: bytes  # 8 bytes
    parent: bytes  # 8 bytes; empty: it is the root
    name: str
    start: float
    end: float
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Attributes = field(default_factory=dict)
    moments: Sequence[Moment] = ()
    dropped_moments: int = 0
    links: Sequence[Link] = ()
    failed: bool = False
    is_remote: bool = False  # its parent is a span of whoever asked


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the core's log."""

    at: float
    level: str
    event: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells: the resource and the scope of everything that is sent. `clean` takes secrets out of each text."""

    attributes: Attributes
    version: str
    clean: Clean = str

    def spans(self, spans: Iterable[Span]) -> bytes:
        """An ExportTraceServiceRequest."""
        return self._request(octets(2, self._span(each), always=True) for each in spans)

    def metrics(self, families: Iterable[Family], *, since: float, at: float) -> bytes:
        """An ExportMetricsServiceRequest: cumulative from `since` on, as of `at`."""
        return self._request(octets(2, self._metric(each, _ns(since), _ns(at)), always=True) for each in families)

    def lines(self, lines: Iterable[LogLine]) -> bytes:
        """An ExportLogsServiceRequest."""
        return self._request(octets(2, self._line(each), always=True) for each in lines)

    def _request(self, items: Iterable[bytes]) -> bytes:
        resource = message(1, self._attributes(1, self.attributes))
        scope = message(1, text(1, "madlab"), text(2, self.version))
        return message(1, resource, message(2, scope, *items))

    def _attributes(self, number: int, attributes: Attributes) -> bytes:
        return b"".join(
            message(number, text(1, name), message(2, self._value(value))) for name, value in attributes.items()
        )

    def _value(self, value: Value) -> bytes:
        if isinstance(value, str):
            return text(1, self.clean(value), always=True)
        if isinstance(value, bool):
            return integer(2, int(value), always=True)
        return integer(3, value, always=True) if isinstance(value, int) else double(4, value)

    def _span(self, span: Span) -> bytes:
        flags = SAMPLED | 0x100 | (0x200 if span.is_remote else 0)  # whether the parent is remote is known, and whether
        return b"".join(
            (
                octets(1, span.trace),
                octets(2, span.id),
                octets(4, span.parent),
                text(5, self.clean(span.name)),
                integer(6, span.kind),
                fixed64(7, _ns(span.start)),
                fixed64(8, _ns(max(span.start, span.end))),
                self._attributes(9, span.attributes),
                *(
                    message(11, fixed64(1, _ns(each.at)), text(2, each.name), self._attributes(3, each.attributes))
                    for each in span.moments
                ),
                integer(12, span.dropped_moments),
                *(message(13, octets(1, each.trace), octets(2, each.span)) for each in span.links),
                message(15, integer(3, STATUS_ERROR)) if span.failed else b"",
                fixed32(16, flags),
            )
        )

    def _metric(self, family: Family, since: int, at: int) -> bytes:
        points = b"".join(message(1, self._point(family, each.labels, each.value, since, at)) for each in family.points)
        temporality = integer(2, CUMULATIVE)
        match family.kind:
            case Kind.GAUGE:
                data = octets(5, points, always=True)
            case Kind.COUNTER:
                data = message(7, points, temporality, integer(3, 1))
            case Kind.HISTOGRAM:
                data = message(9, points, temporality)
        return text(1, family.name) + text(2, family.help) + text(3, family.unit) + data

    def _point(
        self, family: Family, labels: Mapping[str, str], value: float | Distribution, since: int, at: int
    ) -> bytes:
        times = (b"" if family.kind is Kind.GAUGE else fixed64(2, since)) + fixed64(3, at)
        if isinstance(value, Distribution):
            return b"".join(
                (
                    times,
                    fixed64(4, sum(value.counts), always=True),
                    double(5, value.sum),
                    packed_fixed64(6, value.counts),
                    packed_double(7, value.bounds),
                    self._attributes(9, labels),
                )
            )
        number = fixed64(6, value, always=True) if isinstance(value, int) else double(4, value)
        return times + number + self._attributes(7, labels)

    def _line(self, line: LogLine) -> bytes:
        return b"".join(
            (
                fixed64(1, _ns(line.at)),
                integer(2, SEVERITY.get(line.level, 0)),
                text(3, line.level),
                message(5, self._value(line.event)),
                self._attributes(6, line.attributes),
                fixed64(11, _ns(line.at)),
            )
        )


def _ns(seconds: float) -> int:
    return max(int(seconds * 1e9), 0)
