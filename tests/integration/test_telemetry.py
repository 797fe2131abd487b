"""One trace from a person's request to the last call in a sandbox, told to a real collector."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio import fail_after
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from core.home import Home
from core.lab import Lab
from core.policy.acts import Act
from core.policy.capabilities import Identity
from core.ports.acting import acting
from protos.errors import Denied
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.collector import Collector, a_collector, attributes
from tests.labs import EMADS, a_home, opened
from tests.model_server import Play, model_server
from tests.orchestras import KEY

PLANTED = "planted-7f3a"  # a part of everything that must not be told
SETTINGS = """
[telemetry]
otlp = "{otlp}"
signals = ["traces", "metrics", "logs"]
every_s = 0.05
metrics_s = 0.05
"""
MODELS = """
[providers.here]
kind = "openai"
base_url = "{model}"
key = "here"
[models.one]
provider = "here"
model = "scripted"
input_usd = 3
output_usd = 15
"""


class Asker:
    """Has a MAD in a sandbox, a model, a file and the web do something, as a run of the core's own."""

    lab: Lab

    @tool(effects="read")
    async def go(self, call: Call, *, secret: str) -> dict[str, str]:
        """Does all of it."""
        await self._call(call, "1", "echo", "say", text=secret)
        await self._call(call, "2", "fiedler", "ask", prompt=secret)
        run = Identity("asker", frozenset({"web"}), call.ctx.assignment.run, call.message.conversation)
        fetch = Act("web.fetch", run.principals, f"https://api.test:8443/{PLANTED}?q={PLANTED}", {"method": "GET"})
        async with acting(self.lab.services, run, Act("files.put", run.principals, PLANTED), name=PLANTED) as added:
            added |= {"size": 7}
        with pytest.raises(Denied):
            async with acting(self.lab.services, run, fetch):
                raise AssertionError
        return {"text": secret}

    async def _call(self, call: Call, place: str, mad: str, name: str, **arguments: str) -> None:
        talk = f"{call.message.conversation}/{place}" if mad == "echo" else call.message.conversation
        question = Message(id=new_id(), conversation=talk, recipient=mad, kind=KIND_CALL, tool=name)
        question.data = json.dumps(arguments)
        await call.ctx.bus.ask(question)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with a_collector() as collector:
        yield collector


def home_of(collector: Collector, rest: str = "", **about: Any) -> Iterator[Home]:
    raise NotImplementedError


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {each.name: each for each in spans}


@pytest.mark.docker
async def test_a_trace_leads_from_the_request_to_the_call_in_a_sandbox(collector: Collector) -> None:
    async with model_server(Play(text=f"Yes. {PLANTED}")) as models:
        settings = EMADS + SETTINGS.format(otlp=collector.address) + MODELS.format(model=models.openai)
        with a_home(settings, images=("base", "tests/emads/echo")) as home:
            _keys(home.path)
            async with opened(home, asker=Asker) as lab:
                Asker.lab = lab
                transport = httpx2.AsyncHTTPTransport(uds=str(home.api_socket))
                asked = {
                    "recipient": "asker", "kind": "call", "tool": "go", "arguments": {"secret": PLANTED},
                    "conversation": PLANTED,
                }  # fmt: skip
                async with httpx2.AsyncClient(transport=transport, base_url="http://lab") as client, _limit():
                    said = (await client.post("/api/v1/messages", json=asked, headers=_from_outside())).json()
                await collector.span("run asker")
                await collector.until(lambda: "madlab.run.duration" in collector.metrics)
                run = await lab.runs.get(said["run"])
    spans = by_name(collector.spans)
    assert len({each.span_id for each in collector.spans}) == len(collector.spans)
    assert {each.trace_id.hex() for each in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    parents = {name: _parent(collector, each) for name, each in spans.items()}
    assert parents == {
        "POST /api/v1/messages": None,
        "execute_tool asker.go": "POST /api/v1/messages",
        "run asker": "execute_tool asker.go",
        "execute_tool echo.say": "run asker",
        "run echo": "execute_tool echo.say",
        "execute_tool fiedler.ask": "run asker",
        "chat scripted": "execute_tool fiedler.ask",
        "files.put": "run asker",
        "denied web.fetch": "run asker",
    }
    root = spans["POST /api/v1/messages"]
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    for each in collector.spans:
        assert 0 < each.start_time_unix_nano <= each.end_time_unix_nano
        if (parent := _parent(collector, each)) is not None:
            assert each.start_time_unix_nano >= spans[parent].start_time_unix_nano
    assert attributes(spans["run asker"].attributes) | {
        "gen_ai.agent.name": "asker",
        "madlab.run.id": run.id,
        "madlab.run.outcome": "succeeded",
    } == attributes(spans["run asker"].attributes)
    states = [each.name.rpartition(".")[2] for each in spans["run echo"].events]
    assert states == ["admitted", "starting", "ready", "running", "collecting", "destroyed"]
    chat = attributes(spans["chat scripted"].attributes)
    assert (chat["gen_ai.system"], chat["gen_ai.request.model"]) == ("here", "scripted")
    assert chat["gen_ai.usage.output_tokens"] > 0
    denied = spans["denied web.fetch"]
    assert denied.status.code == Status.STATUS_CODE_ERROR
    assert attributes(denied.attributes)["madlab.rule"] == "default"
    assert collector.resource["service.name"] == "madlab"
    assert collector.resource["service.instance.id"] == home.lab
    assert all(PLANTED.encode() not in each for each in collector.raw)
    assert all(b"api.test" not in each for each in collector.raw)


def _limit() -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def limited() -> AsyncIterator[None]:
        with fail_after(90):
            yield

    return limited()


def _from_outside() -> dict[str, str]:
    return {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def _keys(home: Path) -> None:
    (home / "keys").mkdir(mode=0o700)
    (home / "keys/here").touch(mode=0o600)
    (home / "keys/here").write_text(KEY)


def _parent(collector: Collector, span: Span) -> str | None:
    return next((each.name for each in collector.spans if each.span_id == span.parent_span_id), None)
