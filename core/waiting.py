"""Waiting for the first of several things, for a reason, and for a number to be reached."""

from collections.abc import Awaitable, Callable

from anyio import Event, create_task_group


async def first_of(*waits: Callable[[], Awaitable[object]]) -> int:
    """Runs all until one returns, cancels the rest, and tells which it was."""
    winner: list[int] = []

    async with create_task_group() as tasks:

        async def run(index: int, wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            winner.append(index)
            tasks.cancel_scope.cancel()

        for index, wait in enumerate(waits):
            tasks.start_soon(run, index, wait)
    return winner[0]


class Latch:
    """An event that carries its reason."""

    def __init__(self) -> None:
        self.reason = ""
        self._event = Event()

    def set(self, reason: str) -> None:
        """Sets it once; later reasons are ignored."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._event.is_set()

    async def wait(self) -> str:
        """Returns the reason once there is one."""
        await self._event.wait()
        return self.reason


class Watermark:
    """A number that only rises, and that can be waited for."""

    def __init__(self) -> None:
        self._value = 0
        self._waiting: list[tuple[int, Event]] = []

    def raise_to(self, value: int) -> None:
        """Wakes whoever waits for `value` or less."""
        self._value = max(self._value, value)
        for wanted, event in [each for each in self._waiting if each[0] <= self._value]:
            self._waiting.remove((wanted, event))
            event.set()

    async def reached(self, value: int) -> None:
        """Returns once it stands at `value` or above."""
        if value <= self._value:
            return
        waiter = value, Event()
        self._waiting.append(waiter)
        try:
            await waiter[1].wait()
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
