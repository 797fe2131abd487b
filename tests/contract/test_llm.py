"""The port llm: one body per behaviour, for a caller in the core and for a worker behind the gate."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep

from core.app import open_journal
from core.fiedler.fiedler import Fiedler
from core.fiedler.keys import KeyFiles
from core.fiedler.ledger import Ledger
from core.fiedler.money import picodollars
from core.fiedler.settings import Orchestra
from core.gate import Session, hash_of, open_door
from core.horace.store import Horace
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.registry import Registry
from core.rogers.bus import Rogers
from protos.errors import Conflict, Denied, Exhausted, InvalidArgument, Unavailable
from protos.ids import new_id
from protos.llm import Llm, complete, event_pieces, joined, pieces, prompt
from protos.remote import connect, ports_of
from protos.v1 import llm_pb2 as pb
from protos.v1.session_pb2 import Assignment
from tests.labs import a_home
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import a_model, providers

Open = Callable[..., Any]
TOKEN = "t" * 43


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


@pytest.fixture(params=["in the core", "behind the gate"])
async def open_port(request: pytest.FixtureRequest, server: ModelServer, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the port as a run of `hopper` has it, with these ports in its manifest."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(a_home())
        journal = await stack.enter_async_context(open_journal(home))
        rogers = await stack.enter_async_context(Rogers(journal))
        horace = await stack.enter_async_context(Horace(home.path / "blobs", journal, quota_bytes=2**30))
        set_up = providers(server, tmp_path)
        models = {
            "one": a_model(),
            "two": a_model("anthropic"),
            "vectors": a_model(chat=False, embeddings=True),
            "seeing": a_model(images=True, max_tokens=1000),
        }
        fiedler = Fiedler(
            Ledger(journal),
            KeyFiles({name: path for name, each in set_up.items() if (path := each.key_path(tmp_path))}),
            orchestra=Orchestra(),
            providers=set_up,
            models=models,
        )
        services = Services(journal, rogers, horace, Registry([]), await stack.enter_async_context(fiedler))

        async def open_(*ports: str, run: str = "run-1") -> Llm:
            identity = Identity("hopper", frozenset(ports or ("llm",)), run=run, conversation="c")
            assignment = Assignment(participant="hopper", run=run, conversation="c")
            context = context_for(services, identity, assignment, unlimited())
            if request.param == "in the core":
                return context.llm
            directory = tmp_path / f"door-{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            session = Session(lease_s=60, token=hash_of(TOKEN))
            session.assign(context)
            await stack.enter_async_context(open_door(directory, session))
            address = f"unix:{directory}/gate.sock"
            remote = await stack.enter_async_context(connect(address, TOKEN, on_end=lambda: None))
            with fail_after(60):
                return ports_of(remote, await remote.assigned()).llm

        open_.fiedler = fiedler  # type: ignore[attr-defined]
        yield open_


async def test_an_answer_comes_whole_and_is_charged_to_the_run(open_port: Open, server: ModelServer) -> None:
    server.script = lambda _: Play(text="Grüße 🧪", reasoning="Hm.", calls=[("read", '{"path": "ä"}')])
    llm = await open_port()
    request = prompt("Hello?", model="two")
    request.tools.add(name="read")
    request.fragments = True
    with fail_after(60):
        made = await complete(llm, request)
        assert (made.text, made.tool_calls[0].arguments) == ("Grüße 🧪", '{"path": "ä"}')
        assert made.started.alias == "two"
        costs = await llm.costs("run")
    assert [(each.name, each.calls) for each in costs.costs] == [("run-1", 1)]
    assert costs.accounts[0].name == "run:run-1"
    assert costs.accounts[0].spent_usd == pytest.approx(made.usage.usd)


async def test_pieces_come_as_they_are_written(open_port: Open, server: ModelServer) -> None:
    server.script = lambda _: Play(text="one two three four", hang="middle")  # nothing comes behind its first half
    llm, heard = await open_port(), ""
    with fail_after(60):
        async with aclosing(llm.complete(prompt("Hello?"))) as events:
            async for each in events:
                heard += each.text
                if "two" in heard:
                    break
    assert "four" not in heard


async def test_a_request_of_many_megabytes_arrives_as_it_was_sent(open_port: Open, server: ModelServer) -> None:
    llm = await open_port()
    request = prompt("ä" * 1_500_000, model="seeing", system="s" * 300_000)
    request.turns[1].parts.add(image=pb.Image(data=bytes(range(256)) * 8000, media_type="image/png"))
    with fail_after(60):
        made = await complete(llm, request)
    assert made.text == "Hello there."
    system, user = server.requests[-1].body["messages"]
    assert system["content"] == "s" * 300_000
    assert user["content"][0]["text"] == "ä" * 1_500_000
    assert len(user["content"]) == 2


async def test_an_answer_of_many_megabytes_arrives(open_port: Open, server: ModelServer) -> None:
    server.script = lambda _: Play(text="wörd " * 400_000)
    llm = await open_port()
    request = prompt("Hello?")
    request.whole = True
    with fail_after(60):
        made = await complete(llm, request)
    assert made.text == "wörd " * 400_000


async def test_errors_are_told_by_their_class(open_port: Open, server: ModelServer) -> None:
    llm = await open_port()
    cases = [(401, Denied), (402, Exhausted), (400, InvalidArgument)]
    with fail_after(60):
        for status, error in cases:
            server.script = lambda _, status=status: Play(status=status)  # type: ignore[misc]
            with pytest.raises(error) as caught:
                await complete(llm, prompt("Hello?"))
            assert caught.value.next
        server.script = lambda _: Play(text="one two three four", cut="middle")
        request = prompt("Hello?")
        with pytest.raises(Unavailable, match="broke off"):
            await complete(llm, request)
        with pytest.raises(Conflict):
            await complete(llm, request)


async def test_the_manifest_says_which_models_may_be_used(open_port: Open, server: ModelServer) -> None:
    none, some, every = await open_port("bus"), await open_port("llm:two"), await open_port()
    with fail_after(60):
        with pytest.raises(Denied, match="rule port"):
            await complete(none, prompt("Hello?"))
        with pytest.raises(Denied):
            await none.models()
        with pytest.raises(Denied):
            await none.costs()
        assert [each.alias for each in await some.models()] == ["two"]
        with pytest.raises(Denied):
            await complete(some, prompt("Hello?"))
        assert (await complete(some, prompt("Hello?", model="two"))).text == "Hello there."
        assert {each.alias for each in await every.models()} == {"one", "two", "vectors", "seeing"}
    assert len(server.requests) == 1


async def test_a_run_sees_its_own_costs_only(open_port: Open) -> None:
    mine, other = await open_port(run="run-1"), await open_port(run="run-2")
    with fail_after(60):
        await complete(mine, prompt("Hello?"))
        await complete(other, prompt("Hello?"))
        assert [each.name for each in (await mine.costs("run")).costs] == ["run-1"]
        with pytest.raises(InvalidArgument):
            await mine.costs("colour")


async def test_a_budget_at_its_cap_says_what_more_it_needs(open_port: Open) -> None:
    fiedler: Fiedler = open_port.fiedler  # type: ignore[attr-defined]
    await fiedler.ledger.open_account("run:run-1", cap_usd=picodollars(0.0001))
    llm = await open_port()
    with fail_after(60), pytest.raises(Exhausted, match=r"budget of run:run-1 .* more"):
        await complete(llm, prompt("Hello?"))


async def test_vectors_of_many_inputs_arrive(open_port: Open) -> None:
    llm = await open_port()
    request = pb.EmbedRequest(id=new_id(), inputs=[f"{n}" * 400 for n in range(1000)], dimensions=400)
    with fail_after(60):
        made = await llm.embed(request)
    assert len(made.vectors) == 1000
    assert len(made.vectors[0].values) == 400
    assert made.usage.input_tokens


async def test_closing_the_stream_ends_the_call_at_the_provider(open_port: Open, server: ModelServer) -> None:
    server.script = lambda _: Play(text="word " * 2000, pause_s=0.01)
    llm = await open_port()
    with fail_after(60):
        async with aclosing(llm.complete(prompt("Hello?"))) as events:
            async for each in events:
                if each.text:
                    break
        fiedler: Fiedler = open_port.fiedler  # type: ignore[attr-defined]
        while server.open_now or fiedler.ledger.escrow.holds:
            await sleep(0.01)
    assert server.bill[0][1] < 500


async def test_many_streams_at_once_are_told_apart(open_port: Open, server: ModelServer) -> None:
    server.script = lambda request: Play(text=str(request.body["messages"][-1]["content"]) * 5, pause_s=0.002)
    llm = await open_port()
    texts: dict[str, str] = {}

    async def ask(word: str) -> None:
        texts[word] = (await complete(llm, prompt(word))).text

    with fail_after(60):
        async with create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(ask, f"<{number}>")
    assert all(text == word * 5 for word, text in texts.items())
    assert len(texts) == 32


def test_a_request_in_pieces_is_the_same_request() -> None:
    request = prompt("a" * 700_000, system="b")
    request.tools.add(name="read", input_schema='{"type": "object"}')
    request.turns.add(
        role=pb.ROLE_ASSISTANT,
        parts=[
            pb.Part(reasoning=pb.Reasoning(text="c" * 300_000, signature="d" * 10)),
            pb.Part(text="one", cache=True),
            pb.Part(text="two"),
            pb.Part(tool_call=pb.ToolCall(id="1", name="read", arguments='{"a": "' + "e" * 600_000 + '"}')),
        ],
    )
    result = pb.ToolResult(call_id="1", failed=True)
    result.parts.add(text="ö" * 400_000)
    result.parts.add(image=pb.Image(data=b"f" * 900_000, media_type="image/png"))
    request.turns.add(role=pb.ROLE_USER, parts=[pb.Part(tool_result=result), pb.Part(text="and?")])
    whole, count = pb.CompleteRequest(), 0
    for each in pieces(request):
        assert each.ByteSize() < 600_000
        whole.MergeFrom(each)
        count += 1
    assert count > 5
    assert joined(whole) == request


def test_a_long_event_in_pieces_says_the_same() -> None:
    text = "ä🧪" * 300_000
    made = [each.text for each in event_pieces(pb.CompletionEvent(text=text))]
    assert "".join(made) == text
    assert len(made) > 1
