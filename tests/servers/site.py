"""A web server that says, byte for byte, what a test tells it, and remembers what it was told."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    DelimiterNotFound,
    EndOfStream,
    IncompleteRead,
    TypedAttributeLookupError,
    create_task_group,
    create_tcp_listener,
)
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener

GONE = (
    *(BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead, DelimiterNotFound, ssl.SSLError, OSError),
    TypedAttributeLookupError,  # whoever came has left before anybody asked who it was
)
HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    head: bytes
    body: bytes
    peer: tuple[str, int]  # one connection has one

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines) if name}


Play = Callable[[ByteStream, Asked], Awaitable[None]]
Answer = bytes | Play  # bytes are sent as they are, and the connection is kept


def ok(body: bytes = b"hello", *headers: str, status: str = "200 OK") -> bytes:
    """An honest answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Site:
    """One server. `answers` are by path, without the query; whatever else is asked gets an honest answer."""

    port: int
    answers: Mapping[str, Answer]
    asked: list[Asked] = field(default_factory=list)
    visits: int = 0  # connections, whatever came of them
    left: int = 0  # connections that are over

    async def serve(self, stream: ByteStream) -> None:
        self.visits += 1
        try:
            async with stream:
                peer = stream.extra(SocketAttribute.remote_address)
                buffered = BufferedByteReceiveStream(stream)
                while True:
                    asked = await _read(buffered, (str(peer[0]), int(peer[1])))
                    self.asked.append(asked)
                    path = asked.line.split(" ")[1].partition("?")[0]
                    answer = self.answers.get(path, b"")
                    if isinstance(answer, bytes):
                        await stream.send(answer or ok())
                    else:
                        await answer(stream, asked)
                        return
        except GONE:
            pass
        finally:
            self.left += 1


@asynccontextmanager
async def a_site(
    answers: Mapping[str, Answer], *, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """A server at `address`, on a free port."""
    async with await create_tcp_listener(local_host=address, local_port=port) as plain, create_task_group() as tasks:
        site = Site(plain.extra(SocketAttribute.local_port), answers)
        listener = plain if tls is None else TLSListener(plain, tls, standard_compatible=False)
        tasks.start_soon(listener.serve, site.serve)
        yield site
        tasks.cancel_scope.cancel()


async def _read(stream: BufferedByteReceiveStream, peer: tuple[str, int]) -> Asked:
    head = await stream.receive_until(b"\r\n\r\n", HEAD_BYTES)
    headers = Asked(head, b"", peer).headers
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await stream.receive_until(b"\r\n", 100), 16):
            body += await stream.receive_exactly(size)
            await stream.receive_until(b"\r\n", 10)
        await stream.receive_until(b"\r\n", 10)
    elif length := int(headers.get("content-length", 0)):
        body = await stream.receive_exactly(length)
    return Asked(head, body, peer)


async def drip(stream: ByteStream, data: bytes, pause_s: float) -> None:
    """One byte after the other."""
    for each in data:
        await stream.send(bytes((each,)))
        await anyio.sleep(pause_s)
