"""Admission: how many runs at once, and how much memory together. Strictly in order, so that nobody starves."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import Event

from protos.errors import Exhausted


@dataclass
class _Waiting:
    memory_mb: int
    admitted: Event = field(default_factory=Event)


class Admission:
    """A queue in front of the machine."""

    def __init__(self, *, max_running: int, memory_mb: int) -> None:
        self._free = max_running
        self._memory_mb = memory_mb
        self._total_mb = memory_mb
        self._queue: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @asynccontextmanager
    async def share(self, memory_mb: int, *, at_once: bool = False, runs: int = 1) -> AsyncIterator[None]:
        """Waits for a share of the machine and holds it during the body.

        `at_once`: takes it without waiting, for what runs already: a run that was taken back after a restart; or for
        what runs wait for and so must not wait for them: a model, which counts as no run (`runs=0`).

        Raises:
            Exhausted: the share is larger than the whole.
        """
        if memory_mb > self._total_mb:
            raise Exhausted(
                f"It needs {memory_mb} MiB and all sandboxes together may have {self._total_mb} MiB.",
                next="Lower its profile, or raise sandbox.memory_mb in madlab.toml.",
            )
        if at_once:
            self._take(memory_mb, runs)
        else:
            waiting = _Waiting(memory_mb)
            self._queue.append(waiting)
            self._advance()
            try:
                await waiting.admitted.wait()
            except BaseException:
                if waiting.admitted.is_set():
                    self._give_back(memory_mb)
                else:
                    self._queue.remove(waiting)
                    self._advance()
                raise
        try:
            yield
        finally:
            self._give_back(memory_mb, runs)

    def _take(self, memory_mb: int, runs: int = 1) -> None:
        self._free -= runs
        self._memory_mb -= memory_mb

    def _give_back(self, memory_mb: int, runs: int = 1) -> None:
        self._free += runs
        self._memory_mb += memory_mb
        self._advance()

    def _advance(self) -> None:
        while self._queue and self._free > 0 and self._queue[0].memory_mb <= self._memory_mb:
            first = self._queue.popleft()
            self._take(first.memory_mb)
            first.admitted.set()
