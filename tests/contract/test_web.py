"""One body for every `Web`: at hand, and through the gate."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from anyio import fail_after

from core.gate import Session, hash_of, open_door
from protos.errors import Denied, Unavailable
from protos.ids import new_id
from protos.mad import Context
from protos.remote import connect, ports_of
from protos.remote.session import translating
from protos.remote.web import RemoteWeb
from protos.v1.session_pb2 import Assignment
from protos.v1.web_pb2 import Fetched, FetchRequest, Header, RequestHead
from protos.v1.web_pb2_grpc import WebStub
from protos.web import Web
from tests.a_site import a_site
from tests.a_web import AWeb

HERE, GATE = "at hand", "through the gate"
TOKEN = "t" * 43
NOTHING = cast(Any, None)  # behind the ports that are not looked at here
ROADS = pytest.mark.parametrize("road", [HERE, GATE])


@asynccontextmanager
async def a_web(road: str, directory: Path) -> AsyncIterator[tuple[Web, AWeb]]:
    async with AsyncExitStack() as stack:
        stack.enter_context(fail_after(60))
        site = stack.enter_context(a_site())
        web = AWeb({"https://shop.test": site, "https://closed.test": "http://127.0.0.1:1"})
        if road == HERE:
            yield web, web
            return
        session = Session(lease_s=10, token=hash_of(TOKEN))
        session.assign(Context(NOTHING, NOTHING, Assignment(participant="marco"), web=web))
        await stack.enter_async_context(open_door(directory, session))
        remote = await stack.enter_async_context(connect(f"unix:{directory}/gate.sock", TOKEN, on_end=lambda: None))
        yield ports_of(remote, await remote.assigned()).web, web


async def got(web: Web, url: str, method: str = "GET", *chunks: bytes) -> tuple[int, bytes, Fetched]:
    async def body() -> AsyncIterator[bytes]:
        for each in chunks:
            yield each

    head = RequestHead(id=new_id(), method=method, url=url, headers=[Header(name="X-Mine", value=b"yes")])
    status, data, end = 0, b"", Fetched()
    async for event in web.fetch(head, body() if chunks else None):
        match event.WhichOneof("kind"):
            case "head":
                status = event.head.status
            case "bytes":
                data += event.bytes
            case "end":
                end = event.end
    return status, data, end


@ROADS
async def test_an_answer_is_head_bytes_and_end(road: str, tmp_path: Path) -> None:
    async with a_web(road, tmp_path) as (web, behind):
        status, data, end = await got(web, "https://shop.test/goods")
        assert status == 200
        assert b'"path": "/goods"' in data
        assert end.bytes_received == len(data)
        assert behind.heads[0].headers[0].name == "X-Mine"


@ROADS
async def test_large_bodies_pass_in_both_directions(road: str, tmp_path: Path) -> None:
    async with a_web(road, tmp_path) as (web, behind):
        _, _, end = await got(web, "https://shop.test/", "POST", *[b"a" * 262_144] * 8)
        assert end.bytes_sent == len(behind.bodies[0]) == 8 * 262_144
        _, data, _ = await got(web, "https://shop.test/large")
        assert len(data) == 64 * 65536


@ROADS
async def test_a_denial_keeps_its_type_its_sentence_and_what_would_be_needed(road: str, tmp_path: Path) -> None:
    async with a_web(road, tmp_path) as (web, _):
        with pytest.raises(Denied, match="rule host") as refused:
            await got(web, "https://bank.test/")
        assert refused.value.next == "Add a rule."
        with pytest.raises(Unavailable):
            await got(web, "https://closed.test/")


@ROADS
async def test_a_request_with_a_body_that_is_refused_at_its_head_hears_why_each_time(road: str, tmp_path: Path) -> None:
    async with a_web(road, tmp_path) as (web, _):
        for _ in range(200):
            with pytest.raises(Denied, match="rule host"):
                await got(web, "https://bank.test/", "POST", b"some", b"of it")


@ROADS
async def test_a_body_that_breaks_off_breaks_the_request_with_the_callers_own_error(road: str, tmp_path: Path) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise KeyError("the rest is gone")

    async with a_web(road, tmp_path) as (web, behind):
        with pytest.raises(KeyError):
            async for _ in web.fetch(RequestHead(id=new_id(), method="POST", url="https://shop.test/"), half()):
                pass
        assert behind.bodies == []
        assert (await got(web, "https://shop.test/after"))[0] == 200


@ROADS
async def test_whoever_stops_reading_drops_the_request(road: str, tmp_path: Path) -> None:
    async with a_web(road, tmp_path) as (web, _):
        events = web.fetch(RequestHead(id=new_id(), method="GET", url="https://shop.test/large"))
        async for event in events:
            if event.WhichOneof("kind") == "bytes":
                break
        await events.aclose()  # type: ignore[attr-defined]  # both are generators
        assert (await got(web, "https://shop.test/after"))[0] == 200


async def test_a_stream_that_ends_before_the_part_that_says_it_is_the_last_sends_nothing_on(tmp_path: Path) -> None:
    head = RequestHead(id=new_id(), method="POST", url="https://shop.test/")
    async with a_web(GATE, tmp_path) as (web, behind):
        session = cast(RemoteWeb, web)._session

        async def parts(last: FetchRequest) -> AsyncIterator[FetchRequest]:
            yield FetchRequest(head=head, more=True)
            yield last

        async def sent(last: FetchRequest) -> None:
            with translating():
                async for _ in WebStub(session.channel).Fetch(parts(last), metadata=session.metadata):
                    pass

        with pytest.raises(Unavailable, match="broke off"):
            await sent(FetchRequest(bytes=b"half", more=True))
        assert behind.bodies == []
        await sent(FetchRequest(bytes=b"whole"))
        assert behind.bodies == [b"whole"]
