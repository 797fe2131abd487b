"""What is bubblewrap's own beside the contract of every engine: its keeper, its control groups, life without root."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after, sleep

from sandbox.engine import Program, SandboxError
from sandbox.engines import keeper
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.groups import Places
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images
from sandbox.profile import Profile
from tests import bubblewrap_lab
from tests.labs import ROOT
from tests.sizes import full

pytestmark = pytest.mark.docker
FOREVER = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(60)"


@pytest.fixture
def engine(tmp_path: Path) -> BubblewrapEngine:
    return bubblewrap_lab.engine(bubblewrap_lab.need_bubblewrap(), tmp_path)


def program(door: Path, code: str, **limits: Any) -> Program:
    (door / "door").mkdir(exist_ok=True)
    return Program(Profile("base", ("python3", "-c", code), runtime="bwrap", **limits), b"token\n", door / "door")


def running(mark: str) -> bool:
    return mark in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def groups(name: str) -> list[Path]:
    places = Places.find()
    return [folder for folder in (places.group(name) if places else {}).values() if folder.exists()]


async def test_whoever_kills_the_keeper_kills_all_that_it_kept(engine: BubblewrapEngine, tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    code = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', '{mark}'])\n"
    )
    home = tmp_path / bubblewrap_lab.need_bubblewrap() / "orphan"
    async with engine.open("orphan", program(tmp_path, code + FOREVER)) as sandbox:
        with fail_after(30):
            while not running(mark):
                await sleep(0.05)
        found = engine._home("orphan").keeper()
        assert found is not None
        signal.pidfd_send_signal(found, signal.SIGKILL)
        os.close(found)
        with fail_after(30):
            assert (await sandbox.wait()).reason == "killed"
            while running(mark):
                await sleep(0.05)
        with pytest.raises(SandboxError, match="has ended"):
            await sandbox.usage()
    assert not home.exists()
    assert groups(f"{bubblewrap_lab.need_bubblewrap()}-orphan") == []


async def test_a_folder_whose_process_ids_are_other_peoples_now_is_removed_and_they_are_left_alone(
    engine: BubblewrapEngine, tmp_path: Path
) -> None:
    home = tmp_path / bubblewrap_lab.need_bubblewrap() / "old"
    home.mkdir(parents=True)
    for name in (keeper.LOCK, keeper.FIRST):
        (home / name).write_text(str(os.getpid()))
    async with engine.adopt("old") as sandbox:
        assert (await sandbox.wait()).reason == "killed"
        await sandbox.kill()
        sandbox.leave()
    assert await engine.reap(()) == ["old"]
    assert not home.exists()


async def test_a_keeper_that_comes_late_begins_nothing(engine: BubblewrapEngine, tmp_path: Path) -> None:
    told = engine._told(engine._home("late"), program(tmp_path, FOREVER))
    began = subprocess.run(  # in a folder that was reaped meanwhile: it has no lock to be held
        [sys.executable, "-I", "-S", keeper.__file__],
        input=json.dumps(told).encode() + b"\n",
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
    )
    assert began.returncode == 1
    assert b"No such file" in began.stderr
    assert b"keeper" in began.stderr


STARTS_THREE = """
import sys, anyio
from pathlib import Path
from tests.bubblewrap_lab import engine
from tests.integration.test_bubblewrap import FOREVER, program
async def main():
    directory = Path(sys.argv[1])
    async def one(name):
        async with engines.open(name, program(directory, FOREVER)):
            await anyio.sleep_forever()
    engines = engine(sys.argv[2], directory)
    print("begins", flush=True)
    async with anyio.create_task_group() as tasks:
        for name in ("one", "two", "three"):
            tasks.start_soon(one, name)
