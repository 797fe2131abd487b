"""The traffic of the official SDKs at the doors is equal in shape to that of a direct connection.

The same call goes over both roads. Status, kind of content, the events in their order and the keys of each JSON are
laid beside each other; what follows one another in the same shape counts once, since how an answer is cut into pieces
is no part of its shape. All of it must fit the SDKs' own types too, which are validated here and not only filled in.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anyio import fail_after
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import TypeAdapter

from tests.contract.test_doors import ASK, CALLS, CHAT_TOOLS, TOOLS
from tests.contract.test_doors_responses import EVENT as RESPONSE_EVENT
from tests.contract.test_doors_responses import TOOLS as RESPONSE_TOOLS
from tests.model_server import Play, model_server
from tests.roads import DOORS, STRAIGHT, Exchange, Road, open_road

# What the doors say beyond our model server, because the real servers do.
MORE = {
    "choices[].logprobs",
    "choices[].delta.refusal",
    "choices[].message.refusal",
    "choices[].message.annotations",
    "choices[].message.annotations[]",
    "usage",  # null, in every chunk before the one that has it
    "usage.prompt_tokens_details.audio_tokens",
    "usage.completion_tokens_details.audio_tokens",
    "usage.completion_tokens_details.accepted_prediction_tokens",
    "usage.completion_tokens_details.rejected_prediction_tokens",
    "usage.input_tokens",  # of Anthropic's, at the end
    "usage.cache_read_input_tokens",
    "usage.cache_creation_input_tokens",
}
PLAYS = {
    "text": Play(text="Grüße 🧪 to you"),
    "thought": Play(reasoning="Hm, well.", signature="c2ln"),
    "calls": Play(text="I look.", calls=CALLS),
    "only calls": Play(text="", calls=CALLS),
    "broken call": Play(text="", calls=[("read", '{"path": ')]),
    "length": Play(finish="length"),
    "filter": Play(finish="filter"),
    "sequence": Play(stop_sequence="END"),
}
FAILURES = {
    "wrong request": Play(status=400),
    "spent": Play(status=402),
    "refused": Play(status=403),
    "unavailable": Play(status=503),
    "error event": Play(text="one two", error_event="overloaded"),
}


def paths(value: Any, at: str = "") -> set[str]:
    """Every key of a JSON by where it is."""
    if isinstance(value, dict):
        inner = [paths(each, f"{at}.{name}" if at else name) for name, each in value.items() if name != "input"]
        return set().union({at} - {""}, *inner)
    if isinstance(value, list):
        return set().union({at}, *(paths(each, f"{at}[]") for each in value))
    return {at}


def shape(exchange: Exchange) -> list[tuple[str, str, set[str]]]:
    """An exchange without what it says."""
    kind = exchange.headers["content-type"].partition(";")[0]
    head = (str(exchange.status), kind, set[str]())
    if kind == "application/json":
        return [head, ("", "", paths(TypeAdapter(Any).validate_json(exchange.text)))]
    made = [head]
    for name, data in exchange.events:
        found = (name, str(data["type"]) if "type" in data else "", paths(data)) if isinstance(data, dict) else None
        step = found or (name, data, set())
        if step != made[-1]:
            made.append(step)
    return made


async def both(
    directory: Path, play: Play, ask: Callable[[Road], Any], *, fails: bool = False
) -> tuple[Exchange, Exchange]:
    """What went over the wire, straight and through the doors."""
    taken = []
    async with model_server(play) as server:
        for name in (STRAIGHT, DOORS):
            async with open_road(name, directory, server=server) as road:
                with fail_after(60):
                    try:
                        await ask(road)
                    except Exception:  # noqa: BLE001  two SDKs without a common ancestor
                        assert fails
                taken.append(road.last)
    return taken[0], taken[1]


def assert_equal_in_shape(straight: Exchange, doors: Exchange, about: str = "") -> None:
    """`about`: what a failure is told with."""
    expected, found = shape(straight), shape(doors)
    assert [each[:2] for each in found] == [each[:2] for each in expected], about
    for (_, _, wanted), (_, _, had) in zip(expected, found, strict=True):
        assert wanted - had == set(), about
        assert had - wanted - MORE == set(), about


def chat(*, stream: bool) -> Callable[[Road], Any]:
    async def ask(road: Road) -> None:
        body: Any = {"model": "one", "messages": ASK, "tools": CHAT_TOOLS}
        if not stream:
            await road.openai.chat.completions.create(**body)
            return
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async for _ in await road.openai.chat.completions.create(**body):
            pass

    return ask


def message(*, stream: bool) -> Callable[[Road], Any]:
    async def ask(road: Road) -> None:
        body: Any = {"model": "two", "messages": ASK, "tools": TOOLS, "max_tokens": 100}
        if not stream:
            await road.anthropic.messages.create(**body)
            return
        async with road.anthropic.messages.stream(**body) as events:
            async for _ in events:
                pass

    return ask


def response(*, stream: bool) -> Callable[[Road], Any]:
    async def ask(road: Road) -> None:
        body: Any = {"model": "one", "input": "Hello?", "tools": RESPONSE_TOOLS, "store": False}
        if not stream:
            await road.openai.responses.create(**body)
            return
        async for _ in await road.openai.responses.create(**body, stream=True):
            pass

    return ask


streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@streamed_or_whole
@pytest.mark.parametrize("play", PLAYS)
async def test_chats_are_equal_in_shape(tmp_path: Path, play: str, stream: bool) -> None:
    straight, doors = await both(tmp_path, PLAYS[play], chat(stream=stream))
    assert_equal_in_shape(straight, doors)
    if stream:
        for _, data in doors.events[:-1]:
            ChatCompletionChunk.model_validate(data)
        assert doors.events[-1][1] == "[DONE]"
    else:
        ChatCompletion.model_validate_json(doors.text)


@streamed_or_whole
@pytest.mark.parametrize("play", PLAYS)
async def test_messages_are_equal_in_shape(tmp_path: Path, play: str, stream: bool) -> None:
    # Where the call is broken the SDK itself gives up, over either road.
    straight, doors = await both(tmp_path, PLAYS[play], message(stream=stream), fails=play == "broken call")
    assert_equal_in_shape(straight, doors)
    if stream:
        for name, data in doors.events:
            assert name == data["type"]
            if name != "ping":
                TypeAdapter(RawMessageStreamEvent).validate_python(data)
    elif play != "broken call":
        Message.model_validate_json(doors.text)


@streamed_or_whole
@pytest.mark.parametrize("play", ["text", "calls", "only calls", "broken call"])
async def test_responses_are_equal_in_shape(tmp_path: Path, play: str, stream: bool) -> None:
    straight, doors = await both(tmp_path, PLAYS[play], response(stream=stream))
    assert_equal_in_shape(straight, doors)
    for exchange in (straight, doors):  # what our own server speaks is held against the makers' types as well
        if stream:
            for name, data in exchange.events:
                assert name == data["type"]
                RESPONSE_EVENT.validate_python(data)
        else:
            Response.model_validate_json(exchange.text)


@streamed_or_whole
@pytest.mark.parametrize("play", FAILURES)
async def test_failures_are_equal_in_shape(tmp_path: Path, play: str, stream: bool) -> None:
    for ask in (chat(stream=stream), message(stream=stream)):
        straight, doors = await both(tmp_path, FAILURES[play], ask, fails=True)
        if play == "error event" and not stream:
            assert (straight.status, doors.status) == (200, 503)  # the lab has read it and knows better
            continue
        assert doors.status == straight.status
        assert shape(doors)[0] == shape(straight)[0]
        known = {"error", "error.message", "error.type", "error.param", "error.code", "type"}
        assert shape(doors)[-1][2] & known >= {"error", "error.message", "error.type"}
        assert shape(doors)[-1][2] <= shape(straight)[-1][2] | known


async def test_lists_and_vectors_are_equal_in_shape(tmp_path: Path) -> None:
    async def embed(road: Road) -> None:
        await road.openai.embeddings.create(model="vectors", input=["a"], dimensions=8, encoding_format="float")

    async def name(road: Road) -> None:
        await road.openai.models.list()

    straight, doors = await both(tmp_path, Play(), embed)
    assert_equal_in_shape(straight, doors)
    CreateEmbeddingResponse.model_validate_json(doors.text)
    straight, doors = await both(tmp_path, Play(), name)
    assert_equal_in_shape(straight, doors)
    for each in TypeAdapter(Any).validate_json(doors.text)["data"]:
        Model.model_validate(each)
