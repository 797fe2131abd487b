"""Each seeded repository has its fault, and what the good agent does mends it: without any agent, by a plain shell."""

import subprocess
from pathlib import Path

import pytest

from tests.repositories import Seeded, contents, git, seeded, small, without_git
from tests.sizes import full

SLOW = {"flaky", "huge-file", "failing-build"}


def test_there_are_twelve_and_ten() -> None:
    assert (len(seeded()), len(small())) == (12, 10)


@pytest.mark.parametrize("name", [each for each in seeded() if full() or each not in SLOW])
def test_the_fault_is_real_and_the_good_steps_mend_it(name: str, tmp_path: Path) -> None:
    each = seeded()[name]
    made = each.make(tmp_path)
    _fault_and_cure(each, made.root, tmp_path)
    assert not made.ran.exists()


@pytest.mark.parametrize("name", small())
def test_each_small_fault_is_real_and_can_be_mended(name: str, tmp_path: Path) -> None:
    each = small()[name]
    _fault_and_cure(each, each.make(tmp_path).root, tmp_path)


def _fault_and_cure(each: Seeded, root: Path, place: Path) -> None:
    plain = without_git(root, place / "before")
    if each.before == "none":
        assert not [path for path in plain.rglob("*") if "test" in path.name]
    else:
        said = [each.tested(plain) for _ in range(3 if each.before == "flaky" else 1)]
        assert said == ([True, True, False] if each.before == "flaky" else [False])
    assert not each.proved(plain), "the hidden test sees no fault"
    mended = without_git(root, place / "mended")
    before = contents(mended)
    each.solve(mended)
    after = contents(mended)
    assert {path for path in before | after if before.get(path) != after.get(path)} == set(each.changed)
    assert [each.tested(mended) for _ in range(4 if each.before == "flaky" else 1)][-1]
    assert each.proved(mended)


def test_a_repository_is_the_same_each_time_it_is_made(tmp_path: Path) -> None:
    heads = set()
    for turn in ("one", "two"):
        place = tmp_path / turn
        place.mkdir()
        heads.add(git(seeded()["python-pytest"].make(place).root, "rev-parse", "HEAD"))
    assert len(heads) == 1


def test_the_hostile_repository_runs_its_program_for_whoever_is_careless(tmp_path: Path) -> None:
    made = seeded()["hostile-git"].make(tmp_path)
    assert not made.ran.exists()
    subprocess.run(["git", "status"], cwd=made.root, capture_output=True)
    assert made.ran.exists()
