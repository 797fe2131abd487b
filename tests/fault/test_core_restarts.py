"""The core is killed in each state of the run table, and twice in a row: nothing is lost, nothing is done twice."""

import json
import os
import signal
from collections.abc import Iterator

import pytest
from anyio import fail_after, sleep

from core.app import open_journal
from core.home import Home
from core.lab import Lab
from core.rogers.bus import Rogers
from core.run import Outcome, Run, State
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_REPLY, Message
from tests.fault.dying_core import Cores, cores
from tests.labs import EMADS, a_home, opened

pytestmark = pytest.mark.docker


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home(EMADS, images=("base", "tests/emads/echo")) as home:
        yield home


@pytest.fixture(scope="module")
def mother() -> Iterator[Cores]:
    with cores() as mother:
        yield mother


def killed(mother: Cores, home: Home, state: str) -> None:
    """Has a core live until it dies at `state`."""
    core = mother.start(home, state)
    ended = core.ended(within_s=60)
    if ended is None:
        os.kill(core.pid, signal.SIGKILL)
        core.ended(within_s=60)  # or the next one would not be started
    assert ended == -signal.SIGKILL, (home.path / "core.log").read_text()[-2000:]


def question() -> Message:
    return Message(
        id=new_id(),
        conversation=new_id(),
        recipient="echo",
        kind=KIND_CALL,
        tool="say_later",
        data=json.dumps({"text": "survived", "after_s": 1.5}),
    )


async def until_over(lab: Lab, run: str) -> Run:
    with fail_after(60):
        while not await lab.runs.known(run) or (await lab.runs.get(run)).state is not State.DESTROYED:
            await sleep(0.05)
    return await lab.runs.get(run)


async def shows_that_nothing_was_lost(lab: Lab, asked: Message) -> None:
    run = await until_over(lab, lab.runs.id_of("echo", asked.id))
    assert run.outcome is Outcome.SUCCEEDED, run
    said = await lab.rogers.history(asked.conversation, limit=1000)
    answers = [each for each in said if each.id == answer_id(asked)]
    assert [each.kind for each in answers] == [KIND_REPLY]
    assert json.loads(answers[0].data) == {"text": "survived"}
    assert len(await lab.runs.newest()) == 1
    names = await lab.residents._workers.engines["runc"].names()
    assert [each for each in names if not each.startswith("probe-")] == []  # the core may be trying its runtimes
    assert list((lab.home.runtime / "s").iterdir()) == []
    verification = await lab.journal.verify()
    assert verification.ok, verification.problems


async def asked_while_no_core_ran(home: Home) -> Message:
    asked = question()
    async with open_journal(home) as journal, Rogers(journal) as rogers:
        await rogers.publish(asked, sender="operator")
    return asked


@pytest.mark.parametrize("state", ["requested", "admitted", "starting", "ready", "running", "collecting", "destroyed"])
async def test_a_core_that_is_killed_in_any_state_of_a_run_takes_it_to_its_end_later(
    mother: Cores, home: Home, state: str
) -> None:
    asked = await asked_while_no_core_ran(home)
    killed(mother, home, state)
    async with opened(home) as lab:
        await shows_that_nothing_was_lost(lab, asked)


async def test_a_core_that_is_killed_twice_in_a_row_takes_the_run_to_its_end_later(mother: Cores, home: Home) -> None:
    asked = await asked_while_no_core_ran(home)
    killed(mother, home, "running")
    killed(mother, home, "up")
    async with opened(home) as lab:
        await shows_that_nothing_was_lost(lab, asked)


async def test_a_core_that_stays_away_for_longer_than_the_lease_ends_the_run_as_lost(mother: Cores) -> None:
    with a_home(EMADS + "[runs]\nlease_s = 2\n", images=("base", "tests/emads/echo")) as home:
        asked = await asked_while_no_core_ran(home)
        killed(mother, home, "running")
        await sleep(5)
        async with opened(home) as lab:
            run = await until_over(lab, lab.runs.id_of("echo", asked.id))
            assert run.outcome is Outcome.LOST
            answer = await lab.rogers.find(answer_id(asked))
            assert answer is not None
            assert json.loads(answer.data)["code"] == "lost"
