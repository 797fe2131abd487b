"""Many runs at once, and what they leave behind: for the test that says nothing, and the figure that says how long."""

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from anyio import create_task_group, fail_after, sleep

from core.horace.snapshot import take
from core.lab import Lab
from core.run import Run, State
from protos.ids import new_id
from protos.tree import Caps
from protos.v1.message_pb2 import KIND_CALL, KIND_REPLY, Message
from sandbox.engines.docker.engine import DockerEngine
from tests.labs import EMADS, ROOT, ask

ECHO_RUNS, SCANS = 50, 8  # what the machine must take
ECHO_IMAGES, SCAN_IMAGES = ("base", "tests/emads/echo"), ("base", "mcnamara")
ECHO = EMADS + f"[runs]\nmax_running = {ECHO_RUNS}\n"
SCAN = f'emads = ["{ROOT / "periphery/mcnamara"}"]\n[runs]\nmax_running = {SCANS}\n'
SCANNED = ROOT / "sandbox"
LIMIT_S = 600

Ask = Callable[[Lab], Awaitable[str]]  # asks for one run, waits for its answer, and returns its id


@dataclass(frozen=True)
class Traces:
    """Everything of a lab that could outlive a run."""

    sandboxes: tuple[str, ...]  # in the engine
    sockets: tuple[str, ...]  # and their directories
    files: tuple[str, ...]  # in the home, but for the blobs, which are what a run gives
    incoming: tuple[str, ...]  # blobs that nobody finished
    unfinished: tuple[str, ...]  # runs that are not over
    cursors: tuple[tuple[str, str], ...]  # participant and conversation

    @property
    def nothing(self) -> bool:
        """Whether no run has left anything; the home has files of its own."""
        return not (self.sandboxes or self.sockets or self.incoming or self.unfinished or self.cursors)


async def traces(lab: Lab) -> Traces:
    """What there is now."""
    rows = await lab.journal.query("SELECT participant, conversation FROM cursor WHERE participant <> 'dispatcher'", ())
    blobs = lab.home.path / "blobs"
    files = [each for each in lab.home.path.rglob("*") if blobs not in each.parents]
    return Traces(
        tuple(await DockerEngine(lab.home.lab).names()),
        tuple(sorted(each.name for each in (lab.home.runtime / "s").iterdir())),
        tuple(sorted(str(each.relative_to(lab.home.path)) for each in files)),
        tuple(each.name for each in (blobs / "incoming").iterdir()),
        tuple(each.id for each in await lab.runs.live()),
        tuple((str(participant), str(conversation)) for participant, conversation in rows),
    )


def descriptors() -> int:
    """How many files, sockets and pipes this process has open; the engine's client keeps a few connections."""
    return len(os.listdir("/proc/self/fd"))


async def echo(lab: Lab) -> str:
    """One run of echo."""
    question = Message(
        id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="say", data=json.dumps({"text": "x"})
    )
    reply = await ask(lab, question, within_s=LIMIT_S)
    assert reply.kind == KIND_REPLY, reply.text
    return lab.runs.id_of("echo", question.id)


async def scan(lab: Lab) -> str:
    """One scan of a room of this repository."""
    caps = Caps()
    snapshot = take(SCANNED, caps, history=False)

    async def packed() -> AsyncIterator[bytes]:
        for each in snapshot.pack(caps, note=lambda _: None):
            yield each

    blob = await lab.horace.put(packed(), name="sandbox", media_type="application/x-tar")
    question = Message(
        id=new_id(),
        conversation=new_id(),
        recipient="mcnamara",
        kind=KIND_CALL,
        tool="scan",
        data=json.dumps({"source": blob.digest, "kind": "tree", "name": "sandbox", "history": False}),
        blobs=[blob],
    )
    reply = await ask(lab, question, within_s=LIMIT_S)
    assert reply.kind == KIND_REPLY, reply.text
    return lab.runs.id_of("mcnamara", question.id)


async def at_once(lab: Lab, how_many: int, one: Ask) -> tuple[float, list[Run]]:
    """Seconds until all have answered and are gone, and what became of each."""
    ids: list[str] = []
    began = time.perf_counter()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:

            async def asked() -> None:
                ids.append(await one(lab))

            for _ in range(how_many):
                tasks.start_soon(asked)
        runs = [await over(lab, each) for each in ids]
    return time.perf_counter() - began, runs


async def over(lab: Lab, run: str) -> Run:
    """The run when nothing of it is left."""
    while (found := await lab.runs.get(run)).state is not State.DESTROYED:
        await sleep(0.02)
    return found
