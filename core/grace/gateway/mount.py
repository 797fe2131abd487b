"""`/mcp` in the door: nothing of the SDK is loaded before somebody asks, since it takes a second and 50 MB.

The listener has made out who asks before a request comes here, as for every other; that goes along with what the
gateway asks of the door in turn.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import structlog
from anyio import Event, create_task_group, sleep, sleep_forever, to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

PAUSE_S = 1.0  # before a gateway that fell is opened again

logger = structlog.get_logger()


@dataclass(frozen=True)
class Callers:
    """How a request's scope says who asks."""

    place: str  # where in it a caller is
    owner: Callable[[Any], str]  # whose a caller's sessions are
    over: Callable[[Any], Awaitable[None]]  # returns when a caller's rights have ended
    last: Callable[[Any], Any]  # a caller, as it may still end what it began when its rights have ended


class Mount:
    """An ASGI application. `serve` must run beside it."""

    def __init__(self, door: ASGIApp, closing: Event, callers: Callers) -> None:
        """`closing`, once set, ends what is in progress."""
        self._door, self._closing, self._callers = door, closing, callers
        self._asked, self._ready = Event(), Event()
        self._answer: ASGIApp | None = None

    async def serve(self) -> None:
        """Holds the sessions, from the first request until cancelled."""
        await self._asked.wait()
        sessions = await to_thread.run_sync(import_module, "core.grace.gateway.sessions")
        while True:
            try:
                async with sessions.opened(self._door, self._callers) as self._answer:
                    self._ready.set()
                    await sleep_forever()
            except Exception:  # the core outlives its gateway, whose clients begin anew
                logger.exception("the gateway fell")
                self._ready = Event()
                await sleep(PAUSE_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._asked.set()
        await self._ready.wait()
        assert self._answer is not None
        async with create_task_group() as tasks:

            async def close() -> None:
                await self._closing.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(close)
            await self._answer(scope, receive, send)
            tasks.cancel_scope.cancel()
