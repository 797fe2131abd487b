"""A warm pool: keeps a few things open and ready, hands each over once, and never takes one back.

The rules of this file:

1. Each thing is owned by one task for its whole life: the task opens it, waits with it, and closes it. There is no
   refill logic: whoever is handed over starts the task of its replacement at that moment. That one holds back for
   an instant, since to open one takes the processor from whoever was just handed over.
2. A claim takes a ready one without waiting, so that nothing can happen between taking and having; when none is
   ready it opens its own. It returns when what it had is closed.
3. What ends while it waits is thrown away and replaced. What cannot be opened is tried again, later each time, and
   the failures are there to be seen. A pool that cannot fill itself costs warmth, not service.

The pool knows nothing of sandboxes: it keeps whatever `open` yields.
"""

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from anyio import AsyncContextManagerMixin, CancelScope, Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup

T = TypeVar("T")
logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Statistics:
    """What a pool has and how it fares."""

    ready: int
    starting: int
    claimed: int  # in use now, warm and cold alike
    failures: int  # to open one ahead, or to keep it alive, since the start
    last_error: str  # empty when the latest attempt went well


@dataclass(eq=False)
class _Place(Generic[T]):
    """One thing kept ready, and what is to become of it."""

    thing: T
    claimed: bool = False
    leaves: Event = field(default_factory=Event)  # the ready ones, claimed or dead
    over: Event = field(default_factory=Event)  # its use
    closed: Event = field(default_factory=Event)


class Pool(AsyncContextManagerMixin, Generic[T]):
    """Keeps `size` things ready that `open` opens. Zero keeps none, and every claim opens its own.

    `ended` returns when a thing is of no use any more. `retry_after` is the first pause after a failure, in seconds;
    it doubles up to a minute. `refill_after` is how long the replacement of one handed over holds back, in seconds.
    """

    def __init__(
        self,
        open: Callable[[], AbstractAsyncContextManager[T]],
        size: int,
        *,
        ended: Callable[[T], Awaitable[object]] | None = None,
        retry_after: float = 1.0,
        refill_after: float = 0.0,
    ) -> None:
        self._open = open
        self._size = size
        self._ended = ended
        self._retry_after = retry_after
        self._refill_after = refill_after
        self._ready: deque[_Place[T]] = deque()
        self._starting = 0
        self._claimed = 0
        self._failures = 0
        self._last_error = ""
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        async with create_task_group() as tasks:
            self._tasks = tasks
            for _ in range(self._size):
                tasks.start_soon(self._keep)
            try:
                yield self
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[T]:
        """Hands over a ready one at once, or opens one; leaving closes it.

        Raises:
            whatever `open` raises, when none was ready.
        """
        self._claimed += 1
        try:
            if not self._ready:
                async with self._open() as thing:
                    yield thing
                return
            place = self._ready.popleft()
            place.claimed = True
            place.leaves.set()
            if self._tasks:
                self._tasks.start_soon(self._replace)
            try:
                yield place.thing
            finally:
                place.over.set()
                with CancelScope(shield=True):  # bounded by what bounds the closing of one
                    await place.closed.wait()
        finally:
            self._claimed -= 1

    def statistics(self) -> Statistics:
        """The pool now."""
        return Statistics(len(self._ready), self._starting, self._claimed, self._failures, self._last_error)

    async def _replace(self) -> None:
        await sleep(self._refill_after)
        await self._keep()

    async def _keep(self) -> None:
        """Fills one place, again and again until it was handed over."""
        pause = self._retry_after
        while True:
            begun = current_time()
            reason = await self._fill()
            if reason is None:
                return
            self._failures += 1
            self._last_error = reason
            logger.warning("no warm one, next try in %.1f s: %s", pause, reason)
            await sleep(pause)
            lasted = current_time() - begun - pause
            pause = self._retry_after if lasted > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)

    async def _fill(self) -> str | None:
        """The life of one place: opened, ready, handed over or dead, closed. Returns why it could not be used."""
        place: _Place[T] | None = None
        self._starting += 1
        try:
            async with self._open() as thing:
                self._starting -= 1
                self._last_error = ""
                place = _Place(thing)
                self._ready.append(place)
                await self._wait_with(place)
                if place.claimed:
                    await place.over.wait()
        except Exception as error:  # noqa: BLE001  this task outlives what it opens; the failure is kept to be seen
            reason = str(error) or type(error).__name__
            if place is None or not place.claimed:
                return reason
            logger.warning("closing one that was used failed: %s", reason)
        finally:
            if place is None:
                self._starting -= 1
            else:
                if place in self._ready:
                    self._ready.remove(place)
                place.closed.set()
        return None if place.claimed else "it ended while it waited to be used"

    async def _wait_with(self, place: _Place[T]) -> None:
        """Returns when the place was claimed, or when what waits in it has ended unused."""
        async with create_task_group() as tasks:
            if self._ended is not None:
                tasks.start_soon(self._watch, place, self._ended)
            await place.leaves.wait()
            tasks.cancel_scope.cancel()

    async def _watch(self, place: _Place[T], ended: Callable[[T], Awaitable[object]]) -> None:
        try:
            await ended(place.thing)
        except Exception as error:  # noqa: BLE001  what cannot be watched is not handed over; a claimed one lives on
            logger.warning("one that waited could not be watched: %s", error)
        if place in self._ready:
            self._ready.remove(place)
            place.leaves.set()
