"""deploy.sh and test.sh, as somebody meets them who has just cloned this."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from tests.commands import environment
from tests.labs import forget_images
from tests.sizes import full

ROOT = Path(__file__).parents[2]
SLOW_S = 900
AGAIN_S = 15.0  # of a deployment where everything is there, beside the scan itself


def run(checkout: Path, *command: str, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
    given = environment(home or "")
    del given["PYTHONPATH"]  # as somebody would have it who has just cloned this
    if home is None:
        del given["MADLAB_HOME"]
    return subprocess.run(command, cwd=checkout, env=given, capture_output=True, text=True, timeout=SLOW_S)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of what is committed, with what is changed in the work tree on top. Its lab is stopped at the end."""
    place = tmp_path_factory.mktemp("clone") / "a place with blanks"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(place)], check=True)
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    try:
        yield place
    finally:
        run(place, "./deploy.sh", "--stop")
        if (place / ".madlab/lab").exists():
            home = Home.find(place / ".madlab")
            forget_images(home.lab)
            shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.mark.parametrize("script", ["./deploy.sh", "./test.sh"])
def test_help_says_what_the_script_does(script: str) -> None:
    told = run(ROOT, script, "--help")
    assert told.returncode == 0
    assert script in told.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--stop", "now"], ["--agents", "--stop"]])
def test_a_slip_of_the_tongue_is_2_and_changes_nothing(arguments: list[str]) -> None:
    told = run(ROOT, "./deploy.sh", *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert "--no-demo" in told.stderr
    assert "--agents" in told.stderr


def test_the_unit_names_this_lab(tmp_path: Path) -> None:
    told = run(ROOT, "./deploy.sh", "--unit", home=tmp_path / "home")
    assert told.returncode == 0
    assert f'ExecStart="{ROOT}/.venv/bin/madlab" --home "{tmp_path}/home" up --foreground' in told.stdout


def waits_for_a_processor() -> float:
    """How many times as long as it computes a process takes on this machine now: 1.0 where nobody else wants one."""
    began, computed = time.monotonic(), time.process_time()
    while time.process_time() - computed < 0.5:
        pass
    return (time.monotonic() - began) / (time.process_time() - computed)


@pytest.mark.docker
@pytest.mark.skipif(not full(), reason="a whole deployment takes minutes: MADLAB_FULL=1 (./test.sh all)")
def test_a_clone_is_deployed_twice_and_the_second_time_is_quick(clone: Path) -> None:
    first = run(clone, "./deploy.sh")
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"Scanned [\d,]+ of [\d,]+ files", first.stdout)
    assert (clone / ".venv/bin/madlab").exists()
    report = json.loads((clone / ".madlab/report.json").read_text())
    assert report["outcome"] == "succeeded"
    status = json.loads(run(clone, ".venv/bin/madlab", "status", "--json").stdout)
    assert os.path.exists(f"/proc/{status['pid']}")
    assert str(clone / ".madlab/report.json") in first.stdout

    factors, began = [waits_for_a_processor()], time.monotonic()
    second = run(clone, "./deploy.sh")
    took = time.monotonic() - began
    factors.append(waits_for_a_processor())
    assert second.returncode == 0, second.stdout + second.stderr
    again = json.loads((clone / ".madlab/report.json").read_text())
    assert again["run"] != report["run"]
    shown = json.loads(run(clone, ".venv/bin/madlab", "show", again["run"], "--json").stdout)
    scan, factor = shown["evidence"]["seconds"], max(1.0, *factors)
    print(f"again: {took:.1f} s, of which the scan took {scan:.1f} s; processors were wanted {factor:.2f} times over")
    assert took - scan < AGAIN_S * factor, "nothing is made again"
    assert json.loads(run(clone, ".venv/bin/madlab", "status", "--json").stdout)["pid"] == status["pid"]

    assert run(clone, "./deploy.sh", "--stop").returncode == 0
    assert run(clone, ".venv/bin/madlab", "status").returncode == 3
