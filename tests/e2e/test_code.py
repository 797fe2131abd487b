"""`madlab code` from the command to the patch: real sandboxes, a played good agent, real repositories."""

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.agents.patient import REMARK
from tests.e2e.coding import Coded, Stage, stage
from tests.e2e.terminal import on_a_terminal
from tests.repositories import IGNORED, contents, fingerprint, git, seeded, without_git
from tests.sizes import full

pytestmark = pytest.mark.docker
SOME = ("python-pytest", "javascript", "c", "no-tests", "unicode-paths", "hostile-git")  # each its own road


@pytest.fixture(scope="module")
def lab() -> Iterator[Stage]:
    with stage() as lab:
        yield lab


@pytest.mark.parametrize("name", seeded() if full() else SOME)
def test_the_good_agent_solves_it_and_the_repository_is_untouched(lab: Stage, name: str) -> None:
    coded = lab.solved(f"good/{name}")
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
    booked = {each["name"]: each for each in lab.madlab("costs", "--by", "run", "--json").json["costs"]}[said["run"]]
    assert booked["usd"] == said["cost"]["usd"]
    assert booked["input_tokens"] + booked["output_tokens"] == said["cost"]["tokens"]
    assert {each["name"].partition("-")[0] for each in booked["children"]} == {"hopper"}
    check_patch(lab, coded)


def check_patch(lab: Stage, coded: Coded) -> None:
    """The patch does what the agent did, and nothing else; the hidden test agrees."""
    applied = lab.applied(coded)
    expected = without_git(coded.made.root, applied.parent / "expected")
    coded.seeded.solve(expected)
    assert contents(without_git(applied, applied.parent / "plain")) == contents(expected)
    assert coded.seeded.proved(expected)


def test_what_git_ignores_stays_at_home(lab: Stage) -> None:
    coded = lab.solved("good/python-pytest")
    assert IGNORED in (coded.made.root / ".env").read_text()
    found = [path for path in lab.home.path.rglob("*") if path.is_file() and IGNORED.encode() in path.read_bytes()]
    assert found == []


def test_the_run_can_be_shown_with_its_evidence_and_its_artifacts(lab: Stage) -> None:
    coded = lab.solved("good/c")
    shown = lab.madlab("show", coded.run, "--json").json
    assert (shown["mad"], shown["outcome"]) == ("foreman", "succeeded")
    artifacts = lab.artifacts(coded.run)
    assert set(artifacts) >= {"patch.diff", "changes.tar", "deleted.json", "evidence.json"}
    evidence = json.loads(artifacts["evidence.json"])
    assert evidence["clean_room"] is True
    assert evidence["control"]["state"] == "noticed"
    assert "make test" in [each["command"] for each in evidence["commands"]]
    assert artifacts["patch.diff"].startswith(b"diff --git a/src/ring.c b/src/ring.c\nindex ")


def test_apply_makes_the_branch_and_only_that(lab: Stage) -> None:
    coded = lab.solved("good/javascript")  # somebody works in this one: staged, unstaged and new files
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


def test_apply_runs_nothing_that_the_configuration_names(lab: Stage) -> None:
    coded = lab.solved("good/hostile-git")
    root, ran = coded.made.root, coded.made.ran
    applied = lab.madlab("apply", coded.run, cwd=root)
    assert applied.code == 0, applied.err
    assert not ran.exists(), ran.read_text()
    tip = (root / ".git" / "refs" / "heads" / "madlab" / coded.run).read_text().strip()
    assert tip in applied.out
    assert "evil" not in git(root, "cat-file", "-p", f"{tip}:clamp.py")


