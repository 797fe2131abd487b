"""Patches at the door: real runs of the foreman, read as a page reads them and decided about, once."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, to_thread

from core.grace.cli.client import Client
from core.lab import Lab
from core.run import Run
from protos.errors import Conflict, Error, InvalidArgument, NotFound
from tests.commands import Madlab
from tests.hand import Edits, Hand
from tests.integration.gits import a_repository, commit, fingerprint, git, said
from tests.integration.test_core_runs import ended
from tests.integration.test_foreman import FAULTY, MENDED, coded
from tests.labs import a_home, opened

TOKEN = "ghp_" + "a1B2c3D4e5" * 4
TREE = {name: content.encode() for name, content in FAULTY.items()}
MODEL = """
[providers.here]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.small]
provider = "here"
model = "a-model"
"""


@dataclass
class Desk:
    """A lab whose hands make the edits that a test sets, and its door."""

    lab: Lab
    place: Path
    edits: Edits

    async def get(self, path: str) -> Any:
        return await to_thread.run_sync(Client(self.lab.home).get, f"/api/v1{path}")

    async def post(self, path: str, **body: object) -> Any:
        return await to_thread.run_sync(Client(self.lab.home).post, f"/api/v1{path}", body)

    async def coded(self, edits: Edits, **arguments: object) -> Run:
        """A run that made these edits, in a repository that has the faulty tree."""
        self.edits = edits
        run, _ = await coded(self.lab, self.place, repository=str(self.repository), **arguments)
        return run

    @property
    def repository(self) -> Path:
        return self.place / "repo"

    async def acts(self, run: Run) -> list[tuple[str, str]]:
        lines = (await self.get("/audit"))["acts"]
        return [(each["act"], each["outcome"]) for each in lines if each["target"] == run.id]


@asynccontextmanager
async def desk(place: Path) -> AsyncIterator[Desk]:
    made: list[Desk] = []

    class Played(Hand):
        def __init__(self) -> None:
            super().__init__(lambda _: made[0].edits)

    with a_home(MODEL) as home:
        async with opened(home, hopper=Played) as lab:
            made.append(Desk(lab, place, MENDED))
            a_repository(place / "repo", TREE)
            yield made[0]


async def test_a_patch_is_read_as_files_and_lines_with_what_speaks_for_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded({**MENDED, "key.py": f"KEY = '{TOKEN}'\n", "b.bin": "\0"})
        (listed,) = (await at.get("/patches"))["patches"]
        patch = await at.get(f"/runs/{run.id}/patch")
        one = await at.get(f"/runs/{run.id}/patch?file=0")
        with pytest.raises(NotFound):
            await at.get(f"/runs/{run.id}/patch?file=3")
    assert (listed["run"]["id"], listed["state"], listed["proved"], listed["goal"]) == (
        *(run.id, "waiting", True),
        "add shall add",
    )
    assert [(each["path"], each["kind"], each["binary"]) for each in patch["files"]] == [
        ("adder.py", "modified", False),
        ("b.bin", "added", True),
        ("key.py", "added", False),
    ]
    (hunk,) = patch["files"][0]["hunks"]
    assert [(each["sign"], each["old"], each["new"], each["text"]) for each in hunk["lines"]] == [
        (" ", 1, 1, "def add(a, b):"),
        ("-", 2, None, "    return a - b"),
        ("+", None, 2, "    return a + b"),
    ]
    assert hunk["lines"][2]["parts"] == [["    return a ", False], ["+", True], [" b", False]]
    assert one["hunks"] == patch["files"][0]["hunks"]
    assert TOKEN not in str(patch)
    assert any("adds a GitHub token" in each for each in patch["warnings"])
    assert patch["evidence"]["clean_room"] is True
    assert patch["said"]["clean_room"].startswith("passed")
    assert patch["repository"] == {"path": str(at.repository), "below": ""}


async def test_an_approved_patch_is_one_commit_on_a_new_branch_once_and_in_the_audit(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded(MENDED)
        before, head = fingerprint(at.repository), said(at.repository, "rev-parse", "HEAD")
        (item,) = (await at.get("/attention"))["items"]
        applied = await at.post(f"/runs/{run.id}/patch/apply")
        again = await at.post(f"/runs/{run.id}/patch/apply")
        with pytest.raises(Conflict, match="was applied already"):
            await at.post(f"/runs/{run.id}/patch/drop")
        with pytest.raises(Conflict, match="was applied already"):
            await at.post(f"/runs/{run.id}/patch/apply", branch="another")
        patch = await at.get(f"/runs/{run.id}/patch")
        waiting, taken = [(await at.get(f"/patches?state={each}"))["patches"] for each in ("waiting", "applied")]
        acts = await at.acts(run)
        attention = await at.get("/attention")
    assert (item["kind"], item["title"]) == ("patch", "A patch waits for you: add shall add")
    assert item["evidence"] == [{"label": "Look at it", "path": f"/patches/{run.id}"}]
    assert attention == {"items": []}
    branch = f"madlab/{run.id}"
    assert applied == again
    assert (applied["state"], applied["decision"]["by"]) == ("applied", "operator")
    assert said(at.repository, "rev-parse", branch) == applied["decision"]["result"]["commit"]
    assert said(at.repository, "rev-parse", f"{branch}^") == head
    assert git(at.repository, "show", f"{branch}:adder.py").decode() == MENDED["adder.py"]
    assert f"Madlab-Run: {run.id}" in said(at.repository, "log", "-1", "--format=%B", branch)
    after = fingerprint(at.repository)
    assert {name: after[name] for name in before} == before
    assert patch["state"] == "applied"
    assert (len(waiting), len(taken)) == (0, 1)
    assert acts == [("patch.apply", "done")]


async def test_what_cannot_be_applied_says_why_and_waits_as_before(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded({**MENDED, "key.py": f"KEY = '{TOKEN}'\n"})
        with pytest.raises(Conflict, match="wants a look") as told:
            await at.post(f"/runs/{run.id}/patch/apply")
        assert TOKEN not in told.value.message
        for body in ({"branch": "a..b"}, {"repository": "relative"}, {"below": "../up"}, {"unknown": 1}):
            with pytest.raises(InvalidArgument):
                await at.post(f"/runs/{run.id}/patch/apply", **body)
        with pytest.raises(NotFound):
            await at.post(f"/runs/{run.id}/patch/apply", repository=str(tmp_path))
        commit(at.repository, {"adder.py": b"def add(a, b):\n    return b\n"})
        with pytest.raises(Conflict, match="1 file does not fit HEAD"):
            await at.post(f"/runs/{run.id}/patch/apply", accept_flags=True)
        assert (await at.get(f"/runs/{run.id}/patch"))["state"] == "waiting"
        assert said(at.repository, "branch", "--list", "madlab/*") == ""
        git(at.repository, "reset", "-q", "--hard", "HEAD~1")
        await at.post(f"/runs/{run.id}/patch/apply", accept_flags=True)
        acts = await at.acts(run)
    assert acts == [("patch.apply", f"failed: {Conflict.code}")] * 2 + [("patch.apply", "done")]


async def test_two_who_decide_at_once_decide_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded(MENDED)
        told: list[str] = []

        async def decide(what: str, **body: object) -> None:
            try:
                told.append((await at.post(f"/runs/{run.id}/patch/{what}", **body))["state"])
            except Error as error:
                told.append(error.code)

        async with create_task_group() as tasks:
            tasks.start_soon(lambda: decide("apply"))
            tasks.start_soon(lambda: decide("drop"))
            tasks.start_soon(lambda: decide("apply", branch="b"))
    assert sorted(told) in ([Conflict.code, Conflict.code, each] for each in ("applied", "dropped"))


async def test_a_patch_sent_back_is_done_again_from_where_it_was_with_the_remark(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        first = await at.coded({"adder.py": "def add(a, b):\n    return b - a\n", "new.py": "x = 1\n"}, model="small")
        at.edits = MENDED
        sent = await at.post(f"/runs/{first.id}/patch/send-back", remark="use a plus sign, #please")
        again = await at.post(f"/runs/{first.id}/patch/send-back", remark="use a plus sign, #please")
        with pytest.raises(Conflict, match="was sent back already"):
            await at.post(f"/runs/{first.id}/patch/send-back", remark="something else")
        second = await ended(at.lab, sent["decision"]["result"]["run"])
        patch = await at.get(f"/runs/{second.id}/patch")
        hand = (await at.lab.runs.children(second.id))[-1]
        asked = await at.lab.rogers.find(second.trigger)
        work = await at.lab.rogers.history(f"{second.conversation}/1")
        acts = await at.acts(first)
    assert sent == again
    assert sent["state"] == "sent_back"
    assert {each["path"] for each in patch["files"]} == {"adder.py", "new.py"}
    assert asked is not None
    assert '"model": "small"' in asked.data
    assert "use a plus sign, #please" in work[0].data
    assert str(at.repository) not in work[0].data
    assert hand.mad == "hopper"
    assert acts == [("patch.send_back", "done")]


async def test_a_run_whose_conversation_was_forgotten_says_so_wherever_it_is_asked_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded(MENDED)
        assert (await at.get(f"/runs/{run.id}"))["forgotten"] is None
        await at.post(f"/conversations/{run.conversation}/forget")
        assert (await at.get("/patches"))["patches"] == (await at.get("/attention"))["items"] == []
        for what in ("apply", "drop", "send-back"):
            with pytest.raises(NotFound, match=f"The conversation of {run.id} was forgotten on 20"):
                await at.post(f"/runs/{run.id}/patch/{what}", **({"remark": "again"} if what == "send-back" else {}))
        with pytest.raises(NotFound, match=f"The conversation of {run.id} was forgotten on 20"):
            await at.get(f"/runs/{run.id}/patch")
        told = await at.get(f"/runs/{run.id}")
        await at.lab.journal.rebuild("runs")
        assert await at.get(f"/runs/{run.id}") == told
        madlab = Madlab(at.lab.home)
        shown = await to_thread.run_sync(madlab, "show", run.id)
        applied = await to_thread.run_sync(madlab, "apply", run.id, "--repo", at.repository)
    assert (told["outcome"], told["artifacts"], told["forgotten"] > run.ended) == ("succeeded", [], True)
    assert told["evidence"]["clean_room"] is True
    assert not any(isinstance(each, str) for each in leaves(told["evidence"])), "figures alone"
    assert "forgotten" in shown.out
    assert "was forgotten on 20" in applied.err


def leaves(told: Any) -> list[Any]:
    """All that is neither a mapping nor a list."""
    if isinstance(told, dict):
        told = list(told.values())
    return [leaf for each in told for leaf in leaves(each)] if isinstance(told, list) else [told]


async def test_the_repository_that_a_client_names_is_nobodys(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        run = await at.coded(MENDED)
        asked = await at.lab.rogers.find(run.trigger)
        assert asked is not None
        from core.grace.door.patches import _remembered
        from core.grace.door.shapes import message_json

        told: Mapping[str, Any] = {"messages": [message_json(asked) | {"sender": "client:ci"}]}
        assert _remembered(told)[0] is None
        dropped = await at.post(f"/runs/{run.id}/patch/drop")
        assert dropped["state"] == "dropped"
        with pytest.raises(NotFound, match="left no patch"):
            await at.get(f"/runs/{(await at.lab.runs.children(run.id))[0].id}/patch")
