"""The door that Codex uses: `/v1/responses`, by the official SDK, every event held against the SDK's own types.

How it compares with a direct connection is for `integration/test_doors_traffic.py`. The types are the makers'.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from anyio import fail_after
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.contract.test_doors import CALLS, SCHEMA
from tests.model_server import Play, Request
from tests.roads import DOORS, GATE, Road, open_road

TOOLS: Any = [{"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA, "strict": False}]
PATCH: Any = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Changes files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(params=(DOORS, GATE))
async def road(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Road]:
    async with open_road(request.param, tmp_path, model="two") as road:
        yield road


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Road]:
    async with open_road(DOORS, tmp_path, model="two") as road:
        yield road


async def ask(road: Road, **asked: Any) -> tuple[list[Any], Response]:
    """Every event of a stream, and what it ends with."""
    body: Any = {"model": "gpt-5-codex", "input": "Hello?", "store": False, "tools": TOOLS} | asked
    with fail_after(60):
        stream: Any = await road.openai.responses.create(**body, stream=True)
        events = [each async for each in stream]
    for number, (name, data) in enumerate(road.last.events):
        assert name == data["type"]
        assert data["sequence_number"] == number
        EVENT.validate_python(data)
    return events, events[-1].response


def collapsed(events: list[Any]) -> list[str]:
    """The types in their order; the same again counts once."""
    names = [each.type.removeprefix("response.") for each in events]
    return [each for index, each in enumerate(names) if index == 0 or names[index - 1] != each]


async def test_a_response_is_told_as_codex_reads_it(road: Road) -> None:
    play = Play(text="Grüße 🧪", reasoning="Hm.", signature="c2ln", calls=CALLS, cached=3)
    road.server.script = lambda _: play
    events, response = await ask(road, include=["reasoning.encrypted_content"])
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert collapsed(events) == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *call,
        *call,
        "completed",
    ]
    assert response.output_text == "Grüße 🧪"
    assert [each.type for each in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert [each.arguments for each in response.output if each.type == "function_call"] == [args for _, args in CALLS]
    assert response.usage is not None
    assert response.usage.input_tokens == road.server.bill[0][0]
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert response.usage.output_tokens == play.output_tokens
    done = [each.item for each in events if each.type == "response.output_item.done"]
    assert [each.model_dump() for each in done] == [each.model_dump() for each in response.output]


async def test_a_whole_response_says_the_same(doors: Road) -> None:
    doors.server.script = lambda _: Play(text="Hello.", reasoning="Hm.", calls=CALLS)
    with fail_after(60):
        whole = await doors.openai.responses.create(model="gpt-5", input="Hello?", tools=TOOLS)
    _, streamed = await ask(doors)
    Response.model_validate_json(doors.recording.exchanges[0].text)

    def said(response: Response) -> list[Any]:
        return [each.model_dump(exclude={"id", "call_id"}) for each in response.output]

    assert said(whole) == said(streamed)
    assert (whole.status, whole.model) == ("completed", "gpt-5")


async def test_an_agent_goes_on_with_all_that_was_said(doors: Road) -> None:
    plays = [Play(text="I look.", reasoning="Hm.", signature="c2ln", calls=CALLS), Play(text="Done.")]
    doors.server.script = lambda request: plays[_spoken(request)]
    _, first = await ask(doors, instructions="Be brief.", include=["reasoning.encrypted_content"])
    picture = base64.b64encode(b"\x89PNG picture").decode()
    outputs: list[Any] = ["nothing", [{"type": "input_image", "image_url": f"data:image/png;base64,{picture}"}]]
    ids = [each.call_id for each in first.output if each.type == "function_call"]
    history: list[Any] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Really."}]},
        {"role": "user", "content": "Hello?"},
        *[each.model_dump(exclude_none=True) for each in first.output],
        *[
            {"type": "function_call_output", "call_id": id, "output": each}
            for id, each in zip(ids, outputs, strict=True)
        ],
    ]
    _, last = await ask(doors, instructions="Be brief.", input=history)
    assert last.output_text == "Done."
    sent = doors.sent
    assert [each["text"] for each in sent["system"]] == ["Be brief.", "Really."]
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "user"]
    kinds = [each["type"] for each in sent["messages"][1]["content"]]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert sent["messages"][1]["content"][0]["signature"] == "c2ln"
    results = sent["messages"][2]["content"]
    assert [each["tool_use_id"] for each in results] == ids
    assert [each["content"][0]["type"] for each in results] == ["text", "image"]


async def test_a_tool_that_takes_free_text_gets_it(doors: Road) -> None:
    patch = '*** Begin Patch\n"quoted" ä\n*** End Patch'
    doors.server.script = lambda _: Play(text="", calls=[("apply_patch", json.dumps({"input": patch}))])
    events, response = await ask(doors, tools=[PATCH])
    assert collapsed(events)[2:-1] == [
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
    ]
    [call] = response.output
    assert call.type == "custom_tool_call"
    assert (call.name, call.input) == ("apply_patch", patch)
    assert "start: /.+/" in doors.sent["tools"][0]["description"]
    said: list[Any] = [
        {"role": "user", "content": "Hello?"},
        call.model_dump(exclude_none=True),
        {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done!"},
    ]
    await ask(doors, tools=[PATCH], input=said)
    assert doors.sent["messages"][1]["content"][0]["input"] == {"input": patch}
    assert doors.sent["messages"][2]["content"][0]["content"][0]["text"] == "Done!"


async def test_tools_of_a_namespace_keep_their_names(doors: Road) -> None:
    space: Any = {"type": "namespace", "name": "files", "description": "Files.", "tools": TOOLS}
    doors.server.script = lambda _: Play(text="", calls=[("files__read", '{"path": "a"}')])
    _, response = await ask(doors, tools=[space, {"type": "web_search"}])
    assert [each["name"] for each in doors.sent["tools"]] == ["files__read"]
    [call] = response.output
    assert call.type == "function_call"
    assert (call.namespace, call.name) == ("files", "read")


async def test_tools_may_come_with_the_conversation(doors: Road) -> None:
    more: Any = {"type": "additional_tools", "role": "developer", "tools": [PATCH]}
    said: list[Any] = [more, {"role": "user", "content": "Hello?"}]
    doors.server.script = lambda _: Play(text="", calls=[("apply_patch", '{"input": "x"}')])
    _, response = await ask(doors, input=said)
    assert [each["name"] for each in doors.sent["tools"]] == ["read", "apply_patch"]
    assert response.output[0].type == "custom_tool_call"


async def test_a_broken_call_is_told_in_words_when_it_comes_back(doors: Road) -> None:
    doors.server.script = lambda request: Play(text="", calls=[("read", '{"path": ')] if _spoken(request) == 0 else ())
    _, response = await ask(doors)
    [call] = response.output
    assert call.type == "function_call"
    assert call.arguments == '{"path": '
    history: list[Any] = [
        {"role": "user", "content": "Hello?"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "no JSON"},
    ]
    await ask(doors, input=history)
    assert [each["role"] for each in doors.sent["messages"]] == ["user", "assistant", "user"]
    assert '{"path": ' in doors.sent["messages"][1]["content"][0]["text"]
    assert "no JSON" in doors.sent["messages"][2]["content"][0]["text"]


@pytest.mark.parametrize(
    ("play", "status", "why"),
    [
        (Play(finish="length"), "incomplete", "max_output_tokens"),
        (Play(finish="filter"), "incomplete", "content_filter"),
        (Play(), "completed", None),
    ],
    ids=["length", "filter", "end"],
)
async def test_a_response_says_why_it_ended(doors: Road, play: Play, status: str, why: str | None) -> None:
    doors.server.script = lambda _: play
    events, response = await ask(doors, max_output_tokens=50)
    assert (response.status, events[-1].type) == (status, f"response.{status}")
    assert (response.incomplete_details.reason if response.incomplete_details else None) == why
    assert doors.sent["max_tokens"] == 50


async def test_a_refusal_is_a_part_of_its_own(doors: Road) -> None:
    doors.server.script = lambda _: Play(text="", refusal="I will not.")
    events, response = await ask(doors, model="one")
    assert collapsed(events)[2:-1] == [
        *("output_item.added", "content_part.added", "refusal.delta", "refusal.done"),
        *("content_part.done", "output_item.done"),
    ]
    [message] = response.output
    assert message.type == "message"
    assert message.content[0].type == "refusal"


async def test_an_answer_that_breaks_off_is_a_failed_response(doors: Road) -> None:
    doors.server.script = lambda _: Play(text="one two three four", cut="middle")
    events, response = await ask(doors)
    assert events[-1].type == "response.failed"
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == "server_error"
    assert "broke off" in response.error.message


async def test_a_spent_budget_ends_codex_at_once(doors: Road) -> None:
    doors.server.script = lambda _: Play(status=402)
    client = doors.openai.with_options(max_retries=5)
    with fail_after(60), pytest.raises(openai.RateLimitError) as caught:
        await client.responses.create(model="gpt-5", input="Hello?")
    assert caught.value.code == "insufficient_quota"
    assert len(doors.recording.exchanges) == 1
    assert doors.doors.exhausted is not None


async def test_structured_output_is_asked_of_the_model(doors: Road) -> None:
    doors.server.script = lambda _: Play(text='{"path": "a"}')
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
    _, response = await ask(doors, model="one", text=form, reasoning={"effort": "low"}, tools=[])
    assert json.loads(response.output_text) == {"path": "a"}
    assert doors.sent["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    assert doors.sent["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    "asked",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]},
        {"tool_choice": {"type": "web_search"}},
    ],
    ids=["previous", "conversation", "background", "reference", "file", "address", "hosted"],
)
async def test_what_needs_a_memory_or_the_network_is_refused_with_a_sentence(doors: Road, asked: Any) -> None:
    with fail_after(60), pytest.raises(openai.BadRequestError) as caught:
        await doors.openai.responses.create(**({"model": "gpt-5", "input": "Hello?"} | asked))
    assert caught.value.param
    assert not doors.server.requests


def _spoken(request: Request) -> int:
    return sum(each["role"] == "assistant" for each in request.body["messages"])
