"""`code`, `apply` and `steer` as a person types them, against a real core whose Hopper is a hand that talks."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from anyio import fail_after, sleep
from anyio.from_thread import start_blocking_portal

from core.grace.cli.client import Client
from core.grace.cli.runs import place
from core.grace.cli.talk import fault
from protos.blobs import read
from protos.errors import InvalidArgument
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_PROSE, Blob
from tests.commands import COMMAND, ROOT, Madlab, environment
from tests.hand import Edits, Hand, Said
from tests.integration.completing import completed, pressed
from tests.integration.gits import a_repository, commit, fingerprint, git, said
from tests.labs import a_home, opened
from tests.unit.coding.trees import Tree

FAULTY: Tree = {
    "adder.py": b"def add(a, b):\n    return a - b\n",
    "test_adder.py": b"import unittest\nfrom adder import add\n\n\nclass Test(unittest.TestCase):\n"
    b"    def test(self):\n        self.assertEqual(add(2, 2), 4)\n",
}
MENDED: Edits = {"adder.py": "def add(a, b):\n    return a + b\n"}
RunOf = Callable[[str], str]
KEY = f"AWS = 'AKIA{'Q7ZX' * 4}'\n"
PLAYS: dict[str, Edits] = {
    "mend it": MENDED,
    "make it worse": {"adder.py": "def add(a, b):\n    return 0\n"},
    "leak": {**MENDED, "keys.py": KEY},
    "do nothing": {},
    "add a page": {"README.md": "An adder.\n"},
    "multiply": {"adder.py": "def add(a, b):\n    return a * b\n"},
    "wait for a remark": MENDED,
    "wait and only talk": MENDED,
    "wait for ever": MENDED,
}


class Talkative(Hand):
    """A hand that tells what it does, and hears what people say."""

    tests_slowly = Event()  # set by a test: it is at its tests until this is cleared

    def __init__(self) -> None:
        super().__init__(lambda label: {})

    @tool(effects="write", steerable=True)
    async def work(
        self,
        call: Call,
        *,
        source: str,
        goal: str,
        test: str = "",
        model: str = "",
        agent: str = "hopper",
        role: str = "",
        notes: str = "",
        changes: str = "",
        max_steps: int = 60,
        goal_blob: str = "",
    ) -> Said:
        """Works."""
        whole = (await read(call.ctx.files, Blob(digest=goal_blob), 1 << 20)).decode() if goal_blob else goal
        self._edits = lambda label: MENDED if changes else PLAYS[whole.splitlines()[-1]]
        await call.progress("read it\nmend it", what="plan", steps=["read it", "mend it"])
        await call.progress("$ make", what="command", command="make")
        await call.progress("building \x1b[31mred\x1b[0m\n", what="output")
        await call.progress("make: 2", what="command", command="make", exit_code=2, seconds=1.5)
        await call.progress("adder.py: +1 -1", what="edit", path="adder.py", added=1, removed=1)
        await call.progress("Step 1", what="model", steps=1, tokens=1234, usd=0.25)
        if goal.startswith("wait"):
            await self._hear(call, goal)
        return await super().work(call, source=source, goal=goal, role=role, notes=notes, changes=changes)

    async def before_tests(self) -> None:
        while self.tests_slowly.is_set():
            await sleep(0.05)

    async def _hear(self, call: Call, goal: str) -> None:
        after = call.message.sequence
        with fail_after(60):
            while True:
                said = await call.ctx.bus.history(call.message.conversation, after=after, limit=100)
                after = said[-1].sequence if said else after
                for each in [each for each in said if each.kind == KIND_PROSE and each.sender == "operator"]:
                    about = {"what": "remark", "remark": each.causation or each.id}
                    await call.progress(each.text, state="delivered", **about)
                    if goal.endswith("talk"):
                        await call.progress(each.text, state="delivered", note="the agent only talked", **about)
                    elif not goal.endswith("ever"):
                        await call.progress(each.text, state="acted_on", **about)
                        return
                await sleep(0.05)


MODELS = """
[providers.here]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.nearby]
provider = "here"
model = "a-model"
[models.vectors]
provider = "here"
model = "b-model"
chat = false
embeddings = true
"""


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with (
        a_home(MODELS) as home,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened(home, hopper=Talkative)),
    ):
        yield Madlab(home)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_repository(tmp_path_factory.mktemp("pristine") / "repo", FAULTY)


@pytest.fixture
def repo(pristine: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return shutil.copytree(pristine, tmp_path / "repo")


@pytest.fixture(scope="module")
def coded(madlab: Madlab, pristine: Path) -> RunOf:
    """The run with a goal, on a repository as everybody has it: the same for all who ask."""

    @cache
    def coded(goal: str) -> str:
        run: str = madlab("code", goal, "--repo", pristine, "--json").json["run"]
        return run

    return coded


def newest(madlab: Madlab) -> dict[str, Any]:
    runs: list[dict[str, Any]] = Client(madlab.home).get("/api/v1/runs")["runs"]
    return next(each for each in runs if each["mad"] == "foreman")


def test_json_has_exactly_what_programs_rely_on(madlab: Madlab, repo: Path) -> None:
    before = fingerprint(repo)
    limits = ("--time", "5m", "--budget", "1.5", "--max-tokens", 9000)
    told = madlab("code", "mend it", "--repo", repo, "--json", "--model", "nearby", *limits)
    assert told.code == 0, told.err
    found = told.json
    assert set(found) == {"run", "outcome", "patch", "evidence", "cost", "model", "alias"}
    assert set(found["patch"]) == {"files", "added", "removed", "blob"}
    assert set(found["evidence"]) == {"tests_before", "tests_after", "clean_room"}
    assert set(found["cost"]) == {"tokens", "usd"}
    assert (found["outcome"], found["patch"]["files"], found["evidence"]["clean_room"]) == ("succeeded", 1, True)
    assert fingerprint(repo) == before
    asked = madlab("show", found["run"], "--json").json["messages"][0]["data"]
    assert asked["base"] == said(repo, "rev-parse", "HEAD")
    assert asked["name"] == "repo"
    assert found["alias"] == "nearby", "what --model takes"
    assert madlab("code", "mend it", "--repo", repo, "--json").json["alias"] == "nearby", "the default"


def test_people_see_what_happens_then_the_diff_and_what_speaks_for_it(madlab: Madlab, repo: Path) -> None:
    told = madlab("code", "mend it", "--repo", repo)
    assert told.code == 0, told.err
    assert told.out.startswith("diff --git a/adder.py b/adder.py\nindex ")
    assert "-    return a - b\n+    return a + b\n" in told.out
    assert "\x1b" not in told.out + told.err
    lines = told.err.splitlines()
    for line in (
        "plan    read it",
        "        mend it",
        "run     make in 1.5 s, exit code 2",
        "edit    adder.py: +1 -1",
        "patch     1 file, +1 -1",
        "proof     passed on the original tree plus only the patch",
    ):
        assert line in lines, told.err
    assert not any("building" in each for each in lines)
    assert lines[-1].endswith(f"madlab apply {newest(madlab)['id']}")


def test_what_did_not_succeed_is_shown_and_ends_with_4(madlab: Madlab, repo: Path, tmp_path: Path) -> None:
    told = madlab("code", "make it worse", "--repo", repo, "--json", "--out", tmp_path / "patch")
    assert told.code == 4
    assert told.json["outcome"] == "failed"
    assert told.json["evidence"]["clean_room"] is False
    assert told.error["code"] == "failed"
    assert (tmp_path / "patch").read_bytes().startswith(b"diff --git")
    nothing = madlab("code", "do nothing", "--repo", repo)
    assert (nothing.code, nothing.out) == (4, "")


def test_a_run_that_had_to_stop_is_gone_on_with_where_it_was(madlab: Madlab, repo: Path) -> None:
    stopped = madlab("code", "add a page", "--repo", repo, "--json").json
    assert stopped["outcome"] == "failed"
    resumed = madlab("resume", stopped["run"], "--max-tokens", "5000", "--json")
    assert (resumed.code, resumed.json["outcome"]) == (0, "succeeded")
    assert resumed.json["patch"]["files"] == 2
    shown = madlab("show", resumed.json["run"], "--json").json
    assert shown["messages"][0]["terms"] == {"tokens": 5000}
    assert (shown["resumes"], shown["resumed_as"]) == (stopped["run"], [])
    assert madlab("show", stopped["run"], "--json").json["resumed_as"] == [resumed.json["run"]]
    assert f"resumed as {resumed.json['run']}" in madlab("show", stopped["run"]).out
    assert f"resumes    {stopped['run']}" in madlab("show", resumed.json["run"]).out
    assert madlab("resume", "nothing").code == 2
    count = len(madlab.runs())
    refused = madlab("resume", resumed.json["run"], "--json")
    assert (refused.code, refused.error["code"], len(madlab.runs())) == (2, "FAILED_PRECONDITION", count)
    assert f"madlab apply {resumed.json['run']}" in refused.error["next"]
    runs = madlab("runs", "--json").json["runs"]
    tops = [each for each in runs if each["parent"] is None]
    assert len(tops) < len(runs), "each patch takes more runs than its own"
    assert madlab("runs", "--top", "--json").json == {"runs": tops}
    assert madlab("runs", "--top", "--limit", "1", "--json").json == {"runs": tops[:1]}
    theirs = [each for each in runs if each["mad"] == "hopper"]
    assert madlab("runs", "--mad", "hopper", "--json").json == {"runs": theirs}
    assert "There is no run of nobody" in madlab("runs", "--mad", "nobody").err


@pytest.mark.parametrize(
    "words",
    [
        ["code", "x", "--repo", "missing"],
        ["code", "x", "--time", "soon"],
        ["code", "x", "--repo", "{file}"],
        ["code", " ", "--repo", "{repo}"],
        ["apply", "nothing"],
        ["steer", "nothing", "x"],
    ],
)
def test_bad_input_is_2_and_one_sentence(madlab: Madlab, repo: Path, words: list[str]) -> None:
    filled = [each.format(file=repo / "adder.py", repo=repo) for each in words]
    told = madlab(*filled, "--json")
    assert (told.code, told.out) == (2, "")
    assert told.error["message"]
    assert told.error["next"]


@pytest.mark.parametrize(
    ("words", "message", "next"),
    [
        (["x", "--agent", "nosuch"], "'nosuch'", "There are: codex, hopper, mini-swe-agent, small."),
        (["x", "--model", "nosuch"], "there is no model 'nosuch'", "there are: nearby"),
        (["x", "--model", "vectors"], "there is no model 'vectors'", "there are: nearby"),
        (["x" * 70_000], "70,000 bytes, and at most 65,536", "Put the details into a file"),
        (["界" * 22_000], "66,000 bytes, and at most 65,536", "Put the details into a file"),
    ],
)
def test_what_cannot_be_asked_for_is_2_before_anything_is_sent(
    madlab: Madlab, repo: Path, words: list[str], message: str, next: str
) -> None:
    count = len(madlab.runs())
    told = madlab("code", *words, "--repo", repo, "--json")
    assert (told.code, told.out) == (2, "")
    assert message in told.error["message"]
    assert told.error["next"].startswith(next)
    assert "Sending" not in told.err
    assert len(madlab.runs()) == count


def test_a_goal_that_is_too_long_for_a_message_reaches_the_agent_whole(madlab: Madlab, repo: Path) -> None:
    words = "Adding is broken.\n" + "It is a long story. " * 2_000
    coded = madlab("code", "-", "--repo", repo, "--json", stdin=f"{words}\nadd a page\n")
    run = coded.json["run"]
    assert coded.json["patch"]["files"] == 1, "the last line was read"
    asked = madlab("show", run, "--json").json["messages"][0]["data"]
    assert asked["goal"].startswith("Adding is broken.")
    assert len(asked["goal"]) <= 2_002
    assert madlab("show", run).out.count("It is a long story.") < 200
    resumed = madlab("resume", run, "--json")
    assert (resumed.code, resumed.json["outcome"]) == (0, "succeeded"), resumed.err
    assert madlab("show", resumed.json["run"], "--json").json["messages"][0]["data"]["goal_blob"] == asked["goal_blob"]


def test_who_asks_at_the_door_for_an_agent_or_a_model_that_is_not_there_is_told_at_once(madlab: Madlab) -> None:
    client = Client(madlab.home)
    blob = client.upload(lambda: [b"x"], name="source.tar", media_type="application/x-tar")

    def asked(**arguments: str) -> dict[str, Any]:
        about = {"recipient": "foreman", "kind": "call", "tool": "code", "blobs": [blob]}
        return dict(client.publish(about | {"arguments": {"source": blob["digest"], "goal": "mend it"} | arguments}))

    count = len(madlab.runs())
    with pytest.raises(InvalidArgument, match=r"agent: 'nosuch' is not one of .*'mini-swe-agent'"):
        asked(agent="nosuch")
    assert len(madlab.runs()) == count, "refused before there is a run"
    for model in ("nosuch", "vectors"):
        run = asked(model=model)["run"]
        list(client.follow(place(run) + "/logs"))  # to its end
        heard = client.get(place(run))["messages"]
        assert [each["tool"] for each in heard if each["kind"] == "call"] == ["code"], "Hopper was not asked"
        told = fault(next(each for each in heard if each["kind"] == "fault"))
        assert (told.is_mistake, told.next) == (True, "There are: nearby.")
        assert told.message == f"model: there is no '{model}' to write code with."


def test_a_look_at_a_batch_tells_models_and_agents_that_are_not_there(madlab: Madlab, repo: Path) -> None:
    def job(name: str, *lines: str) -> str:
        return "\n".join((f"[jobs.{name}]", 'code = "."', 'goal = "mend it"', *lines, ""))

    batch, head = repo / "batch.toml", '[batch]\nname = "one"\n'
    batch.write_text(head + job("right", 'model = "nearby"') + job("plain") + job("wrong", 'model = "vectors"'))
    told = madlab("dispatch", batch, "--check", "--json")
    assert (told.code, told.out) == (2, "")
    missing = "there is no model 'vectors' to write code with (there are: nearby)"
    assert told.error["message"] == f"{batch}: jobs.wrong.model: {missing}"
    batch.write_text(head + job("plain") + job("wrong", 'agent = "nosuch"'))
    told = madlab("dispatch", batch, "--json")
    assert (told.code, told.out) == (2, "")
    assert "jobs.wrong: there is no agent 'nosuch' (there are: codex, hopper" in told.error["message"]


def test_names_of_agents_and_models_are_completed(madlab: Madlab) -> None:
    assert completed(madlab.home.path, "madlab code x --agent c") == ["codex"]
    pressed(madlab.home.path, "madlab code x --model ne", ["nearby"])


def test_apply_puts_it_on_a_branch_twice_the_same(madlab: Madlab, coded: RunOf, repo: Path, tmp_path: Path) -> None:
    run = coded("mend it")
    before = fingerprint(repo)
    done = madlab("apply", run, "--repo", repo)
    assert done.code == 0, done.err
    branch, id = done.out.split()
    assert (branch, id) == (f"madlab/{run}", said(repo, "rev-parse", branch))
    assert {name: each for name, each in fingerprint(repo).items() if name in before} == before
    assert git(repo, "show", f"{branch}:adder.py") == b"def add(a, b):\n    return a + b\n"
    message = said(repo, "log", "-1", "--format=%B", branch)
    assert message.startswith(f"mend it\n\nMadlab-Run: {run}\nMadlab-Outcome: succeeded\n")
    assert "Madlab-Clean-Room: passed" in message
    again = madlab("apply", run, "--repo", repo, "--json").json
    assert (again["commit"], again["created"], again["conflicts"]) == (id, False, [])
    written = madlab("apply", run, "--repo", repo, "--out", tmp_path / "diff")
    assert written.code == 0
    git(repo, "apply", "--check", str(tmp_path / "diff"))


def test_apply_says_what_does_not_fit_and_writes_nothing(
    madlab: Madlab, coded: RunOf, repo: Path, tmp_path: Path
) -> None:
    run = coded("mend it")
    commit(repo, {"adder.py": b"def add(a, b):\n    return a * b\n"})
    before = fingerprint(repo)
    told = madlab("apply", run, "--repo", repo)
    assert (told.code, told.out) == (1, "")
    assert "adder.py was changed at HEAD and by the run in the same place" in told.err
    assert "return a * b" in told.err
    clashes = madlab("apply", run, "--repo", repo, "--json")
    assert (clashes.code, [each["path"] for each in clashes.json["conflicts"]]) == (1, ["adder.py"])
    assert fingerprint(repo) == before
    elsewhere = madlab("apply", run, "--repo", tmp_path)
    assert elsewhere.code == 2
    assert "is not in a git repository" in elsewhere.err
    assert f"madlab apply {run} --out FILE" in elsewhere.err


def test_two_runs_of_one_tree_are_merged_or_shown_not_to_fit(madlab: Madlab, coded: RunOf, repo: Path) -> None:
    own = madlab("code", "mend it", "--repo", repo, "--json").json["run"]  # that nobody has applied yet
    page = coded("add a page")
    told = madlab("apply", own, "--with", page, "--repo", repo, "--branch", "both")
    assert told.code == 0, told.err
    assert said(repo, "diff", "--name-only", "main", "both").split() == ["README.md", "adder.py"]
    ids = said(repo, "log", "-1", "--format=%(trailers:key=Madlab-Run,valueonly)", "both").split()
    assert ids == [own, page]
    applied = Client(madlab.home).get("/api/v1/patches?state=applied")["patches"]
    assert {own, page} <= {each["run"]["id"] for each in applied}
    clash = madlab("apply", own, "--with", coded("multiply"), "--repo", repo, "--branch", "c")
    assert clash.code == 1
    assert "1 file does not fit each other" in clash.err
    assert "adder.py is changed by both sides in the same place" in clash.err
    assert said(repo, "branch", "--list", "c") == ""


def test_a_patch_with_a_secret_wants_to_be_accepted(madlab: Madlab, coded: RunOf, repo: Path) -> None:
    run = coded("leak")
    told = madlab("apply", run, "--repo", repo)
    assert told.code == 2
    assert "keys.py:1 adds an AWS access key id (AKIA…, 20 characters)" in told.err
    assert "--accept-flags" in told.err
    assert said(repo, "branch", "--list", "madlab/*") == ""
    assert madlab("apply", run, "--repo", repo, "--accept-flags", "--branch", "taken").code == 0


def test_a_run_of_a_part_is_put_below_it(madlab: Madlab, tmp_path: Path) -> None:
    repo = a_repository(tmp_path / "repo", {f"sub/{path}": content for path, content in FAULTY.items()})
    told = madlab("code", "mend it", "--repo", repo / "sub")
    assert "--below sub" in told.err
    run = newest(madlab)["id"]
    assert madlab("apply", run, "--repo", repo / "sub", "--branch", "b").code == 1
    assert madlab("apply", run, "--repo", repo, "--branch", "b", "--below", "sub").code == 0
    assert b"a + b" in git(repo, "show", "b:sub/adder.py")


@contextmanager
def at_work(madlab: Madlab, repo: Path, goal: str) -> Iterator["subprocess.Popen[str]"]:
    """A `code` whose hand is at work."""
    with madlab.started("code", goal, "--repo", repo, "--json") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("model"):
                break
        yield process


def test_a_remark_is_accepted_delivered_and_acted_on(madlab: Madlab, repo: Path) -> None:
    with at_work(madlab, repo, "wait for a remark") as code:
        run = newest(madlab)["id"]
        told = madlab("steer", run, "mind the sign")
        assert (told.code, told.out) == (0, "acted on\n")
        assert told.err.splitlines()[0].startswith("accepted: ")
        assert told.err.splitlines()[1] == "delivered"
        out, err = code.communicate(timeout=60)
    assert code.returncode == 0
    assert json.loads(out)["outcome"] == "succeeded"
    assert "remark  acted on: mind the sign" in err
    late = madlab("steer", run, "too late", "--json")
    assert (late.code, late.out) == (2, "")


def test_steer_need_not_wait_and_says_when_nobody_acted(madlab: Madlab, repo: Path) -> None:
    with at_work(madlab, repo, "wait for ever") as code:
        run = newest(madlab)["id"]
        told = madlab("steer", run, "hello", "--no-wait", "--json")
        assert told.code == 0
        assert told.json["state"] == "accepted"
        with madlab.started("steer", run, "hello", "--json") as steering:
            lines = Client(madlab.home).follow(f"/api/v1/runs/{run}/logs")
            delivered = (each for each in lines if each["text"] == "hello")
            assert [next(delivered)["data"]["state"] for _ in range(2)] == ["delivered"] * 2
            assert madlab("cancel", run).code == 0
            out, err = steering.communicate(timeout=60)
        assert (steering.returncode, json.loads(out)["state"]) == (4, "delivered")
        assert json.loads(err.splitlines()[-1])["error"]["code"] == "not_acted_on"
        assert code.wait(60) == 4


@pytest.fixture
def slow_tests() -> Iterator[Event]:
    """Who tests the untouched tree is at it until this is cleared."""
    Talkative.tests_slowly.set()
    yield Talkative.tests_slowly
    Talkative.tests_slowly.clear()


def test_steer_says_when_the_agent_answered_without_acting_whoever_else_is_at_work(
    madlab: Madlab, repo: Path, slow_tests: Event
) -> None:
    with at_work(madlab, repo, "wait and only talk") as code:
        run = newest(madlab)["id"]
        told = madlab("steer", run, "hello", "--json")
        assert (told.code, told.json["state"], told.error["code"]) == (4, "delivered", "not_acted_on")
        assert "answered without acting" in told.error["message"]
        assert [each.partition("-")[0] for each in told.json["runs"]] == ["foreman", "hopper"]
        at_work_for_it = [each["id"] for each in madlab.runs() if each["parent"] == run and each["state"] == "running"]
        assert len(at_work_for_it) == 2
        refused = [
            each for each in (madlab("steer", run, "you", "--no-wait") for run in at_work_for_it) if each.code == 2
        ]
        assert ["reads no remarks while it works" in each.err for each in refused] == [True]
        slow_tests.clear()
        assert madlab("cancel", run).code == 0
        _, err = code.communicate(timeout=60)
    assert "remark  delivered, and the agent only talked: hello" in err


def test_ctrl_c_cancels_where_nobody_can_be_asked(madlab: Madlab, repo: Path) -> None:
    with at_work(madlab, repo, "wait for ever") as code:
        code.send_signal(signal.SIGINT)
        out, _ = code.communicate(timeout=60)
    assert code.returncode == 4
    assert json.loads(out)["outcome"] == "cancelled"


@pytest.mark.parametrize(("answer", "code", "live"), [(b"d\n", 130, True), (b"x\nc\n", 4, False), (b"\x03", 130, True)])
def test_ctrl_c_asks_a_person(madlab: Madlab, repo: Path, answer: bytes, code: int, live: bool) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "code", "wait for ever", "--repo", str(repo)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(madlab.home.path) | {"TERM": "xterm-256color"},
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    with process:
        try:
            seen = _until(ours, b"1,234 tokens")
            assert b"\x1b[" in seen
            assert b"building" not in seen.replace(b"\x1b[31m", b"") or b"\x1b[31m" not in seen
            run = newest(madlab)["id"]
            os.write(ours, b"\x03")
            _until(ours, b"[d/c]")
            os.write(ours, answer)
            _until(ours, b"goes on" if live else b"Cancelling")
            ended = _drained(ours, process)
        finally:
            process.kill()
            os.close(ours)
    assert process.returncode == code, ended
    assert (madlab("show", run, "--json").json["outcome"] is None) is live
    if live:
        madlab("cancel", run)


def _own_terminal() -> None:
    """So that Ctrl-C typed there reaches it."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(terminal: int, wanted: bytes) -> bytes:
    seen, ends = b"", time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < ends, seen
        seen += os.read(terminal, 65536)
    return seen


def _drained(terminal: int, process: "subprocess.Popen[bytes]") -> bytes:
    seen = b""
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
    except OSError:  # the terminal is closed on the other side
        pass
    process.wait(60)
    return seen
