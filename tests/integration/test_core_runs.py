"""Runs of MADs of the core's own: a table and an end like every run's, and children that end with them."""

import json
import time
from functools import partial

import pytest
from anyio import create_task_group, fail_after, sleep, sleep_forever
from typing_extensions import TypedDict

from core.lab import Lab
from core.run import Outcome, Run, State
from protos.ids import id_from, new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_PROSE, KIND_REPLY, TAINT_WORKER, Message, Terms
from tests.labs import EMADS, a_home, ask, call, opened

pytestmark = pytest.mark.docker
IMAGES = ("base", "tests/emads/echo")


class Heard(TypedDict):
    """What the others said."""

    texts: list[str]


class Lead:
    """Has echo say things, each in a conversation of its own."""

    @tool(effects="read")
    async def gather(self, call: Call, *, texts: list[str], after_s: float = 0.0, image: str = "") -> Heard:
        """Has each text said, side by side."""
        heard: dict[str, str] = {}

        async def have_said(text: str) -> None:
            question = Message(id=id_from(call.message.id, text), recipient="echo", kind=KIND_CALL, tool="say_later")
            question.conversation = f"{call.message.conversation}/{text}"
            question.data = json.dumps({"text": text, "after_s": after_s})
            question.terms.CopyFrom(Terms(image=image, seconds=120))
            answer = await call.ctx.bus.ask(question)
            heard[text] = json.loads(answer.data)["text"] if answer.kind == KIND_REPLY else answer.text

        async with create_task_group() as tasks:
            for each in texts:
                tasks.start_soon(have_said, each)
        call.ctx.verdict.evidence["heard"] = len(heard)
        return {"texts": [heard[each] for each in texts]}

    @tool(effects="read")
    async def wander(self, call: Call) -> Heard:
        """Speaks where it was not asked."""
        question = Message(id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="say")
        await call.ctx.bus.ask(question)
        return {"texts": []}


class Hasty:
    """Asks another for something, and does not wait for it."""

    @tool(effects="read")
    async def leave(self, call: Call) -> Heard:
        """Asks the patient one."""
        await call.ctx.bus.publish(late(call.message.id, f"{call.message.conversation}/late"))
        return {"texts": []}


class Patient:
    """Takes longer than anybody waits."""

    @tool(effects="read")
    async def wait(self, call: Call) -> Heard:
        """Waits."""
        await sleep_forever()
        raise AssertionError


def late(id: str, conversation: str) -> Message:
    """What the hasty one asks for."""
    question = Message(id=id_from(id, "late"), conversation=conversation, recipient="patient", kind=KIND_CALL)
    question.tool = "wait"
    return question


async def ended(lab: Lab, run: str) -> Run:
    """The run when it is over."""
    with fail_after(60):
        while not await lab.runs.known(run) or (found := await lab.runs.get(run)).state is not State.DESTROYED:
            await sleep(0.02)
    return found


def gather(*texts: str, after_s: float = 0.0, **terms: float) -> Message:
    data = json.dumps({"texts": texts, "after_s": after_s})
    asked = Message(id=new_id(), conversation=new_id(), recipient="lead", kind=KIND_CALL, tool="gather", data=data)
    asked.terms.CopyFrom(Terms(**terms))  # type: ignore[arg-type]
    return asked


async def test_a_run_of_the_core_has_others_work_side_by_side_and_they_are_its_children() -> None:
    with a_home(EMADS, images=IMAGES) as home:
        async with opened(home, lead=Lead) as lab:
            asked = gather("one", "two")
            reply = await ask(lab, asked)
            assert json.loads(reply.data) == {"texts": ["one", "two"]}
            assert list(reply.taint) == [TAINT_WORKER]  # what it says is made of what workers said
            run = await ended(lab, lab.runs.id_of("lead", asked.id))
            assert run.outcome is Outcome.SUCCEEDED
            assert run.evidence == {"heard": 2}
            children = [await ended(lab, lab.runs.id_of("echo", id_from(asked.id, each))) for each in ("one", "two")]
            assert {each.parent for each in children} == {run.id}
            assert all(each.deadline <= time.time() + 120 for each in children)


async def test_a_run_of_the_core_that_is_cancelled_takes_its_children_with_it() -> None:
    with a_home(EMADS, images=IMAGES) as home:
        async with opened(home, lead=Lead) as lab:
            asked = gather("slowly", after_s=60)
            parent, child = lab.runs.id_of("lead", asked.id), lab.runs.id_of("echo", id_from(asked.id, "slowly"))
            await lab.rogers.publish(asked, sender="operator")
            with fail_after(60):
                while not [each for each in lab.dispatcher.children(parent) if each.state is State.RUNNING]:
                    await sleep(0.02)
            await lab.dispatcher.cancel(parent, "enough")
            assert (await ended(lab, parent)).outcome is Outcome.CANCELLED
            assert (await lab.runs.get(child)).outcome is Outcome.CANCELLED
            assert lab.dispatcher.sandboxes() == []