def test_of_two_runs_that_mend_the_same_lines_the_second_is_shown_as_a_conflict(lab: Stage) -> None:
    first, made = lab.solved("good/python-unittest"), lab.repository("python-unittest")  # each time the same one
    second = lab.code("rival", made=made)
    assert (first.outcome, second.outcome) == ("succeeded", "succeeded")
    assert lab.madlab("apply", first.run, "--branch", "first", cwd=made.root).code == 0
    git(made.root, "merge", "-q", "--ff-only", "first")
    before = fingerprint(made.root)
    refused = lab.madlab("apply", second.run, "--branch", "second", cwd=made.root)
    assert refused.code == 1, refused.err
    assert "intervals.py" in refused.err
    assert "<<<<<<< " in refused.err
    assert "max(merged[-1][1], end)" in refused.err, "neither side is dropped"
    assert "max(end, merged[-1][1])" in refused.err
    assert fingerprint(made.root) == before


STATES = ["accepted", "delivered"]


def the_run(lab: Stage, true: Callable[[], bool]) -> str:
    """The newest run of the foreman, once something is true."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return next(str(each["id"]) for each in lab.client.get("/api/v1/runs")["runs"] if each["mad"] == "foreman")


def test_of_three_attempts_the_one_with_the_best_evidence_is_kept(lab: Stage) -> None:
    coded = lab.code("three", "--attempts", "3")
    assert coded.untouched
    assert coded.outcome == "succeeded", coded.result.out + coded.result.err
    evidence = json.loads(lab.artifacts(coded.run)["evidence.json"])
    told = sorted((each["clean_room"], each["files"]) for each in evidence["attempts"])
    assert told == [(False, 0), (True, 1), (True, 2)]
    assert coded.said["patch"]["files"] == 1, "the one without rubbish"
    check_patch(lab, coded)


def test_at_the_end_of_the_budget_there_is_an_outcome_and_the_patch_so_far(lab: Stage) -> None:
    coded = lab.code("spender", "--budget", "0.25")
    assert coded.untouched
    assert (coded.outcome, coded.result.code) == ("out_of_budget", 4)
    assert coded.said["cost"]["usd"] <= 0.25
    assert coded.said["patch"]["files"] == 1
    assert (lab.applied(coded) / "NOTES.md").read_text() == "Half of the work is done.\n"
    shown = lab.madlab("show", coded.run, "--json").json
    assert "more" in shown["reason"], "it says what more it needs"


def test_ctrl_c_cancels_where_nobody_can_be_asked(lab: Stage) -> None:
    agent, made = lab.troupe.agents["waiter@openai"], lab.repository("python-unittest")
    before = fingerprint(made.root)
    with lab.madlab.started(*lab.words(agent, made, "openai")) as process:
        run = the_run(lab, lambda: bool(agent.heard))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert f"Cancelling {run}" in err
    assert lab.madlab("show", run, "--json").json["outcome"] == "cancelled"
    assert fingerprint(made.root) == before
    children = [each for each in lab.client.get("/api/v1/runs")["runs"] if each["parent"] == run]
    assert all(each["outcome"] for each in children)


def test_a_run_that_a_person_left_goes_on_and_a_remark_is_accepted_delivered_and_acted_on(lab: Stage) -> None:
    agent, made = lab.troupe.agents["listener@anthropic"], lab.repository("python-unittest")
    words = lab.words(agent, made, "anthropic")
    code, said = on_a_terminal(lab.madlab, words, lambda: len(agent.heard) > 1, prompt="[d/c]", answer="d")
    assert code == 130, said
    run = the_run(lab, lambda: True)
    assert f"{run} goes on" in said
    steered = lab.madlab("steer", run, REMARK)
    assert steered.code == 0, steered.err
    assert [each.split(":")[0] for each in steered.err.split() if each.rstrip(":") in STATES] == STATES[:2]
    assert "acted on" in steered.out
    assert the_outcome(lab, run) == "succeeded"
    assert REMARK in agent.heard[-1].said


def the_outcome(lab: Stage, run: str) -> str:
    deadline = time.monotonic() + 60
    while not (outcome := lab.client.get(f"/api/v1/runs/{run}")["outcome"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return str(outcome)
