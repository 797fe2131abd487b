"""The Chrome DevTools Protocol over two file descriptors: calls with answers, and events.

Chromium reads commands from its descriptor 3 and writes answers and events to 4, each a JSON object that ends with a
zero byte. No port is opened and nobody else can connect. No Python library of good health speaks it over a pipe
(playwright's driver does, and brings Node and a browser of its own; the others want a WebSocket), and it is small.

https://chromedevtools.github.io/devtools-protocol/, with `sessionId` in each message ("flat" mode).
"""

import json
import os
from collections.abc import Callable
from typing import Any

from anyio import Event, Lock, wait_readable, wait_writable

PIECE_BYTES = 1024 * 1024
MESSAGE_BYTES = 128 * 1024 * 1024  # a snapshot of the largest page that is looked at has about half

Handler = Callable[[str, dict[str, Any], str], None]


class BrowserError(Exception):
    """The browser could not do what it was asked."""


class BrowserGone(BrowserError):
    """The browser has ended, or closed the pipe."""


class Pipe:
    """One browser's protocol. `run` reads until the end; calls wait for their answers meanwhile."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._writes = Lock()
        self._last = 0
        self._waiting: dict[int, _Answer] = {}
        self._handlers: list[Handler] = []
        self._gone = False
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

    def listen(self, handler: Handler) -> None:
        """Calls `handler(method, parameters, session)` for each event. It must not wait, and not raise."""
        self._handlers.append(handler)

    def ignore(self, handler: Handler) -> None:
        """Ends what `listen` began."""
        self._handlers.remove(handler)

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Asks the browser, or one session of it, and returns its answer.

        Raises:
            BrowserError: it says no; the message is the browser's.
            BrowserGone: there is no browser any more.
        """
        self._last += 1
        number = self._last
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = self._waiting[number] = _Answer()
        try:
            await self._write(json.dumps(message).encode() + b"\0")
            await answer.there.wait()
        finally:
            del self._waiting[number]
        if answer.error:
            raise BrowserError(f"{method}: {answer.error}")
        if answer.result is None:
            raise BrowserGone("The browser has ended.")
        return answer.result

    async def run(self) -> None:
        """Reads until the browser closes its end. Then every call that waits, and every later one, fails."""
        unread = bytearray()
        searched = 0
        try:
            while len(unread) <= MESSAGE_BYTES:
                await wait_readable(self._reading)
                piece = os.read(self._reading, PIECE_BYTES)
                if not piece:
                    return
                unread += piece
                while (end := unread.find(b"\0", searched)) >= 0:
                    self._take(json.loads(bytes(unread[:end])))
                    del unread[: end + 1]
                    searched = 0
                searched = len(unread)
        finally:
            self._gone = True
            for answer in self._waiting.values():
                answer.there.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            for handler in tuple(self._handlers):
                handler(message["method"], message.get("params", {}), message.get("sessionId", ""))
        elif answer := self._waiting.get(message["id"]):
            answer.result = message.get("result")
            answer.error = str(message["error"].get("message")) if "error" in message else ""
            answer.there.set()

    async def _write(self, data: bytes) -> None:
        async with self._writes:  # a message is whole, whoever is cancelled: else the next would be part of it
            rest = memoryview(data)
            while rest:
                if self._gone:
                    raise BrowserGone("The browser has ended.")
                try:
                    rest = rest[os.write(self._writing, rest) :]
                except BlockingIOError:
                    await wait_writable(self._writing)
                except BrokenPipeError:
                    raise BrowserGone("The browser has ended.") from None


class _Answer:
    def __init__(self) -> None:
        self.there = Event()
        self.result: dict[str, Any] | None = None
        self.error = ""
