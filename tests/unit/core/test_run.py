"""The run table is a table: these are its edges."""

from itertools import pairwise

import pytest

from core.run import FOLLOWS, Outcome, State, check_move, judge, run_id
from protos.errors import Conflict

ROAD = (State.REQUESTED, State.ADMITTED, State.STARTING, State.READY, State.RUNNING, State.COLLECTING, State.DESTROYED)


def test_the_straight_road_is_open() -> None:
    for current, next in pairwise(ROAD):
        check_move(current, next)


def test_every_state_has_a_row_and_destroyed_is_the_only_end() -> None:
    assert set(FOLLOWS) == set(State)
    assert [state for state, after in FOLLOWS.items() if not after] == [State.DESTROYED]


def test_whatever_is_not_over_can_be_collected_and_nothing_is_destroyed_before_that() -> None:
    for state in ROAD[:-2]:
        check_move(state, State.COLLECTING)
        with pytest.raises(Conflict):
            check_move(state, State.DESTROYED)


def test_nothing_leads_back_from_a_fixed_outcome() -> None:
    for state in ROAD[:-1]:
        with pytest.raises(Conflict):
            check_move(State.COLLECTING, state)


def test_the_same_message_names_the_same_run() -> None:
    assert run_id(b"k", "echo", "m1") == run_id(b"k", "echo", "m1")
    assert run_id(b"k", "echo", "m1") != run_id(b"k", "echo", "m2")
    assert run_id(b"k", "echo", "m1").startswith("echo-")


def test_who_chooses_a_messages_id_does_not_choose_its_runs() -> None:
    assert run_id(b"the secret of a lab", "echo", "m1") != run_id(b"of another lab", "echo", "m1")


def test_success_without_its_evidence_is_a_failure() -> None:
    assert judge(Outcome.SUCCEEDED, {"coverage": 1}, ("coverage",)) == (Outcome.SUCCEEDED, "")
    outcome, reason = judge(Outcome.SUCCEEDED, {}, ("coverage",))
    assert outcome is Outcome.FAILED
    assert "coverage" in reason


def test_half_a_success_needs_no_evidence_and_is_not_green() -> None:
    assert judge(Outcome.PARTIAL, {}, ("coverage",)) == (Outcome.PARTIAL, "")


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.LOST, Outcome.TIMED_OUT, Outcome.KILLED])
def test_a_worker_cannot_say_what_is_the_cores_to_say(outcome: Outcome) -> None:
    assert judge(outcome, {}, ())[0] is Outcome.FAILED
