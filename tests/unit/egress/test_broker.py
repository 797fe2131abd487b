"""Connections that are kept are not lost, and what a broker does not reach looks the same whatever the cause."""

import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import cast

import pytest
from anyio import CapacityLimiter, Event, create_task_group, fail_after, wait_all_tasks_blocked

from core.egress.addresses import Address
from core.egress.broker import Broker, _Exchange, _Owner
from core.egress.connection import Connection
from core.egress.limits import USUAL
from core.egress.request import Request, Traffic
from core.egress.settings import Egress
from core.egress.urls import canonical
from protos.errors import Denied, Error


@dataclass(eq=False)
class Kept:
    """A connection as the broker keeps it, whose closing takes as long as it is held."""

    fresh: bool
    address: Address = field(default_factory=lambda: ip_address("93.184.215.14"))
    closing: Event = field(default_factory=Event)
    may_close: Event = field(default_factory=Event)

    def is_fresh(self, seconds: float) -> bool:
        return self.fresh

    async def aclose(self) -> None:
        self.closing.set()
        await self.may_close.wait()


async def test_a_connection_that_is_put_back_while_another_is_closed_is_not_lost() -> None:
    broker, owner, place = Broker(Egress()), _Owner(CapacityLimiter(1)), ("https", "x.test", 443)
    fresh, stale, late = Kept(True), Kept(False), Kept(True)
    owner.idle[place] = cast("list[Connection]", [fresh, stale])
    given: list[object] = []

    async def again() -> None:
        given.append(await broker._again(owner, place, USUAL))

    with fail_after(30):
        async with create_task_group() as tasks:
            tasks.start_soon(again)
            await stale.closing.wait()
            owner.idle.setdefault(place, []).append(cast("Connection", late))
            stale.may_close.set()
    left = owner.idle.get(place, [])
    assert {id(each) for each in (*given, *left)} == {id(fresh), id(late)}


async def test_a_piece_that_is_there_is_taken_at_once_and_no_more_are_read_ahead_than_one() -> None:
    broker, owner = Broker(Egress()), _Owner(CapacityLimiter(1))
    request = Request("run:1", "GET", canonical("http://x.test/"), [], 0)
    exchange = _Exchange(broker, owner, request, nothing(), Traffic())
    told: list[bytes] = []

    async def tell() -> None:
        for each in (b"one", b"two", b"three"):
            await exchange._tell(each)
            told.append(each)

    with fail_after(30):
        async with create_task_group() as tasks:
            tasks.start_soon(tell)
            assert await exchange.heard() == b"one"
            await wait_all_tasks_blocked()
            assert told == [b"one", b"two"]
            at_once = exchange.heard()
            with pytest.raises(StopIteration) as piece:
                at_once.send(None)
            assert piece.value.value == b"two"
            assert await exchange.heard() == b"three"
        exchange.over.set()
        assert await exchange.heard() is None


async def nothing() -> AsyncIterator[bytes]:
    return
    yield


def nobody_knows(host: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, host)


async def test_a_name_that_leads_inside_and_one_that_nobody_knows_are_told_alike() -> None:
    told: list[tuple[object, ...]] = []
    why: list[str] = []
    async with Broker(Egress(names={"one.test": ("10.0.0.1",), "two.test": ("::1",)}), ask=nobody_knows) as broker:
        for host in ("one.test", "two.test", "nobody.test"):
            request, traffic = Request("run:1", "GET", canonical(f"http://{host}/"), [], 0), Traffic()
            with pytest.raises(Error) as error:
                _ = [each async for each in broker.fetch(request, nothing(), traffic)]
            told.append((type(error.value), error.value.message.replace(host, "HOST"), error.value.next))
            why.append(traffic.why)
    assert len(set(told)) == 1
    assert told[0][0] is Denied
    assert why == ["the address is private", "the address is loopback", "nobody knows the name"]
