"""What clients send: read without belief, and told in words that every provider takes."""

import json

import pytest

from core.fiedler.requests import check_request
from periphery.doors import chat, messages, responses
from periphery.doors.history import History
from periphery.doors.reading import Fields, WrongField, body_of, is_object, picture_at
from periphery.doors.tools import NAME_CHARACTERS, Toolbox, name_of, text_of
from protos.errors import InvalidArgument
from protos.ids import new_id
from protos.v1 import llm_pb2 as pb


@pytest.mark.parametrize("text", ["[]", "7", "", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 9999])
def test_what_not_everybody_reads_is_no_object(text: str) -> None:
    assert not is_object(text)


def test_an_object_is_one() -> None:
    assert is_object('{"a": [1.5, null, "ä"]}')


def test_a_wrong_field_is_named_by_its_place() -> None:
    inner = next(iter(Fields({"a": [{"b": 7}]}).objects("a")))
    with pytest.raises(WrongField, match=r"a\[0\]\.b: is a string") as caught:
        inner.text("b")
    assert caught.value.param == "a[0].b"


@pytest.mark.parametrize("url", ["data:image/png;base64,@@@", "data:image/png;base64,a", "data:image/png,x", "x"])
def test_a_picture_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        picture_at(url, Fields({}))


def test_a_picture_keeps_its_type() -> None:
    made = picture_at("data:image/png;name=a;base64,YWI=", Fields({}), detail="auto").image
    assert (made.data, made.media_type, made.detail) == (b"ab", "image/png", "")


def _call(id: str, arguments: str) -> pb.Part:
    return pb.Part(tool_call=pb.ToolCall(id=id, name="read", arguments=arguments))


def _result(id: str, text: str) -> pb.Part:
    return pb.Part(tool_result=pb.ToolResult(call_id=id, parts=[pb.Part(text=text)]))


def test_calls_and_results_that_belong_together_are_one_turn() -> None:
    history = History()
    history.add(pb.ROLE_USER, [pb.Part(text="Hello?")])
    history.add(pb.ROLE_ASSISTANT, [pb.Part(text="I look.")])
    history.add(pb.ROLE_ASSISTANT, [_call("1", "{}")])
    history.add(pb.ROLE_ASSISTANT, [_call("2", "{}")])
    history.add(pb.ROLE_USER, [_result("1", "a")])
    history.add(pb.ROLE_USER, [_result("2", "b")])
    history.add(pb.ROLE_USER, [pb.Part(text="And?")])
    history.add(pb.ROLE_USER, [])
    assert [len(each.parts) for each in history.turns] == [1, 3, 2, 1]


def test_a_broken_call_and_its_answer_are_told_in_words() -> None:
    history = History()
    history.add(pb.ROLE_ASSISTANT, [_call("1", '{"a": '), _call("2", "{}")])
    history.add(pb.ROLE_USER, [_result("1", "no JSON"), _result("2", "fine")])
    spoken, answered = history.turns
    assert [each.WhichOneof("kind") for each in spoken.parts] == ["text", "tool_call"]
    assert '{"a": ' in spoken.parts[0].text
    assert [each.WhichOneof("kind") for each in answered.parts] == ["text", "tool_result"]
    assert "no JSON" in answered.parts[0].text


def test_an_id_that_is_used_again_is_another_call() -> None:
    history = History()
    for arguments in ("{", "{}"):
        history.add(pb.ROLE_ASSISTANT, [_call("call_0", arguments)])
        history.add(pb.ROLE_USER, [_result("call_0", "x")])
    kinds = [part.WhichOneof("kind") for turn in history.turns for part in turn.parts]
    assert kinds == ["text", "text", "tool_call", "tool_result"]


def test_what_every_door_reads_is_a_request_that_fiedler_takes() -> None:
    said = [{"role": "user", "content": "Hello?"}]
    broken = {"id": "1", "type": "function", "function": {"name": "read", "arguments": "{"}}
    long = [*said, {"role": "assistant", "tool_calls": [broken]}, {"role": "tool", "tool_call_id": "1", "content": "x"}]
    used = [*said, {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "a", "input": "{"}]}]
    for asked in (
        chat.read(Fields({"model": "x", "messages": long})),
        messages.read(Fields({"model": "x", "max_tokens": 1, "messages": used})),
        messages.read(Fields({"model": "x", "max_tokens": 1, "messages": said, "thinking": {"type": "adaptive"}})),
        responses.read(Fields({"model": "x", "input": said, "reasoning": {"effort": "xhigh"}})),
    ):
        asked.request.id = new_id()
        check_request(asked.request)


def test_a_long_conversation_is_counted_about_right() -> None:
    said = [{"role": "user" if n % 2 else "assistant", "content": "word " * 100} for n in range(2000)]
    asked = messages.read(body_of(json.dumps({"model": "x", "max_tokens": 1, "messages": said}).encode()))
    assert len(asked.request.turns) == 2000
    estimated = messages.estimated_tokens(asked.request)
    assert 200_000 < estimated < 400_000


def test_names_in_a_namespace_stay_short_and_apart() -> None:
    first, second = name_of("a" * 60, "space"), name_of("a" * 59 + "b", "space")
    assert len(first) == len(second) == NAME_CHARACTERS
    assert first != second
    box = Toolbox()
    box.add(
        Fields(
            {
                "tools": [
                    {"type": "namespace", "name": "space", "tools": [{"type": "function", "name": "a" * 60}]},
                    {"type": "web_search"},
                ]
            }
        )
    )
    assert [each.name for each in box.offers] == [first]
    assert (box.origin(first).namespace, box.origin(first).name) == ("space", "a" * 60)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"input": "a\\nb"}', "a\nb"), ('{"input": 7}', '{"input": 7}'), ("plain", "plain"), ("{", "{")],
)
def test_free_text_is_taken_out_of_its_object(arguments: str, text: str) -> None:
    assert text_of(arguments) == text
