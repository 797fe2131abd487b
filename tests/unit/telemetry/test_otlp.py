"""What is written is read back by the official messages of OTLP, field by field."""

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as TheirSpan
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status

from core.telemetry.meters import Histogram, Point, counter, gauge
from core.telemetry.otlp import Link, LogLine, Moment, Span, SpanKind, Teller, Value
from core.telemetry.protobuf import varint
from tests.collector import attributes

AT = 1_800_000_000.5
TELLER = Teller({"service.name": "lab"}, "1.2", lambda text: text.replace("sesame", "[hidden]"))


def the_span(span: Span) -> TheirSpan:
    read = ExportTraceServiceRequest.FromString(TELLER.spans([span]))
    (resource,) = read.resource_spans
    (scope,) = resource.scope_spans
    assert attributes(resource.resource.attributes) == {"service.name": "lab"}
    assert (scope.scope.name, scope.scope.version) == ("madlab", "1.2")
    (found,) = scope.spans
    assert read.SerializeToString() == TELLER.spans([span])  # nothing is written that they do not know
    return found


def test_a_span_comes_back_whole() -> None:
    about: dict[str, Value] = {"text": "ünï", "number": -7, "big": 1 << 40, "part": 0.25}
    about |= {"yes": True, "no": False, "none": "", "zero": 0}
    found = the_span(
        Span(
            b"t" * 16, b"s" * 8, b"p" * 8, "chat one", AT, AT + 1, SpanKind.CLIENT, about,
            moments=[Moment("first", AT + 0.5, {"n": 1})], dropped_moments=3,
            links=[Link(b"T" * 16, b"S" * 8)], failed=True, is_remote=True,
        )
    )  # fmt: skip
    assert (found.trace_id, found.span_id, found.parent_span_id) == (b"t" * 16, b"s" * 8, b"p" * 8)
    assert (found.name, found.kind) == ("chat one", TheirSpan.SPAN_KIND_CLIENT)
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (
        1_800_000_000_500_000_000,
        1_800_000_001_500_000_000,
    )
    assert attributes(found.attributes) == about
    assert (found.events[0].name, attributes(found.events[0].attributes)) == ("first", {"n": 1})
    assert found.dropped_events_count == 3
    assert (found.links[0].trace_id, found.links[0].span_id) == (b"T" * 16, b"S" * 8)
    assert found.status.code == Status.STATUS_CODE_ERROR
    assert found.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert found.flags & SpanFlags.SPAN_FLAGS_TRACE_FLAGS_MASK == 1


def test_a_root_has_no_parent_and_a_clock_that_jumped_makes_no_negative_time() -> None:
    found = the_span(Span(b"t" * 16, b"s" * 8, b"", "x", AT, AT - 5))
    assert found.parent_span_id == b""
    assert found.end_time_unix_nano == found.start_time_unix_nano
    assert found.status.code == Status.STATUS_CODE_UNSET


def test_secrets_are_taken_out_of_every_text() -> None:
    about = {"a": "sesame"}
    moment = Moment("m", AT, about)
    found = the_span(
        Span(b"t" * 16, b"s" * 8, b"", "open sesame", AT, AT, attributes={"a": "sesame"}, moments=[moment])
    )
    assert b"sesame" not in found.SerializeToString()
    assert found.name == "open [hidden]"


def test_figures_come_back_cumulative() -> None:
    took = Histogram("took", "How long.", ("route",), bounds=(0.1, 1))
    took.record(0.05, "/a")
    took.record(3, "/a")
    families = [took.family(), counter("seen", "Seen.", 2), gauge("size", "S.", [Point({"x": "1"}, 2.5)], "By")]
    body = TELLER.metrics(families, since=AT, at=AT + 1)
    read = ExportMetricsServiceRequest.FromString(body)
    assert read.SerializeToString() == body
    histogram, sum, size = read.resource_metrics[0].scope_metrics[0].metrics
    (point,) = histogram.histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts), list(point.explicit_bounds)) == (
        2,
        3.05,
        [1, 0, 1],
        [0.1, 1],
    )
    assert attributes(point.attributes) == {"route": "/a"}
    assert (sum.sum.is_monotonic, sum.sum.aggregation_temporality, sum.sum.data_points[0].as_int) == (True, 2, 2)
    assert (size.gauge.data_points[0].as_double, size.unit, size.gauge.data_points[0].start_time_unix_nano) == (
        2.5,
        "By",
        0,
    )


def test_lines_come_back() -> None:
    body = TELLER.lines([LogLine(AT, "warning", "a thing", {"run": "r"})])
    read = ExportLogsServiceRequest.FromString(body)
    (line,) = read.resource_logs[0].scope_logs[0].log_records
    assert (line.severity_number, line.severity_text, line.body.string_value) == (13, "warning", "a thing")
    assert attributes(line.attributes) == {"run": "r"}


@pytest.mark.parametrize(
    ("value", "written"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (1 << 63, "80" * 9 + "01")]
)
def test_varints(value: int, written: str) -> None:
    assert varint(value).hex() == written
