"""Runs a tree's tests once and tells what came of it."""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from typing_extensions import TypedDict

from periphery.hopper.counts import Counts, count
from periphery.hopper.detection import NOTHING, Project, detect
from periphery.hopper.printable import tail
from periphery.hopper.shell import Shell
from protos.tools import Call

TAIL_BYTES = 4096
TEST_FILE = re.compile(
    r"(^|/)(tests?|spec|__tests__|testing)/|(^|/)test[_-][^/]*$|(^|/)(conftest|tests?)\.\w+$|[._-](test|spec)s?\.\w+$"
)
NO_TESTS = 5  # pytest's exit code, and since Python 3.12 unittest's, where there was nothing to run


class TestResult(TypedDict):
    """What a test command came to."""

    command: str
    detected: bool  # by us, not given
    found: bool  # there is a command, and it has tests to run
    passed: bool
    exit_code: int
    seconds: float
    timed_out: bool
    tail: str  # the last 4 KiB of its output, printable
    counts: Counts | None


async def project_of(shell: Shell, command: str) -> Project:
    """How the tree is worked with; a given test command goes before a detected one."""
    found = await detect(shell)
    return replace(found, test=command, why="the command was given") if command else found


async def run_tests(shell: Shell, project: Project, *, given: bool, seconds: float) -> TestResult:
    """Runs the test command of `project`, for at most `seconds`."""
    result, _ = await heard_tests(shell, project, (), given=given, seconds=seconds)
    return result


async def heard_tests(
    shell: Shell, project: Project, words: Collection[str], *, given: bool, seconds: float
) -> tuple[TestResult, frozenset[str]]:
    """The same, and which of some words it said."""
    if not project.test:
        return nothing_found(), frozenset()
    ran = await shell.run(project.test, seconds=seconds, listen_for=words)
    counts = count(ran.output)
    ended_empty = project.kind in ("pytest", "unittest") and ran.exit_code == NO_TESTS
    nothing = not given and (ended_empty or (counts is not None and not any(counts.values())))
    result = TestResult(
        command=project.test,
        detected=not given,
        found=not nothing,
        passed=ran.passed and not nothing,
        exit_code=ran.exit_code,
        seconds=round(ran.seconds, 3),
        timed_out=ran.timed_out,
        tail=tail(ran.output, TAIL_BYTES),
        counts=counts,
    )
    return result, ran.heard


def nothing_found() -> TestResult:
    """What it is where nobody knows a test command."""
    return TestResult(
        command="",
        detected=True,
        found=False,
        passed=False,
        exit_code=0,
        seconds=0.0,
        timed_out=False,
        tail=NOTHING.why,
        counts=None,
    )


def told(result: TestResult) -> str:
    """A result in one sentence."""
    if not result["found"]:
        return "There are no tests." if result["command"] else "There is no test command."
    counts = result["counts"]
    numbers = ", ".join(f"{value} {name}" for name, value in counts.items() if value) if counts else ""
    if result["timed_out"]:
        return f"The tests did not end in {result['seconds']:.0f} s."
    state = "pass" if result["passed"] else f"fail (exit {result['exit_code']})"
    return f"The tests {state}" + (f": {numbers}." if numbers else ".")


async def tell_tests(call: Call, result: TestResult, when: str) -> None:
    """Tells people what a run of the tests came to: before, during, after, or in a clean tree."""
    await call.progress(
        told(result),
        what="tests",
        when=when,
        command=result["command"][:1000],
        exit_code=result["exit_code"],
        passed=result["passed"],
        counts=result["counts"],
    )


def only_tests(names: Iterable[str]) -> bool:
    """Whether all of these are files of tests, by how such files are called."""
    return all(TEST_FILE.search(each) for each in names)
