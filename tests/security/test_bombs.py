"""Acts that use something up: each meets its own limit, has its own outcome, and leaves nothing behind."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from anyio import create_task_group, sleep

from core.run import Outcome, State
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_FAULT
from tests.emads.hostile.bombs import MARK
from tests.security.hostile_lab import EVERY, Site

pytestmark = pytest.mark.docker
RUNTIMES = EVERY
SHARED_KERNEL = pytest.mark.ordinarily("runc", "bwrap")

# What an act says when it meets its limit.
MET = {
    "processes": r"([1-9]\d?) then EAGAIN",
    "threads": r"([1-9]\d?) then can't start new thread",
    "disk": r"(1[0-6]) then ENOSPC",
    "shared_memory": r"([1-8]) then ENOSPC",
    "temporary": r"([1-8]) then ENOSPC",
    "inodes": r"([1-4]\d{3}) then ENOSPC",
    "descriptors": r"([1-4]\d{3}) then EMFILE",
}
# gVisor counts inodes and processes by the memory and threads of its own kernel: the sandbox as a whole has the limit.
WHOLE = {"processes", "threads", "inodes"}


@pytest.mark.parametrize(
    "act", [each if each in ("processes", "disk") else pytest.param(each, marks=SHARED_KERNEL) for each in MET]
)
async def test_a_bomb_meets_its_limit(act: str, site: Site) -> None:
    came = await site.act("explode", name=act)
    if site.runtime.startswith("runsc") and act in WHOLE:
        assert came.of is None or "then" in str(came.of) or re.match(r"-?\d+: ", str(came.of)), came.of
    else:
        assert re.fullmatch(MET[act], str(came.of)), came.of or came.message.text
    assert await site.sandboxes() == []


async def test_memory_is_its_own_outcome(site: Site) -> None:
    came = await site.act("explode", name="memory")
    assert came.message.kind == KIND_FAULT
    assert came.message.sender == "core"
    assert came.run.outcome is Outcome.OUT_OF_MEMORY
    assert "more memory than its profile allows" in came.run.reason


async def test_a_log_without_end_is_cut_and_stays_data(site: Site) -> None:
    came = await site.act("explode", name="log")
    assert came.run.outcome is Outcome.FAILED
    assert "Its last words" in came.run.reason
    assert len(came.run.reason) < 4000
    assert came.run.reason.isprintable()


@pytest.mark.parametrize("act", ["orphans", pytest.param("stubborn", marks=pytest.mark.ordinarily("runc"))])
async def test_who_ignores_every_signal_is_gone_when_it_is_cancelled(act: str, site: Site) -> None:
    id = new_id()
    run = site.lab.runs.id_of("hostile", id)
    async with create_task_group() as tasks:

        async def cancel() -> None:
            while not await site.lab.runs.known(run) or (await site.lab.runs.get(run)).state is not State.RUNNING:
                await sleep(0.05)
            await sleep(1.5)  # so that it has done its worst
            await site.lab.dispatcher.cancel(run, "the test asked for it")

        tasks.start_soon(cancel)
        came = await site.act("explode", id=id, name=act)
    assert came.run.outcome is Outcome.CANCELLED
    assert came.run.ended - came.run.started < 60
    assert await site.sandboxes() == []
    assert orphans() == []


def orphans() -> list[str]:
    """Processes of this machine that the act started; the host sees those of runc."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                if MARK.encode() in (each / "cmdline").read_bytes():
                    found.append(each.name)
    return found
