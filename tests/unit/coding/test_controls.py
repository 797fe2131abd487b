"""What is made of runs with tests that must fail."""

from typing import Any

import pytest

from core.coding.controls import judged, to_watch

BOTH = ["a.py", "b.py"]


def ran(
    planted: list[str], noticed: list[str], *, passed: bool = False, counts: tuple[int, int] | None = None, **more: Any
) -> dict[str, Any]:
    counted = {"passed": counts[0], "failed": counts[1], "errors": 0, "skipped": 0} if counts else None
    control = {"planted": planted, "noticed": noticed}
    return {"found": True, "passed": passed, "timed_out": False, "counts": counted, "control": control, **more}


def plain(passed: int, failed: int = 0) -> dict[str, Any]:
    return ran([], [], passed=not failed, counts=(passed, failed), control=None)


HONEST = ran(BOTH, BOTH)


@pytest.mark.parametrize(
    ("untouched", "patched", "state", "files"),
    [
        (HONEST, [ran(BOTH, BOTH)], "noticed", BOTH),
        (HONEST, [ran(BOTH, [], passed=True)], "unnoticed", BOTH),
        (HONEST, [ran(BOTH, ["a.py"])], "unnoticed", ["b.py"]),
        (HONEST, [ran(["a.py"], ["a.py"])], "noticed", ["a.py"]),  # b.py is gone
        (HONEST, [ran([], [], passed=True), ran(BOTH, BOTH)], "noticed", BOTH),  # they are elsewhere now
        (HONEST, [ran([], [], passed=True), ran(BOTH, [], passed=True)], "unnoticed", BOTH),
        (HONEST, [ran(BOTH, BOTH), ran(BOTH, ["b.py"])], "unnoticed", ["a.py"]),
        (ran(BOTH, ["a.py"]), [ran(["a.py"], ["a.py"])], "noticed", ["a.py"]),
        (ran(BOTH, []), [ran(BOTH, BOTH)], "noticed", BOTH),  # it did not compile
        (ran(BOTH, []), [ran(BOTH, [])], "not possible", []),
        (ran(BOTH, [], passed=True), [], "not possible", []),
        (ran([], [], passed=True), [], "not possible", []),
        (ran(BOTH, BOTH, timed_out=True), [HONEST], "not possible", []),
        (HONEST, [ran(BOTH, [], timed_out=True)], "not possible", []),
        (HONEST, [plain(3)], "not possible", []),  # nothing came of it
        (None, [], "not possible", []),
    ],
)
def test_a_patched_tree_must_tell_of_what_the_untouched_one_tells_of(
    untouched: dict[str, Any] | None, patched: list[dict[str, Any]], state: str, files: list[str]
) -> None:
    control = judged(plain(3), untouched, [(plain(3), each) for each in patched])
    assert (control.state, list(control.files)) == (state, files)
    assert control.why.endswith(".")


def test_a_tree_that_had_no_tests_cannot_be_tried() -> None:
    control = judged({"found": False, "passed": False}, None, [])
    assert (control.state, control.why) == ("not possible", "The untouched tree has no tests to put one among.")


def test_only_files_that_tell_of_it_are_watched_and_all_where_none_could() -> None:
    assert to_watch(ran(BOTH, ["b.py"])) == ["b.py"]
    assert to_watch(ran(BOTH, [])) == BOTH
    assert to_watch(ran([], [])) is None
    assert to_watch(plain(3)) is None
    assert to_watch(None) is None


def lucky(
    before: tuple[int, int], untouched: tuple[int, int] | None, first: tuple[int, int], second: tuple[int, int] | None
) -> int:
    """Of runs that all notice two controls, given as tests that passed and failed."""
    again = ran(BOTH, BOTH, counts=second)
    return judged(plain(*before), ran(BOTH, BOTH, counts=untouched), [(plain(*first), again)]).lucky


def test_what_fails_the_second_time_had_passed_by_luck() -> None:
    assert lucky((3, 0), (3, 2), (3, 0), (3, 2)) == 0
    assert lucky((3, 0), (3, 2), (3, 0), (2, 3)) == 1
    assert lucky((2, 1), (2, 3), (3, 0), (1, 4)) == 2


def test_luck_is_no_reproach_where_the_untouched_tree_has_it_too_or_nothing_is_counted() -> None:
    assert lucky((3, 0), (2, 3), (3, 0), (2, 3)) == 0
    assert lucky((3, 0), None, (3, 0), (2, 3)) == 0
    assert lucky((3, 0), (3, 2), (3, 0), None) == 0


def test_a_runner_that_stops_at_once_or_meets_a_file_twice_is_not_taken_for_luck() -> None:
    assert lucky((1, 1), (1, 1), (9, 0), (3, 1)) == 0
    assert lucky((3, 0), (3, 2), (12, 0), (12, 8)) == 0
