"""The collector, as OTLP over HTTP knows it: one POST for each batch, and what its answer means.

It is spoken to at the configured address and nowhere else: no redirect is followed, no proxy and nothing of the
environment is used. What it answers is a number that says "taken", "later" or "never"; of its text nothing is believed.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from anyio import fail_after

from core.fiedler.keys import Key
from protos.errors import Denied

if TYPE_CHECKING:
    import httpx2

ANSWER_BYTES = 64 * 1024
LATER = frozenset({429, 502, 503, 504})  # what the specification lets a client try again
LONGEST_PAUSE_S = 300.0  # that a collector can ask for


class Signal(StrEnum):
    """What is told, each at a path of its own."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Later(Exception):
    """It was not taken, and may be when it is sent again. `pause_s` is what the collector asks for, 0 for nothing."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Never(Exception):
    """It was refused, and will be again."""


@dataclass
class Collector:
    """Where batches go. Enter it to open it. `key` finds what stands in `header`, anew for each request."""

    address: str
    key: Callable[[], Key | None]
    header: str = "authorization"
    ca_file: Path | None = None
    seconds: float = 10.0  # for one request, all in all
    _client: "httpx2.AsyncClient | None" = None

    async def __aenter__(self) -> Self:
        import httpx2  # a lab that sends nothing need not have it in memory

        verify: Any = False  # never asked: there is no TLS
        if urlsplit(self.address).scheme == "https":
            verify = httpx2.create_ssl_context(trust_env=False)
            if self.ca_file is not None:
                verify.load_verify_locations(self.ca_file)
        transport = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False)
        self._client = httpx2.AsyncClient(
            transport=transport, timeout=self.seconds, follow_redirects=False, trust_env=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.aclose()

    async def send(self, signal: Signal, body: bytes) -> int:
        """Sends one batch; returns how many of its items the collector says it has thrown away.

        Raises:
            Later, Never.
        """
        import httpx2

        assert self._client is not None
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip", "user-agent": "madlab"}
        try:
            key = self.key()
        except Denied as error:
            raise Later(error.message) from None
        if key is not None:
            value = key.reveal()
            headers[self.header] = f"Bearer {value}" if self.header == "authorization" else value
        content = gzip.compress(body, compresslevel=5, mtime=0)
        url = f"{self.address.rstrip('/')}/v1/{signal}"
        try:
            with fail_after(self.seconds):
                async with self._client.stream("POST", url, content=content, headers=headers) as answer:
                    said = b""
                    async for chunk in answer.aiter_raw():
                        said += chunk
                        if len(said) > ANSWER_BYTES:
                            break
                    return _rejected(said) if _taken(answer) else 0
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, TimeoutError) as error:
            raise Later(type(error).__name__) from None


def _taken(answer: "httpx2.Response") -> bool:
    """
    Raises:
        Later, Never: it was not.
    """
    status = answer.status_code
    if 200 <= status < 300:
        return answer.headers.get("content-type", "").startswith("application/x-protobuf")
    if status not in LATER:
        raise Never(f"status {status}")
    wanted = answer.headers.get("retry-after", "")
    pause = float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0
    raise Later(f"status {status}", min(pause, LONGEST_PAUSE_S))


def _rejected(answer: bytes) -> int:
    """The number in an answer's `partial_success`: field 1, a message, whose field 1 is a varint."""
    if answer[:1] != b"\x0a" or answer[2:3] != b"\x08" or answer[1:2] >= b"\x80":
        return 0
    value = 0
    for shift, byte in enumerate(answer[3:13]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value
    return 0
