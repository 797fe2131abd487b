"""Which attempt is best, and what a run has come to."""

from typing import Any

import pytest

from core.coding.evidence import Attempt, best, missing_tests, outcome_of
from core.run import Outcome

PASSED: dict[str, Any] = {"found": True, "passed": True}
FAILED: dict[str, Any] = {"found": True, "passed": False}
NONE: dict[str, Any] = {"found": False, "passed": False}


def attempt(number: int = 1, **about: Any) -> Attempt:
    usual: dict[str, Any] = {"claimed": Outcome.SUCCEEDED, "files": 1, "added": 5}
    return Attempt(number, **(usual | about))


@pytest.mark.parametrize(
    ("tried", "outcome"),
    [
        (attempt(proof=PASSED), Outcome.SUCCEEDED),
        (attempt(proof=FAILED), Outcome.FAILED),
        (attempt(proof=NONE), Outcome.PARTIAL),
        (attempt(files=0), Outcome.FAILED),
        (attempt(proof=PASSED, tests_changed=("t",), original=FAILED), Outcome.PARTIAL),
        (attempt(proof=PASSED, tests_changed=("t",), original=PASSED), Outcome.SUCCEEDED),
        (attempt(proof=PASSED, refused=[(".git/hooks/x", "no")]), Outcome.PARTIAL),
        (attempt(proof=PASSED, claimed=Outcome.STUCK), Outcome.SUCCEEDED),
        (attempt(proof=FAILED, claimed=Outcome.STUCK), Outcome.STUCK),
        (attempt(proof=PASSED, missing=3), Outcome.PARTIAL),
        (attempt(files=0, claimed=Outcome.OUT_OF_BUDGET), Outcome.OUT_OF_BUDGET),
        (attempt(files=0, claimed=Outcome.LOST), Outcome.LOST),
    ],
)
def test_only_a_proof_in_the_clean_room_makes_a_run_green(tried: Attempt, outcome: Outcome) -> None:
    assert outcome_of(tried)[0] is outcome


def test_tests_that_no_longer_run_are_missed() -> None:
    before = FAILED | {"counts": {"passed": 4, "failed": 2, "errors": 0, "skipped": 1}}
    assert missing_tests(before, PASSED | {"counts": {"passed": 6, "failed": 0}}) == 0
    assert missing_tests(before, PASSED | {"counts": {"passed": 2, "failed": 0, "skipped": 5}}) == 4
    assert missing_tests(before, PASSED | {"counts": None}) == 6
    assert missing_tests(FAILED | {"counts": None}, PASSED) == 0
    assert missing_tests(None, PASSED) == 0


def test_whatever_is_not_green_says_why() -> None:
    for tried in (
        attempt(proof=FAILED),
        attempt(proof=NONE),
        attempt(files=0),
        attempt(proof=PASSED, refused=[("a", "b")]),
    ):
        assert outcome_of(tried)[1]


def test_proof_goes_before_everything_and_what_is_shorter_before_what_is_long() -> None:
    long, short = attempt(1, proof=PASSED, added=50), attempt(2, proof=PASSED, added=2)
    flagged = attempt(3, proof=PASSED, added=1, flags=[("a", 1, "a key")])
    unproved = attempt(4, proof=FAILED, added=1)
    assert best([unproved, flagged, long, short]) is short
    assert best([unproved, flagged]) is flagged
    assert best([unproved]) is unproved
