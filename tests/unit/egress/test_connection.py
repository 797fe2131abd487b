"""One connection: an answer as it comes, and when it may be used for another."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import h11
import pytest
from anyio import ClosedResourceError, EndOfStream, create_task_group, fail_after
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from core.egress.connection import Connection
from core.egress.heads import framed
from core.egress.urls import canonical
from core.egress.wire import Wire
from periphery.proxy.authority import Authority
from protos.errors import Unavailable

ADDRESS = ip_address("93.184.215.14")
BODY = bytes(range(256)) * 200


@contextmanager
def two_ends() -> Iterator[tuple[Wire, Wire]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield Wire(ours), Wire(theirs)


async def asked(connection: Connection, method: str = "GET") -> h11.Response:
    await connection.send(framed(method, canonical("http://shop.test/"), [], 0), 5)
    await connection.send(h11.EndOfMessage(), 5)
    return await connection.head()


async def read(connection: Connection) -> list[bytes]:
    return [each async for each in connection.body(5)]


def answer(*headers: str, body: bytes = b"", status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *headers, "", "")).encode() + body


@pytest.mark.parametrize("parts", [1, 2, 3, 100])
async def test_a_body_whose_length_was_said_is_handed_on_whole_and_another_may_follow(parts: int) -> None:
    said = answer(f"Content-Length: {len(BODY)}", body=BODY)
    size = -(-len(said) // parts)
    with two_ends() as (ours, theirs), fail_after(30):
        connection = Connection(ours, ADDRESS)

        async def serve() -> None:
            for start in range(0, len(said), size):
                await theirs.send(said[start : start + size])
                await checkpoint()

        for _ in range(2):
            async with create_task_group() as tasks:
                tasks.start_soon(serve)
                assert (await asked(connection)).status_code == 200
                assert b"".join(await read(connection)) == BODY
            assert connection.is_reusable
            connection.renew()
            assert connection.is_fresh(60)


@pytest.mark.parametrize(
    ("method", "said", "body", "reusable"),
    [
        ("GET", answer("Content-Length: 4", body=b"good"), b"good", True),
        ("GET", answer("Content-Length: 4", body=b"good" + b"evil"), b"good", False),
        ("GET", answer("Content-Length: 0"), b"", True),
        ("GET", answer("Content-Length: 0", body=b"evil"), b"", False),
        ("GET", answer("Content-Length: 4", "Connection: close", body=b"good"), b"good", False),
        ("GET", answer("Content-Length: 4", body=b"good", status="HTTP/1.0 200 OK"), b"good", False),
        ("HEAD", answer("Content-Length: 4"), b"", True),
        ("HEAD", answer("Content-Length: 4", body=b"evil"), b"", False),
        ("GET", answer("Content-Length: 4", status="HTTP/1.1 304 Not Modified"), b"", True),
        ("GET", answer("Content-Length: 4", status="HTTP/1.1 304 Not Modified", body=b"evil"), b"", False),
        ("GET", answer("Transfer-Encoding: chunked", body=b"4\r\ngood\r\n0\r\n\r\n"), b"good", True),
        ("GET", answer("Transfer-Encoding: chunked", body=b"4\r\ngood\r\n0\r\n\r\nevil"), b"good", False),
    ],
)
async def test_what_ends_where_it_was_said_may_be_followed_by_another(
    method: str, said: bytes, body: bytes, reusable: bool
) -> None:
    with two_ends() as (ours, theirs), fail_after(30):
        connection = Connection(ours, ADDRESS)
        await theirs.send(said)
        await asked(connection, method)
        assert b"".join(await read(connection)) == body
        assert connection.is_reusable is reusable


async def test_what_comes_behind_an_answer_a_moment_later_ends_the_connection() -> None:
    with two_ends() as (ours, theirs), fail_after(30):
        connection = Connection(ours, ADDRESS)
        await theirs.send(answer("Content-Length: 4", body=b"good"))
        await asked(connection)
        assert await read(connection) == [b"good"]
        connection.renew()
        assert connection.is_fresh(60)
        await theirs.send(answer("Content-Length: 4", body=b"evil"))
        assert not connection.is_fresh(60)


async def test_a_body_that_ends_before_its_length_is_no_answer() -> None:
    with two_ends() as (ours, theirs), fail_after(30):
        connection = Connection(ours, ADDRESS)
        await theirs.send(answer("Content-Length: 5", body=b"good"))
        await theirs.send_eof()
        await asked(connection)
        with pytest.raises(Unavailable, match="1 bytes before its end"):
            await read(connection)


async def test_a_body_that_does_not_go_on_is_given_up() -> None:
    with two_ends() as (ours, theirs), fail_after(30):
        connection = Connection(ours, ADDRESS)
        await theirs.send(answer("Content-Length: 5", body=b"good"))
        await asked(connection)
        pieces = connection.body(0.01)
        assert await anext(pieces) == b"good"
        with pytest.raises(Unavailable, match="sends nothing"):
            await anext(pieces)


async def test_what_has_come_over_tls_is_one_piece_and_not_one_for_each_record(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    said = answer(f"Content-Length: {len(BODY)}", body=BODY)  # of four records
    with two_ends() as (ours, theirs), fail_after(30):
        streams: dict[str, TLSStream] = {}

        async def shake(name: str, wire: Wire, context: ssl.SSLContext) -> None:
            host = "shop.test" if name == "ours" else None
            streams[name] = await TLSStream.wrap(
                wire, hostname=host, server_side=host is None, ssl_context=context, standard_compatible=False
            )

        async with create_task_group() as tasks:
            tasks.start_soon(shake, "ours", ours, trusting)
            tasks.start_soon(shake, "theirs", theirs, authority.context("shop.test"))
        connection = Connection(streams["ours"], ADDRESS)
        await streams["theirs"].send(said)
        await asked(connection)
        assert await read(connection) == [BODY]
        assert connection.is_reusable


async def test_what_has_come_is_read_at_once_and_nothing_beyond_what_was_asked_for() -> None:
    with two_ends() as (ours, theirs), fail_after(30):
        await theirs.send(b"one two")
        reading = ours.receive(3)
        with pytest.raises(StopIteration) as told:
            reading.send(None)
        assert told.value.value == b"one"
        assert await ours.receive() == b" two"
        await theirs.send_eof()
        with pytest.raises(EndOfStream):
            await ours.receive()


async def test_who_waits_to_read_is_woken_and_what_is_sent_is_sent_whole() -> None:
    size = 3_000_000  # more than waits in between
    got = bytearray()
    with two_ends() as (ours, theirs), fail_after(30):

        async def receive() -> None:
            while len(got) < size:
                got.extend(await theirs.receive())

        async with create_task_group() as tasks:
            tasks.start_soon(receive)
            await checkpoint()
            await ours.send(b"x" * size)
    assert got == b"x" * size


async def test_who_waits_on_a_connection_that_is_closed_hears_it() -> None:
    with two_ends() as (ours, _), fail_after(30):
        async with create_task_group() as tasks:

            async def close() -> None:
                await ours.aclose()
                await ours.aclose()

            tasks.start_soon(close)
            with pytest.raises(ClosedResourceError):
                await ours.receive()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await ours.receive()
