"""The whole road of `madlab code` with other agents and in other images, in real sandboxes."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from anyio import fail_after

from core.lab import Lab
from core.run import Outcome, Run
from protos import tree
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, Blob, Message, Terms
from tests.docker_lab import docker_lab
from tests.foreign import bare_tree, foreign_image
from tests.integration.test_core_runs import ended
from tests.labs import ROOT, a_home, ask, opened
from tests.model_server import ModelServer, Play, Request, Script, model_server
from tests.orchestras import KEY
from tests.sizes import full

pytestmark = pytest.mark.docker

PYTHON = {
    "adder.py": "def add(a, b):\n    return a - b\n",
    "test_adder.py": "from adder import add\n\n\ndef test_adding():\n    assert add(2, 2) == 4\n",
}
SHELL = {
    "adder.sh": "echo $(($1 - $2))\n",
    "test.sh": 'test "$(sh adder.sh 2 2)" = 4 && echo passed\n',
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    docker_lab()
    directory = tmp_path_factory.mktemp("bare")
    bare_tree(directory)
    with foreign_image(directory, ["ENV PATH=/usr/bin"]) as name:
        yield name


@asynccontextmanager
async def lab_with(script: Script, *images: str) -> AsyncIterator[tuple[Lab, ModelServer]]:
    async with model_server(script) as server:
        settings = f"""
emads = ["{ROOT / "periphery/hopper"}"]
[profile.hopper]
memory_mb = 1024
workspace_mb = 256
[llm]
default = "one"
[providers.here]
kind = "openai"
base_url = "{server.openai}"
key_file = "key"
[models.one]
provider = "here"
model = "scripted"
input_usd = 3
output_usd = 15
max_tokens = 4000
"""
        with a_home(settings, images=("base", *images)) as home:
            (home.path / "key").touch(mode=0o600)
            (home.path / "key").write_text(KEY)
            async with opened(home) as lab:
                yield lab, server


async def coded(lab: Lab, place: Path, files: Mapping[str, str], image: str = "", **arguments: object) -> Run:
    """The run that works on `files`."""
    for name, content in files.items():
        (place / name).write_text(content)

    async def packed() -> AsyncIterator[bytes]:
        for chunk in tree.pack(place, tree.walk(place)):
            yield chunk

    blob: Blob = await lab.horace.put(packed(), name="source.tar")
    asked = Message(id=new_id(), conversation=new_id(), recipient="foreman", kind=KIND_CALL, tool="code", blobs=[blob])
    asked.data = json.dumps({"source": blob.digest, "goal": "add shall add"} | arguments)
    asked.terms.CopyFrom(Terms(image=image))
    with fail_after(240):
        await ask(lab, asked, within_s=240)
        return await ended(lab, lab.runs.id_of("foreman", asked.id))


def one_by_one(*plays: Play) -> Script:
    """Each request has its play; the last one stays."""
    left = list(plays)

    def script(_: Request) -> Play:
        return left.pop(0) if len(left) > 1 else left[0]

    return script


def called(name: str, text: str = "", **arguments: object) -> Play:
    return Play(text=text, calls=[(name, json.dumps(arguments))])


async def test_hopper_works_in_an_image_that_has_a_shell_and_nothing_else(bare: str, tmp_path: Path) -> None:
    script = one_by_one(
        called("run", command="sh test.sh; command -v python3 || echo no python"),
        called("edit", path="adder.sh", old="-", new="+"),
        called("run_tests"),
        called("finish", summary="It adds.", done=True),
    )
    async with lab_with(script) as (lab, server):
        run = await coded(lab, tmp_path, SHELL, image=bare, test="sh test.sh")
        said = json.dumps([request.body for request in server.requests])
    assert run.outcome is Outcome.SUCCEEDED, run.reason
    assert run.evidence["clean_room"] is True
    assert run.evidence["tests_before"]["passed"] is False
    assert "no python" in said


async def test_an_image_that_is_not_there_is_the_reason_why_nothing_was_done(tmp_path: Path) -> None:
    async with lab_with(one_by_one(Play())) as (lab, _):
        run = await coded(lab, tmp_path, SHELL, image="somebodys/nowhere:1", test="sh test.sh")
    assert run.outcome is not Outcome.SUCCEEDED
    assert "nothing is pulled" in run.reason


@pytest.mark.skipif(not full(), reason="its image takes minutes to build from nothing: MADLAB_FULL=1")
async def test_mini_swe_agent_as_it_is_mends_a_fault_through_the_doors(tmp_path: Path) -> None:
    script = one_by_one(
        called("bash", "Let me look.", command="cat adder.py; python -m pytest -q"),
        called("bash", "It subtracts.", command="sed -i 's/a - b/a + b/' adder.py && pytest -q"),
        called("bash", "It adds now.", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
    )
    async with lab_with(script, "hopper", "hopper-agents") as (lab, server):
        run = await coded(lab, tmp_path, PYTHON, agent="mini-swe-agent")
        said = json.dumps([request.body for request in server.requests])
    assert run.outcome is Outcome.SUCCEEDED, run.reason
    assert run.evidence["clean_room"] is True
    assert "1 failed" in said
    assert "1 passed" in said
    assert KEY not in said


@pytest.mark.skipif(not full(), reason="its image takes minutes to build from nothing: MADLAB_FULL=1")
async def test_codex_as_it_is_mends_a_fault_through_the_doors(tmp_path: Path) -> None:
    script = one_by_one(
        called("exec_command", "Let me look.", cmd="cat adder.py; python -m pytest -q"),
        called("exec_command", "It subtracts.", cmd="sed -i 's/a - b/a + b/' adder.py && pytest -q"),
        Play(text="It adds now."),
    )
    async with lab_with(script, "hopper", "hopper-agents") as (lab, server):
        run = await coded(lab, tmp_path, PYTHON, agent="codex")
        said = json.dumps([request.body for request in server.requests])
    assert run.outcome is Outcome.SUCCEEDED, run.reason
    assert run.evidence["clean_room"] is True
    assert "1 failed" in said
    assert "1 passed" in said
    assert KEY not in said
