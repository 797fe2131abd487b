"""Whether a green run can be believed: what came of tests that must fail (negative controls), put among the others in
sandboxes apart.

A tested program can have its runner say anything (`periphery/hopper/controls.py` tells how that is tried). So each file
of tests gets a failure, on the tree as it came and on the patched one. Where the untouched tree's run tells of a file's
failure, the patched tree's must too; if it is green, or silent about one of them, it shows nothing.

The second run is a second look, too. Whatever failed in it beside the controls passed a moment before, in a sandbox
like it: such tests, or such a patch, pass by luck.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["noticed", "unnoticed", "not possible"]
TestResult = Mapping[str, Any]  # as `hopper.test` returns it


@dataclass(frozen=True)
class Control:
    """What the runs with tests that must fail have shown."""

    state: State
    why: str  # a sentence
    files: Sequence[str] = ()  # of tests: those that noticed it, or, where some did not, those
    lucky: int = 0  # other tests that failed in the second run, and had passed


def to_watch(untouched: TestResult | None) -> list[str] | None:
    """The files of tests that a patched tree is to be tried with, given the untouched tree's run; None: no use."""
    said = (untouched or {}).get("control")
    return list(said["noticed"] or said["planted"]) or None if said else None


def judged(
    before: TestResult | None, untouched: TestResult | None, patched: Sequence[tuple[TestResult, TestResult]]
) -> Control:
    """What it comes to.

    `before` is the plain run of the untouched tree, `untouched` the one with controls; `patched` are both of the
    patched tree, whose plain run was green, and, where the patch changes tests, both with the tests as they were.
    """
    known = (untouched or {}).get("control")
    if before and not before["found"]:
        return _impossible("The untouched tree has no tests to put one among.")
    if not untouched or not known:
        return _impossible("The untouched tree could not be tested with one.")
    if not known["planted"]:
        return _impossible("No file of tests was found that one can be put into.")
    if untouched["timed_out"]:
        return _impossible("The untouched tree's tests took too long.")
    expected = set(known["noticed"])
    if not expected and untouched["passed"]:
        return _impossible("The test command does not tell of one on the untouched tree either.")
    noticed: set[str] = set()
    silent: set[str] = set()
    for _, each in patched:
        said = each.get("control")
        if not said or each["timed_out"]:
            return _impossible("The patched tree's tests with one did not come to an end.")
        asked = expected & set(said["planted"])
        noticed |= set(said["noticed"])
        silent |= asked if each["passed"] else asked - set(said["noticed"])
    if silent:
        return Control("unnoticed", "The test command does not tell of a test that fails.", sorted(silent))
    if not noticed:
        return _impossible("The test command tells of none on the untouched tree, nor on the patched one.")
    steady = before is not None and _unlucky(before, untouched) == 0  # else a difference says nothing of the patch
    lucky = max((_unlucky(*each) or 0 for each in patched), default=0) if steady else 0
    return Control("noticed", "The test command tells of a test that fails.", sorted(noticed), lucky)


def _impossible(why: str) -> Control:
    return Control("not possible", why)


def _unlucky(plain: TestResult, again: TestResult) -> int | None:
    """How many tests passed in the plain run and failed in the one with controls; None where that was not counted.

    Neither number alone tells: a runner may stop at its first failure, and meet one file by several names.
    """
    first, second = plain.get("counts"), again.get("counts")
    if not first or not second:
        return None
    gone = int(first["passed"]) - int(second["passed"])
    more = int(second["failed"]) + int(second["errors"]) - len(again["control"]["noticed"])
    return max(min(gone, more), 0)
