"""The doors: the official SDKs, unmodified, cannot tell them from a direct connection.

One body per behaviour, over all roads. What is known to differ is data, at the top.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anyio import create_task_group, fail_after, sleep

from tests.model_server import Play
from tests.roads import DOORS, GATE, STRAIGHT, Road, open_road

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n picture").decode()
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}]
TOOLS: Any = [{"name": "read", "description": "Reads.", "input_schema": SCHEMA}]
ASK: Any = [{"role": "user", "content": "Hello?"}]
CALLS = [("read", '{"path": "a.py"}'), ("read", '{"path": "b.py"}')]

# What the model server says, and what a client of the doors gets. A key that is refused is the lab's and not the
# client's; a provider that is busy has been waited for already.
STATUS = {400: 400, 401: 403, 402: 402, 403: 403, 404: 400, 429: 503, 500: 503, 503: 503, 529: 503}

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@pytest.fixture(params=(STRAIGHT, DOORS, GATE))
async def road(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Road]:
    async with open_road(request.param, tmp_path, model="one") as road:
        yield road


@pytest.fixture(params=(STRAIGHT, DOORS))
async def near(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Road]:
    """For what the gate has no part in."""
    async with open_road(request.param, tmp_path, model="one") as road:
        yield road


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Road]:
    async with open_road(DOORS, tmp_path) as road:
        yield road


class Chat:
    """A chat completion put together, whichever way it came."""

    def __init__(self) -> None:
        self.text, self.thought, self.refusal, self.reason = "", "", "", ""
        self.calls: list[tuple[str, str, str]] = []
        self.usage: Any = None

    def take(self, said: Any) -> None:
        self.text += said.content or ""
        self.refusal += getattr(said, "refusal", None) or ""
        self.thought += getattr(said, "reasoning_content", None) or ""
        for place, each in enumerate(said.tool_calls or []):
            index = getattr(each, "index", place)
            if index == len(self.calls):
                self.calls.append((each.id, each.function.name, ""))
            id, name, arguments = self.calls[index]
            self.calls[index] = id, name, arguments + each.function.arguments


async def chat(road: Road, *, stream: bool, **asked: Any) -> Chat:
    made = Chat()
    body: Any = {"model": "one", "messages": ASK} | asked
    with fail_after(60):
        if not stream:
            answer = await road.openai.chat.completions.create(**body)
            made.take(answer.choices[0].message)
            made.reason, made.usage = answer.choices[0].finish_reason, answer.usage
            return made
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async for chunk in await road.openai.chat.completions.create(**body):
            made.usage = chunk.usage or made.usage
            for choice in chunk.choices:
                made.take(choice.delta)
                made.reason = choice.finish_reason or made.reason
    return made


async def message(road: Road, *, stream: bool, **asked: Any) -> anthropic.types.Message:
    # An alias of Anthropic's own kind, so that thoughts keep their signature on the way.
    body: Any = {"model": "two", "messages": ASK, "max_tokens": 500} | asked
    with fail_after(60):
        if not stream:
            whole: anthropic.types.Message = await road.anthropic.messages.create(**body)
            return whole
        async with road.anthropic.messages.stream(**body) as events:
            async for _ in events:
                pass
            return await events.get_final_message()


@streamed_or_whole
async def test_a_chat_says_all_that_the_model_said(road: Road, stream: bool) -> None:
    play = Play(text="Grüße 🧪 to you", reasoning="Hm, well.", calls=CALLS, cached=3)
    road.server.script = lambda _: play
    made = await chat(road, stream=stream, tools=CHAT_TOOLS)
    assert (made.text, made.thought, made.reason) == ("Grüße 🧪 to you", "Hm, well.", "tool_calls")
    assert made.calls == [("call_0", *CALLS[0]), ("call_1", *CALLS[1])]
    assert made.usage.prompt_tokens == road.server.bill[0][0]
    assert made.usage.completion_tokens == play.output_tokens
    assert made.usage.prompt_tokens_details.cached_tokens == 3


@streamed_or_whole
async def test_a_message_says_all_that_the_model_said(road: Road, stream: bool) -> None:
    play = Play(text="Grüße 🧪", reasoning="Hm.", signature="c2ln", calls=CALLS, cached=3)
    road.server.script = lambda _: play
    made = await message(road, stream=stream, tools=TOOLS)
    thought, text, *calls = made.content
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == ("Hm.", "c2ln")
    assert text.type == "text"
    assert text.text == "Grüße 🧪"
    told = [(each.name, each.input) for each in calls if each.type == "tool_use"]
    assert told == [("read", {"path": "a.py"}), ("read", {"path": "b.py"})]
    assert made.stop_reason == "tool_use"
    assert made.usage.input_tokens == road.server.bill[0][0] - 3
    assert made.usage.cache_read_input_tokens == 3
    assert made.usage.output_tokens == play.output_tokens


async def test_pieces_come_as_they_are_written(road: Road) -> None:
    road.server.script = lambda _: Play(text="one two three four", hang="middle")  # nothing comes behind its first half
    heard = ""
    with fail_after(60):
        stream = await road.openai.chat.completions.create(model="one", messages=ASK, stream=True)
        async for chunk in stream:
            heard += chunk.choices[0].delta.content or ""
            if "two" in heard:
                break
        await stream.close()
    assert "four" not in heard


@streamed_or_whole
@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (Play(), "stop"),
        (Play(finish="length"), "length"),
        (Play(finish="filter"), "content_filter"),
        (Play(text="", refusal="I will not."), "stop"),
    ],
    ids=["stop", "length", "filter", "refusal"],
)
async def test_a_chat_ends_for_the_reason_that_the_model_had(near: Road, play: Play, reason: str, stream: bool) -> None:
    near.server.script = lambda _: play
    made = await chat(near, stream=stream)
    assert (made.reason, made.refusal) == (reason, play.refusal)


@streamed_or_whole
@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (Play(), "end_turn"),
        (Play(finish="length"), "max_tokens"),
        (Play(finish="filter"), "refusal"),
        (Play(stop_sequence="END"), "stop_sequence"),
    ],
    ids=["end", "length", "filter", "sequence"],
)
async def test_a_message_ends_for_the_reason_that_the_model_had(
    near: Road, play: Play, reason: str, stream: bool
) -> None:
    near.server.script = lambda _: play
    made = await message(near, stream=stream, stop_sequences=["END"])
    assert (made.stop_reason, made.stop_sequence) == (reason, play.stop_sequence or None)
    assert near.sent["stop_sequences"] == ["END"]


@streamed_or_whole
@pytest.mark.parametrize("arguments", ['{"path": ', '{"path": 7}', "[]", ""], ids=["cut", "wrong", "list", "none"])
async def test_a_broken_tool_call_comes_as_the_model_wrote_it(near: Road, arguments: str, stream: bool) -> None:
    near.server.script = lambda _: Play(text="", calls=[("read", arguments)])
    made = await chat(near, stream=stream, tools=CHAT_TOOLS)
    assert made.reason == "tool_calls"
    [(_, name, written)] = made.calls
    # Nothing at all is an empty object to Fiedler, who then says so where there is no stream.
    assert (name, written) == ("read", arguments if stream or arguments or near.is_straight else "{}")


async def test_a_call_of_a_tool_that_was_not_offered_comes_too(near: Road) -> None:
    near.server.script = lambda _: Play(text="", calls=[("erase", "{}")])
    made = await message(near, stream=True, tools=TOOLS)
    assert [(each.name, each.input) for each in made.content if each.type == "tool_use"] == [("erase", {})]
    assert made.stop_reason == "tool_use"


async def test_a_whole_chat_arrives_at_the_model_as_it_was_asked(road: Road) -> None:
    conversation: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, _picture_url("low")]},
        {"role": "assistant", "content": "I look.", "tool_calls": [_chat_call("1", "a.py"), _chat_call("2", "b.py")]},
        {"role": "tool", "tool_call_id": "1", "content": "first"},
        {"role": "tool", "tool_call_id": "2", "content": "second"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
    ]
    asked: dict[str, Any] = {
        "messages": conversation,
        "tools": CHAT_TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "read"}},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 7,
        "stop": ["END"],
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
    }
    await chat(road, stream=True, **asked)
    assert {name: road.sent.get(name) for name in asked} == asked


async def test_a_whole_message_arrives_at_the_model_as_it_was_asked(road: Road) -> None:
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "no"}, picture]}
    conversation: Any = [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": "read", "input": {"path": "a.py"}},
            ],
        },
        {"role": "user", "content": [{**result, "is_error": True}, {"type": "text", "text": "And now?"}]},
    ]
    asked: dict[str, Any] = {
        "system": [cached],
        "messages": conversation,
        "tools": TOOLS,
        "tool_choice": {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 7,
        "max_tokens": 300,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    extra = {name: asked.pop(name) for name in ("temperature", "top_p", "top_k")}  # the SDK has no words for them now
    await message(road, stream=True, **asked, extra_body=extra)
    assert {name: road.sent.get(name) for name in asked | extra} == asked | extra


@pytest.mark.parametrize("status", STATUS)
async def test_an_error_before_the_answer_is_an_http_error(near: Road, status: int) -> None:
    near.server.script = lambda _: Play(status=status)
    expected = status if near.is_straight else STATUS[status]
    for stream in (True, False):
        with pytest.raises(openai.APIStatusError) as caught:
            await chat(near, stream=stream)
        assert caught.value.status_code == expected
        error: Any = caught.value.body
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)
        assert "retry-after" not in caught.value.response.headers
        with pytest.raises(anthropic.APIStatusError) as told:
            await message(near, stream=stream)
        assert told.value.status_code == expected
        body: Any = told.value.body
        assert (body["type"], set(body["error"])) == ("error", {"type", "message"})


@pytest.mark.parametrize("which", ["overloaded", "invalid", "status"])
async def test_an_error_inside_a_stream_is_an_error_event(near: Road, which: str) -> None:
    near.server.script = lambda _: Play(text="one two three", error_event=which)
    with pytest.raises(openai.APIError):
        await chat(near, stream=True)
    assert near.last.status == 200
    said = [data["choices"][0]["delta"].get("content") for _, data in near.last.events if data.get("choices")]
    assert "".join(each or "" for each in said) == "one "
    assert "[DONE]" not in near.last.text
    with pytest.raises(anthropic.APIError):
        await message(near, stream=True)
    assert near.last.status == 200
    assert near.last.events[-1][0] == "error"


@pytest.mark.parametrize("cut", ["middle", "character", "call", "before the end"])
async def test_an_answer_that_was_cut_never_looks_like_one(doors: Road, cut: Any) -> None:
    play = Play(text="one two three 🧪🧪", calls=CALLS, cut=cut, politely=True)
    doors.server.script = lambda _: play
    with pytest.raises(openai.APIError, match="broke off"):
        await chat(doors, stream=True, tools=CHAT_TOOLS)
    assert 'finish_reason":"' not in doors.last.text
    with pytest.raises(anthropic.APIError, match="broke off"):
        await message(doors, stream=True, tools=TOOLS)
    assert [name for name, _ in doors.last.events][-1] == "error"
    with pytest.raises(openai.InternalServerError):
        await chat(doors, stream=False, tools=CHAT_TOOLS)


async def test_usage_that_nobody_told_is_the_worst_case(doors: Road) -> None:
    doors.server.script = lambda _: Play(usage="missing")
    made = await chat(doors, stream=True, max_tokens=40)
    assert made.usage.completion_tokens >= 40


async def test_many_streams_at_once_are_told_apart(road: Road) -> None:
    road.server.script = lambda request: Play(text=str(request.body["messages"][-1]["content"]) * 5, pause_s=0.002)
    said: dict[str, str] = {}

    async def ask(word: str) -> None:
        said[word] = (await chat(road, stream=True, messages=[{"role": "user", "content": word}])).text

    with fail_after(60):
        async with create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(ask, f"<{number}>")
    assert len(said) == 64
    assert all(text == word * 5 for word, text in said.items())


async def test_a_client_that_goes_away_ends_the_call(road: Road) -> None:
    road.server.script = lambda _: Play(text="word " * 2000, pause_s=0.01)
    with fail_after(60):
        stream = await road.openai.chat.completions.create(model="one", messages=ASK, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        while road.server.open_now or (road.hall and road.hall.ledger.escrow.holds):
            await sleep(0.01)
    assert road.server.bill[0][1] < 500


@streamed_or_whole
async def test_vectors_come_as_the_client_wants_them(near: Road, stream: bool) -> None:
    form: Any = "base64" if stream else "float"
    if near.is_straight:
        form = "float"  # the model server knows no other
    with fail_after(60):
        made = await near.openai.embeddings.create(
            model="vectors", input=["Hello?", "ä"], dimensions=8, encoding_format=form
        )
    assert [len(each.embedding) if isinstance(each.embedding, list) else 0 for each in made.data] in ([8, 8], [0, 0])
    assert [each.index for each in made.data] == [0, 1]
    assert made.usage.prompt_tokens > 0


async def test_both_protocols_list_the_models(near: Road) -> None:
    with fail_after(60):
        of_openai = [each.id async for each in near.openai.models.list()]
        of_anthropic = [each.id async for each in near.anthropic.models.list()]
    known = ["scripted", "other"] if near.is_straight else ["one", "two", "vectors"]
    assert (of_openai, of_anthropic) == (known, known)


async def test_a_tool_loop_goes_round(road: Road) -> None:
    plays = [Play(text="I look.", calls=CALLS), Play(text="Done.")]
    road.server.script = lambda request: plays[sum(each["role"] == "assistant" for each in request.body["messages"])]
    messages: list[Any] = [*ASK]
    with fail_after(60):
        first = (await road.openai.chat.completions.create(model="one", messages=messages, tools=CHAT_TOOLS)).choices[0]
        messages.append(first.message.model_dump(exclude_none=True))
        ids = [each.id for each in first.message.tool_calls or ()]
        messages += [{"role": "tool", "tool_call_id": each, "content": "nothing"} for each in ids]
        last = (await road.openai.chat.completions.create(model="one", messages=messages, tools=CHAT_TOOLS)).choices[0]
    assert last.message.content == "Done."
    assert [each["role"] for each in road.sent["messages"]] == ["user", "assistant", "tool", "tool"]


def _picture_url(detail: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}", "detail": detail}}


def _chat_call(id: str, path: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "read", "arguments": json.dumps({"path": path})}}
