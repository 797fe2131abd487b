"""A worker that serves a model, and the lab's end of the line, beyond what every provider does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from anyio import create_task_group, fail_after, sleep

from core.fiedler.line import UNREAD_BYTES, Line
from core.fiedler.provider import Ask, Kind, Reported, Trouble
from core.fiedler.providers.hosted import HostedProvider
from core.gate import Session, hash_of, open_door
from protos.llm import Completion, Say, prompt
from protos.remote.session import OPTIONS
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent, Served, Serving
from protos.v1.llm_pb2_grpc import ModelHostStub
from protos.v1.session_pb2 import AttachRequest
from protos.v1.session_pb2_grpc import SessionStub
from tests.model_server import Play
from tests.served import PlayingModel, served


async def nothing() -> None:
    """Nothing to wait for."""


async def ask(provider: HostedProvider, text: str = "Hello?") -> Completion:
    """A whole answer."""
    completion = Completion()
    with fail_after(60):
        async for each in provider.complete(Ask(prompt(text), "scripted", 100)):
            if not isinstance(each, Reported):
                completion.take(each)
    return completion


async def test_a_request_and_an_answer_may_be_larger_than_a_message_of_the_wire(tmp_path: Path) -> None:
    class Echo(PlayingModel):
        async def answer(self, request: pb.CompleteRequest, say: Say) -> None:
            await say(CompletionEvent(text=request.turns[0].parts[0].text))
            await say(CompletionEvent(finished=pb.Finished(reason=pb.FINISH_STOP)))

    async with served(Echo(), tmp_path) as hosts, HostedProvider(hosts, idle_s=60) as provider:
        completion = await ask(provider, "ö" * 900_000)
    assert completion.text == "ö" * 900_000


async def test_as_many_are_answered_side_by_side_as_the_worker_says_and_no_more(tmp_path: Path) -> None:
    model = PlayingModel(lambda _: Play(text="word " * 10, pause_s=0.01), at_once=2)
    async with (
        served(model, tmp_path) as hosts,
        HostedProvider(hosts, idle_s=60) as provider,
        create_task_group() as tasks,
    ):
        for _ in range(6):
            tasks.start_soon(ask, provider)
    assert len(model.requests) == 6
    assert model.open_most == 2


async def test_who_gives_up_while_waiting_takes_nobodys_turn(tmp_path: Path) -> None:
    model = PlayingModel(lambda _: Play(pause_s=600 if len(model.requests) == 1 else 0), at_once=1)
    async with served(model, tmp_path) as hosts, HostedProvider(hosts, idle_s=60) as provider:
        async with create_task_group() as tasks:
            tasks.start_soon(ask, provider)
            with fail_after(60):
                while not model.open_now:
                    await sleep(0.01)
            for _ in range(3):
                waiting = provider.complete(Ask(prompt("Never?"), "scripted", 100))
                with pytest.raises(TimeoutError), fail_after(0.01):
                    await anext(waiting)
            tasks.cancel_scope.cancel()
        assert (await ask(provider)).text
    assert len(model.requests) == 2
    assert hosts.claims == 0


@pytest.mark.parametrize(
    ("play", "kind"),
    [("invalid", Kind.REQUEST), ("overloaded", Kind.OVERLOADED), ("status", Kind.BROKEN)],
)
async def test_a_fault_says_what_the_trouble_is(tmp_path: Path, play: str, kind: Kind) -> None:
    model = PlayingModel(lambda _: Play(error_event=play))
    async with served(model, tmp_path) as hosts, HostedProvider(hosts, idle_s=60) as provider:
        with pytest.raises(Trouble) as caught:
            await ask(provider)
    assert caught.value.kind is kind
    assert caught.value.text


async def test_a_worker_that_dies_in_the_middle_breaks_what_it_was_answering(tmp_path: Path) -> None:
    model = PlayingModel(lambda _: Play(text="one two three four", cut="middle"))
    async with served(model, tmp_path) as hosts, HostedProvider(hosts, idle_s=60) as provider:
        completion = Completion()
        with fail_after(60), pytest.raises(Trouble) as caught:  # noqa: PT012  what came before counts too
            async for each in provider.complete(Ask(prompt("Hello?"), "scripted", 100)):
                assert not isinstance(each, Reported)
                completion.take(each)
        assert caught.value.kind is Kind.BROKEN
        assert not caught.value.is_free
        assert completion.text
        with pytest.raises(Trouble) as gone:
            await ask(provider)
        assert gone.value.kind is Kind.UNREACHABLE


@asynccontextmanager
async def knocking(directory: Path, line: Line | None) -> AsyncIterator[tuple[Any, Any]]:
    """What `ModelHost.Serve` is called with, attached to a gate, and the proof of the session."""
    session = Session(lease_s=30, token=hash_of("token"), line=line)
    address = f"unix:{directory / 'gate.sock'}"
    async with open_door(directory, session), grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        attached: Any = SessionStub(channel).Attach(AttachRequest(token="token"))
        proof = (("authorization", f"Bearer {(await attached.read()).attached.credential}"),)
        yield ModelHostStub(channel).Serve, proof
        attached.cancel()


async def test_a_worker_that_was_not_started_for_it_serves_no_model(tmp_path: Path) -> None:
    async with knocking(tmp_path, None) as (serve, proof):
        for metadata, code in (((), grpc.StatusCode.UNAUTHENTICATED), (proof, grpc.StatusCode.PERMISSION_DENIED)):
            with pytest.raises(grpc.aio.AioRpcError) as caught, fail_after(60):
                await serve(metadata=metadata).read()
            assert caught.value.code() is code


async def test_a_second_stream_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    line = Line()
    async with knocking(tmp_path, line) as (serve, proof):
        first = serve(metadata=proof)
        await first.write(Served(serving=Serving(model="one", at_once=1)))
        with fail_after(60):
            await line.ready.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught, fail_after(60):
            await serve(metadata=proof).read()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert not line.closed.is_set()
        first.cancel()
        with fail_after(60):
            await line.closed.wait()


def a_line(at_once: int = 1) -> Line:
    """A line whose worker is ready."""
    line = Line()
    line.hear(Served(serving=Serving(model="one", at_once=at_once)))
    return line


async def test_what_was_not_asked_is_dropped_and_what_is_no_answer_ends_it() -> None:
    line = a_line()
    line.hear(Served(id="7", event=CompletionEvent(text="nobody asked")))
    line.hear(Served(serving=Serving(model="another", at_once=64)))
    assert line.serving is not None
    assert line.serving.model == "one"
    events = line.complete(prompt("Hello?"), nothing)
    async with create_task_group() as tasks:

        async def answer() -> None:
            await sleep(0.01)
            line.hear(Served(id="1", event=CompletionEvent(text="Yes")))
            line.hear(Served(id="1", embedded=pb.EmbedReply()))

        tasks.start_soon(answer)
        assert (await anext(events)).text == "Yes"
        with pytest.raises(Trouble) as caught:
            await anext(events)
    assert caught.value.kind is Kind.NONSENSE


@pytest.mark.parametrize("text", ["x" * 65536, ""], ids=["bytes", "events"])
async def test_a_worker_that_floods_is_bounded(text: str) -> None:
    line = a_line()
    events = line.complete(prompt("Hello?"), nothing)
    async with create_task_group() as tasks:

        async def flood() -> None:
            await sleep(0.01)
            for _ in range(UNREAD_BYTES // len(text or 50 * ".") + 1):
                line.hear(Served(id="1", event=CompletionEvent(text=text)))

        tasks.start_soon(flood)
        with pytest.raises(Trouble) as caught, fail_after(60):
            async for _ in events:
                pass
    assert caught.value.kind is Kind.NONSENSE


@pytest.mark.parametrize("forged", ["started", "tool_call", "broken_tool_call"])
async def test_a_worker_cannot_say_what_only_the_core_says(tmp_path: Path, forged: str) -> None:
    class Forger(PlayingModel):
        async def answer(self, request: pb.CompleteRequest, say: Say) -> None:
            event = CompletionEvent()
            getattr(event, forged).SetInParent()
            await say(event)

    async with served(Forger(), tmp_path) as hosts, HostedProvider(hosts, idle_s=60) as provider:
        with pytest.raises(Trouble) as caught:
            await ask(provider)
    assert caught.value.kind is Kind.NONSENSE


async def test_a_line_that_closes_tells_everybody() -> None:
    line = a_line()
    told: list[Kind] = []

    async def wait() -> None:
        with pytest.raises(Trouble) as caught:
            await anext(line.complete(prompt("Hello?"), nothing))
        told.append(caught.value.kind)

    with fail_after(60):
        async with create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await sleep(0.01)
            line.close("it crashed")
    assert sorted(told) == [Kind.BROKEN, Kind.UNREACHABLE, Kind.UNREACHABLE]
