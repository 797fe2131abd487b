"""What runs use over time: bounded, sampled without the engine, and honest where nothing can be seen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import create_task_group, fail_after

from core.usage import NOT_YET, POINTS, Sampling, Series
from sandbox.engine import Exit, Meter, SandboxError, Usage
from tests.unit.core.waiting_for import seen

STEP_S = 0.02


class Sandboxed:
    """A sandbox whose meter counts how often it was read, and which may end."""

    name = "sandboxed"

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses, self.asked, self.read, self.over = refuses, 0, 0, False

    async def meter(self) -> Meter:
        self.asked += 1
        if self.refuses:
            raise SandboxError(self.refuses)
        return self._look

    def _look(self) -> Usage:
        if self.over:
            raise FileNotFoundError
        self.read += 1
        return Usage(memory_bytes=1000 + self.read % 2, cpu_seconds=self.read * STEP_S / 2, pids=1)

    async def wait(self) -> Exit:
        return Exit(0, "exited")

    async def kill(self) -> None:
        self.over = True

    async def usage(self) -> Usage:
        return self._look()

    def leave(self) -> None:
        pass


@asynccontextmanager
async def sampling() -> AsyncIterator[Sampling]:
    samples = Sampling(step_s=STEP_S)
    async with create_task_group() as tasks:
        tasks.start_soon(samples.serve)
        yield samples
        tasks.cancel_scope.cancel()


def test_a_full_series_is_halved_and_keeps_its_means_and_its_peaks() -> None:
    series = Series(0.0)
    for number in range(POINTS - 1):
        series.add(float(number % 2), number)
    assert (len(series.cpu), series.step_s) == (POINTS - 1, 1.0)
    series.add(1.0, 10_000)
    assert series.step_s == 2.0
    assert series.cpu == [0.5] * (POINTS // 2)
    assert series.memory[:2] == [1, 3]
    assert series.memory[-1] == 10_000


def test_a_day_takes_no_more_room_than_minutes() -> None:
    series, passed = Series(0.0), 0.0
    while passed < 86_400:
        passed += series.step_s
        series.add(1.0, 1)
    assert len(series.cpu) < POINTS
    assert len(series.cpu) * series.step_s == pytest.approx(86_400, rel=0.01)


async def test_the_engine_is_asked_once_and_the_samples_are_read() -> None:
    sandbox = Sandboxed()
    with fail_after(10):
        async with sampling() as samples:
            with samples.watching("run", sandbox):
                await seen(lambda: len((samples.series("run") or Series(0.0)).cpu) >= 5)
                series = await samples.finish("run")
                assert series is not None
            assert samples.series("run") is None
    assert sandbox.asked == 1
    assert sandbox.read >= 5
    assert all(0.0 <= each < 25 for each in series.cpu)
    assert set(series.memory) <= {1000, 1001}
    assert series.as_json()["why"] == ""


async def test_where_nothing_can_be_seen_there_is_nothing_and_a_reason() -> None:
    sandbox = Sandboxed(refuses="its group is on another machine")
    with fail_after(10):
        async with sampling() as samples:
            with samples.watching("run", sandbox):
                await seen(lambda: (samples.series("run") or Series(0.0)).why != NOT_YET)
                told = (await samples.finish("run") or Series(0.0)).as_json()
    assert (told["cpu"], told["memory"], told["why"]) == (None, None, "its group is on another machine")


async def test_one_that_ends_keeps_what_was_seen() -> None:
    sandbox = Sandboxed()
    with fail_after(10):
        async with sampling() as samples:
            with samples.watching("run", sandbox):
                await seen(lambda: len((samples.series("run") or Series(0.0)).cpu) >= 2)
                await sandbox.kill()
                series = await samples.finish("run")
    assert series is not None
    assert len(series.cpu) >= 2


async def test_a_run_that_nobody_watches_has_none() -> None:
    async with sampling() as samples:
        assert await samples.finish("run") is None
