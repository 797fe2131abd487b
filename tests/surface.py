"""A client of a lab's surface that says exactly the bytes it is told to, and knows what it is shown."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h11
from anyio import BrokenResourceError, EndOfStream, connect_tcp, connect_unix, fail_after
from anyio.abc import ByteStream

from core.lab import Lab

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, as the JSON that it must be."""
        assert self.headers["content-type"] == "application/json", (self.status, self.headers, self.body[:200])
        return json.loads(self.body)


@dataclass
class Caller:
    """Somebody at a lab's surface: a stranger, or whose token it is; over TCP or over the lab's own socket."""

    lab: Lab
    token: str = ""
    unix: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = self.lab.web.removeprefix("http://")  # where it goes, and what Host says

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[ByteStream]:
        """One connection."""
        if self.unix:
            stream: ByteStream = await connect_unix(self.lab.home.api_socket)
        else:
            address, _, port = self.host.rpartition(":")
            stream = await connect_tcp(address.strip("[]"), int(port))
        async with stream:
            yield stream

    def head(self, method: str, path: str, headers: Mapping[str, str | None]) -> bytes:
        """A request's line and headers. A header that is None is left out."""
        said: dict[str, str | None] = {"Host": self.host or "localhost", "Connection": "close"}
        if self.token:
            said["Authorization"] = f"Bearer {self.token}"
        said |= {**self.extra, **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items() if value is not None)
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """One exchange. `path` is below /api/v1 unless it begins with two slashes."""
        path = path[1:] if path.startswith("//") else f"/api/v1{path}"
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        told: dict[str, str | None] = {"Content-Length": str(len(raw))} if raw or method in ("POST", "PUT") else {}
        if raw and not isinstance(body, bytes):
            told["Content-Type"] = "application/json"
        return answer_in(await self.say(self.head(method, path, told | dict(headers or {})) + raw))

    async def say(self, data: bytes) -> bytes:
        """Sends bytes and returns all that comes back until the other side is done."""
        got = b""
        with fail_after(PATIENCE_S):
            async with self.connected() as stream:
                with suppress(BrokenResourceError):  # it has heard enough; what it says about that may still come
                    await stream.send(data)
                async for piece in pieces(stream):
                    got += piece
        return got

    @asynccontextmanager
    async def following(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a stream of events, from the head of the answer on; it is open when the body begins."""
        async with self.connected() as stream:
            await stream.send(self.head("GET", f"/api/v1{path}", {"Accept": "text/event-stream"}))
            came = pieces(stream)
            with fail_after(PATIENCE_S):
                head = await anext(came)
            assert head.startswith(b"HTTP/1.1 200 "), head
            yield came


async def pieces(stream: ByteStream) -> AsyncIterator[bytes]:
    """What comes, until the other side is done or hangs up."""
    while True:
        try:
            yield await stream.receive()
        except (EndOfStream, BrokenResourceError):
            return


def answer_in(data: bytes) -> Answer:
    """The one answer that `data` is. What is behind it would be the answer to a request that nobody sent."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Connection", "close")]))
    connection.receive_data(data)
    connection.receive_data(b"")
    status, headers, body = 0, {}, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            raise AssertionError(f"no whole answer in {data[:300]!r}")
    assert connection.trailing_data[0] == b"", connection.trailing_data
    return Answer(status, headers, body)
