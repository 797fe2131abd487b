"""`madlab code` from the command to the patch: real sandboxes, a played good agent, real repositories."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.coding import Coded, Stage, stage
from tests.repositories import IGNORED, contents, fingerprint, git, seeded, without_git

pytestmark = pytest.mark.docker
PROTOCOL_OF = {name: ("openai", "anthropic")[at % 2] for at, name in enumerate(seeded())}


@pytest.fixture(scope="module")
def lab() -> Iterator[Stage]:
    with stage() as lab:
        yield lab


@pytest.mark.parametrize("name", seeded())
def test_the_good_agent_solves_it_and_the_repository_is_untouched(lab: Stage, name: str) -> None:
    coded = lab.code(f"good/{name}", protocol=PROTOCOL_OF[name])
    assert coded.untouched
    assert not coded.made.ran.exists(), coded.made.ran.read_text()
    assert (coded.outcome, coded.result.code) == ("succeeded", 0), coded.said
    said = coded.said
    assert set(said) >= {"run", "outcome", "patch", "evidence", "cost", "model"}
    assert said["evidence"]["clean_room"] is True
    before, after = said["evidence"]["tests_before"], said["evidence"]["tests_after"]
    assert after["passed"]
    assert {"red": not before["passed"], "flaky": before["passed"], "none": not before["found"]}[coded.seeded.before]
    assert said["patch"]["files"] == len(coded.seeded.changed)
    assert said["cost"]["tokens"] > 0
    assert said["cost"]["usd"] > 0
    check_patch(lab, coded)


def check_patch(lab: Stage, coded: Coded) -> None:
    """The patch does what the agent did, and nothing else; the hidden test agrees."""
    applied = lab.applied(coded)
    expected = without_git(coded.made.root, applied.parent / "expected")
    coded.seeded.solve(expected)
    assert contents(without_git(applied, applied.parent / "plain")) == contents(expected)
    assert coded.seeded.proved(expected)


def test_what_git_ignores_stays_at_home(lab: Stage) -> None:
    coded = lab.code("good/python-pytest")
    assert IGNORED in (coded.made.root / ".env").read_text()
    found = [path for path in lab.home.path.rglob("*") if path.is_file() and IGNORED.encode() in path.read_bytes()]
    assert found == []


def test_the_run_can_be_shown_with_its_evidence_and_its_artifacts(lab: Stage) -> None:
    coded = lab.code("good/c")
    shown = lab.madlab("show", coded.run, "--json").json
    assert (shown["mad"], shown["outcome"]) == ("foreman", "succeeded")
    artifacts = lab.artifacts(coded.run)
    assert set(artifacts) >= {"patch.diff", "changes.tar", "deleted.json", "evidence.json"}
    evidence = json.loads(artifacts["evidence.json"])
    assert evidence["clean_room"] is True
    assert "make test" in [each["command"] for each in evidence["commands"]]
    assert artifacts["patch.diff"].startswith(b"diff --git a/src/ring.c b/src/ring.c\nindex ")


def test_apply_makes_the_branch_and_only_that(lab: Stage) -> None:
    coded = lab.code("good/javascript")  # somebody works in this one: staged, unstaged and new files
    root = coded.made.root
    applied = lab.madlab("apply", coded.run, "--branch", "slugs", cwd=root)
    assert applied.code == 0, applied.err
    assert git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert git(root, "diff", "--name-only", "main", "slugs").split() == ["src/slug.js"]
    assert git(root, "rev-parse", "slugs^") == git(root, "rev-parse", "main")
    now = fingerprint(root)
    changed = {path for path in {*coded.before, *now} if coded.before.get(path) != now.get(path)}
    new = {path for path in changed if not path.startswith(".git/objects")} - {".git/refs/heads", ".git"}
    assert new <= {".git/refs/heads/slugs", ".git/logs/refs/heads", ".git/logs/refs/heads/slugs"}
