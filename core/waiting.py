"""Waiting for the first of several things."""

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
