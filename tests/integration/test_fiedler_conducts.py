"""Fiedler in front of a model server that misbehaves: retries, fallbacks, hedges, breakers, ids, and what is told."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from time import time
from typing import Any

import pytest
from anyio import create_task_group, current_time, fail_after, sleep

from core.fiedler.ledger import Caller
from protos.errors import Conflict, Denied, Error, Exhausted, InvalidArgument, NotFound, Unavailable
from protos.ids import new_id
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb
from tests.model_server import ModelServer, Play, Request, model_server
from tests.orchestras import CALLER, KEY, a_model, hall

PROTOCOLS = pytest.mark.parametrize("provider", ["openai", "anthropic"])


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


def plays(server: ModelServer, *given: Play) -> None:
    """One after another, the last again and again."""
    left = list(given)
    server.script = lambda _: left.pop(0) if len(left) > 1 else left[0]


def by_model(server: ModelServer, **given: Play) -> None:
    server.script = lambda request: given[request.body["model"]]


@PROTOCOLS
@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
async def test_an_answer_comes_in_order_and_is_booked(
    server: ModelServer, tmp_path: Path, provider: str, whole: bool
) -> None:
    async with hall(server, tmp_path, {"one": a_model(provider)}) as tried:
        request = prompt("Hello?")
        request.whole = whole
        kinds = [each.WhichOneof("kind") async for each in tried.fiedler.complete(request, CALLER)]
        assert kinds[0] == "started"
        assert kinds[-2:] == ["usage", "finished"]
        assert set(kinds[1:-2]) == {"text"}
        assert await tried.calls("outcome, reason, mad, alias, provider") == [
            ("finished", "stop", "hopper", "one", provider)
        ]
        told = server.bill[-1]
        cost = told[0] * 3_000_000 + told[1] * 15_000_000
        assert await tried.calls("input, output, usd, assumed") == [(*told, cost, 0)]
        ((first,),) = await tried.calls("first > at")
        assert first == 1
        await tried.check_books()


async def test_a_busy_provider_is_asked_again_not_before_it_said(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(status=429, headers={"retry-after": "0.6"}), Play())
    async with hall(server, tmp_path) as tried:
        began = current_time()
        made = await tried.ask(prompt("Hello?"))
        assert current_time() - began >= 0.6
        assert made.started.attempt == 2
        assert await tried.calls("outcome, usd > 0") == [("failed", 0), ("finished", 1)]
        await tried.check_books()


@PROTOCOLS
@pytest.mark.parametrize("status", [401, 402, 403, 404, 400])
async def test_a_refusal_is_told_and_not_asked_again(
    server: ModelServer, tmp_path: Path, provider: str, status: int
) -> None:
    plays(server, Play(status=status))
    async with hall(server, tmp_path, {"one": a_model(provider)}) as tried:
        expected = {401: Denied, 403: Denied, 402: Exhausted}.get(status, InvalidArgument)
        with pytest.raises(expected):
            await tried.ask(prompt("Hello?"))
        assert len(server.requests) == 1
        await tried.check_books()


async def test_a_fallback_answers_when_the_first_cannot(server: ModelServer, tmp_path: Path) -> None:
    by_model(server, first=Play(status=503), second=Play(text="I can."))
    models = {"one": a_model(model="first", fallbacks=("two",)), "two": a_model("anthropic", model="second")}
    async with hall(server, tmp_path, models) as tried:
        made = await tried.ask(prompt("Hello?"))
        assert (made.text, made.started.alias, made.started.attempt) == ("I can.", "two", 2)
        assert await tried.calls("alias, outcome") == [("one", "failed"), ("two", "finished")]
        await tried.check_books()


async def test_a_fallback_that_cannot_take_the_request_is_left_out(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(status=401))
    models = {"one": a_model(fallbacks=("two",)), "two": a_model(tools=False)}
    async with hall(server, tmp_path, models) as tried:
        request = prompt("Look.")
        request.tools.add(name="read")
        with pytest.raises(Denied):
            await tried.ask(request)


@PROTOCOLS
async def test_a_slow_first_byte_is_not_waited_for_for_ever(server: ModelServer, tmp_path: Path, provider: str) -> None:
    plays(server, Play(hang="at once"), Play(text="Here."))
    async with hall(server, tmp_path, {"one": a_model(provider, first_output_s=2)}) as tried:
        made = await tried.ask(prompt("Hello?"))
        assert made.text == "Here."
        assert await tried.calls("outcome, assumed") == [("failed", 1), ("finished", 0)]
        assert made.usage.usd > 0.001, "what may have been worked on is charged at its worst case"
        await tried.check_books()


@PROTOCOLS
@pytest.mark.parametrize(
    "play",
    [
        Play(text="Wir grüßen alle hier", cut="character"),
        Play(text="one two three four five", cut="middle"),
        Play(text="one two three", cut="middle", politely=True),
        Play(calls=[("read", '{"path": "a rather long one"}')], cut="call"),
        Play(error_event="overloaded"),
        Play(error_event="invalid"),
        Play(text="one two three four", hang="middle"),
    ],
    ids=["character", "middle", "politely", "call", "overloaded", "invalid", "hang"],
)
async def test_a_stream_that_breaks_after_its_first_output_is_never_asked_again(
    server: ModelServer, tmp_path: Path, provider: str, play: Play
) -> None:
    plays(server, play, Play(text="another answer"))
    models = {"one": a_model(provider, idle_s=0.4 if play.hang else 30, fallbacks=("two",)), "two": a_model(provider)}
    request = prompt("Look.")
    request.tools.add(name="read")
    completion = Completion()
    async with hall(server, tmp_path, models) as tried:
        with fail_after(60), pytest.raises(Unavailable, match="broke off"):  # noqa: PT012  what came before counts
            async for each in tried.fiedler.complete(request, CALLER):
                completion.take(each)
        assert len(server.requests) == 1
        assert completion.text
        assert play.text.startswith(completion.text)
        assert completion.tool_calls == completion.broken_tool_calls == []
        assert await tried.calls("outcome, assumed") == [("broken", 1)]
        ((charged,),) = await tried.calls("output")
        assert charged >= server.bill[0][1]
        with pytest.raises(Conflict, match="begun before"):
            await tried.ask(request)
        await tried.check_books()


@PROTOCOLS
@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
async def test_broken_json_in_a_call_is_told_and_never_handed_on(
    server: ModelServer, tmp_path: Path, provider: str, whole: bool
) -> None:
    plays(server, Play(calls=[("read", '{"path": "a"'), ("read", '{"path": "b"}')]))
    async with hall(server, tmp_path, {"one": a_model(provider)}) as tried:
        request = prompt("Look.")
        request.whole = whole
        request.tools.add(name="read", input_schema='{"type": "object", "required": ["path"]}')
        made = await tried.ask(request)
        assert [each.arguments for each in made.tool_calls] == ['{"path": "b"}']
        assert len(made.broken_tool_calls) == 1
        assert made.finished.reason == pb.FINISH_INVALID_TOOL_CALL
        assert await tried.calls("outcome, reason") == [("finished", "invalid_tool_call")]


async def test_a_hedge_answers_when_the_first_is_silent(server: ModelServer, tmp_path: Path) -> None:
    by_model(server, first=Play(hang="at once"), second=Play(text="Quick."))
    models = {
        "one": a_model(model="first", hedge_after_s=0.2, fallbacks=("two",)),
        "two": a_model("anthropic", model="second"),
    }
    async with hall(server, tmp_path, models) as tried:
        made = await tried.ask(prompt("Hello?"))
        assert made.text == "Quick."
        assert await tried.calls("alias, outcome, assumed") == [("one", "abandoned", 1), ("two", "finished", 0)]
        ((total,),) = await tried.journal.query("SELECT sum(usd) FROM calls")
        assert made.usage.usd == pytest.approx(total / 10**12), "both are paid, and both are told"
        await tried.check_books()


async def test_a_model_that_keeps_failing_rests_and_one_probe_wakes_it(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(status=500))
    async with hall(server, tmp_path, {"one": a_model(attempts=1)}, failures=2, rest_s=2) as tried:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await tried.ask(prompt("Hello?"))
        with pytest.raises(Unavailable, match="not now"):
            await tried.ask(prompt("Hello?"))
        assert len(server.requests) == 2
        assert tried.fiedler.models()[0].state == "resting"
        plays(server, Play(first_byte_s=1))
        await sleep(2)
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                outcomes.append((await tried.ask(prompt("Hello?"))).text)
            except Unavailable:
                outcomes.append("not now")

        async with create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        assert sorted(outcomes) == ["Hello there."] + ["not now"] * 9
        assert len(server.requests) == 3
        assert (await tried.ask(prompt("Hello?"))).text == "Hello there."
        await tried.check_books()


async def test_the_same_id_is_the_same_charge_and_the_same_answer(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(text="Once.", reasoning="Hm, so.", calls=[("read", '{"path": "a"}')]))
    request = prompt("Look.")
    request.tools.add(name="read")
    async with hall(server, tmp_path) as tried:
        first = await tried.ask(request)
        again = await tried.ask(request)
        assert again.started.replayed
        again.started.replayed = False
        assert again == first
        assert len(server.requests) == 1
        changed = prompt("Something else.")
        changed.id = request.id
        with pytest.raises(Conflict, match="another request"):
            await tried.ask(changed)
        with pytest.raises(Conflict):
            await tried.ask(request, Caller("run-2", "hopper", "conversation-2", "run-2"))
        await tried.check_books()
    async with hall(server, tmp_path) as tried:
        assert (await tried.ask(request)).text == "Once."
        assert len(server.requests) == 1


async def test_a_request_that_never_had_output_may_be_asked_again(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(status=503), Play(text="Now."))
    async with hall(server, tmp_path, {"one": a_model(attempts=1)}) as tried:
        request = prompt("Hello?")
        with pytest.raises(Unavailable):
            await tried.ask(request)
        made = await tried.ask(request)
        assert made.text == "Now."
        assert await tried.calls("number, outcome") == [(1, "failed"), (2, "finished")]
        await tried.check_books()


async def test_a_request_is_not_answered_twice_at_once(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(pause_s=0.1))
    async with hall(server, tmp_path) as tried:
        request = prompt("Hello?")
        async with aclosing(tried.fiedler.complete(request, CALLER)) as events:  # type: ignore[type-var]
            await anext(events)
            with pytest.raises(Conflict, match="being answered"):
                await tried.ask(request)
        await tried.check_books()


@pytest.mark.parametrize("when", ["before the output", "after the output", "by closing"])
@PROTOCOLS
async def test_whoever_goes_away_ends_the_call_and_it_is_booked(
    server: ModelServer, tmp_path: Path, provider: str, when: str
) -> None:
    plays(server, Play(text="word " * 5000, pause_s=0.02, first_byte_s=90 if when == "before the output" else 0))
    async with hall(server, tmp_path, {"one": a_model(provider)}) as tried:
        if when == "by closing":
            async with aclosing(tried.fiedler.complete(prompt("Hello?"), CALLER)) as events:  # type: ignore[type-var]
                async for each in events:
                    if each.text:
                        break
        else:
            async with create_task_group() as tasks:
                tasks.start_soon(tried.ask, prompt("Hello?"))
                with fail_after(60):
                    while not (server.requests if when == "before the output" else server.bill):
                        await sleep(0.01)
                    await sleep(0.2)
                tasks.cancel_scope.cancel()
        with fail_after(60):
            while server.open_now and when != "before the output":
                await sleep(0.01)
        assert await tried.calls("outcome, assumed") == [("cancelled", 1)]
        ((charged,),) = await tried.calls("output")
        assert charged >= (server.bill[0][1] if server.bill else 0) or charged == 100
        await tried.check_books()


async def test_the_deadline_of_a_request_ends_it(server: ModelServer, tmp_path: Path) -> None:
    plays(server, Play(hang="at once"))
    async with hall(server, tmp_path) as tried:
        request = prompt("Hello?")
        request.deadline = time() + 0.4
        with pytest.raises(Unavailable, match=r"deadline|in time"):
            await tried.ask(request, within_s=60)
        await tried.check_books()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"id": "x"}, InvalidArgument),
        ({"model": "nobody"}, NotFound),
        ({"turns": []}, InvalidArgument),
        ({"turns": [pb.Turn(parts=[pb.Part(text="?")])]}, InvalidArgument),
        ({"turns": [pb.Turn(role=pb.ROLE_USER, parts=[pb.Part()])]}, InvalidArgument),
        ({"turns": [pb.Turn(role=pb.ROLE_SYSTEM, parts=[pb.Part(text="?")])]}, InvalidArgument),
        ({"tools": [pb.ToolOffer(name="two words")]}, InvalidArgument),
        ({"tools": [pb.ToolOffer(name="a"), pb.ToolOffer(name="a")]}, InvalidArgument),
        ({"tools": [pb.ToolOffer(name="a", input_schema="{")]}, InvalidArgument),
        ({"tool_choice": pb.ToolChoice(use=pb.TOOL_USE_NAMED, name="a")}, InvalidArgument),
        ({"format": pb.OutputFormat(schema=pb.OutputSchema(schema="no"))}, InvalidArgument),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_is_done(
    server: ModelServer, tmp_path: Path, change: dict[str, Any], error: type[Error]
) -> None:
    fields = {"id": new_id(), "turns": prompt("Hello?").turns}
    async with hall(server, tmp_path) as tried:
        with pytest.raises(error) as caught:
            await tried.ask(pb.CompleteRequest(**fields | change))
        assert caught.value.next
        assert server.requests == []
        assert tried.journal.statistics().entries == 0


async def test_vectors_are_made_and_booked(server: ModelServer, tmp_path: Path) -> None:
    models = {"one": a_model(), "vectors": a_model(chat=False, embeddings=True)}
    async with hall(server, tmp_path, models) as tried:
        made = await tried.fiedler.embed(pb.EmbedRequest(id=new_id(), inputs=["a", "b"]), CALLER)
        assert len(made.vectors) == 2
        assert made.started.alias == "vectors"
        assert await tried.calls("act, outcome, output") == [("llm.embed", "finished", 0)]
        plays(server, Play(status=401))
        with pytest.raises(Denied):
            await tried.fiedler.embed(pb.EmbedRequest(id=new_id(), inputs=["a"]), CALLER)
        await tried.check_books()


async def test_no_key_is_ever_found_where_it_must_not_be(
    server: ModelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is looked for in errors, objects, logs, journal and everything but its own file."""
    caplog.set_level("DEBUG")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-other: from-the-environment")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-other: from-the-environment")
    echo = {"error": {"type": "authentication_error", "message": f"bad key {KEY} of {KEY[::-1]}"}}
    said = [
        Play(status=401, error=echo),
        Play(status=500, error=echo),
        Play(text=f"Your key is {KEY}!"),
        Play(reasoning=f"The key {KEY}", calls=[("read", '{"path": "' + KEY + '"}')]),
        Play(garbage=b"data: {" + KEY.encode() + b"\n\n"),
        Play(calls=[(KEY, "{}")]),
    ]
    shown: list[str] = []
    models = {name: a_model(name, attempts=1) for name in ("openai", "anthropic")}
    async with hall(server, tmp_path, models) as tried:
        for alias in models:
            for play in said:
                for whole in (False, True):
                    plays(server, play)
                    request = prompt("Hello?", model=alias)
                    request.whole = whole
                    request.fragments = True
                    request.tools.add(name="read")
                    events = tried.fiedler.complete(request, CALLER)
                    try:
                        async for each in events:
                            shown += [str(each), each.SerializeToString().decode("latin-1")]
                    except Error as error:
                        shown += [error.message, error.next, repr(error), repr(error.__context__)]
        shown += [repr(tried.fiedler.__dict__), repr(vars(tried.fiedler._keys)), repr(tried.fiedler._open)]
        sdk = [vars(each._sdk) for each in tried.fiedler._open.values()]  # type: ignore[attr-defined]
        shown.append(repr(sdk))
        headers = {name: value for each in server.requests for name, value in each.headers.items()}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-api-key"] == KEY
    assert "from-the-environment" not in str(headers)
    assert not any(name.startswith("x-stainless") for name in headers)
    for spelling in (KEY, KEY[::-1], KEY.encode().hex()):
        assert not [each for each in shown if spelling in each]
        assert spelling not in caplog.text
        for file in tmp_path.iterdir():
            if file.is_file() and file.name != "key":
                assert spelling.encode() not in file.read_bytes(), file.name


async def test_a_redirect_does_not_take_the_key_with_it(server: ModelServer, tmp_path: Path) -> None:
    async with model_server() as elsewhere:

        def redirect(request: Request) -> Play:
            place = f"http://127.0.0.1:{elsewhere.port}{request.path}"
            return Play(status=307, headers={"location": place}, error={"moved": True})

        server.script = redirect
        models = {name: a_model(name, attempts=1) for name in ("openai", "anthropic")}
        async with hall(server, tmp_path, models) as tried:
            for alias in models:
                with pytest.raises(Unavailable, match="redirect"):
                    await tried.ask(prompt("Hello?", model=alias))
        assert elsewhere.requests == []
