"""A collector of OpenTelemetry data on loopback, which reads what it gets with the official messages of OTLP.

It is good by default. `answers` are played one after the other, for whatever comes; then everything is taken.
"""

import gzip
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from anyio import Condition, Event, fail_after
from anyio.abc import ByteStream
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers.site import Answer, Asked, Site, a_site, ok

TAKEN = ok(b"", "Content-Type: application/x-protobuf")


def refusal(status: str, *headers: str) -> bytes:
    """A collector that will not have it."""
    return ok(b"no", *headers, status=status)


def rejecting(spans: int) -> bytes:
    """A collector that takes a batch and throws some of it away."""
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = spans
    return ok(said.SerializeToString(), "Content-Type: application/x-protobuf")


@dataclass
class Collector:
    """What came, oldest first."""

    answers: list[Answer] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)  # the newest of each name
    lines: list[LogRecord] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)  # bodies, as they were before they were compressed
    heads: list[Mapping[str, str]] = field(default_factory=list)
    refused: int = 0
    held: Event = field(default_factory=Event)  # set it to let those go on that `hangs` holds
    changed: Condition = field(default_factory=Condition)
    site: Site | None = None

    @property
    def address(self) -> str:
        """Its base, as the settings want it."""
        assert self.site is not None
        return f"http://127.0.0.1:{self.site.port}"

    async def hear(self, stream: ByteStream, asked: Asked) -> None:
        """Takes one batch, or does what is planned instead."""
        self.heads.append(asked.headers)
        body = gzip.decompress(asked.body) if asked.headers.get("content-encoding") == "gzip" else asked.body
        self.raw.append(body)
        answer = self.answers.pop(0) if self.answers else TAKEN
        if isinstance(answer, bytes):
            if answer.startswith(b"HTTP/1.1 2"):
                self._take(asked.line.split()[1], body)
            else:
                self.refused += 1
            await stream.send(answer)
        else:
            self.refused += 1
            await self._tell()
            await answer(stream, asked)
        await self._tell()

    async def hangs(self, stream: ByteStream, asked: Asked) -> None:
        """Says nothing until it may."""
        await self.held.wait()
        await stream.send(refusal("503 Service Unavailable"))

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _take(self, path: str, body: bytes) -> None:
        match path:
            case "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resource = attributes(resource.resource.attributes)
                    self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            case "/v1/metrics":
                for figures in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.metrics |= {each.name: each for scope in figures.scope_metrics for each in scope.metrics}
            case "/v1/logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self.lines += [line for scope in logs.scope_logs for line in scope.log_records]
            case _:
                raise AssertionError(path)

    async def until(self, is_so: Callable[[], bool], *, within_s: float = 60) -> None:
        """Waits for what comes."""
        with fail_after(within_s):
            async with self.changed:
                while not is_so():
                    await self.changed.wait()

    async def span(self, name: str) -> Span:
        """The first span of that name, when it comes."""
        await self.until(lambda: any(each.name == name for each in self.spans))
        return next(each for each in self.spans if each.name == name)


def attributes(told: Sequence[KeyValue]) -> dict[str, Any]:
    """As a dictionary."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in told}


@asynccontextmanager
async def a_collector(*answers: Answer) -> AsyncIterator[Collector]:
    """A collector on a free port."""
    collector = Collector(list(answers))
    places: dict[str, Answer] = {f"/v1/{each}": collector.hear for each in ("traces", "metrics", "logs")}
    async with a_site(places) as site:
        collector.site = site
        yield collector
