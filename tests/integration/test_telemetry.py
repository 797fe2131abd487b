"""One trace from a person's request to the last call in a sandbox, told to a real collector."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
from anyio import create_task_group, fail_after, sleep
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from core.lab import Lab
from core.policy.acts import Act
from core.policy.capabilities import Identity
from core.ports.acting import acting
from protos.errors import Denied
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.collector import Collector, a_collector, attributes, refusal, rejecting
from tests.labs import EMADS, a_home, ask, opened
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
        marco = Identity("marco", frozenset({"web"}), call.ctx.assignment.run, call.message.conversation)
        write = Act("web.fetch", marco.principals, f"https://docs.test/{PLANTED}", {"method": "POST", "bytes": 5})
        async with create_task_group() as tasks:
            tasks.start_soon(self._approve)
            async with acting(self.lab.services, marco, write) as added:
                added |= {"status": 204}
        read = Act("web.fetch", marco.principals, f"https://docs.test/{PLANTED}", {"method": "GET"})
        use = Act("secret.use", marco.principals, PLANTED, {"method": "GET", "url": read.target})
        async with acting(self.lab.services, marco, read, needs=[use]) as added:
            added |= {"status": 404, "bytes_sent": 120, "bytes_received": 4096}
        await call.progress(f"$ {PLANTED}", what="command", command=PLANTED, exit_code=2, seconds=0.01)
        return {"text": secret}

    async def _approve(self) -> None:
        approvals = self.lab.services.approvals
        while not (asked := await approvals.pending()):
            await sleep(0.01)
        await approvals.approve(asked[0].id, by="operator")

    async def _call(self, call: Call, place: str, mad: str, name: str, **arguments: str) -> None:
        talk = f"{call.message.conversation}/{place}" if mad == "echo" else call.message.conversation
        question = Message(id=new_id(), conversation=talk, recipient=mad, kind=KIND_CALL, tool=name)
        question.data = json.dumps(arguments)
        await call.ctx.bus.ask(question)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with a_collector() as collector:
        yield collector


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
                async with httpx2.AsyncClient(transport=transport, base_url="http://lab") as client:
                    said = (await client.post("/api/v1/messages", json=asked, headers=_from_outside())).json()
                await collector.span("run asker")
                await collector.until(lambda: "madlab.run.duration" in collector.metrics)
                run = await lab.runs.get(said["run"])
    spans = by_name(collector.spans)
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
        "GET": "run asker",
        "POST": "run asker",
        "wait for approval": "run asker",
        "execute_tool command": "run asker",
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
    assert attributes(spans["wait for approval"].attributes)["madlab.approval.answer"] == "approved"
    assert attributes(spans["execute_tool command"].attributes)["process.exit.code"] == 2
    read = spans["GET"]
    about = attributes(read.attributes)
    assert (about["server.port"], about["http.response.status_code"]) == (443, 404)
    assert len(about["server.address"]) == 16, "a digest: no rule names the host"
    assert (read.kind, about["madlab.bytes_received"]) == (Span.SPAN_KIND_CLIENT, 4096)
    (used,) = read.events
    assert (used.name, len(attributes(used.attributes)["madlab.secret.digest"])) == ("madlab.secret.used", 16)
    assert collector.resource["service.name"] == "madlab"
    assert collector.resource["service.instance.id"] == home.lab
    assert all(PLANTED.encode() not in each for each in collector.raw)
    assert all(host not in each for each in collector.raw for host in (b"api.test", b"docs.test"))


def _from_outside() -> dict[str, str]:
    return {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def _keys(home: Path) -> None:
    (home / "keys").mkdir(mode=0o700)
    (home / "keys/here").touch(mode=0o600)
    (home / "keys/here").write_text(KEY)


def _parent(collector: Collector, span: Span) -> str | None:
    return next((each.name for each in collector.spans if each.span_id == span.parent_span_id), None)


RESIDENT = """emads = []
[residents.echo]
class = "tests.emads.echo:Echo"
[residents.relay]
class = "tests.emads.echo:Relay"
"""


def settings_of(address: str, *, rest: str = "", signals: str = '["traces"]') -> str:
    return f'{RESIDENT}[telemetry]\notlp = "{address}"\nsignals = {signals}\nevery_s = 0.02\nmetrics_s = 0.02\n{rest}'


async def said(lab: Lab, *texts: str) -> None:
    for each in texts:
        await ask(lab, question("echo", "say", text=each))


def question(mad: str, name: str, **arguments: str) -> Message:
    asked = Message(id=new_id(), conversation=new_id(), recipient=mad, kind=KIND_CALL, tool=name)
    asked.data = json.dumps(arguments)
    return asked


async def test_what_a_resident_asks_of_another_is_part_of_what_it_was_asked(collector: Collector) -> None:
    with a_home(settings_of(collector.address)) as home:
        async with opened(home) as lab:
            asked = question("relay", "relay", wanted="say", arguments='{"text": "hello"}')
            await ask(lab, asked)
            relay = await collector.span("execute_tool relay.relay")
            echo = await collector.span("execute_tool echo.say")
    assert relay.trace_id == echo.trace_id == bytes.fromhex(asked.id.replace("-", ""))
    assert (relay.parent_span_id, echo.parent_span_id) == (b"", relay.span_id)


async def test_what_ended_while_nobody_listened_is_told_to_the_next_core_once() -> None:
    with a_home(settings_of("http://127.0.0.1:9")) as home:
        async with opened(home) as lab:
            await said(lab, "one", "two")
            await _until(lambda: _count(lab, "failures") > 0)
        async with a_collector() as collector:
            home.settings.write_text(settings_of(collector.address))
            for told in (3, 1):
                async with opened(home) as lab:
                    await said(lab, "more")
                    await _sent(lab, told)
    assert len(collector.spans) == len({each.span_id for each in collector.spans}) == 4


@pytest.mark.parametrize(
    ("status", "headers", "comes"),
    [
        ("429 Too Many Requests", ("Retry-After: 0",), True),
        ("503 Service Unavailable", (), True),
        ("502 Bad Gateway", ("Retry-After: soon",), True),
        ("500 Internal Server Error", (), False),
        ("400 Bad Request", (), False),
        ("307 Temporary Redirect", ("Location: http://127.0.0.1:1/",), False),
    ],
)
async def test_later_is_later_and_never_is_counted(status: str, headers: tuple[str, ...], comes: bool) -> None:
    async with a_collector(refusal(status, *headers)) as collector:
        with a_home(settings_of(collector.address)) as home:
            async with opened(home) as lab:
                await said(lab, "one")
                await _until(lambda: _count(lab, "failures") > 0)
                await said(lab, "two")
                await collector.until(lambda: len(collector.spans) == (2 if comes else 1))
                await _until(lambda: _count(lab, "sent") > 0)
                assert _count(lab, "dropped") == (0 if comes else 1)
    assert collector.refused == 1


async def test_a_collector_that_hangs_keeps_nobody_waiting_who_works_here() -> None:
    async with a_collector() as collector:
        collector.answers.append(collector.hangs)
        with a_home(settings_of(collector.address)) as home:
            async with opened(home) as lab:
                await said(lab, "one")
                await collector.until(lambda: collector.refused == 1)
                with fail_after(30):
                    await said(lab, *map(str, range(20)))
                collector.held.set()
                await collector.until(lambda: len({each.span_id for each in collector.spans}) == 21)  # at least once


async def test_what_a_collector_throws_away_is_counted() -> None:
    async with a_collector(rejecting(1)) as collector:
        with a_home(settings_of(collector.address)) as home:
            async with opened(home) as lab:
                await said(lab, "one")
                await _until(lambda: _count(lab, "dropped") == 1)


async def test_a_key_goes_into_the_header_and_nowhere_else(collector: Collector) -> None:
    rest = 'key = "there"\nheader = "x-team"\n'
    with a_home(settings_of(collector.address, rest=rest, signals='["traces", "logs"]')) as home:
        (home.path / "keys").mkdir(mode=0o700)
        (home.path / "keys/there").touch(mode=0o600)
        (home.path / "keys/there").write_text(KEY)
        async with opened(home) as lab:
            await said(lab, "one")
            await collector.span("execute_tool echo.say")
    assert {each["x-team"] for each in collector.heads} == {KEY}
    assert all(KEY.encode() not in each for each in collector.raw)


async def test_figures_are_cumulative_and_have_their_units(collector: Collector) -> None:
    with a_home(settings_of(collector.address, signals='["metrics"]')) as home:
        async with opened(home) as lab:
            await said(lab, "one")
            await collector.until(lambda: _value(collector, "madlab.journal.messages") >= 2)
            told = await _figure(collector, "madlab.journal.messages")
            assert told.sum.is_monotonic
            assert told.sum.aggregation_temporality == 2
            assert told.sum.data_points[0].start_time_unix_nano < told.sum.data_points[0].time_unix_nano
            assert (await _figure(collector, "process.resident_memory")).unit == "By"
            assert _value(collector, "madlab.journal.size") > 0


def _value(collector: Collector, name: str) -> int:
    metric = collector.metrics.get(name)
    points = [] if metric is None else [*metric.sum.data_points, *metric.gauge.data_points]
    return sum(each.as_int for each in points)


async def _figure(collector: Collector, name: str) -> Metric:
    await collector.until(lambda: name in collector.metrics)
    return collector.metrics[name]


def _count(lab: Lab, name: str) -> float:
    counter = getattr(lab.telemetry, f"_{name}")
    return float(sum(each.value for each in counter.family().points))


async def _until(is_so: Callable[..., bool]) -> None:
    with fail_after(60):
        while not is_so():
            await sleep(0.01)


async def _sent(lab: Lab, items: int) -> None:
    await _until(lambda: _count(lab, "sent") == items)
