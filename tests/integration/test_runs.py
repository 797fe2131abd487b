"""Runs of an eMAD on the real engine: the whole road of a message, and every way a run can end."""

import json
from collections.abc import AsyncIterator

import pytest
from anyio import create_task_group, fail_after, sleep

from core.lab import Lab
from core.run import Outcome, Run, State
from core.usage import kept_usage
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, TAINT_WORKER, Message
from tests.labs import EMADS, call, lab_of, say

pytestmark = pytest.mark.docker
IMAGES = ("base", "tests/emads/echo")


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    async with lab_of(EMADS, images=IMAGES) as lab:
        yield lab


async def ended(lab: Lab, run: str) -> Run:
    """The run when it is over."""
    with fail_after(60):
        while (found := await lab.runs.get(run)).state is not State.DESTROYED:
            await sleep(0.02)
    return found


def question(tool: str, **arguments: object) -> Message:
    return Message(
        id=new_id(),
        conversation=new_id(),
        recipient="echo",
        kind=KIND_CALL,
        tool=tool,
        data=json.dumps(arguments),
    )


async def test_a_call_to_an_emad_is_answered_from_a_sandbox_that_is_gone_afterwards() -> None:
    async with lab_of(EMADS, images=IMAGES) as lab:
        asked = question("say", text="hello")
        reply = await call(lab, "echo", "say", id=asked.id, text="hello")
        assert reply.kind == KIND_REPLY
        assert json.loads(reply.data) == {"text": "hello"}
        assert list(reply.taint) == [TAINT_WORKER]
        run = await ended(lab, lab.runs.id_of("echo", asked.id))
        assert run.outcome is Outcome.SUCCEEDED
        assert run.started > 0
        assert run.cost["wall_s"] > 0
        names = await lab.residents._workers.engines["runc"].names()
        assert [each for each in names if not each.startswith("probe-")] == []  # the core may be trying its runtimes
        assert list((lab.home.runtime / "s").iterdir()) == []


async def test_what_a_run_uses_is_seen_while_it_lives_and_kept_with_its_end(lab: Lab) -> None:
    asked = question("say_later", text="hello", after_s=60.0)
    await lab.rogers.publish(asked, sender="operator")
    id = lab.runs.id_of("echo", asked.id)
    with fail_after(60):
        while (series := lab.dispatcher.usage(id)) is None or not series.cpu:
            await sleep(0.05)
    await lab.dispatcher.cancel(id, "it was seen")
    await ended(lab, id)
    kept = await kept_usage(lab.journal, id)
    assert kept is not None
    assert kept["memory"][0] > 1 << 20
    assert 0 <= kept["cpu"][0] < 64
    assert kept["why"] == ""


async def test_artifacts_and_evidence_of_a_run_are_kept_with_it(lab: Lab) -> None:
    id = new_id()
    reply = await call(lab, "echo", "keep", id=id, text="something")
    run = await ended(lab, lab.runs.id_of("echo", id))
    assert run.evidence == {"kept": 9}
    assert [each["digest"] for each in run.artifacts] == [json.loads(reply.data)["text"]]
    body = b"".join([chunk async for chunk in lab.horace.get(run.artifacts[0]["digest"])])
    assert body == b"something"


async def test_a_worker_that_dies_leaves_a_failed_run_and_a_fault_for_its_caller(lab: Lab) -> None:
    id = new_id()
    fault = await call(lab, "echo", "misbehave", id=id, how="exit")
    assert fault.kind == KIND_FAULT
    assert fault.sender == "core"
    run = await ended(lab, lab.runs.id_of("echo", id))
    assert run.outcome is Outcome.FAILED
    assert "code 7" in run.reason


async def test_a_tool_that_raises_is_a_failed_run(lab: Lab) -> None:
    id = new_id()
    fault = await call(lab, "echo", "misbehave", id=id, how="raise")
    assert fault.sender == "echo"
    assert (await ended(lab, lab.runs.id_of("echo", id))).outcome is Outcome.FAILED


async def test_a_full_workspace_is_an_outcome_of_its_own(lab: Lab) -> None:
    id = new_id()
    fault = await call(lab, "echo", "misbehave", id=id, how="fill")
    assert fault.sender == "echo"
    run = await ended(lab, lab.runs.id_of("echo", id))
    assert run.outcome is Outcome.OUT_OF_DISK
    assert "No space left" in run.reason


async def test_prose_to_an_emad_without_a_thought_engine_is_a_fault(lab: Lab) -> None:
    fault = await say(lab, "echo", "hello?")
    assert json.loads(fault.data)["code"] == "no_thought_engine"


