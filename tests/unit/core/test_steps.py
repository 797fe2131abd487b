"""A coroutine's steps are bounded; whatever it does between them is its own affair."""

import re
import time

import pytest
from anyio import create_task_group, move_on_after, sleep

from core.steps import Blocked, in_steps


async def test_a_polite_coroutine_returns_its_value() -> None:
    async def polite() -> int:
        async with create_task_group() as tasks:
            tasks.start_soon(sleep, 0.01)
        with move_on_after(0.01):
            await sleep(5)
        return 5

    assert await in_steps(polite(), 10) == 5


async def test_its_errors_come_through() -> None:
    async def wrong() -> None:
        await sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_steps(wrong(), 10)


async def test_a_step_that_sleeps_is_interrupted() -> None:
    async def blocks() -> None:
        await sleep(0)
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(Blocked):
        await in_steps(blocks(), 0.2)
    assert time.monotonic() - began < 50


async def test_a_step_that_computes_is_interrupted_even_inside_a_regular_expression() -> None:
    async def computes() -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")

    with pytest.raises(Blocked):
        await in_steps(computes(), 0.2)


async def test_catching_every_exception_does_not_save_it() -> None:
    async def stubborn() -> str:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001  that is what is tested
            return "saved"
        return "never"

    with pytest.raises(Blocked):
        await in_steps(stubborn(), 0.2)


async def test_the_timer_is_off_between_steps() -> None:
    async def waits() -> None:
        await sleep(0.5)

    await in_steps(waits(), 0.1)
    time.sleep(0.2)