async def test_a_run_of_the_core_has_a_deadline_that_its_asker_sets() -> None:
    with a_home(EMADS, images=IMAGES) as home:
        async with opened(home, lead=Lead) as lab:
            asked = gather("slowly", after_s=60, seconds=1.5)
            fault = await ask(lab, asked)
            assert fault.kind == KIND_FAULT
            assert (await ended(lab, lab.runs.id_of("lead", asked.id))).outcome is Outcome.TIMED_OUT


async def test_after_a_restart_a_run_of_the_core_asks_again_and_has_the_same_answers() -> None:
    with a_home(EMADS, images=IMAGES) as home:
        asked = gather("patience", after_s=3)
        async with opened(home, lead=Lead) as lab:
            child = lab.runs.id_of("echo", id_from(asked.id, "patience"))
            await lab.rogers.publish(asked, sender="operator")
            with fail_after(60):
                while not [each for each in lab.dispatcher.sandboxes() if each["state"] == "running"]:
                    await sleep(0.02)
            lab.dispatcher.leave_workers()
        async with opened(home, lead=Lead) as lab:
            run = await ended(lab, lab.runs.id_of("lead", asked.id))
            assert run.outcome is Outcome.SUCCEEDED
            assert (await lab.runs.get(child)).outcome is Outcome.SUCCEEDED
            assert len(await lab.runs.newest()) == 2


async def test_a_run_of_the_core_speaks_within_its_conversation_only() -> None:
    with a_home(EMADS) as home:
        async with opened(home, lead=Lead) as lab:
            fault = await call(lab, "lead", "wander")
            assert fault.kind == KIND_FAULT
            assert "rule conversation" in fault.text


async def test_what_a_run_asked_for_and_left_ends_with_it_and_before_the_next_one_of_its_conversation() -> None:
    with a_home() as home:
        async with opened(home, hasty=Hasty, patient=Patient) as lab:
            conversation = new_id()
            calls = [
                Message(id=new_id(), conversation=conversation, recipient="hasty", kind=KIND_CALL, tool="leave")
                for _ in range(2)
            ]
            for each in calls:
                await lab.rogers.publish(each, sender="operator")
            runs = [await ended(lab, lab.runs.id_of("hasty", each.id)) for each in calls]
            children = [await ended(lab, lab.runs.id_of("patient", id_from(each.id, "late"))) for each in calls]
    assert [each.outcome for each in runs] == [Outcome.SUCCEEDED] * 2
    assert [each.outcome for each in children] == [Outcome.CANCELLED] * 2
    assert [each.parent for each in children] == [each.id for each in runs]
    assert children[0].ended <= runs[0].ended <= runs[1].started


async def test_what_a_run_asked_for_ends_before_it_does_however_much_else_the_dispatcher_has_to_hear_of_first() -> None:
    class Loud(Hasty):
        @tool(effects="read")
        async def leave(self, call: Call) -> Heard:
            """Asks the patient one, last of many."""
            async with create_task_group() as tasks:
                for _ in range(100):
                    to_nobody = Message(id=new_id(), conversation=new_id(), recipient="nobody", kind=KIND_PROSE)
                    tasks.start_soon(partial(lab.rogers.publish, to_nobody, sender="operator"))
            return await super().leave(call)

    with a_home() as home:
        async with opened(home, hasty=Loud, patient=Patient) as lab:
            asked = Message(id=new_id(), conversation=new_id(), recipient="hasty", kind=KIND_CALL, tool="leave")
            await lab.rogers.publish(asked, sender="operator")
            run = await ended(lab, lab.runs.id_of("hasty", asked.id))
            child = await ended(lab, lab.runs.id_of("patient", id_from(asked.id, "late")))
    assert run.outcome is Outcome.SUCCEEDED
    assert child.outcome is Outcome.CANCELLED
    assert child.ended <= run.ended


async def test_what_is_heard_of_when_who_asked_for_it_has_ended_is_not_begun() -> None:
    with a_home() as home:
        async with opened(home, hasty=Hasty, patient=Patient) as lab:
            asked = late(new_id(), f"{new_id()}/late")
            with fail_after(30):
                async with lab.rogers.follow(conversation=asked.conversation) as said:
                    await lab.rogers.publish(asked, sender="hasty")
                    heard = [await anext(said), await anext(said)]
            run = await ended(lab, lab.runs.id_of("patient", asked.id))
    assert [each.kind for each in heard] == [KIND_CALL, KIND_FAULT]
    assert run.outcome is Outcome.CANCELLED
    assert "The run that asked for it has ended." in run.reason