async def test_a_cancelled_run_ends_as_cancelled_and_says_so_to_its_caller(lab: Lab) -> None:
    asked = question("misbehave", how="hang")
    run = lab.runs.id_of("echo", asked.id)
    async with create_task_group() as tasks:

        async def cancel() -> None:
            with fail_after(60):
                while not await lab.runs.known(run) or (await lab.runs.get(run)).state is not State.RUNNING:
                    await sleep(0.02)
            await lab.dispatcher.cancel(run, "the test asked for it")

        tasks.start_soon(cancel)
        fault = await call(lab, "echo", "misbehave", id=asked.id, how="hang")
    assert json.loads(fault.data)["code"] == "cancelled"
    ending = await ended(lab, run)
    assert (ending.outcome, ending.reason) == (Outcome.CANCELLED, "the test asked for it")


async def test_a_run_that_waits_can_be_cancelled_before_it_has_a_sandbox() -> None:
    async with lab_of(EMADS + "[runs]\nmax_running = 1\n", images=IMAGES) as lab:
        first, second = question("misbehave", how="hang"), question("say", text="never said")
        for each in (first, second):
            await lab.rogers.publish(each, sender="operator")
        waiting = lab.runs.id_of("echo", second.id)
        with fail_after(60):
            while lab.dispatcher.place(waiting) != 1:
                await sleep(0.02)
        await lab.dispatcher.cancel(waiting, "not needed any more")
        assert (await ended(lab, waiting)).outcome is Outcome.CANCELLED
        await lab.dispatcher.cancel(lab.runs.id_of("echo", first.id), "done")
        assert (await ended(lab, lab.runs.id_of("echo", first.id))).outcome is Outcome.CANCELLED


async def test_however_long_the_runs_of_clients_take_the_operator_gets_to_work() -> None:
    async with lab_of(EMADS + "[runs]\nmax_running = 2\n", images=IMAGES) as lab:
        theirs = [question("misbehave", how="hang") for _ in range(2)]
        for each in theirs:
            await lab.rogers.publish(each, sender="client:ann")
        reply = await call(lab, "echo", "say", text="hello")
        assert json.loads(reply.data) == {"text": "hello"}
        runs = [lab.runs.id_of("echo", each.id) for each in theirs]
        assert lab.dispatcher.place(runs[1]) == 1
        for run in runs:
            await lab.dispatcher.cancel(run, "done")
            assert (await ended(lab, run)).outcome is Outcome.CANCELLED


async def test_a_run_can_be_cancelled_as_soon_as_anybody_can_hear_of_it(lab: Lab) -> None:
    for _ in range(5):
        asked = question("misbehave", how="hang")
        run = lab.runs.id_of("echo", asked.id)
        await lab.rogers.publish(asked, sender="operator")
        with fail_after(60):
            while not await lab.runs.known(run):
                await sleep(0)
        await lab.dispatcher.cancel(run, "changed my mind")
        assert (await ended(lab, run)).outcome is Outcome.CANCELLED


async def test_a_run_that_overstays_its_deadline_is_timed_out() -> None:
    async with lab_of(EMADS + "[profile.echo]\ndeadline_s = 2\n", images=IMAGES) as lab:
        id = new_id()
        fault = await call(lab, "echo", "misbehave", id=id, how="hang")
        assert json.loads(fault.data)["code"] == "timed_out"
        assert (await ended(lab, lab.runs.id_of("echo", id))).outcome is Outcome.TIMED_OUT


async def test_a_worker_that_blocks_is_lost_when_its_lease_lapses() -> None:
    async with lab_of(EMADS + "[runs]\nlease_s = 2\n", images=IMAGES) as lab:
        id = new_id()
        fault = await call(lab, "echo", "misbehave", id=id, how="block")
        assert json.loads(fault.data)["code"] == "lost"
        assert (await ended(lab, lab.runs.id_of("echo", id))).outcome is Outcome.LOST


async def test_a_missing_image_is_a_failed_run_that_says_how_to_build_it() -> None:
    async with lab_of(EMADS) as lab:
        fault = await call(lab, "echo", "say", text="hello")
        assert "-m sandbox.images --lab" in fault.text


async def test_calls_in_one_conversation_are_answered_in_order_by_one_run_each(lab: Lab) -> None:
    conversation = new_id()
    ids = [new_id() for _ in range(3)]
    async with create_task_group() as tasks:
        for number, id in enumerate(ids):

            async def ask(id: str = id, number: int = number) -> None:
                reply = await call(lab, "echo", "say", id=id, conversation=conversation, text=str(number))
                assert json.loads(reply.data) == {"text": str(number)}

            tasks.start_soon(ask)
    replies = [each for each in await lab.rogers.history(conversation) if each.kind == KIND_REPLY]
    assert sorted(each.in_reply_to for each in replies) == sorted(ids)
    for id in ids:
        assert (await ended(lab, lab.runs.id_of("echo", id))).outcome is Outcome.SUCCEEDED
