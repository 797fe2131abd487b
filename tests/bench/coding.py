"""What a repository of 20,000 files costs on its way into a sandbox and back as a patch, beside git on one machine.

The road is `madlab code`'s: the snapshot is listed, packed and uploaded through the door, unpacked where the agent
works, a few files are changed, the changes are found and packed, and the core computes the patch from both trees. The
baseline is what a careful person does without a sandbox: `git clone --local`, the same changes, `git diff`.
"""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from core.coding.patch import compute
from core.grace.cli.client import Client
from core.horace.snapshot import take
from core.lab import Lab
from periphery.hopper.workspace import Workspace
from protos.tree import Caps
from tests.bench import figure
from tests.bench.figure import Figure, in_turns
from tests.e2e.coding import stage
from tests.labs import lab_of

FILES, CHANGED = 20_000, 5
ROUNDS = 5
CHUNK = 256 * 1024
ROAD_RATIO = 1.5
LOOPS, MODEL_S, LOOP_PERCENT = ("good/python-pytest", "good/c", "good/no-tests"), 1.0, 5.0
MEMORY = next((each for each in (Path("/dev/shm"),) if each.is_dir()), None)  # a sandbox's workspace is a tmpfs


async def run() -> list[Figure]:
    """The road there and back, and what the loop adds to a run."""
    rounds = 1 if figure.small else ROUNDS
    return [*await road(rounds), *(await road(rounds, memory=True) if MEMORY else ()), await to_thread.run_sync(loop)]


async def road(rounds: int, *, memory: bool = False) -> list[Figure]:
    """20,000 files in and their patch out, ours and git's in turns; and where our time goes.

    The person's repository and git's clone lie on this machine's disk, and the agent's tree where a sandbox has it, in
    memory; or everything in `memory`, so that no disk hides what the work itself costs.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if memory else None) as directory:
        place = Path(directory)
        repository = await to_thread.run_sync(make, place / "repository")
        taken: dict[str, list[float]] = {}
        async with lab_of() as lab:

            async def ours() -> float:
                steps, patch = await to_thread.run_sync(by_madlab, lab, repository)
                assert patch.count(b"diff --git") == CHANGED
                for name, seconds in steps.items():
                    taken.setdefault(name, []).append(seconds)
                return sum(steps.values())

            async def git() -> float:
                took, patch = await to_thread.run_sync(by_git, repository, place)
                assert patch.count(b"diff --git") == CHANGED
                return took

            of = await in_turns({"ours": ours, "git": git}, rounds)
    parts = ", ".join(f"{name} {statistics.median(each):.2f}" for name, each in taken.items())
    where = "all in memory" if memory else "git on this disk, the agent in memory"
    name = f"{FILES:,} files in, patch out; {where} ({parts} s)"
    limit = None if memory else ROAD_RATIO
    return [Figure(name, of["ours"], "s", "git clone --local, git diff", of["git"], limit)]


def loop() -> Figure:
    """The share of the agent's own loop in its run: a model that takes its time as a hosted one does, real commands."""
    shares = []
    with stage(plays=lambda play: replace(play, first_byte_s=MODEL_S)) as lab:
        for name in LOOPS:
            coded = lab.code(name)
            assert coded.outcome == "succeeded", coded.result.err
            took = json.loads(lab.artifacts(coded.run)["evidence.json"])["seconds"]
            shares.append(100 * took["loop"] / sum(took.values()))
    name = f"the loop's share of a run whose model takes {MODEL_S:g} s to answer"
    return Figure(name, statistics.median(shares), "%", "limit", LOOP_PERCENT, 1.0)


def make(root: Path) -> Path:
    """A committed repository of small files."""
    for at in range(FILES):
        path = root / f"package{at % 200:03}" / f"module{at % 7}" / f"file{at:05}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def number_{at}_{line}():\n    return {line * at}\n\n\n" for line in range(at % 40)))
    quiet = ["config", "gc.auto", "0"]  # else git packs in the background what is being cloned, and the clone breaks
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]
    for command in (["init", "-q"], quiet, ["add", "-A"], commit):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def change(root: Path) -> None:
    """What an agent would do."""
    for at in range(CHANGED):
        with next((root / f"package{at:03}").glob("module*/*.py")).open("a") as file:
            file.write("print('changed')\n")


def by_git(repository: Path, place: Path) -> tuple[float, bytes]:
    """Seconds and patch."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        clone = Path(directory) / "clone"
        began = time.perf_counter()
        subprocess.run(["git", "clone", "-q", "--local", str(repository), str(clone)], check=True)
        change(clone)
        patch = subprocess.run(["git", "diff"], cwd=clone, check=True, capture_output=True).stdout
        return time.perf_counter() - began, patch


def by_madlab(lab: Lab, repository: Path) -> tuple[dict[str, float], bytes]:
    """Seconds of each step, and the patch."""
    steps: dict[str, float] = {}
    began = time.perf_counter()

    def done(name: str) -> None:
        nonlocal began
        now = time.perf_counter()
        steps[name] = now - began
        began = now

    snapshot = take(repository, Caps())
    done("listed")
    client = Client(lab.home)
    blob = client.upload(lambda: snapshot.pack(Caps()), name="source.tar", media_type="application/x-tar")
    done("packed and uploaded")
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        source = Path(directory) / "source.tar"
        with source.open("w+b") as file:
            client.download(blob["digest"], file)
        done("downloaded")
        workspace = Workspace(Path(directory) / "repo")
        workspace.fill(chunks(source))
        done("unpacked")
        change(workspace.root)
        found = workspace.changes()
        changes = b"".join(workspace.packed(found.written, lambda _: None))
        done("changes found")
        patch = compute(chunks(source), iter([changes]), found.deleted)
        done("patch computed")
    return steps, patch.diff


def chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk
