"""Whether the tests of a change show what it mends: they are run on the code as it came, where they ought to fail.

Agents are asked to see red before green, but the order in which they worked proves nothing, and agents that are not
ours do not tell. So it is tried: a second tree of the same source gets the changed files of tests and nothing else.
"""

import shutil
import time

from anyio import to_thread

from periphery.hopper.detection import Project
from periphery.hopper.testing import TestResult, only_tests, run_tests
from periphery.hopper.tree import Tree
from periphery.hopper.workspace import Changes

ROOM = 3  # times the tree, which must be free for a second one


async def shows_fault(tree: Tree, project: Project, green: TestResult, *, given: bool, until: float) -> bool:
    """Whether the tests that pass now fail without the rest of the change.

    False also where it cannot be tried: no tests changed, nothing but tests changed, or no room or time for it.
    `until` is in seconds since the epoch.
    """
    changes = await tree.changes()
    tests = [each for each in changes.written if only_tests([each])]
    seconds = min(2 * green["seconds"] + 10, until - time.time())
    if not tests or _all_tests(changes) or seconds < green["seconds"] or not await to_thread.run_sync(_fits, tree):
        return False
    other = tree.beside()
    try:
        await other.fill()
        content = await to_thread.run_sync(lambda: list(tree.workspace.packed(tests, lambda note: None)))
        await to_thread.run_sync(other.workspace.lay, content)
        red = await run_tests(other.shell, project, given=given, seconds=seconds)
    finally:
        await to_thread.run_sync(shutil.rmtree, other.workspace.root.parent, True)
    tree.shell.ran += other.shell.ran
    return red["found"] and not red["passed"] and not red["timed_out"]


def _all_tests(changes: Changes) -> bool:
    return only_tests([*changes.written, *changes.deleted])


def _fits(tree: Tree) -> bool:
    return shutil.disk_usage(tree.workspace.root).free > ROOM * tree.workspace.size
