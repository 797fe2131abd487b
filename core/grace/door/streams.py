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

    def __init__(self, chunks: AsyncIterator[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % self._size),
            (b"content-disposition", b"attachment"),
        ]
        async with aclosing(self._chunks) as chunks, create_task_group() as tasks:  # type: ignore[type-var]
            tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()
