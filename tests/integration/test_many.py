"""Many runs at once: they all succeed, and leave no container, socket, file or row behind."""

import pytest
from anyio import fail_after, sleep

from core.lab import Lab
from core.run import Outcome, Run
from tests.bench.crowd import (
    ECHO,
    ECHO_IMAGES,
    ECHO_RUNS,
    SCAN,
    SCAN_IMAGES,
    SCANS,
    Traces,
    at_once,
    descriptors,
    echo,
    scan,
    traces,
)
from tests.labs import lab_of
from tests.sizes import full

KEPT = 8  # connections to the engine that stay open for the next call
pytestmark = pytest.mark.docker


async def test_many_runs_at_once_succeed_and_leave_nothing_behind() -> None:
    async with lab_of(ECHO, images=ECHO_IMAGES) as lab:
        await at_once(lab, 1, echo)  # what is opened once for all is open now
        before, open_before = await settled(lab), descriptors()
        _, runs = await at_once(lab, ECHO_RUNS if full() else 12, echo)
        assert outcomes(runs) == {Outcome.SUCCEEDED}
        assert await settled(lab) == before
        assert before.nothing
        assert descriptors() <= open_before + KEPT


async def test_several_scans_at_once_end_and_leave_nothing_behind() -> None:
    async with lab_of(SCAN, images=SCAN_IMAGES) as lab:
        await at_once(lab, 1, scan)
        before, open_before = await settled(lab), descriptors()
        _, runs = await at_once(lab, SCANS if full() else 2, scan)
        assert outcomes(runs) == {Outcome.SUCCEEDED}
        assert all(each.evidence["scanned"] for each in runs)
        assert await settled(lab) == before
        assert before.nothing
        assert descriptors() <= open_before + KEPT


def outcomes(runs: list[Run]) -> set[Outcome | None]:
    return {each.outcome for each in runs}


async def settled(lab: Lab) -> Traces:
    """What there is, once it has stayed the same for a moment: connections close a little after their last word."""
    last = await traces(lab)
    with fail_after(60):
        while True:
            await sleep(0.5)
            now = await traces(lab)
            if now == last:
                return now
            last = now
