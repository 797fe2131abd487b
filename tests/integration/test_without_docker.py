"""A lab on bubblewrap alone: Docker is nowhere to be found, and a run is what it is elsewhere."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from anyio import fail_after, sleep

from core.app import open_journal
from core.doctor import examine
from core.home import Home
from core.lab import Lab
from core.rogers.bus import Rogers
from core.run import Outcome, State
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Message
from tests.bubblewrap_lab import need_bubblewrap
from tests.labs import EMADS, ROOT, a_home, call, opened

pytestmark = pytest.mark.docker
IMAGES = ("base", "tests/emads/echo")
SETTINGS = EMADS + '[sandbox]\nruntime = "bwrap"\n'


@pytest.fixture(autouse=True)
def _no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_bubblewrap()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home(SETTINGS, images=IMAGES, unpacked=True) as home:
        yield home


@pytest.fixture
async def lab(home: Home) -> AsyncIterator[Lab]:
    async with opened(home) as lab:
        yield lab


async def sandboxes(lab: Lab) -> list[str]:
    return await lab.residents._workers.engines["bwrap"].names()


async def test_a_call_is_answered_from_a_sandbox_that_is_gone_afterwards(lab: Lab) -> None:
    id = new_id()
    reply = await call(lab, "echo", "say", id=id, text="hello")
    assert json.loads(reply.data) == {"text": "hello"}, reply
    run = lab.runs.id_of("echo", id)
    with fail_after(30):
        while (await lab.runs.get(run)).state is not State.DESTROYED:
            await sleep(0.02)
    assert (await lab.runs.get(run)).outcome is Outcome.SUCCEEDED
    assert await sandboxes(lab) == []
    assert list((lab.home.runtime / "s").iterdir()) == []


async def test_a_run_outlives_a_core_that_is_killed_and_is_taken_back(home: Home) -> None:
    asked = Message(
        id=new_id(),
        conversation=new_id(),
        recipient="echo",
        kind=KIND_CALL,
        tool="say_later",
        data=json.dumps({"text": "survived", "after_s": 1.5}),
    )
    async with open_journal(home) as journal, Rogers(journal) as rogers:
        await rogers.publish(asked, sender="operator")
    with (home.path / "core.log").open("ab") as words:
        died = subprocess.run(
            [sys.executable, "-m", "tests.fault.dying_core", str(home.path), "running"],
            cwd=ROOT,
            stdout=words,
            stderr=words,
            timeout=60,
        )
    assert died.returncode == -signal.SIGKILL, (home.path / "core.log").read_text()[-2000:]
    [kept] = os.listdir(home.runtime / "b")
    async with opened(home) as lab:
        run = lab.runs.id_of("echo", asked.id)
        assert (await lab.runs.get(run)).sandbox == kept
        with fail_after(40):
            while (await lab.runs.get(run)).state is not State.DESTROYED:
                await sleep(0.05)
        assert (await lab.runs.get(run)).outcome is Outcome.SUCCEEDED
        said = await lab.rogers.history(asked.conversation, limit=100)
        assert [each.kind for each in said if each.id == answer_id(asked)] == [KIND_REPLY]
        assert await sandboxes(lab) == []


async def test_a_run_that_wants_more_than_was_seen_is_refused_with_what_is_missing() -> None:
    settings = SETTINGS + '[profile.echo]\nleast = "kernel"\n'
    with a_home(settings, images=IMAGES, unpacked=True) as home:
        async with opened(home) as lab:
            id = new_id()
            answer = await call(lab, "echo", "say", id=id, text="hello")
            assert answer.kind == KIND_FAULT
            run = await lab.runs.get(lab.runs.id_of("echo", id))
            assert run.outcome is Outcome.FAILED
            assert "rule isolation: the profile wants at least 'kernel'" in run.reason
            assert "the runtime bwrap was seen to stop 'container': own kernel" in run.reason
            assert await sandboxes(lab) == []


async def test_doctor_says_that_the_lab_can_run_and_ranks_what_there_is(home: Home) -> None:
    found = {each.name: each async for each in examine(str(home.path))}
    assert "engine" not in found  # no profile asks for Docker
    assert found["images"].state == "ok", found["images"]
    assert (found["runtime bwrap"].state, found["runtime bwrap"].grade) == ("ok", "container")
    assert "walls held when they were tried from inside" in found["runtime bwrap"].detail
    assert "not tried here: no Docker engine answers" in found["runtime runc"].detail
    assert found["ranking"].detail == ("bwrap (container), process (none); profiles use bwrap for at least 'container'")
    states = {name.split()[-1]: each.state for name, each in found.items() if name.startswith(("runtime", "ranking"))}
    assert states == {"bwrap": "ok", "ranking": "ok", "runsc": "unseen", "runc": "unseen", "process": "unseen"}
