"""Admission is a queue: in order, within limits, and nothing is lost by giving up."""

from collections.abc import Callable
from functools import partial

import pytest
from anyio import CancelScope, Event, create_task_group, fail_after, wait_all_tasks_blocked

from core.admission import Admission
from protos.errors import Exhausted


async def test_runs_are_admitted_in_order_and_no_more_than_allowed() -> None:
    admission, order, release = Admission(max_running=2, memory_mb=1000), list[int](), [Event() for _ in range(4)]

    async def run(number: int) -> None:
        async with admission.share(100):
            order.append(number)
            await release[number].wait()

    with fail_after(60):
        async with create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(run, number)
            await wait_all_tasks_blocked()
            assert order == [0, 1]
            assert admission.waiting == 2
            for number in (1, 0, 2, 3):
                release[number].set()
                await wait_all_tasks_blocked()
            assert order == [0, 1, 2, 3]


async def test_a_large_one_in_front_is_not_overtaken_by_small_ones() -> None:
    admission, order, release = Admission(max_running=10, memory_mb=100), list[str](), Event()

    async def run(name: str, memory_mb: int) -> None:
        async with admission.share(memory_mb):
            order.append(name)
            await release.wait()

    with fail_after(60):
        async with create_task_group() as tasks:
            for name, memory in (("first", 60), ("large", 80), ("small", 10)):
                tasks.start_soon(run, name, memory)
                await wait_all_tasks_blocked()
            assert order == ["first"]
            release.set()


async def test_one_that_gives_up_waiting_makes_room_for_the_next() -> None:
    admission, order, release = Admission(max_running=1, memory_mb=100), list[str](), Event()
    scope = CancelScope()

    async def hold() -> None:
        async with admission.share(10):
            await release.wait()

    async def give_up() -> None:
        with scope:
            async with admission.share(10):
                order.append("gave up")

    async def go_on() -> None:
        async with admission.share(10):
            order.append("went on")

    with fail_after(60):
        async with create_task_group() as tasks:
            each: Callable[[], object]
            for each in (hold, give_up, go_on):
                tasks.start_soon(each)
                await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            assert admission.waiting == 1
            release.set()
    assert order == ["went on"]


async def test_whoever_asks_for_much_makes_only_their_own_wait() -> None:
    admission, order, release = Admission(max_running=1, memory_mb=100), list[str](), Event()

    async def run(name: str) -> None:
        async with admission.share(10, asker=name[0]):
            order.append(name)
            await release.wait()

    with fail_after(60):
        async with create_task_group() as tasks:
            names = ["a0", "a1", "a2", "a3", "b1", "b2", "c1"]
            for name in names:
                tasks.start_soon(run, name)
                await wait_all_tasks_blocked()
            askers = [each[0] for each in names[1:]]
            ahead = {each: admission.ahead(askers, place) for place, each in enumerate(names[1:])}
            release.set()
    assert order == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]
    assert sorted(ahead, key=ahead.__getitem__) == order[1:]
    assert sorted(ahead.values()) == list(range(6))
    assert admission.waiting == 0


async def test_what_can_never_fit_is_refused_with_both_numbers() -> None:
    admission = Admission(max_running=1, memory_mb=100)
    with pytest.raises(Exhausted, match=r"200 MiB.*100 MiB"):
        async with admission.share(200):
            pass


async def test_what_runs_already_is_counted_though_it_does_not_wait() -> None:
    admission = Admission(max_running=1, memory_mb=100)
    async with admission.share(10), admission.share(10, at_once=True):
        assert admission.waiting == 0


async def test_guests_leave_one_place_to_whoever_runs_the_lab() -> None:
    admission, order, release = Admission(max_running=3, memory_mb=100), list[str](), Event()

    async def run(name: str, *, is_guest: bool) -> None:
        async with admission.share(10, asker=name[0], is_guest=is_guest):
            order.append(name)
            await release.wait()

    with fail_after(60):
        async with create_task_group() as tasks:
            for name in ("a1", "a2", "b1", "b2"):
                tasks.start_soon(partial(run, name, is_guest=True))
                await wait_all_tasks_blocked()
            assert order == ["a1", "a2"]
            tasks.start_soon(partial(run, "operator", is_guest=False))
            await wait_all_tasks_blocked()
            assert order == ["a1", "a2", "operator"]
            release.set()
    assert sorted(order) == ["a1", "a2", "b1", "b2", "operator"]


async def test_where_there_is_one_place_guests_may_have_it() -> None:
    with fail_after(60):
        async with Admission(max_running=1, memory_mb=100).share(10, asker="a", is_guest=True):
            pass
