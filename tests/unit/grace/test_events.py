"""A stream to one client: it beats, it waits for who is slow, and it ends when it should."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, sleep_forever

from core.grace.door import events
from core.grace.door.events import Changes, EventStream, Item
from core.rogers.entry import Row


class Client:
    """The other side of an ASGI response: `limit` parts are taken at once, the rest when `ready` is set."""

    def __init__(self, limit: int = 1000) -> None:
        self.said: list[bytes] = []
        self.ended = False
        self.leaves, self.ready, self.stuck = Event(), Event(), Event()
        self._limit = limit

    async def receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, part: Any) -> None:
        if len(self.said) >= self._limit and not self.ready.is_set():
            self.stuck.set()
            await self.ready.wait()
        if part["type"] == "http.response.body":
            if part["body"]:
                self.said.append(part["body"])
            self.ended = not part.get("more_body", False)


def source(items: Callable[[], AsyncGenerator[Item, None]]) -> Any:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[Item]]:
        yield items()

    return opened


async def three() -> AsyncGenerator[Item, None]:
    for number in (1, 2, 0):
        yield number, {"id": f"m{number}"}


async def endless() -> AsyncGenerator[Item, None]:
    yield 1, {"id": "m1"}
    await sleep_forever()


async def test_what_is_durable_has_its_sequence_and_the_end_is_said() -> None:
    client = Client()
    with fail_after(60):
        await EventStream(source(three), Event())({}, client.receive, client.send)
    assert client.said == [
        b'id: 1\ndata: {"id": "m1"}\n\n',
        b'id: 2\ndata: {"id": "m2"}\n\n',
        b'data: {"id": "m0"}\n\n',
        b"event: end\n\n",
    ]
    assert client.ended


async def test_a_quiet_stream_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)
    client = Client(limit=4)
    with fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(EventStream(source(endless), Event()), {}, client.receive, client.send)
            await client.stuck.wait()
            tasks.cancel_scope.cancel()
    assert client.said[1:] == [b":\n\n"] * 3


@pytest.mark.parametrize("who", ["client", "core"])
async def test_it_ends_at_once_when_either_side_does(who: str) -> None:
    client, closing = Client(), Event()
    with fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(EventStream(source(endless), closing), {}, client.receive, client.send)
            (client.leaves if who == "client" else closing).set()
    assert b"event: end\n\n" not in client.said  # more may come: the client shall ask again


async def test_the_source_is_read_no_faster_than_the_client_takes() -> None:
    taken = 0

    async def counting() -> AsyncGenerator[Item, None]:
        nonlocal taken
        for number in range(1, 101):
            taken = number
            yield number, {"id": "m"}

    client = Client(limit=5)
    with fail_after(60):
        async with create_task_group() as tasks:
            tasks.start_soon(EventStream(source(counting), Event()), {}, client.receive, client.send)
            await client.stuck.wait()
            assert taken == 6
            client.ready.set()
    assert len(client.said) == 101


async def test_whoever_waits_for_a_conversation_hears_of_it_and_of_no_other() -> None:
    changes = Changes()
    with changes.of("mine") as mine, changes.of("mine") as too, changes.of("other") as other:
        changes.committed([Row(1, "a", "run", b"", "mine", "", "", 0.0)])
        assert (mine.is_set(), too.is_set(), other.is_set()) == (True, True, False)
    changes.committed([Row(2, "b", "run", b"", "mine", "", "", 0.0)])  # nobody waits any more
    assert changes._waiting == {}
