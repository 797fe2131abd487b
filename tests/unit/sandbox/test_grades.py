"""The grade of a runtime follows from the walls that held, and from nothing else."""

from itertools import pairwise

import pytest

from sandbox.grades import CONTAINER, KERNEL, NAMESPACE, WALLS, grade, is_enough, missing
from sandbox.probe import Check
from sandbox.profile import GRADES, Grade


def looked(*, held: frozenset[str], failed: frozenset[str] = frozenset()) -> list[Check]:
    return [Check(name, True, "") for name in held] + [Check(name, False, "seen") for name in failed]


@pytest.mark.parametrize(("walls", "found"), [(KERNEL, "kernel"), (CONTAINER, "container"), (NAMESPACE, "namespace")])
def test_a_grade_is_had_with_all_its_walls_and_lost_with_any(walls: frozenset[str], found: Grade) -> None:
    assert grade(looked(held=walls)) == found
    for wall in walls:
        assert not is_enough(grade(looked(held=walls - {wall})), found)
        assert not is_enough(grade(looked(held=walls - {wall}, failed=frozenset({wall}))), found)


def test_a_wall_that_held_once_and_once_did_not_does_not_hold() -> None:
    assert grade(looked(held=KERNEL, failed=frozenset({"network"}))) == "none"


def test_nothing_seen_is_nothing_graded() -> None:
    assert grade([]) == "none"
    assert grade([Check("network", True, "")]) == "none"


def test_each_grade_stops_what_the_one_below_it_stops_and_more() -> None:
    for lower, higher in pairwise(GRADES):
        assert WALLS[lower] < WALLS[higher]
        assert is_enough(higher, lower)
        assert not is_enough(lower, higher)


def test_what_is_missing_was_seen_or_never_tried() -> None:
    checks = looked(held=NAMESPACE - {"door"}, failed=frozenset({"network"}))
    assert {each.name: each.detail for each in missing(checks, "namespace")} == {
        "network": "seen",
        "door": "nobody tried it",
    }
