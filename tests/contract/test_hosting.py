"""One MAD, several homes: each behaviour is the same wherever the class is served."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import fail_after, sleep

from core.lab import Lab
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Message
from tests.emads.node import node_echo
from tests.labs import CHORUS, ECHO, RELAY, ask, call, lab_of, say

HOMES = ("core", "side by side", "process", "node", pytest.param("sandbox", marks=pytest.mark.docker))


@pytest.fixture(scope="module", params=HOMES)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """A lab whose echo lives in one of its homes: the configuration differs by this one word. One for all tests."""
    async with hosted(request.param) as lab:
        yield lab


@asynccontextmanager
async def hosted(home: str) -> AsyncIterator[Lab]:
    images = ("base", "tests/emads/echo") if home == "sandbox" else ()
    made, where = ECHO, f"home = {json.dumps(home)}"
    if home == "side by side":
        made, where = CHORUS, 'home = "core"'
    if home == "node":
        where = f'home = "process"\ncommand = {json.dumps(node_echo())}'
    async with lab_of(f'[residents.echo]\nclass = "{made}"\n{where}\n', images=images) as lab:
        yield lab


async def test_a_call_is_answered_by_one_reply(lab: Lab) -> None:
    reply = await call(lab, "echo", "say", text="hello")
    assert reply.kind == KIND_REPLY
    assert json.loads(reply.data) == {"text": "hello"}
    assert reply.sender == "echo"
    assert reply.recipient == "operator"


async def test_the_same_call_again_is_the_same_message_and_has_the_same_answer(lab: Lab) -> None:
    id, conversation = new_id(), new_id()
    first = await call(lab, "echo", "say", id=id, conversation=conversation, text="once")
    again = await call(lab, "echo", "say", id=id, conversation=conversation, text="once")
    assert first.sequence == again.sequence
    assert len(await lab.rogers.history(conversation)) == 2


async def test_an_answer_over_16_kib_travels_as_a_blob_with_a_preview(lab: Lab) -> None:
    reply = await call(lab, "echo", "repeat", text="0123456789", times=5000)
    assert reply.data == ""
    assert [each.name for each in reply.blobs] == ["result.json"]
    body = b"".join([chunk async for chunk in lab.horace.get(reply.blobs[0].digest)])
    assert json.loads(body) == {"text": "0123456789" * 5000}
    assert len(reply.text) == 400
    assert body.decode().startswith(reply.text)


async def test_prose_to_a_mad_without_a_thought_engine_is_a_fault_that_lists_its_tools(lab: Lab) -> None:
    fault = await say(lab, "echo", "how are you?")
    assert fault.kind == KIND_FAULT
    said = json.loads(fault.data)
    assert said["code"] == "no_thought_engine"
    assert "say" in said["next"]
    assert "how are you" not in fault.text


async def test_a_tool_that_raises_is_a_fault_and_the_mad_goes_on(lab: Lab) -> None:
    fault = await call(lab, "echo", "misbehave", how="raise")
    assert fault.kind == KIND_FAULT
    assert "on request" in fault.text
    assert (await call(lab, "echo", "say", text="still here")).kind == KIND_REPLY


async def test_a_tool_that_hangs_is_ended_by_the_deadline_of_its_call(lab: Lab) -> None:
    from time import time

    question = Message(id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="misbehave")
    question.data, question.deadline = '{"how": "hang"}', time() + 1.0
    fault = await ask(lab, question)
    assert json.loads(fault.data)["code"] == "deadline_exceeded"
    assert (await call(lab, "echo", "say", text="still here")).kind == KIND_REPLY


async def test_a_slow_call_keeps_nobody_waiting_where_several_are_taken_at_once(lab: Lab) -> None:
    if lab.config.residents["echo"].class_ != CHORUS:
        pytest.skip("one message after the other: outside of the core, or since the MAD says nothing else")
    from time import time

    slow = Message(id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="misbehave")
    slow.data, slow.deadline = '{"how": "hang"}', time() + 30
    await lab.rogers.publish(slow, sender="operator")
    assert (await call(lab, "echo", "say", text="meanwhile")).kind == KIND_REPLY
    assert await lab.rogers.find(answer_id(slow)) is None


async def test_a_mad_that_ends_itself_is_restarted_and_shown_and_its_caller_hears_of_it(lab: Lab) -> None:
    kept = lab.residents.kept["echo"]
    before = kept.restarts
    fault = await call(lab, "echo", "misbehave", how="exit")
    assert fault.kind == KIND_FAULT
    assert fault.sender == "core"
    assert (await call(lab, "echo", "say", text="back again")).kind == KIND_REPLY
    assert kept.restarts == before + 1
    assert kept.last_error


@pytest.mark.parametrize("home", ["core", "process"])
async def test_a_mad_asks_another_and_has_its_one_answer_a_reply_or_a_fault(home: str) -> None:
    settings = f'[residents.echo]\nclass = "{ECHO}"\n[residents.relay]\nclass = "{RELAY}"\nhome = "{home}"\n'
    async with lab_of(settings) as lab:
        reply = await call(lab, "relay", "relay", wanted="say", arguments='{"text": "round"}')
        assert json.loads(json.loads(reply.data)["text"]) == {"text": "round"}
        fault = await call(lab, "relay", "relay", wanted="misbehave", arguments='{"how": "raise"}')
        assert "on request" in json.loads(fault.data)["text"]
        refused = await call(lab, "relay", "relay", wanted="no_such_tool", arguments="{}")
        assert refused.kind == KIND_FAULT


async def test_progress_is_told_in_the_conversation_before_the_answer(lab: Lab) -> None:
    async def some_bytes() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    blob = await lab.horace.put(some_bytes(), name="some")
    question = Message(id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="count_bytes")
    question.data = json.dumps({"source": blob.digest})
    question.blobs.append(blob)
    reply = await ask(lab, question)
    assert json.loads(reply.data) == {"bytes": 300_000}
    with fail_after(60):
        while not [each for each in await lab.rogers.history(question.conversation) if each.tool == "progress"]:
            await sleep(0.01)


async def test_what_was_said_while_a_mad_was_away_is_answered_when_it_is_back(lab: Lab) -> None:
    question = Message(id=new_id(), conversation=new_id(), recipient="echo", kind=KIND_CALL, tool="misbehave")
    question.data = '{"how": "exit"}'
    waiting = Message(id=new_id(), conversation=question.conversation, recipient="echo", kind=KIND_CALL, tool="say")
    waiting.data = '{"text": "later"}'
    await lab.rogers.publish(question, sender="operator")
    reply = await ask(lab, waiting)
    assert json.loads(reply.data) == {"text": "later"}
    history = await lab.rogers.history(question.conversation)
    assert [each.id for each in history if each.kind in (KIND_REPLY, KIND_FAULT)] == [
        answer_id(question),
        answer_id(waiting),
    ]


@pytest.mark.parametrize("home", ["core", "side by side"])
async def test_a_resident_that_blocks_its_thread_is_interrupted_and_the_core_goes_on(home: str) -> None:
    async with hosted(home) as lab:
        fault = await call(lab, "echo", "misbehave", how="block")
        assert "kept the thread" in fault.text
        assert (await call(lab, "echo", "say", text="back again")).kind == KIND_REPLY
        assert lab.residents.kept["echo"].restarts == 1


async def test_a_resident_of_its_own_process_that_blocks_is_not_heard_of_and_restarted() -> None:
    settings = f'[runs]\nlease_s = 3\n[residents.echo]\nclass = "{ECHO}"\nhome = "process"\n'
    async with lab_of(settings) as lab:
        fault = await call(lab, "echo", "misbehave", how="block")
        assert "not heard of" in fault.text
        assert (await call(lab, "echo", "say", text="back again")).kind == KIND_REPLY
