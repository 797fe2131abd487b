"""The warm pool, over things that count themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from anyio import CancelScope, Event, create_task_group, fail_after, sleep
from anyio.lowlevel import checkpoint

from sandbox.pool import Pool


@dataclass(eq=False)
class Thing:
    number: int
    end: Event = field(default_factory=Event)


class Source:
    """Opens things one after another and knows which are open."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.opened = 0
        self.open_now: set[Thing] = set()
        self.most = 0
        self.gate = Event()
        self.gate.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Thing]:
        await self.gate.wait()
        if self.broken:
            raise ConnectionError("the engine is away")
        self.opened += 1
        thing = Thing(self.opened)
        self.open_now.add(thing)
        self.most = max(self.most, len(self.open_now))
        try:
            yield thing
        finally:
            with CancelScope(shield=True):
                await sleep(0.001)
            self.open_now.remove(thing)


async def ready(pool: Pool[Thing], count: int) -> None:
    with fail_after(60):
        while pool.statistics().ready != count:
            await checkpoint()


async def test_a_ready_one_is_handed_over_without_opening_another() -> None:
    source = Source()
    async with Pool(source.open, 2) as pool:
        await ready(pool, 2)
        source.gate = Event()  # from now on nothing opens
        with fail_after(60):
            async with pool.claim() as thing:
                assert thing.number in (1, 2)


async def test_a_claim_with_nothing_ready_opens_its_own() -> None:
    source = Source()
    async with Pool(source.open, 0) as pool, pool.claim() as thing:
        assert thing in source.open_now
        assert pool.statistics().claimed == 1
    assert source.open_now == set()


async def test_nothing_is_given_twice() -> None:
    source = Source()
    seen: list[int] = []

    async def use(pool: Pool[Thing]) -> None:
        async with pool.claim() as thing:
            seen.append(thing.number)
            await checkpoint()

    async with Pool(source.open, 3) as pool:
        for _ in range(5):
            await ready(pool, 3)
            async with create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(use, pool)
    assert len(seen) == len(set(seen)) == 30
    assert source.open_now == set()


async def test_a_claimed_one_is_replaced_at_once_and_the_limit_is_kept() -> None:
    source = Source()
    async with Pool(source.open, 2) as pool:
        await ready(pool, 2)
        async with pool.claim(), pool.claim():
            await ready(pool, 2)
            assert len(source.open_now) == 4
        for _ in range(100):
            await checkpoint()
        assert len(source.open_now) == 2
    assert source.most == 4


async def test_what_was_claimed_is_closed_when_the_claim_returns() -> None:
    source = Source()
    async with Pool(source.open, 1) as pool:
        await ready(pool, 1)
        async with pool.claim() as thing:
            pass
        assert thing not in source.open_now


async def test_a_cancelled_claim_leaves_nothing_behind() -> None:
    source = Source()
    async with Pool(source.open, 1) as pool:
        for pause in (0.0, 0.0005, 0.001, 0.002, 0.005):
            async with create_task_group() as tasks:

                async def use() -> None:
                    async with pool.claim():
                        await sleep(5)

                tasks.start_soon(use)
                tasks.start_soon(use)
                await sleep(pause)
                tasks.cancel_scope.cancel()
            await ready(pool, 1)
            assert len(source.open_now) == 1
            assert pool.statistics().claimed == 0
    assert source.open_now == set()


async def test_an_error_while_using_one_reaches_its_user_and_not_the_pool() -> None:
    source = Source()
    async with Pool(source.open, 1) as pool:
        await ready(pool, 1)
        with pytest.raises(ZeroDivisionError):
            async with pool.claim():
                raise ZeroDivisionError
        await ready(pool, 1)
        assert pool.statistics().failures == 0


async def test_failures_are_retried_and_shown() -> None:
    source = Source(broken=True)
    async with Pool(source.open, 1, retry_after=0.01) as pool:
        with fail_after(60):
            while pool.statistics().failures < 2:
                await sleep(0.005)
        assert pool.statistics().last_error == "the engine is away"
        with pytest.raises(ConnectionError):
            async with pool.claim():
                pass
        source.broken = False
        await ready(pool, 1)
        assert pool.statistics().last_error == ""


async def test_one_that_dies_while_it_waits_is_replaced() -> None:
    source = Source()
    async with Pool(source.open, 1, ended=lambda thing: thing.end.wait(), retry_after=0.01) as pool:
        await ready(pool, 1)
        [first] = source.open_now
        first.end.set()
        with fail_after(60):
            while first in source.open_now:
                await checkpoint()
        await ready(pool, 1)
        [second] = source.open_now
        assert second is not first
        assert pool.statistics().failures == 1
        assert pool.statistics().last_error == ""


async def test_one_that_ends_in_use_is_its_users_business() -> None:
    source = Source()
    async with Pool(source.open, 1, ended=lambda thing: thing.end.wait()) as pool:
        await ready(pool, 1)
        async with pool.claim() as thing:
            thing.end.set()
            await sleep(0.01)
            assert thing in source.open_now
        assert pool.statistics().failures == 0


async def test_leaving_the_pool_closes_all_that_waits() -> None:
    source = Source()
    async with Pool(source.open, 3) as pool:
        await ready(pool, 3)
    assert source.open_now == set()
    assert pool.statistics().ready == 0
