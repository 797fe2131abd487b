"""Whose child a run is: fixed when it is asked for, never begun after its parent, and few of one parent at a time."""

import json
import time

import pytest
from anyio import fail_after, sleep, sleep_forever
from typing_extensions import TypedDict

from core.app import open_journal
from core.lab import Lab
from core.redaction.canaries import lab_key
from core.rogers.bus import Rogers
from core.run import Outcome, Run, State
from core.runs import Runs
from protos.errors import Exhausted
from protos.ids import id_from, new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Message
from tests.labs import a_home, ask, opened


class Heard(TypedDict):
    """What came of asking."""

    texts: list[str]


class Crowd:
    """Asks many, and does not wait for them."""

    @tool(effects="read")
    async def leave(self, call: Call, *, many: int) -> Heard:
        """Asks, and goes."""
        came = []
        for each in range(many):
            try:
                await call.ctx.bus.publish(question(call.message.conversation, id_from(call.message.id, str(each))))
                came.append("said")
            except Exhausted as error:
                came.append(error.message)
        return {"texts": came}


class Patient:
    """Takes longer than anybody waits."""

    @tool(effects="read")
    async def wait(self, call: Call) -> Heard:
        """Waits."""
        await sleep_forever()
        raise AssertionError


def question(conversation: str = "", id: str = "") -> Message:
    """What the patient one is asked."""
    return Message(
        id=id or new_id(), conversation=conversation or new_id(), recipient="patient", kind=KIND_CALL, tool="wait"
    )


def crowd(many: int) -> Message:
    """What asks so many of them."""
    asked = Message(id=new_id(), conversation=new_id(), recipient="crowd", kind=KIND_CALL, tool="leave")
    asked.data = json.dumps({"many": many})
    return asked


async def ended(lab: Lab, run: str) -> Run:
    """The run when it is over."""
    with fail_after(60):
        while not await lab.runs.known(run) or (found := await lab.runs.get(run)).state is not State.DESTROYED:
            await sleep(0.02)
    return found


async def test_who_asks_many_and_goes_has_few_open_and_leaves_none_at_work() -> None:
    with a_home("[runs]\nchildren_max = 3\n") as home:
        async with opened(home, crowd=Crowd, patient=Patient) as lab:
            asked = crowd(4)
            reply = await ask(lab, asked)
            assert reply.kind == KIND_REPLY, reply.text
            assert json.loads(reply.data)["texts"] == ["said"] * 3 + ["The run has 3 runs open that it asked for."]
            parent = await ended(lab, lab.runs.id_of("crowd", asked.id))
            ids = [id_from(asked.id, str(each)) for each in range(4)]
            children = [await ended(lab, lab.runs.id_of("patient", each)) for each in ids[:3]]
            assert await lab.rogers.find(ids[3]) is None
            assert (await lab.rogers.find(ids[0]) or Message()).run == parent.id
            assert {each.parent for each in children} == {parent.id}
            assert {each.outcome for each in children} == {Outcome.CANCELLED}
            again = await ask(lab, crowd(3))  # what is over counts no more
            assert json.loads(again.data)["texts"] == ["said"] * 3


async def test_what_a_run_said_is_not_begun_when_it_has_ended_whatever_else_is_at_work_there() -> None:
    with a_home() as home:
        async with opened(home, crowd=Crowd, patient=Patient) as lab:
            first = crowd(0)
            await ask(lab, first)
            parent = await ended(lab, lab.runs.id_of("crowd", first.id))
            late = question(first.conversation)
            late.run = parent.id  # as the port of that run wrote it before its end
            await lab.rogers.publish(late, sender="crowd")
            child = await ended(lab, lab.runs.id_of("patient", late.id))
    assert (child.outcome, child.started, child.parent) == (Outcome.CANCELLED, 0.0, parent.id)


async def test_a_core_that_died_while_a_run_ended_is_followed_by_one_that_ends_its_children() -> None:
    with a_home() as home:
        async with open_journal(home) as journal, Rogers(journal) as rogers:
            runs = Runs(journal, lab_key(home.path / "runs"))

            async def requested(asked: Message, sender: str, under: str = "") -> Run:
                sequence, id = await rogers.publish(asked, sender=sender), runs.id_of(asked.recipient, asked.id)
                place = (asked.recipient, asked.conversation, asked.id, sequence)
                run = Run(id, *place, State.REQUESTED, time.time(), parent=under)
                await runs.request(run)
                return run

            parent = await requested(crowd(0), "operator")
            await runs.move(parent, State.COLLECTING, outcome=Outcome.SUCCEEDED, ended=time.time())
            child = await requested(question(parent.conversation), "crowd", parent.id)
        async with opened(home, crowd=Crowd, patient=Patient) as lab:
            parent, child = await ended(lab, parent.id), await ended(lab, child.id)
    assert (child.outcome, child.started) == (Outcome.CANCELLED, 0.0)
    assert parent.outcome is Outcome.SUCCEEDED


async def test_a_message_whose_run_would_have_the_name_of_another_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_home() as home:
        async with opened(home, patient=Patient) as lab:
            monkeypatch.setattr(lab.runs, "id_of", lambda mad, _: f"{mad}-0123456789")  # all names are one
            first, run = question(), "patient-0123456789"
            await lab.rogers.publish(first, sender="operator")
            second = await ask(lab, question())
            assert (second.kind, json.loads(second.data)["code"]) == (KIND_FAULT, "conflict")
            assert (await lab.runs.get(run)).trigger == first.id
            await lab.dispatcher.cancel(run, "enough")
            assert (await ended(lab, run)).outcome is Outcome.CANCELLED
            third = await ask(lab, question())  # nor when that one is long over
            assert json.loads(third.data)["code"] == "conflict"


async def test_a_message_that_is_met_again_under_another_secret_starts_no_second_run() -> None:
    with a_home() as home:
        async with opened(home, crowd=Crowd) as lab:
            asked = crowd(0)
            await ask(lab, asked)
            run = await ended(lab, lab.runs.id_of("crowd", asked.id))
            lab.journal.keep_cursor("dispatcher", "", 0)
        (home.path / "runs").unlink()
        async with opened(home, crowd=Crowd) as lab:
            await ask(lab, crowd(0))  # behind the one that is met again
            assert lab.runs.id_of("crowd", asked.id) != run.id
            assert not await lab.runs.known(lab.runs.id_of("crowd", asked.id))
