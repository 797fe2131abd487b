"""Server-sent events: a stream of messages to one client that may be slow, go away, or come back.

Each event that is durable has its sequence as its id, so a client that comes back says `Last-Event-ID` and misses
nothing. What is sent waits for the client to take it: the source is read no faster. A comment every few seconds keeps
both ends sure of each other. `event: end` says that nothing more will come; a stream that just stops is a core that
went away.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from anyio import Event, create_task_group, sleep
from starlette.types import Receive, Scope, Send

from core.grace.door.callers import Caller
from core.grace.door.streams import cancel_when_gone
from core.rogers.entry import Row
from protos.errors import Exhausted

HEARTBEAT_S = 10.0
REST_S, REST_EACH_S = 0.05, 0.003  # of a stream that was woken: at least, and for each that is open
OF_A_CLIENT = 64  # streams of lines, of messages and of topics, open at once

Item = tuple[int, dict[str, Any]]  # a sequence, 0 while not durable, and what is sent
Source = AbstractAsyncContextManager[AsyncIterator[Item]]


class EventStream:
    """An ASGI response that sends what `source` yields until it ends, the client leaves, or `closing` is set."""

    def __init__(self, source: Callable[[], Source], closing: Event) -> None:
        self._source = source
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._source() as items, create_task_group() as tasks:
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

            async def copy() -> None:
                async for sequence, item in items:
                    number = f"id: {sequence}\n" if sequence else ""
                    await _say(send, f"{number}data: {json.dumps(item)}\n\n")
                await _say(send, "event: end\n\n")
                tasks.cancel_scope.cancel()

            async def close() -> None:
                await self._closing.wait()
                tasks.cancel_scope.cancel()

            async def beat() -> None:
                while True:
                    await sleep(HEARTBEAT_S)
                    await _say(send, ":\n\n")

            for task in (copy, close, beat):
                tasks.start_soon(task)
            tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
        await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


class Changes:
    """Wakes whoever waits for anything new in a conversation or within it: what was said, or how a run stands."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Event]] = {}
        self._followed: Counter[str] = Counter()  # streams, by whose
        self._resting = 0  # of them, those that rest

    def committed(self, rows: Sequence[Row]) -> None:
        """For the journal to call after each commit."""
        for name in {each.conversation for each in rows}:
            while name:
                for event in self._waiting.get(name, ()):
                    event.set()
                name = name.rpartition("/")[0]

    @contextmanager
    def of(self, conversation: str) -> Iterator[Event]:
        """An event that is set by the next change. Look at the state only after entering."""
        event = Event()
        self._waiting.setdefault(conversation, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[conversation].discard(event)
            if not self._waiting[conversation]:
                del self._waiting[conversation]

    @contextmanager
    def followed_by(self, caller: Caller, *, rests: bool) -> Iterator[None]:
        """For the time of one stream: of lines, which rests, of messages, or of topics.

        Raises:
            Exhausted: a client has too many.
        """
        name = caller.name
        if not caller.is_operator and self._followed[name] >= OF_A_CLIENT:
            raise Exhausted(f"{OF_A_CLIENT} streams of yours are open already.", next="End one of them.")
        self._followed[name] += 1
        self._resting += rests
        try:
            yield
        finally:
            self._followed[name] -= 1
            self._resting -= rests

    async def rest(self) -> None:
        """What comes while a stream rests it reads at once: however many there are, together they cost the same."""
        await sleep(max(REST_S, REST_EACH_S * self._resting))
