"""Admission: how many runs at once, and how much memory together.

Whoever asks, the operator or a client, has a queue of their own, strictly in order. The queues take turns: one that is
long makes its own runs wait and those of nobody else. What is next is never overtaken, however large it is, so that
nobody starves. Only a guest's is passed over while guests, which is what clients are, have all places but one: whoever
runs the lab gets to work in it, however long theirs take.
"""

from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import Event

from protos.errors import Exhausted


@dataclass
class _Waiting:
    memory_mb: int
    guests: int  # places of guests that it takes: 1 or 0
    admitted: Event = field(default_factory=Event)


class Admission:
    """The queues in front of the machine."""

    def __init__(self, *, max_running: int, memory_mb: int) -> None:
        self._free = max_running
        self._free_to_guests = max(1, max_running - 1)
        self._memory_mb = memory_mb
        self._total_mb = memory_mb
        self._queues: dict[str, deque[_Waiting]] = {}  # by asker, whose turn it is first; none is empty

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    def ahead(self, waiting: Sequence[str], which: int) -> int:
        """How many are admitted before one of those that wait: by their askers, in the order of their asking."""
        asker, counts = waiting[which], Counter(waiting)
        own = waiting[:which].count(asker)
        turns = list(dict.fromkeys((*self._queues, *waiting)))
        mine = turns.index(asker)
        others = (min(counts[name], own + (turn < mine)) for turn, name in enumerate(turns) if name != asker)
        return own + sum(others)

    @asynccontextmanager
    async def share(
        self, memory_mb: int, *, asker: str = "", is_guest: bool = False, at_once: bool = False, runs: int = 1
    ) -> AsyncIterator[None]:
        """Waits for a share of the machine, behind what `asker` has asked for before, and holds it during the body.

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
        guests = int(is_guest)
        if at_once:
            self._take(memory_mb, runs, guests)
        else:
            waiting = _Waiting(memory_mb, guests)
            self._queues.setdefault(asker, deque()).append(waiting)
            self._advance()
            try:
                await waiting.admitted.wait()
            except BaseException:
                if waiting.admitted.is_set():
                    self._give_back(memory_mb, 1, guests)
                else:
                    self._queues[asker].remove(waiting)
                    if not self._queues[asker]:
                        del self._queues[asker]
                    self._advance()
                raise
        try:
            yield
        finally:
            self._give_back(memory_mb, runs, guests)

    def _take(self, memory_mb: int, runs: int, guests: int) -> None:
        self._free -= runs
        self._free_to_guests -= guests
        self._memory_mb -= memory_mb

    def _give_back(self, memory_mb: int, runs: int, guests: int) -> None:
        self._take(-memory_mb, -runs, -guests)
        self._advance()

    def _advance(self) -> None:
        while self._free > 0:
            turns = (each for each in self._queues.items() if each[1][0].guests <= max(0, self._free_to_guests))
            asker, queue = next(turns, ("", None))
            if queue is None or queue[0].memory_mb > self._memory_mb:
                return
            del self._queues[asker]
            first = queue.popleft()
            if queue:
                self._queues[asker] = queue  # behind the others
            self._take(first.memory_mb, 1, first.guests)
            first.admitted.set()
