"""A transport that asks the door's application itself, in the same process.

The gateway within the core is a client as any other: what it asks is a request with a path, headers and a body, from
the caller that the listener has made out, and is decided about where all requests are. Only the socket is left out.
Answers are streams, read as fast as whoever asks takes them.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    Event,
    WouldBlock,
    create_memory_object_stream,
)
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Scope


class Inside(httpx2.AsyncBaseTransport):
    """Requests to `app`; each is served by a task in `tasks`. `known` is what their scope says of whoever asks."""

    def __init__(self, app: ASGIApp, known: Mapping[str, object], tasks: TaskGroup) -> None:
        self._app, self._known, self._tasks = app, known, tasks

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Serves one request until its answer's head is there; the rest comes as it is read.

        Raises:
            httpx2.ReadError: the application ended without an answer.
        """
        exchange = _Exchange(request)
        self._tasks.start_soon(exchange.serve, self._app, _scope(request) | dict(self._known))
        try:
            await exchange.answered.wait()
        except BaseException:
            await exchange.aclose()
            raise
        if exchange.head is None:
            raise httpx2.ReadError("the application ended without an answer", request=request)
        return httpx2.Response(exchange.head["status"], headers=exchange.head["headers"], stream=exchange)


class _Exchange(httpx2.AsyncByteStream):
    """One request and its answer."""

    def __init__(self, request: httpx2.Request) -> None:
        self.answered = Event()
        self.head: Message | None = None
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        self._body = aiter(request.stream)
        self._heard_all = self._said_all = False
        self._left = Event()
        self._serving = CancelScope()
        self._send, self._receive = create_memory_object_stream[bytes](1)

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """The application's side."""
        try:
            with self._serving:
                await app(scope, self._hear, self._say)
        finally:
            self._send.close()
            self.answered.set()

    async def _hear(self) -> Message:
        if not self._heard_all:
            chunk = await anext(self._body, None)
            self._heard_all = chunk is None
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _say(self, part: Message) -> None:
        if part["type"] == "http.response.start":
            self.head = part
            self.answered.set()
            return
        try:
            if part.get("body"):
                await self._pass_on(part["body"])
        except (ClosedResourceError, BrokenResourceError):
            self._left.set()
        self._said_all = not part.get("more_body", False)

    async def _pass_on(self, chunk: bytes) -> None:
        try:
            self._send.send_nowait(chunk)  # a short answer is whole even where its request is just being ended
        except WouldBlock:
            await self._send.send(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive:
            yield chunk
        if not self._said_all:
            raise httpx2.ReadError("the application ended before its answer did")

    async def aclose(self) -> None:
        """Whoever asked has heard enough."""
        self._left.set()
        self._receive.close()
        self._serving.cancel()


def _scope(request: httpx2.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "server": None,
        "client": None,
    }
