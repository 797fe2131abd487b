"""A TCP connection that is read when somebody asks, and no further: what nobody asked for stays in the kernel.

The event loop's own streams read ahead, and are paused and resumed around each piece. Here what has come already is
taken at once, as much as there is; only who has to wait goes through the loop. So a stream of large pieces takes a
third less of the processor, and whoever reads must give way to others now and then: the broker does, piece by piece.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from anyio import EndOfStream, notify_closing, wait_readable, wait_writable
from anyio.abc import ByteStream, SocketAttribute

from core.egress.addresses import Address

READ_BYTES = 512 * 1024  # at once: half as many pieces as with half of it, and more would be slower again


async def open_wire(address: Address, port: int) -> "Wire":
    """Connects.

    Raises:
        OSError: nobody answers there.
    """
    raw = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        await asyncio.get_running_loop().sock_connect(raw, (str(address), port))
    except BaseException:
        raw.close()
        raise
    return Wire(raw)


class Wire(ByteStream):
    """An open connection. What breaks raises `OSError`; one task reads and one writes at a time."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        while True:
            try:
                data = self._raw.recv(max_bytes)
            except BlockingIOError:
                await wait_readable(self._raw)
                continue
            if not data:
                raise EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        left = memoryview(item)
        while left:
            try:
                left = left[self._raw.send(left) :]
            except BlockingIOError:
                await wait_writable(self._raw)

    async def send_eof(self) -> None:
        self._raw.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._raw.fileno() >= 0:
            notify_closing(self._raw)
            self._raw.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self._raw}
