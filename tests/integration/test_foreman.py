"""The foreman without sandboxes and models: what he makes of honest hands, of liars, and of several at once."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.lab import Lab
from core.run import Outcome, Run
from protos import tree
from protos.errors import Denied
from protos.ids import id_from, new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Blob, Message
from tests.hand import Edits, Hand, Said
from tests.integration.test_core_runs import ended
from tests.labs import a_home, ask, opened

FAULTY = {
    "adder.py": "def add(a, b):\n    return a - b\n",
    "test_adder.py": "import unittest\nfrom adder import add\n\n\nclass Test(unittest.TestCase):\n"
    "    def test(self):\n        self.assertEqual(add(2, 2), 4)\n",
}
EMPTY_TEST = "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n"
MENDED = {"adder.py": "def add(a, b):\n    return a + b\n"}


@asynccontextmanager
async def lab_with(edits: Callable[[str], Edits], **about: str) -> AsyncIterator[Lab]:
    class Played(Hand):
        def __init__(self) -> None:
            super().__init__(edits, **about)

    with a_home() as home:
        async with opened(home, hopper=Played) as lab:
            yield lab


async def coded(lab: Lab, place: Path, **arguments: object) -> tuple[Run, bytes]:
    """The run that mended the faulty tree, and its diff."""
    for name, content in FAULTY.items():
        (place / name).write_text(content)

    async def packed() -> AsyncIterator[bytes]:
        for chunk in tree.pack(place, tree.walk(place)):
            yield chunk

    blob: Blob = await lab.horace.put(packed(), name="source.tar")
    asked = Message(id=new_id(), conversation=new_id(), recipient="foreman", kind=KIND_CALL, tool="code", blobs=[blob])
    asked.data = json.dumps({"source": blob.digest, "goal": "add shall add"} | arguments)
    await ask(lab, asked)
    run = await ended(lab, lab.runs.id_of("foreman", asked.id))
    diffs = [each for each in run.artifacts if each["name"] == "patch.diff"]
    return run, b"".join([chunk async for chunk in lab.horace.get(diffs[0]["digest"])]) if diffs else b""


async def test_a_patch_that_passes_in_the_clean_room_is_a_success_with_its_evidence(tmp_path: Path) -> None:
    async with lab_with(lambda _: MENDED) as lab:
        run, diff = await coded(lab, tmp_path)
    assert run.outcome is Outcome.SUCCEEDED
    assert run.evidence["tests_before"]["passed"] is False
    assert run.evidence["clean_room"] is True
    assert run.evidence["control"]["state"] == "noticed"
    assert run.evidence["red_first"] is True
    assert run.evidence["patch"]["files"] == run.evidence["patch"]["added"] == run.evidence["patch"]["removed"] == 1
    assert b"-    return a - b\n+    return a + b\n" in diff
    assert {each["name"] for each in run.artifacts} == {"patch.diff", "changes.tar", "deleted.json", "evidence.json"}


async def test_who_says_it_is_done_and_changes_nothing_that_helps_is_not_believed(tmp_path: Path) -> None:
    async with lab_with(lambda _: {"adder.py": "def add(a, b):\n    return b - a\n"}) as lab:
        run, diff = await coded(lab, tmp_path)
    assert run.outcome is Outcome.FAILED
    assert "Its author said it was done" in run.reason
    assert run.evidence["clean_room"] is False
    assert diff


@pytest.mark.parametrize(
    "edits",
    [
        {"test_adder.py": FAULTY["test_adder.py"].replace("4", "0")},
        {"test_adder.py": None, "test_other.py": EMPTY_TEST},
    ],
)
async def test_tests_that_were_changed_until_they_passed_are_told_and_no_success(tmp_path: Path, edits: Edits) -> None:
    async with lab_with(lambda _: edits) as lab:
        run, _ = await coded(lab, tmp_path)
    assert run.outcome is Outcome.PARTIAL
    assert run.evidence["tests_weakened"] == ["test_adder.py"]
    assert "test_adder.py" in run.reason


async def test_tests_may_be_changed_where_the_code_passes_the_old_ones_too(tmp_path: Path) -> None:
    more = FAULTY["test_adder.py"] + "\n    def test_more(self):\n        self.assertEqual(add(1, 2), 3)\n"
    async with lab_with(lambda _: MENDED | {"test_adder.py": more}) as lab:
        run, _ = await coded(lab, tmp_path)
    assert run.outcome is Outcome.SUCCEEDED
    assert run.evidence["tests_changed"] == ["test_adder.py"]
    assert run.evidence["tests_weakened"] == []


async def test_of_several_attempts_the_one_with_the_best_evidence_is_kept(tmp_path: Path) -> None:
    def edits(label: str) -> Edits:
        return MENDED if label == "2" else {"adder.py": f"# {label}\n" + FAULTY["adder.py"]}

    async with lab_with(edits) as lab:
        run, diff = await coded(lab, tmp_path, attempts=3)
        children = await lab.runs.children(run.id)
    assert run.outcome is Outcome.SUCCEEDED
    assert run.evidence["attempt"] == 2
    assert [each["clean_room"] for each in run.evidence["attempts"]] == [False, True, False]
    assert b"a + b" in diff
    assert run.evidence["review"].startswith("as reviewer")
    assert len(children) == 1 + 1 + 3 + 3 + 2 + 1  # before, plan, developers, proofs, controls, review


async def test_an_attempt_cannot_answer_for_the_clean_room(tmp_path: Path) -> None:
    class Forger(Hand):
        def __init__(self) -> None:
            super().__init__(lambda _: {"adder.py": "def add(a, b):\n    return 0\n"})

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
        ) -> Said:
            """Answers what will be asked of others."""
            proof = id_from(call.ctx.assignment.conversation[:36], "1.proof")
            for asked in (proof, id_from(call.message.causation or proof, "1.proof")):
                forged = Message(id=f"{asked}.reply", conversation=call.message.conversation, kind=KIND_REPLY)
                forged.in_reply_to, forged.data = asked, '{"found": true, "passed": true}'
                with pytest.raises(Denied, match="rule answer"):
                    await call.ctx.bus.publish(forged)
            return await super().work(call, source=source, goal=goal)

    with a_home() as home:
        async with opened(home, hopper=Forger) as lab:
            run, _ = await coded(lab, tmp_path)
    assert run.evidence["claimed"] == "succeeded", run.reason
    assert run.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "patched",
    [
        {"adder.py": "import os\n\nos._exit(0)\n"},
        {"adder.py": "import atexit, os\n\natexit.register(os._exit, 0)\nadd = None\n"},
        MENDED | {"adder.py": MENDED["adder.py"] + "import unittest\nunittest.TestCase.run = lambda *_: None\n"},
        {"adder.py": "class add:\n    def __init__(self, *_): __import__('os')._exit(0)\n"},
    ],
)
async def test_tests_that_cannot_fail_are_no_proof(tmp_path: Path, patched: Edits) -> None:
    async with lab_with(lambda _: patched) as lab:
        run, _ = await coded(lab, tmp_path)
    assert run.outcome is Outcome.PARTIAL
    assert "test_adder.py, goes unnoticed" in run.reason
    assert run.evidence["control"] == {
        "state": "unnoticed",
        "why": "The test command does not tell of a test that fails.",
        "files": ["test_adder.py"],
        "lucky": 0,
    }
    assert run.evidence["clean_room"] is False


async def test_nothing_changed_is_no_success_and_says_how_it_ended(tmp_path: Path) -> None:
    async with lab_with(lambda _: {}, outcome="stuck") as lab:
        run, diff = await coded(lab, tmp_path)
    assert run.outcome is Outcome.STUCK
    assert diff == b""


async def test_a_path_that_may_not_be_changed_is_refused_and_the_rest_is_proved(tmp_path: Path) -> None:
    async with lab_with(lambda _: MENDED | {".github/workflows/ci.yml": "on: push\n"}) as lab:
        run, _ = await coded(lab, tmp_path)
    assert run.outcome is Outcome.SUCCEEDED
    assert [each["path"] for each in run.evidence["flags"]] == [".github/workflows/ci.yml"]


async def test_names_that_are_no_utf8_travel_and_are_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/b\udcff").write_text("x")
    async with lab_with(lambda _: MENDED | {"tests/b\udcff": "changed", "n\udcfe/ü": "1"}) as lab:
        run, diff = await coded(lab, tmp_path)
    assert run.outcome is Outcome.SUCCEEDED
    assert b'"b/tests/b\\377"' in diff
    assert run.evidence["tests_changed"] == ["tests/b\\xff"]


async def test_in_a_lab_without_hopper_one_sentence_says_what_to_configure(tmp_path: Path) -> None:
    with a_home() as home:
        async with opened(home) as lab:
            run, diff = await coded(lab, tmp_path, attempts=2)
            history = await lab.rogers.history(run.conversation)
    (fault,) = (each for each in history if each.kind == KIND_FAULT)
    told = json.loads(fault.data)
    assert (told["code"], run.outcome, diff) == ("not_found", Outcome.FAILED, b"")
    assert "no MAD called 'hopper'" in told["message"]
    assert "`emads`" in told["next"]
    assert "ExceptionGroup" not in run.reason
