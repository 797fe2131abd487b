"""Bytes to one client, as fast as it takes them, and no longer than it is there."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from anyio import CancelScope, create_task_group
from starlette.types import Receive, Scope, Send


async def cancel_when_gone(receive: Receive, scope: CancelScope) -> None:
    """Cancels `scope` when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class BlobStream:
    """An ASGI response with the content of a blob. What it is said to be is data: a client gets bytes."""

    def __init__(self, chunks: AsyncIterator[bytes], size: int, part: range | None = None) -> None:
        """`chunks` begin where `part` does; without one they are all `size` bytes."""
        self._chunks = chunks
        self._size, self._part = size, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, left = (200, self._size) if self._part is None else (206, len(self._part))
        whole = self._part is None or self._part.stop == self._size
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % left),
            (b"content-disposition", b"attachment"),
            (b"accept-ranges", b"bytes"),
        ]
        if self._part is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (self._part.start, self._part[-1], self._size)))
        async with aclosing(self._chunks) as chunks, create_task_group() as tasks:  # type: ignore[type-var]
            tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk[:left], "more_body": True})
                left -= len(chunk)
                if left <= 0 and not whole:
                    break  # else the store has the last word: what it holds may be damaged
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()
