"""The real local model in a real sandbox, asked through Fiedler: slow, and only where its weights are.

The smaller of the installed models is asked; `MADLAB_MODELS` may point to a cache of weights.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from anyio import create_task_group, fail_after, sleep

from core.app import open_lab
from core.config import load
from core.fiedler.ledger import Caller
from core.fiedler.store import Store, catalogue
from core.lab import Lab
from protos.errors import InvalidArgument, Unavailable
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb
from sandbox.engines.docker.engine import DockerEngine
from tests.commands import Madlab
from tests.docker_lab import need_runtime
from tests.labs import a_home
from tests.sizes import full

STORE = Store.locate()  # before the tests forget what the shell says
INSTALLED = STORE.installed() if STORE is not None else []
OPERATOR = Caller("operator", "operator", "", "")
PATIENCE_S = 240.0  # for a model on a busy machine

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not INSTALLED, reason="no weights are installed: madlab model install qwen2.5-coder-0.5b"),
]

WHOLE = pytest.mark.skipif(not full(), reason="a real model takes long to start again and again: MADLAB_FULL=1")


@asynccontextmanager
async def a_lab(settings: str = "", *, runtime: str = "runc") -> AsyncIterator[Lab]:
    """A lab that has nothing but the local model."""
    need_runtime(runtime)
    assert STORE is not None
    settings = f'emads = []\nsandbox.runtime = "{runtime}"\n{settings}'
    with pytest.MonkeyPatch.context() as patch, a_home(settings, images=["llama"]) as home, home.locked():
        patch.setenv("MADLAB_MODELS", str(STORE.path))
        (home.path / "model").write_text(INSTALLED[-1].name)
        async with open_lab(home, load(home, {"MADLAB_MODELS": str(STORE.path)})) as lab:
            yield lab


async def ask(lab: Lab, request: pb.CompleteRequest, *, max_tokens: int = 120) -> Completion:
    """The whole answer of the model."""
    request.sampling.max_tokens = request.sampling.max_tokens or max_tokens
    request.sampling.seed = 7
    completion = Completion()
    assert lab.services.fiedler is not None
    with fail_after(PATIENCE_S):
        async with aclosing(lab.services.fiedler.complete(request, OPERATOR)) as events:  # type: ignore[type-var]
            async for each in events:
                completion.take(each)
    return completion


def explicit(idle_s: float) -> str:
    """The model as an operator names it, asked once for each request."""
    return (
        f'[providers.mine]\nkind = "local"\nidle_s = {idle_s}\n'
        f'[models.tiny]\nprovider = "mine"\nmodel = "{INSTALLED[-1].name}"\nattempts = 1\n'
    )


def sandboxes(lab: Lab) -> list[str]:
    """The sandboxes of local models."""
    return [str(each["name"]) for each in lab.dispatcher.sandboxes() if each["mad"] == "llama"]


async def test_it_thinks_without_a_key_a_network_or_a_setting() -> None:
    async with a_lab() as lab:
        fiedler = lab.services.fiedler
        assert fiedler is not None
        (described,) = fiedler.models()
        assert (described.alias, described.is_default, described.small, described.state) == (
            "local",
            True,
            True,
            "ready",
        )
        assert described.note == INSTALLED[-1].expect
        assert sandboxes(lab) == [], "nothing runs before it is asked"

        completion = await ask(lab, prompt("Write a Python function is_even(n). Code only, no comments."))
        assert "def is_even(n" in completion.text
        assert completion.started.alias == "local"
        assert completion.finished.reason in (pb.FINISH_STOP, pb.FINISH_LENGTH)
        assert completion.usage.output_tokens > 5
        assert not completion.usage.assumed
        assert completion.usage.usd == 0
        assert len(sandboxes(lab)) == 1

        await _fills_a_schema(lab)
        await _calls_a_tool(lab)
        await _is_cancelled(lab)
        await _refuses_what_is_too_long(lab)
        await _answers_side_by_side(lab)
        assert len(sandboxes(lab)) == 1, "one worker answered all"


async def _fills_a_schema(lab: Lab) -> None:
    request = prompt("The cat Minka is 3 years old. Who is it?")
    request.format.schema.name = "animal"
    request.format.schema.schema = json.dumps(
        {
            "type": "object",
            "properties": {"kind": {"enum": ["cat", "dog"]}, "name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["kind", "name", "age"],
            "additionalProperties": False,
        }
    )
    completion = await ask(lab, request)
    assert completion.finished.reason == pb.FINISH_STOP, completion.finished.detail
    told = json.loads(completion.text)
    assert (told["kind"], told["age"]) == ("cat", 3)


async def _calls_a_tool(lab: Lab) -> None:
    request = prompt("Read the file notes.txt.")
    request.tools.add(
        name="read",
        description="Reads a file of the workspace.",
        input_schema='{"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}',
    )
    request.tool_choice.use = pb.TOOL_USE_ANY
    completion = await ask(lab, request)
    assert completion.finished.reason == pb.FINISH_TOOL_CALLS
    (call,) = completion.tool_calls
    assert call.name == "read"
    assert "notes.txt" in json.loads(call.arguments)["path"]

    request = pb.CompleteRequest.FromString(request.SerializeToString())
    request.id = prompt("").id
    request.tool_choice.use = pb.TOOL_USE_AUTO
    request.turns.add(role=pb.ROLE_ASSISTANT, parts=[pb.Part(tool_call=call)])
    result = pb.ToolResult(call_id=call.id, parts=[pb.Part(text="The notes say: buy milk.")])
    request.turns.add(role=pb.ROLE_USER, parts=[pb.Part(tool_result=result)])
    completion = await ask(lab, request)
    assert completion.text or completion.tool_calls or completion.broken_tool_calls, "it goes on, however well"


async def _is_cancelled(lab: Lab) -> None:
    fiedler = lab.services.fiedler
    assert fiedler is not None
    request = prompt("Count from 1 to 1000, every number.")
    request.sampling.max_tokens = 1500
    with fail_after(PATIENCE_S):
        async with aclosing(fiedler.complete(request, OPERATOR)) as events:  # type: ignore[type-var]
            async for each in events:
                if each.HasField("text"):
                    break
        short = await ask(lab, prompt("Say yes."), max_tokens=5)
    assert short.usage.output_tokens <= 5
    (outcome,) = await lab.journal.query("SELECT outcome FROM calls WHERE request = ?", (request.id,))
    assert outcome == ("cancelled",)


async def _refuses_what_is_too_long(lab: Lab) -> None:
    with pytest.raises(InvalidArgument, match="too long for this model"):
        await ask(lab, prompt("word " * 20_000))


async def _answers_side_by_side(lab: Lab) -> None:
    answers: list[str] = []

    async def one(word: str) -> None:
        answers.append((await ask(lab, prompt(f"Say the word {word}."), max_tokens=8)).text.lower())

    async with create_task_group() as tasks:
        for word in ("yellow", "window", "garden"):
            tasks.start_soon(one, word)
    assert len(answers) == 3


@WHOLE
async def test_a_worker_that_is_killed_is_started_again_and_one_that_idles_ends() -> None:
    settings = (
        '[providers.mine]\nkind = "local"\nidle_s = 2\n[models.tiny]\nprovider = "mine"\n'
        f'model = "{INSTALLED[-1].name}"\nattempts = 1\n'
        if INSTALLED
        else ""
    )
    async with a_lab(settings) as lab:
        fiedler = lab.services.fiedler
        assert fiedler is not None
        request = prompt("Count from 1 to 1000, every number.", model="tiny")
        with fail_after(PATIENCE_S), pytest.raises(Unavailable, match="broke off"):  # noqa: PT012  it is in the middle
            async with aclosing(fiedler.complete(request, OPERATOR)) as events:  # type: ignore[type-var]
                async for each in events:
                    if each.HasField("text") and (names := sandboxes(lab)):
                        await _kill(lab, names[0])
        assert (await ask(lab, prompt("Say yes.", model="tiny"), max_tokens=5)).usage.output_tokens
        with fail_after(60):
            while sandboxes(lab):
                await sleep(0.1)


async def _kill(lab: Lab, name: str) -> None:
    engine = DockerEngine(lab.home.lab)
    async with engine.adopt(name) as sandbox:
        sandbox.leave()
        await sandbox.kill()
    await engine.aclose()


async def test_it_thinks_behind_a_kernel_of_its_own_too() -> None:
    async with a_lab(runtime="runsc") as lab:
        assert (await ask(lab, prompt("Say yes."), max_tokens=5)).text


@WHOLE
async def test_a_core_that_is_killed_leaves_no_worker_behind() -> None:
    need_runtime("runc")
    if Store.locate() != STORE:
        pytest.skip("the commands of a test look in the user's own cache")
    with a_home(f"emads = []\n{explicit(600)}", images=["llama"]) as home:
        madlab = Madlab(home)
        madlab.up()
        try:
            told = madlab("ask", "Say yes.", "--max-tokens", "5", "--json").json
            assert (told["alias"], told["model"]) == ("tiny", INSTALLED[-1].name)
            (name,) = (each["name"] for each in madlab("status", "--json").json["sandboxes"])
            assert name.startswith("llama-")
            engine = DockerEngine(home.lab)
            madlab.kill_core()
            assert await engine.names() == [name], "it outlives the core for one lease at most"
            madlab.up()
            assert await engine.names() == []
            assert madlab("ask", "Say yes.", "--max-tokens", "5").code == 0
        finally:
            madlab("down")
        assert await engine.names() == []
        await engine.aclose()


def test_the_weights_are_what_the_catalogue_says() -> None:
    assert STORE is not None
    for weights in INSTALLED:
        assert weights == catalogue()[weights.name]
        assert Path(STORE.folder(weights), "about.json").exists()
