"""A tree of many files (20,000 at full size) in and its changes out, beside git; and what the loop itself costs."""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from periphery.hopper.workspace import Workspace
from protos.tree import pack, walk
from tests.integration.hopper_bench import BUGGY, acts, bench, finish, mend
from tests.sizes import full

FILES, ROUNDS, COMMAND_S = (20_000, 3, 0.4) if full() else (2_000, 1, 0.05)
MEMORY = Path("/dev/shm")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where files are memory, as a sandbox's workspace is: what is measured is not the disk."""
    directory = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
    yield Path(directory)
    shutil.rmtree(directory)


def git(directory: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.invalid"]
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True)


async def test_many_files_go_in_and_out_in_the_time_of_a_clone_and_a_diff(place: Path) -> None:
    chance = random.Random(1)
    for number in range(FILES):
        path = place / f"repo/pkg{number // 400}/mod{number // 20 % 20}/file{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"name_{line} = {line}\n" for line in range(chance.randint(5, 250))))
    git(place, "init", "-q", "repo")
    git(place / "repo", "add", "-A")
    git(place / "repo", "commit", "-qm", "x")
    packed = list(pack(place / "repo", (each for each in walk(place / "repo") if not each.startswith(".git"))))

    ours, theirs = [], []
    for number in range(ROUNDS):
        started = time.perf_counter()
        git(place, "clone", "-q", "--local", "repo", f"clone-{number}")
        (place / f"clone-{number}/pkg0/mod0/file0.py").write_text("changed\n")
        git(place / f"clone-{number}", "diff")
        theirs.append(time.perf_counter() - started)
        shutil.rmtree(place / f"clone-{number}")

        started = time.perf_counter()
        workspace = Workspace(place / f"ours-{number}")
        workspace.fill(packed)
        (workspace.root / "pkg0/mod0/file0.py").write_text("changed\n")
        changes = workspace.changes()
        out = b"".join(workspace.packed(changes.written, lambda note: None))
        ours.append(time.perf_counter() - started)
        assert changes.written == ["pkg0/mod0/file0.py"]
        assert len(out) == 2048
        shutil.rmtree(workspace.root)
    ratio = min(ours) / min(theirs)
    print(f"{FILES:,} files: in and out {min(ours):.2f} s, clone and diff {min(theirs):.2f} s: {ratio:.2f} times")


async def test_the_loop_itself_costs_little_beside_model_and_commands(tmp_path: Path) -> None:
    slow = acts(
        ("read", {"path": "calc.py"}), ("search", {"pattern": "mean"}), ("run", {"command": f"sleep {COMMAND_S}"})
    )
    plays = [acts(("run", {"command": f"sleep {COMMAND_S}; echo {number}"})) for number in range(10)]
    async with bench([slow, *plays, acts(mend(), ("run_tests", {})), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
    worked = done.worked
    assert done.outcome == "succeeded"
    whole = worked["model_seconds"] + worked["command_seconds"] + worked["loop_seconds"]
    share = worked["loop_seconds"] / whole
    print(f"{worked['steps']} steps in {whole:.2f} s: the loop {worked['loop_seconds']:.2f} s, {share:.1%}")
