"""One connection over real sockets, with limits of a tenth of a second: whoever is late is hung up on, nobody else."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from anyio import BrokenResourceError, Event, connect_tcp, create_task_group, fail_after, sleep
from anyio.abc import SocketAttribute, SocketStream
from starlette.types import Receive, Scope, Send

from core.grace.door.limits import Bucket, Crowd, Limits
from core.grace.door.serving import serve_on
from tests.surface import pieces

QUICK = Limits(head_s=0.2, body_s=0.2, body_rate=1000.0, reader_s=0.2, idle_s=1)
HEADS_LATER = replace(QUICK, head_s=30)  # for clients that are honest, and may be slow on a busy machine
BODIES_LATER = replace(HEADS_LATER, body_s=30)
LARGE = 64 << 20


class Application:
    """Reads all, and answers with what was asked for; notes who left before the end."""

    def __init__(self) -> None:
        self.left, self.done = Event(), Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                self.left.set()
                return
            size, more = size + len(part["body"]), part.get("more_body", False)
        pause = Event()
        if scope["path"] == "/slow":
            async with create_task_group() as tasks:
                tasks.start_soon(self._until_gone, receive, pause)
                await pause.wait()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        left = LARGE if scope["path"] == "/large" else 0
        while left:
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            left -= 1 << 16
        await send({"type": "http.response.body", "body": b"%d" % size})
        if scope["path"] == "/large":
            self.done.set()  # also where nobody is there any more

    async def _until_gone(self, receive: Receive, pause: Event) -> None:
        assert (await receive())["type"] == "http.disconnect"
        self.left.set()
        pause.set()


@asynccontextmanager
async def served(app: Any, limits: Limits = QUICK) -> AsyncIterator[int]:
    """A listener of `app`, and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    with listener:
        async with create_task_group() as tasks:

            async def serve(*, task_status: Any) -> None:
                await serve_on(app, Event(), listener, limits, task_status)

            await tasks.start(serve)
            yield listener.getsockname()[1]
            tasks.cancel_scope.cancel()


async def rest(stream: SocketStream) -> bytes:
    """All that comes until the other side is done."""
    with fail_after(30):
        return b"".join([each async for each in pieces(stream)])


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET /%s" % (b"a" * 500)])
async def test_a_head_that_does_not_end_is_hung_up_on(said: bytes) -> None:
    async with served(Application()) as port, await connect_tcp("127.0.0.1", port) as stream:
        if said:
            await stream.send(said)
        assert await rest(stream) == b""


async def test_a_head_that_drips_has_no_more_time_than_any_other() -> None:
    async with served(Application()) as port, await connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            with suppress(BrokenResourceError):  # it was hung up on, at last
                while True:
                    await stream.send(b"X: y\r\n")
                    await sleep(0.02)

        async with create_task_group() as tasks:
            tasks.start_soon(drip)
            assert await rest(stream) == b""
            tasks.cancel_scope.cancel()


async def test_a_body_that_stops_is_hung_up_on_and_its_reader_hears_of_it() -> None:
    app = Application()
    async with served(app, HEADS_LATER) as port, await connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert await rest(stream) == b""
        with fail_after(30):
            await app.left.wait()


async def test_a_body_that_keeps_coming_has_the_time_that_it_takes() -> None:
    async with served(Application(), BODIES_LATER) as port, await connect_tcp("127.0.0.1", port) as stream:
        size = 2 << 20
        await stream.send(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(32):
            await stream.send(bytes(size // 32))
        assert (await rest(stream)).endswith(b"%x\r\n%d\r\n0\r\n\r\n" % (len(str(size)), size))


async def test_who_does_not_read_is_hung_up_on() -> None:
    app = Application()
    async with served(app, HEADS_LATER) as port:
        quiet = socket.socket()
        quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        quiet.connect(("127.0.0.1", port))
        with quiet:
            quiet.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            async with await connect_tcp("127.0.0.1", port) as honest:  # is served at once
                await honest.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await rest(honest)).startswith(b"HTTP/1.1 200 ")
            with fail_after(30):
                await app.done.wait()  # it would wait for ever


async def test_who_is_served_may_wait_as_long_as_it_takes() -> None:
    """The timers are for clients that are waited for, and not for answers that take a while."""
    app = Application()
    async with served(app) as port:
        async with await connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            async with await connect_tcp("127.0.0.1", port) as other:
                assert await rest(other) == b""  # the time of a head is over
            assert not app.left.is_set()
        with fail_after(30):
            await app.left.wait()


async def test_what_is_no_http_hears_so_in_json_with_the_headers_of_every_answer() -> None:
    async with served(Application(), HEADS_LATER) as port, await connect_tcp("127.0.0.1", port) as stream:
        assert stream.extra(SocketAttribute.remote_port) == port
        await stream.send(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = (await rest(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"content-security-policy: default-src 'none'" in head
        assert json.loads(body)["error"]["code"] == "INVALID_ARGUMENT"


class Wire:
    """A connection that somebody waits for, or that is served."""

    def __init__(self, *, is_served: bool = False) -> None:
        self.is_served, self.is_up = is_served, True

    def hang_up(self) -> None:
        self.is_up = False


def test_strangers_make_place_for_one_another_and_who_is_served_goes_last() -> None:
    crowd = Crowd(Limits(strangers=3))
    wires = [Wire(is_served=True), Wire(), Wire(), Wire(), Wire()]
    for each in wires:
        crowd.enter(each)
    assert [each.is_up for each in wires] == [True, False, False, True, True]


def test_one_token_has_its_share_of_places_and_strangers_have_theirs() -> None:
    crowd = Crowd(Limits(strangers=1, known=3, known_each=2))
    wires = [Wire(is_served=True) for _ in range(6)]
    known = []
    for each, token in zip(wires, ("a", "a", "a", "b", "b", "c"), strict=True):
        crowd.enter(each)
        known.append(crowd.know(each, token, client=False))
    assert known == [True, True, False, True, False, False]
    crowd.leave(wires[0])
    crowd.enter(wires[5])
    assert crowd.know(wires[5], "c", client=False)


def test_clients_leave_the_operator_places_however_many_they_hold() -> None:
    crowd = Crowd(Limits(known=5, clients=3, known_each=3))
    held = [crowd.know(Wire(is_served=True), each, client=True) for each in ("ann", "ann", "bob", "bob", "carl")]
    assert held == [True, True, True, False, False]
    assert [crowd.know(Wire(is_served=True), "session", client=False) for _ in range(3)] == [True, True, False]


def test_a_connection_that_lies_idle_makes_place_and_whoever_has_the_most_loses_it() -> None:
    crowd = Crowd(Limits(known=5, clients=3, known_each=3))
    wires = [Wire(is_served=True), Wire(), Wire(), Wire()]
    for each, token in zip(wires, ("ann", "ann", "bob", "carl"), strict=True):
        assert crowd.know(each, token, client=True)
    assert [each.is_up for each in wires] == [True, False, True, True]
    page = [Wire() for _ in range(4)]
    assert all(crowd.know(each, "session", client=False) for each in page)
    assert [each.is_up for each in (*wires, *page)] == [True, False, True, True, False, False, True, True]


def test_a_bucket_gives_what_it_holds_and_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("core.grace.door.limits.time.monotonic", lambda: now)
    bucket = Bucket(rate=2.0, burst=3.0)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now += 100
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
