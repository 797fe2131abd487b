"""The sequence of blocks: one open at a time, whatever the provider mixes."""

from typing import Any

import pytest

from periphery.doors.blocks import Blocks
from protos.errors import Unavailable
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent


def fragment(index: int, arguments: str = "", *, id: str = "", name: str = "") -> CompletionEvent:
    return CompletionEvent(tool_call_fragment=pb.ToolCallFragment(index=index, id=id, name=name, arguments=arguments))


def call(id: str, name: str, arguments: str) -> CompletionEvent:
    return CompletionEvent(tool_call=pb.ToolCall(id=id, name=name, arguments=arguments))


def end(reason: pb.FinishReason.ValueType = pb.FINISH_TOOL_CALLS) -> CompletionEvent:
    return CompletionEvent(finished=pb.Finished(reason=reason))


def told(*events: CompletionEvent) -> tuple[Blocks, list[tuple[Any, ...]]]:
    """What is said of the events: a step, the kind and index of its block, and the piece."""
    blocks = Blocks()
    return blocks, [
        (step.what, step.block.kind, step.block.index, step.piece) for each in events for step in blocks.take(each)
    ]


def contents(blocks: Blocks) -> list[tuple[str, str, str]]:
    return [(each.kind, each.name, each.text) for each in blocks.all]


def test_a_thought_a_text_and_a_call_follow_one_another() -> None:
    blocks, steps = told(
        CompletionEvent(reasoning=pb.Reasoning(text="H")),
        CompletionEvent(reasoning=pb.Reasoning(text="m")),
        CompletionEvent(reasoning=pb.Reasoning(signature="s")),
        CompletionEvent(reasoning=pb.Reasoning(opaque="o")),
        CompletionEvent(text="a"),
        CompletionEvent(text="b"),
        fragment(0, id="1", name="read"),
        fragment(0, "{}"),
        call("1", "read", "{}"),
        end(),
    )
    assert [each[:3] for each in steps if each[0] != "goes"] == [
        ("begins", "thought", 0),
        ("ends", "thought", 0),
        ("begins", "sealed", 1),
        ("ends", "sealed", 1),
        ("begins", "text", 2),
        ("ends", "text", 2),
        ("begins", "call", 3),
        ("ends", "call", 3),
    ]
    assert contents(blocks) == [("thought", "", "Hm"), ("sealed", "", ""), ("text", "", "ab"), ("call", "read", "{}")]
    assert (blocks.all[0].signature, blocks.all[1].opaque) == ("s", "o")


def test_two_calls_at_once_are_told_one_after_the_other() -> None:
    blocks, steps = told(
        fragment(0, id="1", name="read"),
        fragment(1, id="2", name="write"),
        fragment(0, '{"a"'),
        fragment(1, '{"b": '),
        fragment(2, "{}", id="3", name="list"),
        fragment(0, ": 1}"),
        fragment(1, "2}"),
        call("1", "read", '{"a": 1}'),
        call("2", "write", '{"b": 2}'),
        call("3", "list", "{}"),
        end(),
    )
    assert contents(blocks) == [
        ("call", "read", '{"a": 1}'),
        ("call", "write", '{"b": 2}'),
        ("call", "list", "{}"),
    ]
    open_now: list[int] = []
    for what, _, index, _ in steps:
        if what == "begins":
            open_now.append(index)
        assert open_now == [index]
        if what == "ends":
            open_now.remove(index)
    assert [each.number for each in blocks.all] == [0, 1, 2]


def test_what_was_held_back_behind_a_broken_call_comes_at_the_end() -> None:
    blocks, _ = told(
        fragment(0, '{"a": ', id="1", name="read"),
        fragment(1, "{}", id="2", name="write"),
        CompletionEvent(broken_tool_call=pb.BrokenToolCall(call=pb.ToolCall(id="1", name="read", arguments='{"a": '))),
        call("2", "write", "{}"),
        end(pb.FINISH_INVALID_TOOL_CALL),
    )
    assert contents(blocks) == [("call", "read", '{"a": '), ("call", "write", "{}")]
    assert [each.id for each in blocks.all] == ["1", "2"]


def test_calls_without_fragments_are_told_whole() -> None:
    blocks, steps = told(CompletionEvent(text="a"), call("1", "read", "{}"), call("2", "read", '{"b": 1}'), end())
    assert contents(blocks)[1:] == [("call", "read", "{}"), ("call", "read", '{"b": 1}')]
    assert [each[0] for each in steps] == ["begins", "goes", "ends"] * 3


def test_a_call_that_goes_on_after_its_end_is_no_call() -> None:
    with pytest.raises(Unavailable, match="mixed"):
        told(fragment(0, "{}", id="1", name="a"), fragment(1, "{}", id="2", name="b"), fragment(0, '{"x": 1}'))


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    blocks, _ = told(fragment(0, "{}", name="a"), fragment(1, "{}", name="b"), end())
    first, second = (each.id for each in blocks.all)
    assert first != second
    assert first.startswith("call_")


@pytest.mark.parametrize(
    ("output", "assumed", "reason"),
    [
        (100, False, pb.FINISH_LENGTH),
        (99, False, pb.FINISH_INVALID_TOOL_CALL),
        (100, True, pb.FINISH_INVALID_TOOL_CALL),
    ],
    ids=["at the most", "below", "nobody knows"],
)
def test_a_call_that_broke_at_the_most_tokens_was_cut(
    output: int, assumed: bool, reason: pb.FinishReason.ValueType
) -> None:
    blocks, _ = told(
        CompletionEvent(usage=pb.Usage(output_tokens=output, assumed=assumed)), end(pb.FINISH_INVALID_TOOL_CALL)
    )
    blocks.most = 100
    assert blocks.reason == reason


def test_an_answer_without_an_end_is_none() -> None:
    blocks, _ = told(CompletionEvent(text="a"))
    with pytest.raises(Unavailable):
        blocks.check_end()
