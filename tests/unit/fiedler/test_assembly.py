"""What is handed on of what a model writes, and what is not."""

import json
import time

import pytest

from core.fiedler.assembly import Assembly, Wanted
from core.fiedler.provider import Trouble
from core.fiedler.schemas import check_of
from core.redaction.redactor import Redactor
from protos.errors import InvalidArgument
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent

READ = json.dumps(
    {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": False,
    }
)


def wanted(**format: str) -> Wanted:
    request = prompt("do")
    request.tools.add(name="read", input_schema=READ)
    if format:
        request.format.schema.schema = format["schema"]
    return Wanted.by(request)


def answer(*events: CompletionEvent, by: Wanted | None = None, key: str = "") -> Completion:
    redactor = Redactor()
    redactor.learn("key", key.encode())
    assembly, completion = Assembly(by or wanted(), redactor), Completion()
    for event in events:
        for each in assembly.take(event):
            completion.take(each)
    return completion


def fragment(arguments: str, *, name: str = "", index: int = 0) -> CompletionEvent:
    return CompletionEvent(tool_call_fragment=pb.ToolCallFragment(index=index, name=name, arguments=arguments))


def end(reason: pb.FinishReason.ValueType = pb.FINISH_TOOL_CALLS) -> CompletionEvent:
    return CompletionEvent(finished=pb.Finished(reason=reason))


def test_a_call_is_handed_on_when_it_is_whole_and_fits() -> None:
    made = answer(fragment('{"pa', name="read"), fragment('th": "a"}'), end(pb.FINISH_STOP))
    assert [(each.name, json.loads(each.arguments)) for each in made.tool_calls] == [("read", {"path": "a"})]
    assert made.finished.reason == pb.FINISH_TOOL_CALLS
    assert made.tool_calls[0].id


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("read", '{"path": "a', "no JSON"),
        ("read", '{"path": 5}', "5 is not of type 'string'"),
        ("read", "{}", "'path' is a required property"),
        ("read", '{"path": "a", "mode": "w"}', "mode"),
        ("read", '["a"]', "no JSON object"),
        ("read", '{"path": NaN}', "no JSON"),
        ("read", '{"path": "\\ud800"}', "no JSON"),
        ("read", "[" * 100_000, "no JSON"),
        ("delete", '{"path": "a"}', "There is no tool 'delete'"),
        ("", '{"path": "a"}', "There is no tool ''"),
    ],
)
def test_a_call_that_cannot_be_run_is_told_as_broken(name: str, arguments: str, word: str) -> None:
    made = answer(fragment(arguments, name=name), end())
    assert made.tool_calls == []
    assert word in made.broken_tool_calls[0].problem
    assert made.finished.reason == pb.FINISH_INVALID_TOOL_CALL


def test_one_broken_call_does_not_take_the_good_one_with_it() -> None:
    made = answer(fragment('{"path": "a"}', name="read"), fragment("{", name="read", index=1), end())
    assert len(made.tool_calls) == len(made.broken_tool_calls) == 1
    assert made.finished.reason == pb.FINISH_INVALID_TOOL_CALL


def test_nothing_is_handed_on_of_calls_without_an_end() -> None:
    made = answer(fragment('{"path": "a"}', name="read"))
    assert made.tool_calls == made.broken_tool_calls == []


def test_fragments_are_for_those_who_asked() -> None:
    request = prompt("do")
    request.fragments = True
    assembly = Assembly(Wanted.by(request), Redactor())
    assert [each.WhichOneof("kind") for each in assembly.take(fragment("{"))] == ["tool_call_fragment"]
    assert list(Assembly(wanted(), Redactor()).take(fragment("{"))) == []


def test_output_that_does_not_fit_its_schema_is_told() -> None:
    by = wanted(schema='{"type": "object", "required": ["n"]}')
    good = answer(CompletionEvent(text='{"n":'), CompletionEvent(text=" 1}"), end(pb.FINISH_STOP), by=by)
    assert good.finished.reason == pb.FINISH_STOP
    bad = answer(CompletionEvent(text='{"m": 1}'), end(pb.FINISH_STOP), by=by)
    assert bad.finished.reason == pb.FINISH_INVALID_OUTPUT
    assert "'n' is a required property" in bad.finished.detail


@pytest.mark.parametrize("size", range(1, 12))
def test_a_key_that_comes_back_in_pieces_is_struck_out(size: int) -> None:
    key, text = "sk-abcabcd-1", "sk-sk-abcabcabcd no: sk-abcabcd-1 and sk-abcabcd-1sk-abc"
    pieces = [CompletionEvent(text=text[at : at + size]) for at in range(0, len(text), size)]
    made = answer(*pieces, end(pb.FINISH_STOP), key=key)
    assert made.text == text.replace(key, "[secret key]")


def test_too_many_calls_are_nonsense() -> None:
    with pytest.raises(Trouble):
        answer(*(fragment("", name="read", index=index) for index in range(200)))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ('{"pattern": "^(a+)+$"}', json.dumps("a" * 40 + "b")),
        ('{"uniqueItems": true}', json.dumps([{"a": n} for n in range(20_000)])),
        (
            json.dumps(
                {
                    "$ref": "#/$defs/d0",
                    "$defs": {
                        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
                        for n in range(40)
                    }
                    | {"d40": False},
                }
            ),
            "1",
        ),
        ('{"$ref": "#"}', "1"),
        ('{"$ref": "http://127.0.0.1:9/schema.json"}', "1"),
        ('{"$ref": "file:///etc/passwd"}', "1"),
    ],
    ids=["pattern", "unique", "doubling", "endless", "http", "file"],
)
def test_a_schema_cannot_take_the_core_its_time(schema: str, text: str) -> None:
    check = check_of(schema, what="the tool")
    began = time.thread_time()  # of the processor: a busy machine is no fault of the check
    check(text)
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize("schema", ["[]", "{", '{"type": "nothing"}', '{"a": "' + "x" * 70_000 + '"}', "[" * 50_000])
def test_what_is_no_schema_is_refused(schema: str) -> None:
    with pytest.raises(InvalidArgument):
        check_of(schema, what="the tool")
