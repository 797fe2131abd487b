"""Names are resolved in threads that cannot be stopped, so nobody gets too many of them."""

from collections.abc import Sequence
from threading import Event

import pytest
from anyio import create_task_group, fail_after, to_thread
from anyio.lowlevel import checkpoint

from core.egress.names import AT_ONCE_EACH, Names, not_reached
from protos.errors import Denied, Exhausted, Unavailable


async def test_a_thread_that_was_given_up_on_counts_until_it_is_back() -> None:
    go_on, asked = Event(), []

    def hangs(host: str) -> Sequence[str]:
        asked.append(host)
        if host.startswith("hangs"):
            go_on.wait(30)
        return ["93.184.215.14"]

    names = Names({}, hangs)

    async def give_up(host: str) -> None:
        with pytest.raises(Unavailable):
            await names.find(host, "greedy", 0.2)

    with fail_after(30):
        try:
            async with create_task_group() as tasks:
                for number in range(AT_ONCE_EACH):
                    tasks.start_soon(give_up, f"hangs{number}.test")
            with pytest.raises(Exhausted):
                await names.find("one-more.test", "greedy", 5)
            assert [str(each) for each in await names.find("one-more.test", "other", 5)] == ["93.184.215.14"]
        finally:
            go_on.set()
        while names._asking:
            await checkpoint()
        assert len(await names.find("again.test", "greedy", 5)) == 1


async def test_what_is_known_and_what_is_an_address_is_not_asked_for() -> None:
    def fails(host: str) -> Sequence[str]:
        raise AssertionError(host)

    names = Names({"intranet.test": ["10.0.0.1", "fd00::1"]}, fails)
    assert [str(each) for each in await names.find("intranet.test", "x", 1)] == ["10.0.0.1", "fd00::1"]
    assert [str(each) for each in await names.find("192.0.2.1", "x", 1)] == ["192.0.2.1"]
    assert [str(each) for each in await names.find("2001:db8::1", "x", 1)] == ["2001:db8::1"]


@pytest.mark.parametrize("said", [[], ["no address"], OSError("unknown"), UnicodeError("too long")])
async def test_what_cannot_be_resolved_is_refused_like_what_leads_inside(said: Sequence[str] | Exception) -> None:
    def answers(host: str) -> Sequence[str]:
        if isinstance(said, Exception):
            raise said
        return said

    names = Names({}, answers)
    with pytest.raises(Denied) as told:
        await names.find("nobody.test", "x", 5)
    assert str(told.value) == str(not_reached("nobody.test"))
    await to_thread.run_sync(lambda: None)
    assert not names._asking
