"""Who carries a decoy or a real value out of its sandbox is caught: the run ends, and an incident names the path."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep

from core.lab import Lab
from core.redaction.canaries import decoys_of, incidents, lab_key
from core.rogers.entry import Entry
from core.run import Outcome, Run, State
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_REPLY, Blob, Message
from tests.bubblewrap_lab import need_bubblewrap
from tests.labs import a_home, ask, opened
from tests.model_server import ModelServer, model_server
from tests.orchestras import KEY
from tests.security.forms import seen
from tests.servers.site import Site, a_site

pytestmark = pytest.mark.docker  # it needs sandboxes, if not that engine
ROOT = Path(__file__).parents[1]
REAL, WEAK = "real-value-9Zk3Qw7Lp2Xs", "localhost:5432"
RULES = """
[[rules]]
name = "anywhere"
kinds = ["web.fetch"]
principals = ["mad:snoop"]
hosts = ["*:*"]
verdict = "allow"
carries = ["worker", "web", "file"]
limits = { addresses = ["127.0.0.1/32"], bytes_up = 50000000 }
"""
SETTINGS = """
emads = ["{root}/emads/snoop"]
policy = ["{place}/rules.toml"]
[sandbox]
runtime = "bwrap"
[egress.names]
"site.test" = ["127.0.0.1"]
[providers.ours]
kind = "openai"
base_url = "{models}"
key_file = "{place}/key"
[models.one]
provider = "ours"
model = "scripted"
max_tokens = 100
"""
ROADS = ("reply", "event", "file", "prompt", "url", "header", "body", "stream", "evidence", "last words")


@dataclass
class Trap:
    """A lab, and who hears what leaves it."""

    lab: Lab
    site: Site
    models: ModelServer
    place: Path

    async def store(self, text: str) -> Blob:
        """A file of the lab's, from before anybody knew that it holds a secret."""

        async def chunks() -> AsyncIterator[bytes]:
            yield text.encode()

        return await self.lab.horace.put(chunks())

    async def carry(self, file: str, road: str, form: str = "raw", *linked: Blob) -> tuple[Run, Message]:
        """A run that carries `file` out: the run when it is over, and what its caller heard."""
        to = f"http://site.test:{self.site.port}/in"
        return await self.run("carry", *linked, file=file, road=road, form=form, to=to)

    async def run(self, tool: str, *linked: Blob, **given: str) -> tuple[Run, Message]:
        """A run of the snoop."""
        question = Message(id=new_id(), conversation=new_id(), recipient="snoop", kind=KIND_CALL, tool=tool)
        question.data = json.dumps(given)
        question.blobs.extend(linked)
        answer = await ask(self.lab, question, within_s=120)
        run = self.lab.runs.id_of("snoop", question.id)
        with fail_after(60):
            while (found := await self.lab.runs.get(run)).state is not State.DESTROYED:
                await sleep(0.02)
        return found, answer

    async def incident(self, run: Run) -> dict[str, Any]:
        """The one of that run."""
        (found,) = [each for each in await incidents(self.lab.journal, limit=1000) if each["run"] == run.id]
        return found

    def values(self, run: Run) -> list[str]:
        """The decoys of a run."""
        key = lab_key(self.lab.home.path / "canaries")
        return [each.value.decode().strip() for each in decoys_of(key, run.id)]

    def heard(self) -> bytes:
        """Everything that has left the lab."""
        return b"".join(each.head + each.body for each in self.site.asked) + b"".join(
            each.content for each in self.models.requests
        )

    def written(self) -> bytes:
        """Everything on the disk of the lab, but the key that decoys are made of."""
        files = [each for each in self.lab.home.path.rglob("*") if each.is_file() and each.name != "canaries"]
        return b"".join(each.read_bytes() for each in files)


@asynccontextmanager
async def a_trap() -> AsyncIterator[Trap]:
    async with AsyncExitStack() as stack:
        need_bubblewrap()
        home = stack.enter_context(a_home(images=("base", "tests/emads/snoop"), unpacked=True))
        site = await stack.enter_async_context(a_site({}))
        models = await stack.enter_async_context(model_server())
        place = home.path
        (place / "rules.toml").write_text(RULES)
        (place / "key").touch(mode=0o600)
        (place / "key").write_text(KEY)
        home.settings.write_text(SETTINGS.format(root=ROOT, place=place, models=models.openai))
        lab = await stack.enter_async_context(opened(home))
        yield Trap(lab, site, models, place)


