"""What every provider does: one body per behaviour, over both protocols, streamed and whole, live and replayed, and
over a worker of the lab that serves a model.

The server is ours and real (`tests/model_server.py`); a replayed provider answers from files that were recorded from
it a moment before, so it must give the same events. The worker is as real (`tests/served.py`): it dials a gate.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio import fail_after, sleep

from core.fiedler.keys import Key
from core.fiedler.provider import Ask, Kind, Provider, Reported, Trouble
from core.fiedler.providers.anthropic import AnthropicProvider
from core.fiedler.providers.hosted import HostedProvider
from core.fiedler.providers.openai import OpenAIProvider
from core.fiedler.providers.recorded import Recorder, Replay
from core.fiedler.wire import authorities
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb
from tests.model_server import ModelServer, Play, model_server
from tests.served import PlayingModel, served

KEY = Key("sk-test-0123456789abcdef")
KINDS = ("openai", "anthropic", "openai replayed", "anthropic replayed", "hosted")
PICTURE = b"\x89PNG\r\n\x1a\n picture"


@dataclass
class Stage:
    """A provider and the server behind it."""

    kind: str
    whole: bool
    server: ModelServer | PlayingModel
    directory: Path
    structured: str = "native"
    reported: list[Reported] = field(default_factory=list)

    @property
    def is_openai(self) -> bool:
        return self.kind.startswith("openai")

    @property
    def is_hosted(self) -> bool:
        return self.kind == "hosted"

    @property
    def is_replayed(self) -> bool:
        return self.kind.endswith("replayed")

    @property
    def sent(self) -> Any:
        """The body of the last request."""
        return self.server.requests[-1].body

    @asynccontextmanager
    async def open(self, transport: httpx2.AsyncBaseTransport | None = None) -> AsyncIterator[Provider]:
        """The provider, on a transport of its own or on the one given."""
        if isinstance(self.server, PlayingModel):
            async with (
                served(self.server, self.directory / "door") as hosts,
                HostedProvider(hosts, idle_s=60) as hosted,
            ):
                yield hosted
                assert hosts.claims == 0
        elif self.is_openai:
            async with OpenAIProvider(self.server.openai, transport=transport) as openai:
                yield openai
        else:
            made = AnthropicProvider(self.server.anthropic, structured=self.structured, transport=transport)
            async with made as anthropic:
                yield anthropic

    async def ask(self, request: pb.CompleteRequest | None = None, **changes: Any) -> Completion:
        """What the provider makes of a request."""
        if self.is_replayed:
            recorder = Recorder(httpx2.AsyncHTTPTransport(verify=authorities()), self.directory, "live")
            async with self.open(recorder) as provider:
                live = await self._ask(provider, request, **changes)
            self.reported.clear()
            async with self.open(Replay.read(self.directory)) as provider:
                replayed = await self._ask(provider, request, **changes)
            assert replayed == live
            return replayed
        async with self.open() as provider:
            return await self._ask(provider, request, **changes)

    async def _ask(self, provider: Provider, request: pb.CompleteRequest | None, **changes: Any) -> Completion:
        request = request or prompt("Hello?")
        request.whole = self.whole
        completion = Completion()
        with fail_after(60):
            ask = replace(Ask(request, "scripted", 100, KEY), **changes)
            async for each in provider.complete(ask):
                if isinstance(each, Reported):
                    self.reported.append(each)
                elif each.HasField("tool_call_fragment"):
                    _add(completion, each.tool_call_fragment)
                else:
                    completion.take(each)
        return completion


def _add(completion: Completion, fragment: pb.ToolCallFragment) -> None:
    while len(completion.tool_calls) <= fragment.index:
        completion.tool_calls.append(pb.ToolCall())
    call = completion.tool_calls[fragment.index]
    call.id, call.name = call.id or fragment.id, call.name or fragment.name
    call.arguments += fragment.arguments


@pytest.fixture(params=KINDS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[..., Stage]]:
    async with model_server() as http:
        server = PlayingModel() if request.param == "hosted" else http

        def make(play: Play, *, whole: bool = False, **changes: Any) -> Stage:
            server.script = lambda _: play
            return Stage(request.param, whole, server, tmp_path, **changes)

        yield make


whole_or_not = pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])


def only(*kinds: str) -> pytest.MarkDecorator:
    """For behaviour that the other kinds cannot show."""
    return pytest.mark.parametrize("stage", kinds, indirect=True)


over_http = only(*(each for each in KINDS if each != "hosted"))  # a worker's own ways: tests/contract/test_hosted.py
live = only(*(each for each in KINDS if "replayed" not in each))  # a broken connection cannot be recorded
live_over_http = only("openai", "anthropic")


@whole_or_not
async def test_text_comes_with_usage_and_a_reason(stage: Callable[..., Stage], whole: bool) -> None:
    tried = stage(Play(text="Grüße aus dem Labor 🧪."), whole=whole)
    completion = await tried.ask()
    assert completion.text == "Grüße aus dem Labor 🧪."
    assert completion.finished.reason == pb.FINISH_STOP
    request = tried.server.requests[-1]
    assert tried.reported[-1].input_tokens == request.input_tokens
    assert tried.reported[-1].output_tokens == tried.server.bill[-1][1]


@whole_or_not
async def test_tool_calls_and_reasoning_come_whole(stage: Callable[..., Stage], whole: bool) -> None:
    play = Play(
        text="I look.",
        reasoning="The file must be read first.",
        signature="signed",
        calls=[("read", '{"path": "ä.txt"}'), ("list", '{"deep": true}')],
    )
    request = prompt("Look.")
    request.tools.add(name="read", description="Reads.", input_schema='{"type": "object"}')
    request.tools.add(name="list", input_schema='{"type": "object"}')
    tried = stage(play, whole=whole)
    completion = await tried.ask(request)
    assert [(each.name, each.arguments) for each in completion.tool_calls] == list(play.calls)
    assert len({each.id for each in completion.tool_calls}) == 2
    assert "".join(each.text for each in completion.reasoning) == play.reasoning
    if not tried.is_openai:
        assert completion.reasoning[0].signature == "signed"
    assert completion.text == "I look."
    assert completion.finished.reason == pb.FINISH_TOOL_CALLS


@whole_or_not
@pytest.mark.parametrize(
    ("finish", "reason"), [("length", pb.FINISH_LENGTH), ("filter", pb.FINISH_REFUSED), ("stop", pb.FINISH_STOP)]
)
async def test_the_reason_of_the_end_is_told(
    stage: Callable[..., Stage], whole: bool, finish: Any, reason: pb.FinishReason.ValueType
) -> None:
    assert (await stage(Play(finish=finish), whole=whole).ask()).finished.reason == reason


@whole_or_not
async def test_cached_and_hidden_tokens_are_told_apart(stage: Callable[..., Stage], whole: bool) -> None:
    tried = stage(Play(cached=5, hidden=7), whole=whole)
    await tried.ask()
    told = tried.reported[-1]
    assert told.cached_tokens == 5
    assert told.input_tokens == tried.server.requests[-1].input_tokens
    assert told.output_tokens == tried.server.bill[-1][1]
    assert told.reasoning_tokens == (7 if tried.is_openai or tried.is_hosted else 0)


@whole_or_not
async def test_missing_usage_is_not_made_up(stage: Callable[..., Stage], whole: bool) -> None:
    tried = stage(Play(usage="missing"), whole=whole)
    completion = await tried.ask()
    assert completion.finished.reason == pb.FINISH_STOP
    assert all(each.output_tokens is None for each in tried.reported)


async def test_a_conversation_is_sent_as_its_protocol_has_it(stage: Callable[..., Stage]) -> None:
    request = prompt("What is in the picture, and in a.txt?", system="Be brief.")
    request.turns[1].parts.add(image=pb.Image(data=PICTURE, media_type="image/png"))
    request.turns.add(
        role=pb.ROLE_ASSISTANT,
        parts=[pb.Part(text="I read."), pb.Part(tool_call=pb.ToolCall(id="c1", name="read", arguments='{"p": "a"}'))],
    )
    request.turns.add(
        role=pb.ROLE_USER,
        parts=[pb.Part(tool_result=pb.ToolResult(call_id="c1", parts=[pb.Part(text="gone")], failed=True))],
    )
    request.tools.add(name="read", description="Reads.", input_schema='{"type": "object", "required": ["p"]}')
    request.tool_choice.use = pb.TOOL_USE_ANY
    request.tool_choice.one_at_a_time = True
    request.sampling.temperature = 0.5
    request.sampling.stop.append("END")
    tried = stage(Play())
    await tried.ask(request, max_tokens=77)
    sent = tried.sent
    if tried.is_hosted:
        request.model, request.sampling.max_tokens = "scripted", 77
        assert sent == request
        return
    assert sent["max_tokens"] == 77
    assert sent["temperature"] == 0.5
    if tried.is_openai:
        system, user, assistant, result = sent["messages"]
        assert system == {"role": "system", "content": "Be brief."}
        assert user["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0K")
        assert assistant["tool_calls"][0]["function"] == {"name": "read", "arguments": '{"p": "a"}'}
        assert result == {"role": "tool", "tool_call_id": "c1", "content": "Error: gone"}
        assert (sent["tool_choice"], sent["parallel_tool_calls"], sent["stop"]) == ("required", False, ["END"])
        assert sent["tools"][0]["function"]["parameters"]["required"] == ["p"]
    else:
        user, assistant, result = sent["messages"]
        assert sent["system"] == [{"type": "text", "text": "Be brief."}]
        assert user["content"][1]["source"]["media_type"] == "image/png"
        assert assistant["content"][1] == {"type": "tool_use", "id": "c1", "name": "read", "input": {"p": "a"}}
        assert result["content"][0]["is_error"] is True
        assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        assert sent["stop_sequences"] == ["END"]
        assert sent["tools"][0]["input_schema"]["required"] == ["p"]


@whole_or_not
@pytest.mark.parametrize(
    ("stage", "structured"),
    [*((each, "native") for each in KINDS), ("anthropic", "tool"), ("anthropic replayed", "tool")],
    indirect=["stage"],
)
async def test_structured_output_comes_as_text(stage: Callable[..., Stage], whole: bool, structured: str) -> None:
    request = prompt("How many?")
    request.format.schema.name = "amount"
    request.format.schema.schema = '{"type": "object", "properties": {"n": {"type": "integer"}}}'
    tried = stage(Play(text='{"n": 3}'), whole=whole, structured=structured)
    if structured == "tool":
        tried.server.script = lambda _: Play(text="", calls=[("amount", '{"n": 3}')])
    completion = await tried.ask(request)
    assert completion.text == '{"n": 3}'
    assert completion.tool_calls == []
    assert completion.finished.reason == pb.FINISH_STOP
    if tried.is_hosted:
        assert tried.sent.format.schema.name == "amount"
    elif tried.is_openai:
        assert tried.sent["response_format"]["json_schema"]["name"] == "amount"
    elif structured == "native":
        assert tried.sent["output_config"]["format"]["schema"]["type"] == "object"
    else:
        assert tried.sent["tool_choice"]["name"] == "amount"


@over_http
@whole_or_not
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REQUEST),
        (401, Kind.KEY),
        (402, Kind.SPENT),
        (403, Kind.KEY),
        (404, Kind.MODEL),
        (422, Kind.REQUEST),
        (429, Kind.BUSY),
        (500, Kind.BROKEN),
        (503, Kind.OVERLOADED),
        (529, Kind.OVERLOADED),
    ],
)
async def test_a_status_says_what_the_trouble_is(
    stage: Callable[..., Stage], whole: bool, status: int, kind: Kind
) -> None:
    tried = stage(Play(status=status), whole=whole)
    with pytest.raises(Trouble) as caught:
        await tried.ask()
    assert (caught.value.kind, caught.value.status) == (kind, status)
    assert f"The model server says {status}." in caught.value.text
    assert len(tried.server.requests) == 1, "nobody below us retries"


@live_over_http
async def test_a_spent_quota_is_not_a_busy_provider(stage: Callable[..., Stage]) -> None:
    error = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "no credit"}}
    tried = stage(Play(status=429, error=error))
    with pytest.raises(Trouble) as caught:
        await tried.ask()
    assert caught.value.kind is Kind.SPENT


@live_over_http
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read(stage: Callable[..., Stage], header: dict[str, str], seconds: float | None) -> None:
    tried = stage(Play(status=429, headers=header))
    with pytest.raises(Trouble) as caught:
        await tried.ask()
    assert caught.value.retry_after_s == seconds


@live_over_http
@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (Play(text="Grüße an alle hier.", cut="character"), Kind.CUT),
        (Play(text="Grüße an alle hier.", cut="character", politely=True), Kind.CUT),
        (Play(calls=[("read", '{"path": "a rather long one"}')], cut="call"), Kind.CUT),
        (Play(calls=[("read", '{"path": "a rather long one"}')], cut="call", politely=True), Kind.CUT),
        (Play(text="one two three four", cut="middle"), Kind.CUT),
        (Play(text="one two three four", cut="middle", politely=True), Kind.CUT),
        (Play(cut="before the end", politely=True), Kind.CUT),
        (Play(error_event="overloaded"), None),
        (Play(error_event="invalid"), Kind.REQUEST),
        (Play(error_event="status"), Kind.BROKEN),
    ],
    ids=lambda each: f"{each.cut or each.error_event}{' politely' * each.politely}" if isinstance(each, Play) else "",
)
async def test_a_stream_that_breaks_is_told_after_what_came(
    stage: Callable[..., Stage], play: Play, kind: Kind | None
) -> None:
    tried = stage(play)
    completion = Completion()
    async with tried.open() as provider:
        with fail_after(60), pytest.raises(Trouble) as caught:  # noqa: PT012  what came before counts too
            async for each in provider.complete(Ask(prompt("Hello?"), "scripted", 100, KEY)):
                if not isinstance(each, Reported):
                    completion.take(each)
    expected = kind or (Kind.BROKEN if tried.is_openai else Kind.OVERLOADED)
    assert caught.value.kind is expected
    assert completion.finished.reason == pb.FINISH_UNSPECIFIED
    assert play.text.startswith(completion.text)
    if play.cut != "character" and play.cut != "before the end":
        assert completion.text
    assert not caught.value.is_free or caught.value.kind in (Kind.REQUEST, Kind.OVERLOADED)


async def test_a_whole_answer_that_is_an_error_is_one(stage: Callable[..., Stage]) -> None:
    with pytest.raises(Trouble) as caught:
        await stage(Play(error_event="status"), whole=True).ask()
    assert caught.value.kind is Kind.BROKEN


async def test_an_answer_that_comes_byte_by_byte_is_the_same(stage: Callable[..., Stage]) -> None:
    completion = await stage(Play(text="Grüße 🧪", drip=True)).ask()
    assert completion.text == "Grüße 🧪"


@live_over_http
@pytest.mark.parametrize("play", [Play(cut="before usage"), Play(hang="after the end")], ids=["cut", "hang"])
async def test_what_breaks_after_the_end_of_an_answer_does_not_break_the_answer(
    stage: Callable[..., Stage], play: Play
) -> None:
    tried = stage(play)
    completion = await tried.ask()
    assert completion.text == "Hello there."
    assert completion.finished.reason == pb.FINISH_STOP


@live_over_http
@whole_or_not
@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {]\n\n",
        b"event: message_start\ndata: {]\n\n",
        b"event: message_start\ndata: {}\n\n",
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"content": 7}}]}\n\n',
        b"<html>Sign in</html>",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
    ],
)
async def test_nonsense_is_trouble_and_nothing_worse(stage: Callable[..., Stage], whole: bool, garbage: bytes) -> None:
    tried = stage(Play(garbage=garbage), whole=whole)
    with pytest.raises(Trouble) as caught:
        await tried.ask()
    assert caught.value.kind in (Kind.NONSENSE, Kind.CUT, Kind.BROKEN)


@live_over_http
async def test_nobody_there_is_unreachable(stage: Callable[..., Stage]) -> None:
    tried = stage(Play())
    assert isinstance(tried.server, ModelServer)
    tried.server.port = 9  # discard: nothing listens there
    with pytest.raises(Trouble) as caught:
        await tried.ask()
    assert caught.value.kind is Kind.UNREACHABLE


@live
async def test_an_answer_that_is_not_wanted_any_more_is_ended(stage: Callable[..., Stage]) -> None:
    tried = stage(Play(text="word " * 1000, pause_s=0.01))
    async with tried.open() as provider:
        events = provider.complete(Ask(prompt("Hello?"), "scripted", 100, KEY))
        with fail_after(60):
            async for each in events:
                if not isinstance(each, Reported) and each.text:
                    break
            await events.aclose()  # type: ignore[attr-defined]
            while tried.server.open_now:
                await sleep(0.01)
    assert tried.server.bill[-1][1] < 200


@live
async def test_vectors_come_in_the_order_of_the_inputs(stage: Callable[..., Stage]) -> None:
    tried = stage(Play())
    async with tried.open() as provider:
        ask = Ask(pb.CompleteRequest(), "scripted", 0, KEY)
        if not tried.is_openai:
            with pytest.raises(Trouble) as caught:
                await provider.embed(ask, ["a"], 0)
            assert caught.value.kind is Kind.REQUEST
            return
        made = await provider.embed(ask, ["a", "b"], 4)
    assert [list(each) for each in made.vectors] == [[6 / 16, 1 / 16, 0, 0], [6 / 16, 2 / 16, 0, 0]]
    assert made.reported.input_tokens


@live
async def test_the_models_of_a_provider_are_listed(stage: Callable[..., Stage]) -> None:
    tried = stage(Play())
    async with tried.open() as provider:
        assert list(await provider.models(KEY)) == ["scripted", "other"]


async def test_an_exchange_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    async with model_server() as server:
        recorder = Recorder(httpx2.AsyncHTTPTransport(verify=authorities()), tmp_path, "live")
        tried = Stage("openai", False, server, tmp_path)
        async with tried.open(recorder) as provider:
            await tried._ask(provider, prompt("Hello?"))
        async with tried.open(Replay.read(tmp_path)) as provider:
            with pytest.raises(Trouble) as caught:
                await tried._ask(provider, prompt("Something else?"))
    assert caught.value.kind is Kind.REQUEST
    assert "No recorded exchange" in caught.value.text
