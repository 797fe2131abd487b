"""What a model is shown stays within what it can take in."""

import json

import pytest

from periphery.hopper.conversation import Conversation, Result
from protos.llm import Completion
from protos.v1 import llm_pb2 as pb

MODEL = pb.Model(context_tokens=16_000, max_tokens=2000)
GOAL = "Mend the mean."


def step(conversation: Conversation, number: int, text: str, *, words: int = 3, arguments: str = "x") -> None:
    """One answer with one call, and what came of it."""
    call = pb.ToolCall(id=f"call-{number}", name="read", arguments=json.dumps({"path": arguments}))
    completion = Completion(
        text="word " * words, usage=pb.Usage(input_tokens=int(conversation.tokens), output_tokens=9)
    )
    conversation.answered(completion, [Result(call, text)], [])


def shown(request: pb.CompleteRequest) -> str:
    return str(request)


def check_shape(request: pb.CompleteRequest) -> None:
    """System, then user and assistant in turns; each result has its call in the turn before."""
    roles = [turn.role for turn in request.turns]
    assert roles[0] == pb.ROLE_SYSTEM
    assert all(role == (pb.ROLE_USER, pb.ROLE_ASSISTANT)[at % 2] for at, role in enumerate(roles[1:]))
    for before, turn in zip(request.turns, request.turns[1:], strict=False):
        asked = {part.tool_call.id for part in before.parts if part.HasField("tool_call")}
        assert {part.tool_result.call_id for part in turn.parts if part.HasField("tool_result")} == (
            asked if turn.role == pb.ROLE_USER else set()
        )


def test_a_short_work_is_shown_as_it_is() -> None:
    conversation = Conversation("Be good.", GOAL, [], MODEL)
    for number in range(5):
        step(conversation, number, f"result {number}")
    request = conversation.request("one")
    check_shape(request)
    assert all(f"result {number}" in shown(request) for number in range(5))
    assert request.sampling.max_tokens == 2000
    assert request.turns[0].parts[-1].cache
    assert request.turns[-1].parts[-1].cache


@pytest.mark.parametrize(("result", "words", "arguments"), [(9000, 3, 1), (100, 2500, 1), (100, 3, 9000)])
def test_what_does_not_fit_is_dropped_oldest_first_with_a_note(result: int, words: int, arguments: int) -> None:
    conversation = Conversation("Be good.", GOAL, [], MODEL)
    for number in range(40):
        step(conversation, number, f"result-{number}: " + "x" * result, words=words, arguments="y" * arguments)
        request = conversation.request("one")
        check_shape(request)
        assert request.ByteSize() < 16_000 * 3
        assert GOAL in shown(request)
        assert f"result-{number}: " in shown(request)
    assert "dropped to save room" in shown(request) or "characters left out" in shown(request)


def test_one_result_that_is_too_big_for_the_model_is_cut() -> None:
    conversation = Conversation("Be good.", GOAL, [], pb.Model(context_tokens=8000, max_tokens=1000))
    step(conversation, 0, "z" * 60_000)
    request = conversation.request("one")
    assert request.ByteSize() < 8000 * 3
    assert "dropped to save room" in shown(request)


def test_what_was_thought_is_given_back_as_it_came() -> None:
    conversation = Conversation("Be good.", GOAL, [], MODEL)
    thought = pb.Reasoning(text="hm", signature="sig")
    conversation.answered(Completion(reasoning=[thought]), [], ["You called no tool."])
    request = conversation.request("one")
    assert request.turns[2].parts[0].reasoning == thought
    assert request.turns[2].parts[1].text == "(nothing)"
    assert request.turns[3].parts[0].text == "You called no tool."
