"""The agent for small models."""

from periphery.hopper.agent import Ending, Task
from periphery.hopper.detection import Project
from periphery.hopper.testing import TestResult
from periphery.hopper.tree import Tree


class Small:
    """The agent `small`."""

    def __init__(self, tree: Tree, project: Project, before: TestResult, *, given: bool) -> None:
        self._tree = tree

    async def work(self, task: Task) -> Ending:
        raise NotImplementedError
