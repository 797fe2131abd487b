"""Waiting for a number to be reached."""

from anyio import create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from core.waiting import Watermark


async def test_who_waits_for_a_number_that_was_reached_goes_on_at_once() -> None:
    mark = Watermark()
    mark.raise_to(7)
    mark.raise_to(3)
    await mark.reached(7)


async def test_each_waits_for_its_own_number() -> None:
    mark, came = Watermark(), []

    async def wait(number: int) -> None:
        await mark.reached(number)
        came.append(number)

    async with create_task_group() as tasks:
        for number in (9, 5, 7):
            tasks.start_soon(wait, number)
        await checkpoint()
        mark.raise_to(7)
        for _ in range(3):
            await checkpoint()
        assert sorted(came) == [5, 7]
        mark.raise_to(9)
    assert sorted(came) == [5, 7, 9]


async def test_who_stops_waiting_is_not_waited_for() -> None:
    mark = Watermark()
    with move_on_after(0):
        await mark.reached(1)
    mark.raise_to(1)
    await mark.reached(1)