async def test_a_decoy_ends_the_run_on_every_road_and_leaves_nothing_outside() -> None:
    async with a_trap() as trap:
        tried: dict[str, tuple[Run, Message]] = {}

        async def carry(road: str, file: str, form: str) -> None:
            tried[road] = await trap.carry(file, road, form)

        files, forms = ("token", "credentials", "deploy-key"), ("raw", "base64", "in pieces", "percent", "hexadecimal")
        async with create_task_group() as tasks:
            for number, road in enumerate(ROADS):
                tasks.start_soon(carry, road, files[number % 2], forms[number % 5])
        for road, (run, answer) in tried.items():
            assert run.outcome is Outcome.KILLED, (road, run)
            assert run.reason.startswith("A decoy key ("), (road, run.reason)
            incident = await trap.incident(run)
            assert incident["ended"] == [run.id], road
            assert incident["path"][0].startswith("laid at /run/madlab/"), road
            assert incident["mad"] == "snoop"
            said = (answer.text + answer.data).encode()
            left = trap.heard() + trap.written() + json.dumps(incident).encode() + said
            for value in trap.values(run):
                assert seen(value, left) == [], road
        assert not [each for each in trap.site.asked if b"found" in each.body or b"found" in each.head.lower()]
        assert not trap.lab.services.redactor.scan(trap.values(tried["reply"][0])[0].encode()), "it is over: forgotten"


async def test_a_private_key_is_known_by_a_line_of_it() -> None:
    async with a_trap() as trap:
        run, _ = await trap.carry("deploy-key", "event", "escaped")
        assert run.outcome is Outcome.KILLED
        assert (await trap.incident(run))["what"] == "a decoy key (private key)"


async def test_a_real_value_ends_the_run_and_one_that_may_stand_there_by_chance_does_not() -> None:
    async with a_trap() as trap:
        stored = {each: await trap.store(each) for each in (REAL, WEAK)}
        trap.lab.services.redactor.learn("real", REAL.encode())
        trap.lab.services.redactor.learn("weak", WEAK.encode())
        caught, answer = await trap.carry(stored[REAL].digest, "reply", "base64", stored[REAL])
        assert caught.outcome is Outcome.KILLED
        assert "[secret real]" in answer.data
        assert (await trap.incident(caught))["what"] == "the value of secret real"
        free, answer = await trap.carry(stored[WEAK].digest, "reply", "raw", stored[WEAK])
        assert free.outcome is Outcome.SUCCEEDED
        assert "[secret weak]" in answer.data
        assert (await trap.incident(free))["ended"] == []
        assert seen(REAL, trap.heard()) == []


async def test_who_only_looks_is_let_be() -> None:
    async with a_trap() as trap:
        run, answer = await trap.run("look")
        assert answer.kind == KIND_REPLY, answer
        assert json.loads(answer.data)["files"] == ["credentials", "deploy-key", "token"]
        assert json.loads(answer.data)["bytes"] > 200
        assert run.outcome is Outcome.SUCCEEDED
        assert await incidents(trap.lab.journal) == []


async def test_what_a_person_says_is_redacted_and_noted_and_nobody_ends() -> None:
    async with a_trap() as trap:
        trap.lab.services.redactor.learn("real", REAL.encode())
        said = Message(id=new_id(), conversation="c", recipient="fiedler", kind=KIND_CALL, tool="ask")
        said.data = json.dumps({"prompt": f"What is {REAL}?"})
        answer = await ask(trap.lab, said)
        assert answer.kind == KIND_REPLY, answer
        await trap.lab.journal.append(Entry(new_id(), "note"))  # behind what is on its way
        (noted,) = await incidents(trap.lab.journal)
        assert (noted["run"], noted["mad"], noted["ended"]) == ("", "operator", [])
        assert b"[secret real]" in trap.heard()
        assert seen(REAL, trap.heard() + trap.written()) == []


def test_decoys_are_each_runs_own_and_always_the_same() -> None:
    key = bytes(range(32))
    one, again, other = decoys_of(key, "a"), decoys_of(key, "a"), decoys_of(key, "b")
    assert one == again
    assert not {each.value for each in one} & {each.value for each in other}
    assert {len(each.value) >= 16 for each in one} == {True}


def test_the_key_of_decoys_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    made = lab_key(tmp_path / "canaries")
    assert lab_key(tmp_path / "canaries") == made
    assert (tmp_path / "canaries").stat().st_mode & 0o777 == 0o600
    (tmp_path / "canaries").write_bytes(b"half")
    assert len(lab_key(tmp_path / "canaries")) == 32
