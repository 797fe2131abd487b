"""What is made of runs with tests that must fail."""

from typing import Any

import pytest

from core.coding.canary import judged, to_watch

BOTH = ["a.py", "b.py"]


def ran(
    planted: list[str], noticed: list[str], *, passed: bool = False, failed: int = -1, **more: Any
) -> dict[str, Any]:
    counts = {"passed": 3, "failed": failed, "errors": 0, "skipped": 0} if failed >= 0 else None
    canary = {"planted": planted, "noticed": noticed}
    return {"found": True, "passed": passed, "timed_out": False, "counts": counts, "canary": canary, **more}


def plain(failed: int) -> dict[str, Any]:
    return ran([], [], passed=not failed, failed=failed, canary=None)


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
        (HONEST, [plain(0)], "not possible", []),  # nothing came of it
        (None, [], "not possible", []),
    ],
)
def test_a_patched_tree_must_tell_of_what_the_untouched_one_tells_of(
    untouched: dict[str, Any] | None, patched: list[dict[str, Any]], state: str, files: list[str]
) -> None:
    canary = judged(plain(0), untouched, patched)
    assert (canary.state, list(canary.files)) == (state, files)
    assert canary.why.endswith(".")


def test_a_tree_that_had_no_tests_cannot_be_tried() -> None:
    canary = judged({"found": False, "passed": False}, None, [])
    assert (canary.state, canary.why) == ("not possible", "The untouched tree has no tests to put one among.")


def test_only_files_that_tell_of_it_are_watched_and_all_where_none_could() -> None:
    assert to_watch(ran(BOTH, ["b.py"])) == ["b.py"]
    assert to_watch(ran(BOTH, [])) == BOTH
    assert to_watch(ran([], [])) is None
    assert to_watch(plain(0)) is None
    assert to_watch(None) is None


def test_what_fails_the_second_time_had_passed_by_luck() -> None:
    steady = ran(BOTH, BOTH, failed=2)
    assert judged(plain(0), steady, [ran(BOTH, BOTH, failed=2)]).lucky == 0
    assert judged(plain(0), steady, [ran(BOTH, BOTH, failed=3)]).lucky == 1
    assert judged(plain(1), ran(BOTH, BOTH, failed=3), [ran(BOTH, BOTH, failed=4)]).lucky == 2


def test_luck_is_no_reproach_where_the_untouched_tree_has_it_too_or_nothing_is_counted() -> None:
    assert judged(plain(0), ran(BOTH, BOTH, failed=3), [ran(BOTH, BOTH, failed=3)]).lucky == 0
    assert judged(plain(0), HONEST, [ran(BOTH, BOTH, failed=3)]).lucky == 0
    assert judged(plain(0), ran(BOTH, BOTH, failed=2), [ran(BOTH, BOTH)]).lucky == 0
    assert judged(None, ran(BOTH, BOTH, failed=2), [ran(BOTH, BOTH, failed=3)]).lucky == 0
