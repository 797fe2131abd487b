"""While one worker does its worst, everybody else is served: each round trip stays under 250 ms.

Three honest callers are timed the whole while: a second run, from inside its own sandbox, by a durable publish through
its gate; a caller of a resident, through the bus; and a client of the HTTP door, in a process of its own, by a call
and its answer over server-sent events.

How it is judged. The figure is the 95th percentile of an attack's whole time, start of its sandbox included. A machine
that tests share is noisy, and what others do with its processors is not the worker's doing: so an attack that was
over the limit is made again, at most four times more, and each caller's best counts. Before it is made again the
callers are timed while nobody attacks; where even that is slow, three times as much is allowed. A core that an attack
can hold up is over it each time.
"""

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after, sleep

from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from tests.labs import call
from tests.security.hostile_lab import Site, site_of
from tests.sizes import full

pytestmark = pytest.mark.docker

LIMIT_MS = 250
CALM_S = 1.5
SLOWER = 3  # than in the calm just before
TRIES = 5
CALLERS = ("a second run", "the bus", "the HTTP door")
BOMBS = ("processes", "threads", "memory", "disk", "inodes", "log")
IN_GVISOR = ("threads", "memory", "disk")  # where its own work weighs most on the machine
FLOOD_S = 2 if full() else 1
FLOODS = (
    "heartbeats",
    "small messages",
    "large messages",
    "calls that are none",
    "messages to a stranger",
    "messages with 12,000 blobs",
    "calls with a megabyte of arguments",
    "history",
    "events",
    "reads",
)
ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("speak", {"name": "flood", "given": {"of": name, "seconds": FLOOD_S}}) for name in FLOODS},
    "slow connections": ("speak", {"name": "slow", "given": {"hold_s": 1}}),
    "broken frames": ("speak", {"name": "frames", "given": {}}),
}


@dataclass
class Watch:
    """Round trips as they come in: when, and how many milliseconds."""

    seen: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {each: [] for each in CALLERS})

    def note(self, caller: str, ms: float) -> None:
        self.seen[caller].append((time.monotonic(), ms))

    def since(self, began: float) -> dict[str, list[float]]:
        """What each caller met since then, the shortest first."""
        return {caller: sorted(ms for at, ms in seen if at >= began) for caller, seen in self.seen.items()}


@pytest.fixture(scope="module")
async def site(runtime: str, anyio_backend: str) -> AsyncIterator[Site]:
    """A lab whose runs live long enough to be watched."""
    async with site_of(runtime, "[profile.hostile]\ndeadline_s = 3600\n") as site:
        yield site


@pytest.fixture(scope="module")
async def watch(site: Site) -> AsyncIterator[Watch]:
    """The three honest callers, at it."""
    watch = Watch()
    async with create_task_group() as tasks:
        for each in (_second_run, _bus, _door):
            tasks.start_soon(each, site, watch)
        with fail_after(60):
            while not all(watch.seen.values()):
                await sleep(0.05)
        yield watch
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "bomb",
    [each if each in IN_GVISOR else pytest.param(each, marks=pytest.mark.ordinarily("runc")) for each in BOMBS],
)
async def test_others_are_served_while_a_worker_uses_something_up(bomb: str, site: Site, watch: Watch) -> None:
    await served(site, watch, bomb, "explode", {"name": bomb})


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("runtime", ["runc"], indirect=True)  # to the core a flood is a flood, and gVisor's is slower
async def test_others_are_served_while_a_worker_floods_the_core(attack: str, site: Site, watch: Watch) -> None:
    await served(site, watch, attack, *ATTACKS[attack])


async def served(site: Site, watch: Watch, attack: str, tool: str, given: dict[str, Any]) -> None:
    """Attacks, and fails where the honest callers had to wait; see the top of this file."""
    tries: list[dict[str, float]] = []
    over = set(CALLERS)  # of the limit, in each try so far
    while over and len(tries) < TRIES:
        calm = await p95(watch, lambda: sleep(CALM_S)) if tries else {}
        tries.append(await p95(watch, lambda: site.act(tool, **given)))
        print(f"{attack}, {site.runtime}:", *(f"{each}: p95 {ms:.0f} ms;" for each, ms in tries[-1].items()), calm)
        over -= {each for each, ms in tries[-1].items() if ms < max(LIMIT_MS, SLOWER * calm.get(each, 0))}
    assert not over, tries


async def p95(watch: Watch, during: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """What each caller met meanwhile, in milliseconds."""
    began = time.monotonic()
    await during()
    ended = time.monotonic()  # what was on its way by then counts, however long it takes
    with fail_after(60):
        while not all(watch.since(ended).values()) or min(len(each) for each in watch.since(began).values()) < 5:
            await sleep(0.02)
    return {caller: each[int(len(each) * 0.95)] for caller, each in watch.since(began).items()}


async def _second_run(site: Site, watch: Watch) -> None:
    asked = Message(
        id=new_id(),
        conversation=new_id(),
        recipient="hostile",
        kind=KIND_CALL,
        tool="measure",
        data=json.dumps({"seconds": 3500.0}),
    )
    async with site.lab.rogers.follow(conversation=asked.conversation) as messages:
        await site.lab.rogers.publish(asked, sender="operator")
        async for each in messages:
            if each.kind == KIND_PROSE:
                for ms in json.loads(each.text):
                    watch.note("a second run", ms)


async def _bus(site: Site, watch: Watch) -> None:
    while True:
        began = time.perf_counter()
        await call(site.lab, "echo", "say", text="x")
        watch.note("the bus", (time.perf_counter() - began) * 1000)
        await sleep(0.03)


async def _door(site: Site, watch: Watch) -> None:
    command = [sys.executable, "-m", "tests.security.knock", str(site.lab.home.path)]
    async with await anyio.open_process(command) as client:
        assert client.stdout is not None
        rest = b""
        try:
            async for piece in client.stdout:
                *lines, rest = (rest + piece).split(b"\n")
                for each in lines:
                    watch.note("the HTTP door", float(each))
        finally:
            client.kill()
