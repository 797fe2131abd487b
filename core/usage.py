"""What live runs use of processor and memory, over time: sampled once a second from the kernel's own files.

The engine is asked once, where a sandbox's files are (`Sandbox.meter`). From then on a sample is a few reads of small
files, of all sandboxes together in one thread, and no call of the engine. A run's series has at most `POINTS` points:
when it is full, each two become one and a step is twice as long, so a run of a day takes no more room than one of
minutes. It is kept in memory while the run lives and written into the journal with its end; what a core that died had
seen is lost, and the next one's series begins where it took the run back.

Where nothing can be seen, the series says why and has no points.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from anyio import Event, create_task_group, current_time, sleep_until, to_thread

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from sandbox.engine import Meter, Sandbox, SandboxError, Usage

STEP_S = 1.0
POINTS = 240
SHORT_S = 0.05  # less than that at a run's end is no point of its own
IN_THE_CORE = "It works in the core's own process, whose use is not told apart."
NOT_YET = "Its sandbox was not measured before it ended."


@dataclass
class Series:
    """Processors in use (1.0: one of them all the time) and bytes of memory, one of each for every `step_s` seconds."""

    began: float  # seconds since the epoch
    step_s: float = STEP_S
    cpu: list[float] = field(default_factory=list)  # the mean of a step
    memory: list[int] = field(default_factory=list)  # the most that a sample of the step saw
    why: str = NOT_YET  # there are no points; empty where there are

    def add(self, cpu: float, memory: int) -> None:
        """One more step."""
        self.cpu.append(round(cpu, 3))
        self.memory.append(memory)
        if len(self.cpu) == POINTS:
            self.cpu = [round((a + b) / 2, 3) for a, b in zip(self.cpu[::2], self.cpu[1::2], strict=True)]
            self.memory = [max(pair) for pair in zip(self.memory[::2], self.memory[1::2], strict=True)]
            self.step_s *= 2

    def as_json(self) -> dict[str, Any]:
        """As clients see it: null for what there is none of, and why."""
        known = bool(self.cpu)
        return {
            "began": self.began,
            "step_s": self.step_s,
            "cpu": self.cpu if known else None,
            "memory": self.memory if known else None,
            "why": "" if known else self.why,
        }


@dataclass
class _Watched:
    """One live run."""

    sandbox: Sandbox
    series: Series
    tick_s: float
    meter: Meter | None = None
    asked: bool = False  # the engine, for its meter
    since: float = 0.0  # the last point, by the event loop's clock
    cpu_seconds: float = 0.0  # then
    peak: int = 0  # of memory since

    def note(self, usage: Usage, now: float, *, last: bool = False) -> None:
        """Takes in a sample."""
        self.peak = max(self.peak, usage.memory_bytes)
        passed = now - self.since
        if passed < (SHORT_S if last else self.series.step_s - self.tick_s / 2):
            return
        self.series.add(max(usage.cpu_seconds - self.cpu_seconds, 0.0) / passed, self.peak)
        self.since, self.cpu_seconds, self.peak = now, usage.cpu_seconds, 0


class Sampling:
    """Samples the runs that are watched. `serve` it."""

    def __init__(self, *, step_s: float = STEP_S) -> None:
        self._step_s = step_s
        self._watched: dict[str, _Watched] = {}
        self._any = Event()

    @contextmanager
    def watching(self, run: str, sandbox: Sandbox) -> Iterator[None]:
        """Samples the sandbox of a run while the body runs."""
        self._watched[run] = _Watched(sandbox, Series(time.time(), self._step_s), self._step_s)
        self._any.set()
        try:
            yield
        finally:
            self._watched.pop(run, None)

    def series(self, run: str) -> Series | None:
        """What a live run has used until now; None where it is not watched."""
        watched = self._watched.get(run)
        return watched.series if watched else None

    async def finish(self, run: str) -> Series | None:
        """The whole series of a run that is about to end, with a last sample."""
        watched = self._watched.get(run)
        if watched is None:
            return None
        await self._sample([watched], last=True)
        return watched.series

    async def serve(self) -> None:
        """Samples, until cancelled; nothing runs while nobody is watched."""
        async with create_task_group() as tasks:
            tick = current_time()
            while True:
                if not self._watched:
                    self._any = Event()
                    await self._any.wait()
                    tick = current_time()
                for each in [each for each in self._watched.values() if not each.asked]:
                    each.asked = True
                    tasks.start_soon(self._begin, each)
                tick = max(tick + self._step_s, current_time())
                await sleep_until(tick)
                await self._sample([*self._watched.values()])

    async def _begin(self, watched: _Watched) -> None:
        """Finds out where to look, and looks for the first time."""
        try:
            meter = await watched.sandbox.meter()
        except SandboxError as error:
            watched.series.why = str(error)
            return
        usage = await to_thread.run_sync(_read, meter)
        if usage is not None:
            watched.since, watched.cpu_seconds, watched.peak = current_time(), usage.cpu_seconds, usage.memory_bytes
            watched.meter = meter

    async def _sample(self, chosen: list[_Watched], *, last: bool = False) -> None:
        measured = [each for each in chosen if each.meter is not None]
        if not measured:
            return
        meters = [each.meter for each in measured]
        found = await to_thread.run_sync(lambda: [_read(each) for each in meters if each is not None])
        for watched, usage in zip(measured, found, strict=True):
            if usage is not None:
                watched.note(usage, current_time(), last=last)


def usage_entry(run: str, series: Series, conversation: str) -> Entry:
    """The series of a run that has ended, for the journal."""
    body = json.dumps({"run": run} | series.as_json()).encode()
    return Entry(f"run:{run}:usage", "usage", body, conversation, sender="core", at=time.time())


async def kept_usage(journal: Journal, run: str) -> dict[str, Any] | None:
    """What the journal has of a run's use; None where that is nothing."""
    sql = "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.id = ?"
    rows = await journal.query(sql, (f"run:{run}:usage",))
    if not rows:
        return None
    found: dict[str, Any] = json.loads(rows[0][0])
    found.pop("run", None)
    return found


def _read(meter: Callable[[], Usage]) -> Usage | None:
    try:
        return meter()
    except (OSError, ValueError, KeyError):  # it has ended: what it used until now is known
        return None
