"""What a runtime was seen to stop, as one word: the grade of a runtime is the set of walls that held when tried.

    kernel      what a container stops, and the system calls reach a kernel of its own instead of the machine's
    container   every wall between it and the machine held, every amount has its limit, and outside it is another user
    namespace   it sees nothing of the machine and may do nothing to it; but it may use the machine up (no limit of
                memory, processes or processor held), or outside its namespaces it is the operator's own user
    none        a wall of those above did not hold, or nobody tried

A name says nothing here: bubblewrap with control groups is graded like runc where it stops the same, and runc with a
wall missing is graded `none`. A profile says the least it takes (`Profile.least`).
"""

from collections.abc import Sequence

from sandbox.probe import Check
from sandbox.profile import GRADES, Grade

NAMESPACE = frozenset(
    {
        "network", "door", "system calls", "socket families", "threads", "read-only root", "user", "capabilities",
        "no new privileges", "namespaces", "devices", "environment", "process limits", "workspace size",
        "workspace files",
    }
)  # fmt: skip
CONTAINER = NAMESPACE | {"processor", "processes", "memory", "another user"}
KERNEL = CONTAINER | {"own kernel"}
WALLS: dict[Grade, frozenset[str]] = {
    "none": frozenset(),
    "namespace": NAMESPACE,
    "container": CONTAINER,
    "kernel": KERNEL,
}


def grade(checks: Sequence[Check]) -> Grade:
    """The highest grade of which every wall was tried and held."""
    held = {check.name for check in checks if check.ok} - {check.name for check in checks if not check.ok}
    return max((each for each, walls in WALLS.items() if walls <= held), key=GRADES.index)


def is_enough(found: Grade, least: Grade) -> bool:
    """Whether what was found is the least that is wanted, or better."""
    return GRADES.index(found) >= GRADES.index(least)


def missing(checks: Sequence[Check], wanted: Grade) -> list[Check]:
    """The walls of a grade that did not hold, and those that nobody tried."""
    answers = {check.name: check for check in checks}
    untried = (Check(name, False, "nobody tried it") for name in sorted(WALLS[wanted] - answers.keys()))
    return [check for check in checks if check.name in WALLS[wanted] and not check.ok] + list(untried)
