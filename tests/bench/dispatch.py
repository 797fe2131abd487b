"""From a call to the first word of the code it is for: cold, in a new sandbox, and warm, from the pool.

Measured is the time between the door's 202 and the moment that the core has the first message of the MAD's own code:
what a caller waits for beyond its request. The cold baseline is the plainest program that could do the same work: the
Docker API's create and start, of a container with the same limits, mounts and image, whose Python imports what a
worker imports and then says one byte through the socket directory. The two take turns.

A dispatch has durable commits on its path that no engine can spare it, so the limit in milliseconds is the figure plus
those, as this disk does them in the same minute, at the same percentile.
"""

import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio import fail_after, sleep

from core.lab import Lab
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.run import State
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import Message
from tests.bench.figure import Figure, in_turns
from tests.bench.plain import plain_docker
from tests.labs import EMADS, lab_of

IMAGES = ("base", "tests/emads/echo")
ROUNDS = 20
WARM_ROUNDS = 100
POOL = 4
WARM_P50_MS, WARM_P99_MS = 10.0, 50.0
COLD_RATIO = 1.25


@dataclass(frozen=True)
class Road:
    """One dispatch: how long it took, and how many commits there were on the way."""

    ms: float
    commits: int


async def run() -> list[Figure]:
    """Cold dispatch beside a plain container, warm dispatch beside its lone commits."""
    return [await cold(), *await warm()]


async def cold(rounds: int = ROUNDS) -> Figure:
    """The median of cold dispatches beside the median of plain containers."""
    async with lab_of(EMADS, images=IMAGES) as lab:

        async def ours() -> float:
            return (await dispatch(lab)).ms

        with plain_docker(lab.home.lab) as plain:
            of = await in_turns({"ours": ours, "plain": plain.start}, rounds)
    return Figure("cold dispatch", of["ours"], "ms", "a plain container, same imports", of["plain"], COLD_RATIO)


async def warm(rounds: int = WARM_ROUNDS) -> list[Figure]:
    """p50 and p99 of dispatches from a full pool."""
    async with lab_of(EMADS + f"[profile.echo]\nwarm = {POOL}\n", images=IMAGES) as lab:
        roads: list[Road] = []
        commits: list[float] = []
        for _ in range(rounds + 1):
            await filled(lab)
            roads.append(await dispatch(lab))
            commits.append(await lone_commit(lab.journal))
    number = statistics.median(each.commits for each in roads[1:])
    figures = []
    for percent, limit_ms in ((50, WARM_P50_MS), (99, WARM_P99_MS)):
        commit = percentile(commits, percent)
        name = f"limit: {limit_ms:g} ms + {number:g} lone commits of {commit:.2f}"
        took = percentile([each.ms for each in roads[1:]], percent)
        figures.append(Figure(f"warm dispatch, p{percent}", took, "ms", name, limit_ms + number * commit, 1.0))
    return figures


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that `percent` per cent are not above."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


async def dispatch(lab: Lab) -> Road:
    """Calls echo by the door, and waits for its run to be gone."""
    id, conversation = new_id(), new_id()
    body = json.dumps(
        {
            "recipient": "echo",
            "kind": "call",
            "tool": "say",
            "arguments": {"text": "x"},
            "id": id,
            "conversation": conversation,
        }
    )
    with fail_after(60):
        async with (
            lab.rogers.follow(conversation=conversation) as messages,
            post(lab, "/api/v1/messages", body) as answer,
        ):
            assert answer.startswith(b"HTTP/1.1 202"), answer
            began, before = time.perf_counter(), lab.journal.statistics().commits
            async for each in messages:
                if each.sender == "echo":
                    break
            road = Road((time.perf_counter() - began) * 1000, lab.journal.statistics().commits - before)
            assert each.id == answer_id(Message(id=id))
        while (await lab.runs.get(lab.runs.id_of("echo", id))).state is not State.DESTROYED:
            await sleep(0.01)
    return road


@asynccontextmanager
async def post(lab: Lab, path: str, body: str) -> AsyncIterator[bytes]:
    """The door's answer to a request, the moment it is there."""
    head = f"POST {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    async with await anyio.connect_unix(str(lab.home.api_socket)) as stream:
        await stream.send((head + body).encode())
        yield await stream.receive()


async def filled(lab: Lab) -> None:
    """Waits until the pool has all it keeps, and the machine has had a moment of rest."""
    with fail_after(60):
        while lab.pools["echo"].statistics().ready < POOL:
            await sleep(0.02)
    await sleep(0.05)


async def lone_commit(journal: Journal) -> float:
    """How long one entry alone takes to be durable, in milliseconds."""
    began = time.perf_counter()
    await journal.append(Entry(id=new_id(), kind="bench", body=b"x" * 300, conversation="bench", sender="bench"))
    return (time.perf_counter() - began) * 1000
