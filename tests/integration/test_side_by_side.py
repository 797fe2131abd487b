"""A resident with several messages in hand: what each knows, may do and comes to stays its own."""

import json
from collections.abc import AsyncIterator

import pytest
from anyio import fail_after, sleep

from core.lab import Lab
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_FAULT, KIND_REPLY, TAINT_FILE, Message
from tests.labs import CHORUS, call, lab_of

SETTINGS = f'[residents.chorus]\nclass = "{CHORUS}"\n'
SOLOIST = SETTINGS.replace("Chorus", "Soloist")
LIMIT_S = 60


def asked(tool: str, **arguments: str) -> Message:
    data = json.dumps(arguments)
    return Message(id=new_id(), conversation=new_id(), recipient="chorus", kind=KIND_CALL, tool=tool, data=data)


async def held(lab: Lab, question: Message, *, times: int = 1) -> None:
    """Has `question` said, if it was not, and waits until it is in hand for the `times`th time."""
    with fail_after(LIMIT_S):
        async with lab.rogers.follow(conversation=question.conversation) as messages:
            await lab.rogers.publish(question, sender="operator")
            async for each in messages:
                times -= each.text == "held"
                if not times:
                    return


async def answered(lab: Lab, question: Message) -> Message:
    with fail_after(LIMIT_S):
        return await lab.rogers.answer_to(question.id)


async def from_outside(lab: Lab) -> str:
    """The digest of a blob that no MAD has stored."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"do as I say"

    return (await lab.horace.put(chunks())).digest


async def stored(lab: Lab, answer: Message) -> frozenset[str]:
    """What the blob carries that an answer names."""
    return await lab.services.taints.of_blob(json.loads(answer.data)["text"])


async def test_what_is_read_for_one_message_marks_what_is_said_and_stored_for_that_one_alone() -> None:
    async with lab_of(SETTINGS) as lab:
        reads = asked("hold", source=await from_outside(lab))
        await held(lab, reads)
        clean = await call(lab, "chorus", "keep", text="my own words")
        assert not clean.taint
        assert await stored(lab, clean) == frozenset()
        assert not (await call(lab, "chorus", "release")).taint
        told = await answered(lab, reads)  # though others were begun and done since it has read
        assert list(told.taint) == [TAINT_FILE]
        assert await stored(lab, told) == {"file"}
        with fail_after(LIMIT_S):  # an answer is there a moment before its message is put down
            while lab.services.taints._residents or lab.services.taints._heard:
                await sleep(0.01)


async def test_what_one_was_told_does_not_stick_to_what_was_there_before() -> None:
    async with lab_of(SETTINGS) as lab:
        clean, dirty = asked("hold"), asked("hold")
        await held(lab, clean)
        dirty.taint.append(TAINT_FILE)
        await held(lab, dirty)
        await call(lab, "chorus", "release")
        assert not (await answered(lab, clean)).taint
        assert list((await answered(lab, dirty)).taint) == [TAINT_FILE]


async def test_what_is_said_for_a_message_cannot_answer_another_one() -> None:
    async with lab_of(SETTINGS) as lab:
        holds = asked("hold", source=await from_outside(lab))
        await held(lab, holds)
        fault = await call(lab, "chorus", "usurp")
        assert (fault.kind, json.loads(fault.data)["code"]) == (KIND_FAULT, "permission_denied")
        assert "rule answer" in fault.text
        await call(lab, "chorus", "release")
        assert (await answered(lab, holds)).kind == KIND_REPLY


@pytest.mark.parametrize("tool", ["block_among_tasks", "cancel_itself"])
async def test_what_ends_a_resident_is_not_given_again_and_what_was_in_hand_beside_it_is(tool: str) -> None:
    async with lab_of(SETTINGS) as lab:
        holds = asked("hold")
        await held(lab, holds)
        fault = await call(lab, "chorus", tool)
        assert (fault.kind, fault.sender) == (KIND_FAULT, "core")
        await held(lab, holds, times=2)
        await call(lab, "chorus", "release")
        assert (await answered(lab, holds)).kind == KIND_REPLY
        assert lab.residents.kept["chorus"].restarts == 1


async def test_what_ends_a_resident_and_wants_no_answer_is_not_given_again_either() -> None:
    async with lab_of(SETTINGS.replace("Chorus", "Listener")) as lab:
        word = Message(id=new_id(), conversation=new_id(), recipient="chorus", kind=KIND_EVENT, text="end")
        sequence = await lab.rogers.publish(word, sender="operator")
        with fail_after(LIMIT_S):
            while await lab.journal.cursor("chorus", "") < sequence:
                await sleep(0.01)
        assert lab.residents.kept["chorus"].restarts == 1


async def test_what_comes_out_as_one_of_a_group_ends_the_resident_and_not_the_core() -> None:
    async with lab_of(SOLOIST) as lab:
        fault = await call(lab, "chorus", "block_among_tasks")
        assert "kept the thread" in fault.text
        assert (await call(lab, "chorus", "say", text="back again")).kind == KIND_REPLY
