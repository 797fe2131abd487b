"""`apply` is killed at each call that writes: the branch is there whole, or the repository is as it was."""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.fault.apply_victim import NEW, OLD, die_at
from tests.integration.gits import a_repository, applied, commit, fingerprint, git, said
from tests.sizes import full

VICTIM = [sys.executable, "-m", "tests.fault.apply_victim"]
ROOT = Path(__file__).parents[2]
EACH = 1 if full() else 3  # of the calls; an object takes four or five, so that each of those has its turn


@pytest.fixture(autouse=True)
def _what_the_dead_leave_behind_goes_with_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))


def check(place: Path, before: dict[str, str], wanted: str) -> None:
    """The branch is whole or not there, and git finds nothing wrong."""
    trouble = git(place, "fsck", "--strict", "--full", "--no-dangling")
    assert trouble == b""
    held = said(place, "for-each-ref", "--format=%(objectname)", "refs/heads/madlab")
    assert held in ("", wanted)
    if held:
        assert said(place, "rev-parse", "madlab/run^{tree}")
    now = fingerprint(place)
    assert {name: now[name] for name in before} == before
    ours = {".git/refs/heads/madlab", ".git/refs/heads/madlab/run", ".git/refs/heads/madlab/run.lock"}
    assert now.keys() - before.keys() <= ours


def test_whatever_call_it_dies_at_the_branch_is_whole_or_not_there(tmp_path: Path) -> None:
    pristine = a_repository(tmp_path / "pristine", OLD)
    before = fingerprint(pristine)
    twin = shutil.copytree(pristine, tmp_path / "twin")
    wanted = applied(twin, OLD, NEW)
    deaths = 0
    for at in range(1, 200, EACH):
        place = shutil.copytree(pristine, tmp_path / str(at))
        ended = die_at(place, at)
        check(place, before, wanted)
        if ended == 0:
            break
        assert ended == -9
        deaths += 1
        assert applied(place, OLD, NEW) == wanted
        assert said(place, "rev-parse", "madlab/run") == wanted
    assert deaths > 20 // EACH


def test_killed_at_random_moments_it_leaves_no_half(tmp_path: Path) -> None:
    dice = random.Random(5)
    place = a_repository(tmp_path / "repo", OLD)
    commit(place, {"more": b"x\n"})
    git(place, "pack-refs", "--all")
    before, wanted = fingerprint(place), ""
    for _ in range(8):
        with subprocess.Popen([*VICTIM, str(place)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            time.sleep(dice.uniform(0.1, 0.5))
            process.kill()
        held = said(place, "for-each-ref", "--format=%(objectname)", "refs/heads/madlab")
        wanted = wanted or held
        check(place, before, wanted)
    assert applied(place, OLD, NEW) == (wanted or said(place, "rev-parse", "madlab/run"))
