"""Applies a change to a repository, and ends itself by SIGKILL just before one of the calls that write."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.gits import applied
from tests.unit.coding.trees import Tree

OLD: Tree = {"a": b"1\n", "d/b": b"2\n"}
NEW: Tree = {"a": b"one\n", "d/b": b"2\n", "d/c": b"3\n"}
CALLS = ("open", "fsync", "mkdir", "link", "rename", "unlink")


def die_at(place: Path, at: int) -> int:
    """Does it in a process of its own, which dies before the call of that number; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            _victim(place, at)
        finally:
            os._exit(1)  # never back into the tests
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _victim(place: Path, at: int) -> None:
    count = 0

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += call.__name__ == "fsync" or any(str(place) in str(each) for each in given)
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return counted

    for each in CALLS:
        setattr(os, each, dying(getattr(os, each)))
    applied(place, OLD, NEW)
    os._exit(0)


if __name__ == "__main__":
    applied(Path(sys.argv[1]), OLD, NEW)
