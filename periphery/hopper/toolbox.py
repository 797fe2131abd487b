"""The tools that the own loop offers to a model, and what each of them does.

A tool is one entry of `OFFERS` (what the model is told) and one method of `Toolbox` of the same name (what happens).
The arguments have been checked against the schema by the lab when they get here. A method returns what the model is to
read; what it asked wrongly is an `InvalidArgument`, whose sentence goes back to it just so.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from periphery.hopper import editing
from periphery.hopper.agent import Task
from periphery.hopper.detection import Project
from periphery.hopper.printable import printable, shortened
from periphery.hopper.shell import Ran
from periphery.hopper.testing import TestResult, only_tests, run_tests, tell_tests, told
from periphery.hopper.tree import NO_CHANGES, Tree
from periphery.hopper.workspace import inside
from protos.tree import escaped
from protos.v1.llm_pb2 import ToolOffer

RESULT_CHARACTERS = 16_000
RUN_S = 120.0
LONG_S = 1800.0


def _offer(name: str, description: str, required: Iterable[str] = (), **properties: object) -> ToolOffer:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return ToolOffer(name=name, description=description, input_schema=json.dumps(schema))


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


PATH = _text("Relative to the root of the repository.")
SECONDS = {"type": "number", "minimum": 1, "description": f"After so many it is killed; {RUN_S:.0f} if left out."}
COMMAND = _text("Instead of the one that was detected.")
TOUCHING = frozenset({"run", "edit", "write", "remove", "run_install", "run_build", "git_commit"})
LINE = {"type": "integer", "minimum": 1}

OFFERS = (
    _offer(
        "plan",
        "Writes down your plan, or a new one: short steps, first things first. Shown to the person who waits.",
        ["steps"],
        steps={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 20},
    ),
    _offer(
        "run",
        "Runs a line of shell at the root of the repository. Each starts a new shell; what it leaves in the background "
        "ends with it. There is no network and nobody to answer a prompt.",
        ["command"],
        command=_text("For bash."),
        timeout_s=SECONDS,
    ),
    _offer(
        "read",
        f"Shows a file with line numbers (at most {editing.READ_LINES} lines at once), or lists a directory.",
        ["path"],
        path=PATH,
        first=LINE,
        last=LINE,
    ),
    _offer(
        "search",
        "Finds the lines that match a regular expression, in all files or below a path.",
        ["pattern"],
        pattern=_text("A regular expression."),
        path=PATH,
    ),
    _offer(
        "edit",
        "Replaces text in a file. `old` must stand there exactly once, with its white space and without line numbers.",
        ["path", "old", "new"],
        path=PATH,
        old=_text("What stands there now, exactly."),
        new=_text("What shall stand there."),
    ),
    _offer(
        "write",
        "Writes a whole file: a new one, or over an old one.",
        ["path", "content"],
        path=PATH,
        content=_text("All of it."),
    ),
    _offer("remove", "Removes a file or an empty directory.", ["path"], path=PATH),
    _offer(
        "run_install", "Installs what the project needs, as far as that is possible without a network.", command=COMMAND
    ),
    _offer("run_build", "Builds the project.", command=COMMAND),
    _offer("run_tests", "Runs the tests and counts them.", command=COMMAND),
    _offer("git_status", "Lists what you have changed."),
    _offer("git_diff", "Shows what you have changed, against the repository as it came.", path=PATH),
    _offer(
        "git_commit",
        "Commits everything, in a history that stays here; nobody needs it but you.",
        ["message"],
        message=_text("One line."),
    ),
    _offer(
        "finish",
        "Ends the work. Your claim is checked: the tests run again, here and in a clean sandbox.",
        ["summary", "done"],
        summary=_text("What you changed and why, for the person who reviews it; also what is open or doubtful."),
        done={"type": "boolean", "description": "true: the goal is met. false: it cannot be, or not by you."},
    ),
)


@dataclass(frozen=True)
class Finish:
    """What the model says at its end."""

    summary: str
    done: bool


@dataclass
class Toolbox:
    """The tools at one task."""

    task: Task
    tree: Tree
    project: Project
    given: bool  # the test command was given, not detected
    finished: Finish | None = None
    steps: list[str] = field(default_factory=list)  # of the plan
    tests: TestResult | None = None  # what they came to, of the tree just as it is now
    red: bool = False  # they failed while nothing but tests was changed
    changed: bool = False  # the last edit made the tree what it had not been before
    _state: dict[str, bytes] = field(default_factory=dict)  # what was edited, and to what
    _states: set[frozenset[tuple[str, bytes]]] = field(default_factory=set)
    _stamps: set[bytes] = field(default_factory=lambda: {NO_CHANGES})

    async def use(self, name: str, arguments: dict[str, Any]) -> str:
        """What comes of a call.

        Raises:
            InvalidArgument: it cannot be done as it was asked.
        """
        self.changed = False
        if name in TOUCHING:
            self.tests = None
        method: Callable[..., Awaitable[str]] = getattr(self, name)
        return shortened(await method(**arguments), RESULT_CHARACTERS)

    async def moved(self) -> bool:
        """Whether the tree is what it has not been any of the earlier times that this was asked."""
        stamp = await self.tree.stamp()
        new = stamp not in self._stamps
        self._stamps.add(stamp)
        return new

    async def plan(self, steps: list[str]) -> str:
        self.steps = [printable(each)[:300] for each in steps]
        await self.task.call.progress("\n".join(self.steps)[:3000], what="plan", steps=self.steps)
        return "Noted."

    async def run(self, command: str, timeout_s: float = RUN_S) -> str:
        return _spoken(await self._shell(command, timeout_s))

    async def read(self, path: str, first: int = 1, last: int = 0) -> str:
        return editing.read(self.task.root, path, first, last)

    async def search(self, pattern: str, path: str = ".") -> str:
        return await editing.search(self.task.shell, pattern, path)

    async def edit(self, path: str, old: str, new: str) -> str:
        return await self._edited(editing.edit(self.task.root, path, old, new))

    async def write(self, path: str, content: str) -> str:
        return await self._edited(editing.write(self.task.root, path, content))

    async def remove(self, path: str) -> str:
        return await self._edited(editing.remove(self.task.root, path))

    async def run_install(self, command: str = "") -> str:
        return await self._detected(command or self.project.install, "installed")

    async def run_build(self, command: str = "") -> str:
        return await self._detected(command or self.project.build, "built")

    async def run_tests(self, command: str = "") -> str:
        if command:
            return _spoken(await self._shell(command, LONG_S))
        result = await self.test()
        if not result["command"]:
            return "No test command was detected here. Give one as `command`, or use `run`."
        return f"{told(result)}\n{result['command']}\n{result['tail']}"

    async def git_status(self) -> str:
        return await self.tree.repository.status()

    async def git_diff(self, path: str = "") -> str:
        if path:
            inside(self.task.root, path)
        return await self.tree.repository.diff(path)

    async def git_commit(self, message: str) -> str:
        return await self.tree.repository.commit(message)

    async def finish(self, summary: str, done: bool) -> str:
        self.finished = Finish(printable(summary).strip(), done)
        return "Ended."

    async def test(self) -> TestResult:
        """Runs the task's tests, and tells people."""
        result = await run_tests(self.task.shell, self.project, given=self.given, seconds=self._seconds(LONG_S))
        await tell_tests(self.task.call, result, "during")
        if not result["passed"] and result["found"] and not self.red:
            self.red = only_tests(await self.tree.changed_names())
        self.tests = result
        return result

    async def _detected(self, command: str, what: str) -> str:
        if not command:
            return f"Nothing says how this project is {what}. Give a `command`, or go on without."
        return _spoken(await self._shell(command, LONG_S))

    async def _shell(self, command: str, seconds: float) -> Ran:
        if re.search(r"\bgit\b", command):
            await self.tree.repository.ready()
        return await self.task.shell.run(command, seconds=self._seconds(seconds))

    def _seconds(self, wanted: float) -> float:
        return max(min(wanted, LONG_S, self.task.deadline - time.time()), 1.0)

    async def _edited(self, done: editing.Edited) -> str:
        place = self.task.root / done.path
        self._state[done.path] = blake2b(place.read_bytes()).digest() if place.is_file() else b""
        state = frozenset(self._state.items())
        self.changed = state not in self._states
        self._states.add(state)
        path = escaped(done.path)
        await self.task.call.progress(
            f"{path}: +{done.added} -{done.removed}",
            what="edit",
            path=path,
            added=done.added,
            removed=done.removed,
        )
        return done.said


def _spoken(ran: Ran) -> str:
    return f"{ran.output.rstrip() or '(no output)'}\n[{ran.ending}]"
