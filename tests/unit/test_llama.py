"""How a small model is asked, and how what it writes is read: pure, and for whatever pieces it comes in."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from periphery.llama.asking import Asking
from periphery.llama.choosing import Choice
from periphery.llama.mad import About
from periphery.llama.reading import Reading
from protos.errors import InvalidArgument, Unavailable
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb

READ = '{"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}'


def a_request(*tools: tuple[str, str], use: pb.ToolUse.ValueType = pb.TOOL_USE_AUTO) -> pb.CompleteRequest:
    """A question with tools."""
    request = prompt("What is in a.txt?", system="Be brief.")
    for name, schema in tools:
        request.tools.add(name=name, description=f"{name.title()}s a\nfile.", input_schema=schema)
    request.tool_choice.use = use
    return request


def read(choice: Choice | None, pieces: Sequence[str], reason: str = "stop") -> tuple[Completion, str, str]:
    """What is made of what a model wrote: the answer, the name and the arguments of the call in it."""
    reading, completion, name, arguments = Reading(choice), Completion(), "", ""
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": {"content": each}}]} for each in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": reason}]})
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    chunks.append({"choices": [], "usage": usage})
    events = [event for chunk in chunks for event in reading.take(chunk)]
    for event in [*events, *reading.end()]:
        if event.HasField("tool_call_fragment"):
            name += event.tool_call_fragment.name
            arguments += event.tool_call_fragment.arguments
        else:
            completion.take(event)
    return completion, name, arguments


def schema_asked(asking: Asking) -> Any:
    """What the answer is held to."""
    return asking.body["response_format"]["json_schema"]["schema"]


def test_a_plain_question_is_messages_and_settings() -> None:
    request = prompt("Hello?", system="Be brief.")
    request.sampling.max_tokens = 7
    request.sampling.temperature = 0
    request.sampling.stop.append("END")
    body = Asking.of(request).body
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (7, 0, ["END"])
    assert "response_format" not in body
    assert "tools" not in body, "this model's own tool calls are not to be relied on"


def test_turns_alternate_and_system_comes_first() -> None:
    request = prompt("One.")
    request.turns.add(role=pb.ROLE_USER, parts=[pb.Part(text="Two.")])
    request.turns.add(role=pb.ROLE_DEVELOPER, parts=[pb.Part(text="Be brief.")])
    request.turns.add(
        role=pb.ROLE_ASSISTANT, parts=[pb.Part(reasoning=pb.Reasoning(text="hm")), pb.Part(text="Three.")]
    )
    assert [(each["role"], each["content"]) for each in Asking.of(request).body["messages"]] == [
        ("system", "Be brief."),
        ("user", "One.\nTwo."),
        ("assistant", "Three."),
        ("user", "Go on."),
    ]


def test_pictures_are_refused() -> None:
    request = prompt("What is this?")
    request.turns[0].parts.add(image=pb.Image(data=b"x", media_type="image/png"))
    with pytest.raises(InvalidArgument):
        Asking.of(request)


def test_tools_become_words_and_one_schema() -> None:
    asking = Asking.of(a_request(("read", READ), ("list", "")))
    system = asking.body["messages"][0]["content"]
    assert system.startswith("Be brief.\n\nYou cannot see or do anything yourself.")
    assert '- read {"path": string}: Reads a file.' in system
    read_it, list_it, say = schema_asked(asking)["anyOf"]
    assert [*read_it["properties"]] == ["tool", "arguments"], "in the order in which they are decided"
    assert read_it["properties"]["arguments"]["required"] == ["path"]
    assert list_it["properties"]["tool"] == {"const": "list"}
    assert say["properties"]["tool"] == {"const": "answer"}
    assert say["properties"]["arguments"]["properties"] == {"text": {"type": "string"}}


def test_the_choice_is_as_free_as_the_caller_says() -> None:
    tools = (("read", READ), ("list", ""))
    assert "response_format" not in Asking.of(a_request(*tools, use=pb.TOOL_USE_NONE)).body
    assert len(schema_asked(Asking.of(a_request(*tools, use=pb.TOOL_USE_ANY)))["anyOf"]) == 2
    named = a_request(*tools, use=pb.TOOL_USE_NAMED)
    named.tool_choice.name = "read"
    assert schema_asked(Asking.of(named))["properties"]["tool"] == {"const": "read"}


def test_what_schemas_define_is_gathered_under_names_of_their_own() -> None:
    schema = json.dumps(
        {
            "type": "object",
            "$defs": {"Path": {"type": "string"}, "Deep": {"$ref": "#/$defs/Path"}},
            "properties": {"definitions": {"$ref": "#/$defs/Deep"}},
        }
    )
    made = schema_asked(Asking.of(a_request(("one", schema), ("two", schema))))
    assert made["$defs"]["t0_Deep"] == {"$ref": "#/$defs/t0_Path"}
    assert made["anyOf"][1]["properties"]["arguments"]["properties"]["definitions"] == {"$ref": "#/$defs/t1_Deep"}
    assert "$defs" not in made["anyOf"][0]["properties"]["arguments"]


def test_arguments_can_be_held_to_less_where_a_schema_is_too_much() -> None:
    loosened = Asking.of(a_request(("read", READ))).loosened
    assert loosened is not None
    assert schema_asked(loosened)["anyOf"][0]["properties"]["arguments"] == {"type": "object"}
    assert Asking.of(prompt("Hello?")).loosened is None


def test_earlier_calls_and_their_results_are_shown_as_the_model_writes_them() -> None:
    request = a_request(("read", READ))
    call = pb.ToolCall(id="c1", name="read", arguments='{"path": "a.txt"}')
    request.turns.add(role=pb.ROLE_ASSISTANT, parts=[pb.Part(tool_call=call)])
    result = pb.ToolResult(call_id="c1", parts=[pb.Part(text="gone")], failed=True)
    request.turns.add(role=pb.ROLE_USER, parts=[pb.Part(tool_result=result)])
    messages = Asking.of(request).body["messages"]
    assert messages[-2]["content"] == '{"tool": "read", "arguments": {"path": "a.txt"}}'
    reminder = "If this is what the user wants to know, tell it: answer. Else use the next tool."
    assert messages[-1]["content"] == f"read failed:\ngone\n\n{reminder}"


def test_a_tool_that_is_called_as_words_are_is_still_a_tool() -> None:
    choice = Choice({"answer": ("", {})})
    assert choice.words == "answer_in_words"
    assert read(choice, ['{"tool": "answer", "arguments": {"text": "x"}}'])[1:] == ("answer", '{"text": "x"}')


def said(text: str) -> str:
    """How the model says something."""
    return f'{{"tool": "answer", "arguments": {{"text": {text}}}}}'


CHOICE = Choice({"read": ("", {})})
WRITTEN = [
    (said('"Grüße \\"an\\" alle\\n\\u00e4 \\ud83e\\uddea."'), 'Grüße "an" alle\nä 🧪.', "", ""),
    ('{\n  "tool" : "answer"\n,"arguments" :{ "text": ""}}', "", "", ""),
    (said('"half \\ud83e here"'), "half \ufffd here", "", ""),
    ('{"tool": "read", "arguments": {"path": "a}.txt"}}', "", "read", '{"path": "a}.txt"}'),
    ('{ "tool":"read" ,"arguments":{"a":{"b":{}}}\n}\n', "", "read", '{"a":{"b":{}}}'),
    ('{"tool": "read", "arguments": {}}', "", "read", "{}"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("written", "text", "name", "arguments"), WRITTEN)
def test_a_choice_is_read_whatever_pieces_it_comes_in(
    written: str, text: str, name: str, arguments: str, size: int
) -> None:
    pieces = [written[at : at + size] for at in range(0, len(written), size)]
    completion, named, given = read(CHOICE, pieces)
    assert (completion.text, named, given) == (text, name, arguments)
    assert completion.finished.reason == (pb.FINISH_TOOL_CALLS if name else pb.FINISH_STOP)
    told = completion.usage
    assert (told.input_tokens, told.cached_tokens, told.output_tokens) == (9, 2, 4)


def test_what_is_cut_is_handed_on_as_far_as_it_came() -> None:
    completion, name, arguments = read(CHOICE, ['{"tool": "read", "arguments": {"path": "a'], "length")
    assert (name, arguments, completion.finished.reason) == ("read", '{"path": "a', pb.FINISH_LENGTH)
    completion, _, _ = read(CHOICE, ['{"tool": "answer", "arguments": {"text": "It is \\'], "length")
    assert (completion.text, completion.finished.reason) == ("It is ", pb.FINISH_LENGTH)
    assert read(CHOICE, ['{"to'], "length")[0].text == '{"to'
    assert read(None, ["plain ", "text"], "length")[0].text == "plain text"


def test_words_that_must_have_a_form_are_handed_on_as_json() -> None:
    choice = Choice({"read": ("", {})}, said={"type": "object"})
    for size in (1, 5, 100):
        written = said('{"n": {"m": 3}}')
        assert (
            read(choice, [written[at : at + size] for at in range(0, len(written), size)])[0].text == '{"n": {"m": 3}}'
        )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 400, "type": "exceed_context_size_error", "message": "5030 tokens"}, InvalidArgument),
        ({"code": 400, "message": "no"}, InvalidArgument),
        ({"code": 500, "message": "no"}, Unavailable),
        ({}, Unavailable),
    ],
)
def test_what_the_library_complains_of_is_told(error: dict[str, Any], kind: type[Exception]) -> None:
    reading = Reading(None)
    assert list(reading.take({"error": error})) == []
    assert isinstance(reading.trouble, kind)


def test_weights_without_a_note_are_served_with_care(tmp_path: Any) -> None:
    assert About.beside(tmp_path) == About("a local model", 4096, 1)
    (tmp_path / "about.json").write_text('{"name": "x", "context_tokens": 8192, "at_once": 2}')
    assert About.beside(tmp_path) == About("x", 8192, 2)
