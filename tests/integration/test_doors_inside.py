"""The official SDKs, unmodified, in a sandbox of Hopper's cannot tell the doors from a direct connection.

One program, `tests/images/sdks/client.py`, asks both SDKs for everything twice: here, straight at a model server of
ours; and as an agent that Hopper starts in a real container, through the doors, the gate and Fiedler, at the same
server. Each time it writes down what went over its wire and what the SDKs made of it.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio import fail_after

from core.run import Outcome, Run
from periphery.doors.opening import KEY as PLACEHOLDER
from protos import tree
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, Message, Terms
from tests.contract.test_doors import CALLS
from tests.docker_lab import built
from tests.integration.test_core_runs import ended
from tests.integration.test_doors_traffic import assert_equal_in_shape
from tests.labs import ROOT, a_home, ask, opened
from tests.model_server import ModelServer, Play, Request, model_server
from tests.roads import Exchange

pytestmark = pytest.mark.docker

SDKS = ROOT / "tests/images/sdks"
KEY = "sk-of-the-core-7d0c41f8e2b9"


def script(request: Request) -> Play:
    """A model that reads before it answers."""
    if b"Refuse this" in request.content:
        return Play(status=400)
    if b'"tools"' in request.content and b"It is empty" not in request.content:
        return Play(text="I look.", calls=CALLS)
    return Play(text="Grüße 🧪 to you")


def settings(server: ModelServer) -> str:
    return f"""
emads = ["{ROOT / "periphery/hopper"}"]
[profile.hopper]
memory_mb = 512
workspace_mb = 128
[llm]
default = "one"
[providers.openai]
kind = "openai"
base_url = "{server.openai}"
key_file = "key"
[providers.anthropic]
kind = "anthropic"
base_url = "{server.anthropic}"
key_file = "key"
[models.one]
provider = "openai"
model = "scripted"
[models.two]
provider = "anthropic"
model = "scripted"
max_tokens = 1000
[models.vectors]
provider = "openai"
model = "scripted"
chat = false
embeddings = true
"""


@dataclass(frozen=True)
class Walked:
    """What the program wrote down, on either road."""

    straight: dict[str, Any]
    doors: dict[str, Any]
    run: Run
    upstream: list[Request]  # what the server was sent while the program ran in its sandbox

    def pairs(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Every exchange by name, straight and through the doors."""
        here, there = self.straight["asked"], self.doors["asked"]
        return [(one["name"], one, two) for one, two in zip(here, there, strict=True)]


@pytest.fixture(scope="module")
async def walked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Walked]:
    built(str(SDKS))
    place = tmp_path_factory.mktemp("walked")
    async with model_server(script) as server:
        straight = await _straight(server, place)
        server.requests.clear()
        with a_home(settings(server), images=(str(SDKS),)) as home:
            (home.path / "key").touch(mode=0o600)
            (home.path / "key").write_text(KEY)
            async with opened(home) as lab:
                blob = await lab.horace.put(_packed(place), name="source.tar")
                asked = Message(id=new_id(), conversation=new_id(), recipient="hopper", kind=KIND_CALL, tool="work")
                asked.blobs.append(blob)
                asked.terms.CopyFrom(Terms(image="lab:sdks"))
                told = {"goal": "Ask everything.", "test": "test -s traffic.json", "agent": "codex", "model": "one"}
                asked.data = json.dumps({"source": blob.digest} | told)
                answer = await ask(lab, asked, within_s=240)
                run = await ended(lab, lab.runs.id_of("hopper", asked.id))
                assert run.outcome is Outcome.SUCCEEDED, (run.reason, answer.text, answer.data)
                [changes] = [each["digest"] for each in run.artifacts if each["name"] == "changes.tar"]
                packed = [chunk async for chunk in lab.horace.get(changes)]
                [traffic] = [b"".join(each.chunks) for each in tree.members(packed) if each.name == "traffic.json"]
        yield Walked(straight, json.loads(traffic), run, server.requests)


async def _straight(server: ModelServer, place: Path) -> dict[str, Any]:
    folder = place / "straight"
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    environment |= {"OPENAI_BASE_URL": server.openai, "OPENAI_API_KEY": KEY}
    environment |= {"ANTHROPIC_BASE_URL": server.anthropic, "ANTHROPIC_API_KEY": KEY}
    with fail_after(120):
        await anyio.run_process([sys.executable, str(SDKS / "client.py")], env=environment, cwd=folder)
    found: dict[str, Any] = json.loads((folder / "traffic.json").read_bytes())
    return found


async def _packed(place: Path) -> AsyncIterator[bytes]:
    folder = place / "tree"
    folder.mkdir()
    (folder / "README").write_text("Here everything is asked.\n")
    for chunk in tree.pack(folder, tree.walk(folder)):
        yield chunk


def exchange(record: dict[str, Any]) -> Exchange:
    request = httpx2.Request(record["method"], f"http://127.0.0.1{record['path']}")
    return Exchange(request, record["status"], record["headers"], [record["text"].encode()])


async def test_they_ask_the_same_on_either_road_and_make_the_same_of_the_answers(walked: Walked) -> None:
    assert walked.doors["sdks"] == walked.straight["sdks"], "the core's have moved on: lock tests/images/sdks anew"
    for name, straight, doors in walked.pairs():
        for each in ("name", "method", "path", "asked", "status", "got"):
            assert doors[each] == straight[each], name
    got = {name: doors["got"] for name, _, doors in walked.pairs()}
    assert got["chat with tools, streamed"][2] == [[f"call_{n}", *each] for n, each in enumerate(CALLS)]
    assert got["chat that is refused"] == ["BadRequestError", 400]


async def test_every_exchange_is_equal_in_shape(walked: Walked) -> None:
    for name, straight, doors in walked.pairs():
        assert_equal_in_shape(exchange(straight), exchange(doors), name)


async def test_no_key_is_in_the_sandbox_and_every_request_bears_the_cores(walked: Walked) -> None:
    environment = walked.doors["environment"]
    assert environment["HOME"].startswith("/workspace")
    assert {name: environment[name] for name in environment if "KEY" in name or "TOKEN" in name} == {
        "OPENAI_API_KEY": PLACEHOLDER,
        "ANTHROPIC_API_KEY": PLACEHOLDER,
    }
    assert KEY not in json.dumps(walked.doors)
    asked = [each for each in walked.upstream if each.method == "POST"]
    assert len(asked) == len([each for _, _, each in walked.pairs() if each["method"] == "POST"])
    for each in asked:
        assert KEY in (each.headers.get("authorization", "").removeprefix("Bearer "), each.headers.get("x-api-key"))
        assert PLACEHOLDER not in str(each)
