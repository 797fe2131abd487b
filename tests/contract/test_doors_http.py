"""The doors as an HTTP server: whom they let in, how much, what they refuse and how, and how they close."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import anthropic
import httpx2
import openai
import pytest
from anyio import connect_tcp, create_task_group, fail_after, sleep

from core.fiedler.wire import authorities
from periphery.doors import open_doors
from periphery.doors.application import AT_ONCE, BODY_BYTES
from protos.errors import Conflict, Denied
from protos.llm import NoLlm
from protos.v1 import llm_pb2 as pb
from tests.contract.test_doors import ASK, CHAT_TOOLS, chat, message
from tests.model_server import Play
from tests.roads import DOORS, FiedlerOf, Road, open_road

CHAT = "/v1/chat/completions"


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Road]:
    async with open_road(DOORS, tmp_path) as road:
        yield road


async def post(doors: Road, path: str, body: Any = None, **asked: Any) -> httpx2.Response:
    content = asked.pop("content", None) or json.dumps(body).encode()
    async with httpx2.AsyncClient(base_url=doors.doors.anthropic, timeout=60, verify=authorities()) as http:
        return await http.request(asked.pop("method", "POST"), path, content=content, **asked)


async def test_only_loopback_is_listened_to(doors: Road) -> None:
    port = doors.doors.port
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
    assert f"{port:04X}" not in [line.split()[1].split(":")[-1] for line in _listening_on_six()]


def _listening_on_six() -> list[str]:
    return [line for line in Path("/proc/net/tcp6").read_text().splitlines() if " 0A " in line]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "example.org"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"content-encoding": "gzip"}, 415),
        ({"authorization": "Bearer whatever", "x-api-key": "else"}, 200),
    ],
    ids=["host", "port", "page", "no page", "encoding", "any key"],
)
async def test_strangers_are_not_let_in(doors: Road, headers: dict[str, str], status: int) -> None:
    answer = await post(doors, CHAT, {"model": "one", "messages": ASK}, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["message"]
        assert not doors.server.requests


async def test_a_body_has_a_bound(doors: Road) -> None:
    answer = await post(doors, CHAT, content=b" " * (BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * (1 << 20)

    async with httpx2.AsyncClient(base_url=doors.doors.anthropic, timeout=60, verify=authorities()) as http:
        # It may hang up before the answer is read, in the middle of a word.
        with fail_after(60), suppress(httpx2.WriteError, httpx2.ReadError):
            told = await http.post("/v1/messages", content=endless())
            assert told.json()["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_object_is_a_wrong_request(doors: Road, body: bytes) -> None:
    for path in (CHAT, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"):
        answer = await post(doors, path, content=body or b" ")
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello?"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"model": 7}, "model"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [7]}, "stop"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"functions": [{"name": "x"}]}, "functions"),
    ],
)
async def test_a_wrong_field_is_told_by_its_name(doors: Road, asked: Any, param: str) -> None:
    answer = await post(doors, CHAT, {"model": "one", "messages": ASK} | asked)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert param in error["message"]
    assert not doors.server.requests


async def test_unknown_fields_and_nulls_are_left_alone(doors: Road) -> None:
    body = {"model": "one", "messages": ASK, "user": "me", "service_tier": "auto", "logit_bias": {}, "new": [{}]}
    nothing = dict.fromkeys(("tools", "stop", "seed", "temperature", "response_format", "stream_options", "n"))
    assert (await post(doors, CHAT, body | nothing)).status_code == 200
    asked = {"model": "x", "max_tokens": 9, "messages": ASK, "metadata": {"user_id": "me"}, "context_management": {}}
    assert (await post(doors, "/v1/messages?beta=true", asked)).status_code == 200


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://127.0.0.1/a.png", "file:///etc/passwd", "data:,x"]
)
async def test_a_picture_is_never_fetched(doors: Road, url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    answer = await post(doors, CHAT, {"model": "one", "messages": [{"role": "user", "content": content}]})
    assert answer.status_code == 400
    assert "never fetched" in answer.json()["error"]["message"]
    content = [{"type": "image", "source": {"type": "url", "url": url}}]
    body = {"model": "two", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    answer = await post(doors, "/v1/messages", body)
    assert answer.status_code == 400
    assert "data: URL" in answer.json()["error"]["message"]
    assert not doors.server.requests


async def test_tools_of_anthropics_own_servers_are_refused(doors: Road) -> None:
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        await message(doors, stream=False, tools=[{"type": "web_search_20250305", "name": "web_search"}])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("GET", "/v1/responses/resp_1", 404),
        ("POST", "/v1/images/generations", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/v1/models/one", 200),
    ],
)
async def test_every_path_has_an_answer(doors: Road, method: str, path: str, status: int) -> None:
    answer = await post(doors, path, {}, method=method)
    assert answer.status_code == status
    if method != "HEAD":
        assert isinstance(answer.json(), dict)


async def test_a_name_that_is_no_alias_means_the_doors_model(doors: Road) -> None:
    for name in ("gpt-4o", "claude-sonnet-4-5", "openai/gpt-5", ""):
        body = await post(doors, CHAT, {"model": name, "messages": ASK})
        assert body.json()["model"] == name
        assert doors.server.requests[-1].path == "/v1/chat/completions"
    await post(doors, CHAT, {"model": "two", "messages": ASK})
    assert doors.server.requests[-1].path == "/v1/messages"
    with fail_after(60):
        assert (await doors.openai.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_a_budget_that_is_spent_is_told_and_not_asked_for_again(tmp_path: Path) -> None:
    async with open_road(DOORS, tmp_path, usd_per_day=0.0001) as doors:
        patient, other = doors.openai.with_options(max_retries=4), doors.anthropic.with_options(max_retries=4)
        with fail_after(60):
            with pytest.raises(openai.APIStatusError) as caught:
                await patient.chat.completions.create(model="one", messages=ASK, max_tokens=100)
            with pytest.raises(anthropic.APIStatusError) as told:
                await other.messages.create(model="two", messages=ASK, max_tokens=100)
        assert caught.value.status_code == told.value.status_code == 402
        assert caught.value.code == "insufficient_quota"
        assert len(doors.recording.exchanges) == 2
        assert "more" in str(doors.doors.exhausted)
        assert not doors.server.requests


async def test_usage_adds_up(doors: Road) -> None:
    play = Play(text="Hello there.", calls=[("read", '{"path": "a"}')])
    doors.server.script = lambda _: play
    await chat(doors, stream=True, tools=CHAT_TOOLS)
    await message(doors, stream=False)
    with fail_after(60):
        await doors.openai.embeddings.create(model="text-embedding-3-small", input=["Hello?"])
    usage = doors.doors.usage
    assert usage.requests == 3
    assert usage.input_tokens == sum(tokens for tokens, _ in doors.server.bill)
    assert usage.output_tokens == 2 * play.output_tokens
    assert doors.hall is not None
    [(spent,)] = await doors.hall.journal.query("SELECT sum(usd) FROM calls")
    assert usage.usd == pytest.approx(spent / 1e12)
    assert usage.seconds > 0


async def test_a_repeated_request_gets_the_answer_that_was_given(doors: Road) -> None:
    body = {"model": "one", "messages": ASK}
    headers = {"idempotency-key": "key-1"}
    doors.server.script = lambda _: Play(text=f"Answer {len(doors.server.requests)}.")
    first = await post(doors, CHAT, body, headers=headers)
    again = await post(doors, CHAT, body, headers=headers)
    other = await post(doors, CHAT, body | {"temperature": 1}, headers=headers)
    texts = [each.json()["choices"][0]["message"]["content"] for each in (first, again, other)]
    assert texts == ["Answer 1.", "Answer 1.", "Answer 2."]
    streamed = await post(doors, CHAT, body | {"stream": True}, headers=headers)
    repeated = await post(doors, CHAT, body | {"stream": True}, headers=headers)
    assert streamed.text.count("[DONE]") == repeated.text.count("[DONE]") == 1
    assert len(doors.server.requests) == 3


async def test_a_repeated_request_is_asked_again_where_its_answer_is_lost(doors: Road) -> None:
    plays = [Play(text="one two three four", cut="middle"), Play(text="All of it.")]
    doors.server.script = lambda _: plays[len(doors.server.requests) - 1]
    headers = {"idempotency-key": "key-1"}
    first = await post(doors, CHAT, {"model": "one", "messages": ASK}, headers=headers)
    assert first.status_code == 503
    again = await post(doors, CHAT, {"model": "one", "messages": ASK}, headers=headers)
    assert again.json()["choices"][0]["message"]["content"] == "All of it."
    assert doors.hall is not None
    await doors.hall.check_books()


async def test_an_answer_that_a_restart_of_the_core_has_lost_is_asked_for_again(doors: Road) -> None:
    class Restarted(FiedlerOf):
        """The port as it is when the core came back: what was asked before is booked, and its answer gone."""

        ids: ClassVar[list[str]] = []

        async def complete(self, request: pb.CompleteRequest) -> AsyncIterator[pb.CompletionEvent]:
            self.ids.append(request.id)
            if len(self.ids) == 1:
                raise Conflict("This request was begun before, and its answer did not end or was not kept.")
            async for each in super().complete(request):
                yield each

    assert doors.hall is not None
    body = {"model": "one", "messages": ASK}
    async with (
        open_doors(Restarted(doors.hall), "one") as opened,
        httpx2.AsyncClient(timeout=60, verify=authorities()) as http,
    ):
        answer = await http.post(f"{opened.openai}/chat/completions", json=body)
    assert answer.status_code == 200
    assert len(set(Restarted.ids)) == 2


async def test_more_requests_than_places_wait_their_turn(doors: Road) -> None:
    doors.server.script = lambda _: Play(pause_s=0.02)
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await post(doors, CHAT, {"model": "one", "messages": ASK})).status_code)

    with fail_after(60):
        async with create_task_group() as tasks:
            for _ in range(AT_ONCE + 4):
                tasks.start_soon(ask)
    assert answers == [200] * (AT_ONCE + 4)
    assert doors.server.open_most <= AT_ONCE


async def test_a_client_that_goes_away_before_the_first_word_ends_the_call(doors: Road) -> None:
    doors.server.script = lambda _: Play(hang="at once")
    body = json.dumps({"model": "one", "messages": ASK, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1:{doors.doors.port}\r\ncontent-length: {len(body)}\r\n\r\n"
    assert doors.hall is not None
    with fail_after(60):
        async with await connect_tcp("127.0.0.1", doors.doors.port) as client:
            await client.send(head.encode() + body)
            while not doors.server.open_now:
                await sleep(0.01)
        while doors.hall.ledger.escrow.holds:
            await sleep(0.01)
    assert [outcome for (outcome,) in await doors.hall.calls()] == ["cancelled"]


async def test_closing_the_doors_ends_streams_and_says_so(tmp_path: Path) -> None:
    async with open_road(DOORS, tmp_path) as road:
        road.server.script = lambda _: Play(text="word " * 1000, pause_s=0.02)
        assert road.hall is not None
        with fail_after(60):
            async with open_doors(FiedlerOf(road.hall), "one") as doors:
                client = anthropic.AsyncAnthropic(api_key="x", base_url=doors.anthropic, max_retries=0)
                stream = await client.messages.create(model="two", max_tokens=100, messages=ASK, stream=True)
                async for each in stream:
                    if each.type == "content_block_delta":
                        break
            with pytest.raises(anthropic.APIStatusError, match="doors close"):
                async for _ in stream:
                    pass
            await client.close()
            while road.hall.ledger.escrow.holds:
                await sleep(0.01)


async def test_what_the_body_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(Denied, match="no"):
        async with open_doors(NoLlm()):
            raise Denied("no")


async def test_where_there_are_no_models_every_door_says_so() -> None:
    async with (
        open_doors(NoLlm()) as doors,
        httpx2.AsyncClient(base_url=doors.anthropic, timeout=60, verify=authorities()) as http,
    ):
        for path in (CHAT, "/v1/responses", "/v1/messages"):
            answer = await http.post(path, json={"model": "x", "max_tokens": 9, "messages": ASK, "input": "Hello?"})
            assert answer.status_code == 403
            assert "no models here" in answer.json()["error"]["message"]
        assert (await http.get("/v1/models")).json()["data"] == []


async def test_an_agent_finds_the_doors_by_its_environment(doors: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in doors.doors.environment().items():
        monkeypatch.setenv(name, value)
    with fail_after(60):
        async with openai.AsyncOpenAI() as client, anthropic.AsyncAnthropic() as other:
            assert (await client.responses.create(model="gpt-5", input="Hello?")).output_text == "Hello there."
            made = await other.messages.create(model="claude", max_tokens=99, messages=ASK)
            assert made.stop_reason == "end_turn"
            counted = await other.messages.count_tokens(model="claude", messages=ASK)
            assert 0 < counted.input_tokens < 100


async def test_vectors_travel_as_base64_too(doors: Road) -> None:
    body = {"model": "x", "input": "Hello?", "encoding_format": "base64", "dimensions": 8}
    packed = (await post(doors, "/v1/embeddings", body)).json()["data"][0]["embedding"]
    plain = (await post(doors, "/v1/embeddings", body | {"encoding_format": "float"})).json()["data"][0]["embedding"]
    assert len(base64.b64decode(packed)) == 4 * len(plain) == 32
