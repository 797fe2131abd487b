"""The way out through the gate: a worker in a process of its own, the contract, the port, the broker, a real server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from anyio import fail_after
from anyio.abc import ByteStream

from core.gate import Session, hash_of, open_door
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Allowance
from protos.ids import new_id
from protos.v1.session_pb2 import Assignment
from tests.security.egress_world import World, a_world
from tests.servers.site import Asked, ok

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
async def world(anyio_backend: str) -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


@pytest.fixture(scope="module")
async def ask(world: World) -> AsyncIterator[Ask]:
    async with a_worker(world) as ask:
        yield ask


@asynccontextmanager
async def a_worker(world: World) -> AsyncIterator[Ask]:
    """A process at a door of the lab, that makes requests."""
    run = Assignment(participant="wanderer", run=new_id(), conversation=new_id())
    identity = Identity("wanderer", frozenset({"web"}), run=run.run, conversation=run.conversation)
    session = Session(lease_s=60, token=hash_of("once"))
    session.assign(context_for(world.lab.services, identity, run, Allowance(2**40, 2**40, 2**40)))
    with TemporaryDirectory(prefix="door") as directory:
        async with open_door(Path(directory), session):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.security.wanderer", f"unix:{directory}/gate.sock", "once"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 20,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            questions, answers = process.stdin, process.stdout

            async def ask(url: str, **more: Any) -> Any:
                questions.write(json.dumps({"url": url, **more}).encode() + b"\n")
                with fail_after(60):
                    told = json.loads(await answers.readline())
                return told if more.get("times") else told[0]

            try:
                yield ask
            finally:
                questions.close()
                await process.wait()


async def test_a_worker_reaches_what_it_may_with_large_bodies_both_ways(world: World, ask: Ask) -> None:
    world.answers["/large"] = ok(b"x" * 3_000_000)
    got = await ask(world.url("/large"), method="POST", upload=2_000_000)
    assert got == {"status": 200, "size": 3_000_000, "told": True, "sent": 2_000_000}
    assert world.site.asked[-1].body == bytes(2_000_000)
    assert world.site.asked[-1].headers["transfer-encoding"] == "chunked"
    got = await ask(world.https("/large"), headers={"Accept": "*/*"})
    assert (got["size"], got["told"]) == (3_000_000, True)
    outcomes = [each for each in await world.acts() if each["step"] == "outcome"]
    assert [(each["status"], each["bytes_received"]) for each in outcomes] == [(200, 3_000_000)] * 2
    assert not [each for each in outcomes if "failed" in each]


async def test_a_worker_hears_which_rule_refuses_it_and_what_would_be_needed(world: World, ask: Ask) -> None:
    got = await ask(world.hidden("inside.test"))
    assert (got["code"], got["message"].split(":")[0]) == ("PERMISSION_DENIED", "rule address")
    assert got["next"]
    assert "127.0.0.2" not in got["message"]  # where the intranet is, is not told
    got = await ask(world.url(), method="CONNECT")
    assert (got["code"], got["message"].split(":")[0]) == ("PERMISSION_DENIED", "rule method")
    got = await ask(world.url(), headers={"Transfer-Encoding": "chunked"})
    assert got["code"] == "INVALID_ARGUMENT"
    got = await ask("http://user@site.test/")
    assert got["code"] == "INVALID_ARGUMENT"
    got = await ask("http://site.test:1/")
    assert got["code"] == "UNAVAILABLE"
    assert world.inside.visits == 0


async def test_a_worker_that_leaves_an_answer_ends_the_exchange(world: World, ask: Ask) -> None:
    over = anyio.Event()

    async def endless(stream: ByteStream, asked: Asked) -> None:
        try:
            await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        finally:
            over.set()

    world.answers["/endless"] = endless
    assert (await ask(world.url("/endless"), leave=True))["status"] == 200
    with fail_after(20):
        await over.wait()
    assert (await ask(world.url("/honest")))["status"] == 200


async def test_many_requests_of_one_worker_side_by_side_are_all_answered(world: World, ask: Ask) -> None:
    world.answers["/many"] = ok(b"y" * 10_000)
    got = await ask(world.url("/many"), times=50)
    assert len(got) == 50
    assert all((each["status"], each["size"], each["told"]) == (200, 10_000, True) for each in got), got