anyio.run(main)
"""


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.3] if full() else [0.1])
async def test_a_core_that_is_killed_while_it_starts_sandboxes_leaves_nothing_that_is_not_reaped(
    pause: float, engine: BubblewrapEngine, tmp_path: Path
) -> None:
    lab = bubblewrap_lab.need_bubblewrap()
    command = [sys.executable, "-c", STARTS_THREE, str(tmp_path), lab]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as core:
        assert core.stdout is not None
        assert core.stdout.readline() == b"begins\n"
        await sleep(pause)
        core.kill()
    await engine.reap(())
    assert await engine.names() == []
    with fail_after(30):
        while running(f"{tmp_path}/{lab}"):  # what was on its way then finds its folder gone
            await sleep(0.05)
    assert [folder for name in ("one", "two", "three") for folder in groups(f"{lab}-{name}")] == []


async def test_control_groups_are_there_while_it_runs_and_hold_the_profiles_limits(
    engine: BubblewrapEngine, tmp_path: Path
) -> None:
    name = f"{bubblewrap_lab.need_bubblewrap()}-limits"
    async with engine.open("limits", program(tmp_path, FOREVER, memory_mb=100, workspace_mb=28, pids=40)):
        files = [
            folder / file for folder in groups(name) for file in ("memory.limit_in_bytes", "memory.max", "pids.max")
        ]
        assert {each.read_text().strip() for each in files if each.exists()} == {str(128 << 20), "41"}
    assert groups(name) == []


async def test_without_control_groups_it_runs_and_is_measured_all_the_same(
    engine: BubblewrapEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Places, "find", lambda: None)
    code = "import os, sys\nx = bytearray(b'1') * (20 << 20)\nos.fork()\n"
    async with engine.open("free", program(tmp_path, code + FOREVER)) as sandbox:
        with fail_after(30):
            while (usage := await sandbox.usage()).pids < 2 or usage.memory_bytes < 20 << 20:
                await sleep(0.05)
        assert usage.cpu_seconds >= 0
    with pytest.raises(SandboxError):
        await sandbox.usage()


async def test_what_it_cannot_do_is_said_before_anything_is_made(engine: BubblewrapEngine, tmp_path: Path) -> None:
    plain = program(tmp_path, FOREVER)
    for wrong, said in (
        (
            replace(plain, profile=replace(plain.profile, foreign=True, image="alpine:3")),
            "alpine:3 is none: that needs",
        ),
        (replace(plain, stdin=b"x" * 40_000), "32768 bytes at most"),
        (replace(plain, door=tmp_path / "nowhere"), "nowhere"),
    ):
        with pytest.raises(SandboxError, match=said):
            async with engine.open("wrong", wrong):
                pass
    assert await engine.names() == []


def link(source: str, target: str) -> None:
    """Layers never change: one more name costs nothing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def of_another_user() -> Iterator[Path]:
    """A cache with the base image that any user may read, and a place to write."""
    if os.geteuid() != 0:
        pytest.skip("whoever runs this is no root: the other tests have shown it")
    if not shutil.which("python3", path="/usr/bin") or not all(each.stat().st_mode & 1 for each in ROOT.parents):
        pytest.skip("other users have no Python here, or may not read this checkout")
    lab = bubblewrap_lab.need_bubblewrap()
    image = Images(lab, default_cache()).find("base")
    with tempfile.TemporaryDirectory(prefix="madlab-") as directory:
        place = Path(directory)
        place.chmod(0o777)
        for layer in image.layers:
            shutil.copytree(image.folder / layer, place / "cache/unpacked" / layer, symlinks=True, copy_function=link)
        Images("other", place / "cache").keep("base", image)
        yield place


AS_ANOTHER = """
import os, sys, json, anyio
from pathlib import Path
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.grades import grade, missing
from sandbox.images.unpacked import Images
from sandbox.probe import probe
place = Path(sys.argv[1])
anyio.run(anyio.sleep, 0)  # loads what may not be found later
sys.executable = "/usr/bin/python3"  # ours may lie where others may not look
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
os.environ["HOME"] = str(place)
checks = anyio.run(probe, BubblewrapEngine("other", place / "b", Images("other", place / "cache")), "bwrap")
print(json.dumps([grade(checks), {each.name: each.detail for each in missing(checks, "container")}]))
"""


def test_without_root_every_wall_of_sight_holds_and_what_is_weaker_is_seen(of_another_user: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(of_another_user)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found, missing = json.loads(done.stdout)
    if "starts" in missing or found == "none":
        pytest.skip(f"users may make no namespaces here: {missing}")
    assert found == "namespace"
    assert missing["another user"] == "outside it is user 12345"
    assert set(missing) <= {"another user", "memory", "processes", "processor"}
