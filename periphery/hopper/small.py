"""The agent for small models: it asks for one function at a time, and keeps what the tests accept.

What such a model can and cannot do was measured: it mends or writes one small function if a test decides; it plans
badly, calls tools badly, does not learn from its error, and may not judge its work. So everything but the function is
done here, without it:

::

    failing tests, goal ─▶ places, the likeliest first ─▶ ask for one function, several times ─▶ the tests decide

Each question is one short JSON object under a schema, its fields in the order in which they should be decided, with a
limit on tokens and on time. An answer that is not code, not that function or not new is not even tested.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from periphery.hopper.agent import Ending, Task
from periphery.hopper.asking import ask, tell_model
from periphery.hopper.detection import Project
from periphery.hopper.places import Place, likely, only, replaced, uses
from periphery.hopper.printable import printable, shortened
from periphery.hopper.prompts import READERS
from periphery.hopper.remarks import Remarks
from periphery.hopper.testing import TestResult, nothing_found, run_tests, tell_tests
from protos.errors import Unavailable
from protos.llm import Completion
from protos.v1.llm_pb2 import (
    ROLE_SYSTEM,
    ROLE_USER,
    CompleteRequest,
    OutputFormat,
    OutputSchema,
    Part,
    Sampling,
    Turn,
)

ORDER = (0, 0, 1, 0, 1, 2, 0, 1, 0)  # which place is tried next: five times the likeliest
TEMPERATURES = (0.1, 0.7, 0.7, 0.9, 0.9, 0.9, 1.0, 1.0, 1.0)
ANSWER_TOKENS = 700  # at most; a small model that rambles costs a minute
ANSWER_S = 180.0
SILENT = 2  # questions that may go without an answer: a slow machine, a long thought
SAID_CHARACTERS = 200
GOAL_CHARACTERS = 1500
OUTPUT_CHARACTERS = 1600
TESTS_S = 300.0

SYSTEM = "You write one function of a program. You answer with JSON only."
SCHEMA = {
    "type": "object",
    "properties": {
        "fault": {"type": "string", "maxLength": 200, "description": "In one sentence."},
        "code": {"type": "string", "description": "The whole function."},
    },
    "required": ["fault", "code"],
    "additionalProperties": False,
}


NO_FAILING_TEST = "A small model needs a failing test that shows what is wrong. Give it one, or use a larger model."
NO_PLACE = "Neither the goal nor the failing tests point to a function that is small enough for a small model."


@dataclass
class _Tried:
    """A file with another function in it, and what the tests said of it."""

    place: Place
    fault: str
    text: str
    before: TestResult
    result: TestResult = field(default_factory=nothing_found)

    @property
    def summary(self) -> str:
        what = "wrote" if self.place.last < self.place.first else "rewrote"
        return f"{self.fault} A small model {what} {self.place.title}".strip()

    @property
    def mended(self) -> int:
        """How many more tests pass than before, as far as they are counted."""
        counts, before = self.result["counts"], self.before["counts"]
        return counts["passed"] - before["passed"] if counts and before else 0


class Small:
    """The agent `small`."""

    def __init__(self, project: Project, before: TestResult, *, given: bool) -> None:
        self._project = project
        self._before = before
        self._given = given
        self._seen: set[tuple[str, str, str]] = set()

    async def work(self, task: Task) -> Ending:
        """Asks until the tests pass, or there is nothing left to ask."""
        if task.role in READERS:
            return Ending("failed", "", f"A small model may not be trusted as a {task.role}. Use a larger one.")
        if not self._before["found"] or self._before["passed"]:
            return Ending("failed", "", NO_FAILING_TEST)
        places = likely(task.root, f"{task.goal}\n{task.notes}", self._before["tail"])
        if not places:
            return Ending("failed", "", NO_PLACE)
        await task.call.progress("\n".join(f"{each.title}: {each.why}" for each in places), what="plan")
        kept: list[_Tried] = []
        async with aclosing(self._tries(task, places)) as tries:  # type: ignore[type-var]
            async for tried in tries:
                if tried.result["passed"] or tried.mended > 0:
                    _write(task.root, tried)
                    kept.append(tried)
                    self._before = tried.result  # from here on it has to be better than that
                if tried.result["passed"]:
                    why = "it was kept because the tests pass"
                    return Ending("done", f"{_told(kept)}; {why}.", tests=tried.result)
        if not kept:
            return Ending("stuck", "", "None of the functions that the model wrote makes a failing test pass.")
        mended = sum(each.mended for each in kept)
        summary = f"{_told(kept)}; {mended} more tests pass with it, and others still fail."
        return Ending("partial", summary, "Some tests still fail, and the model found nothing better.")

    async def _tries(self, task: Task, places: list[Place]) -> AsyncIterator["_Tried"]:
        """One function after another, with what the tests say of it."""
        remarks = Remarks(task.call)
        notes = task.notes.strip()
        silent = 0
        for attempt, which in enumerate(ORDER):
            if which >= len(places) or task.ledger.steps >= task.max_steps:
                continue
            notes = "\n".join([notes, *(await remarks.fresh())]).strip()
            try:
                completion = await ask(task, self._question(task, places[which], notes, attempt))
            except Unavailable as error:
                silent += 1
                if silent > SILENT:
                    raise
                await task.call.progress(f"{places[which].title}: no answer: {error.message[:200]}", what="note")
                continue
            task.ledger.steps += 1
            await tell_model(task)
            fault, code = _answer(completion, places[which])
            if code is None or not self._is_new(places[which], code):
                why = "no function" if code is None else "nothing new"
                said = " ".join(printable(completion.text).split())[:SAID_CHARACTERS]
                await task.call.progress(f"{places[which].title}: {why} in the answer: {said}", what="note")
                await remarks.answered(acted=False)
                continue
            before = self._before
            tried = await self._try(task, places[which], fault, code)
            await remarks.answered(acted=True)
            yield tried
            if self._before is not before:  # it was kept: the lines have moved, and other tests fail
                places = likely(task.root, f"{task.goal}\n{task.notes}", self._before["tail"]) or places

    def _is_new(self, place: Place, code: str) -> bool:
        """Whether it is neither what stands there nor what was tried before."""
        tried = (place.path, place.name, _plain(code))
        known = tried in self._seen
        self._seen.add(tried)
        return not known and tried[2] != _plain(place.code)

    async def _try(self, task: Task, place: Place, fault: str, code: str) -> "_Tried":
        """What the tests say of a function; the file is as before afterwards."""
        original = _read(task.root, place.path)
        text = replaced(original, place, code)
        added, removed = code.strip("\n").count("\n") + 1, max(place.last - place.first + 1, 0)
        told = f"{place.title}: +{added} -{removed}"
        await task.call.progress(told, what="edit", path=place.path, added=added, removed=removed)
        tried = _Tried(place, fault, text, self._before)
        _write(task.root, tried)
        try:
            seconds = max(min(TESTS_S, task.deadline - time.time()), 1.0)
            tried.result = await run_tests(task.shell, self._project, given=self._given, seconds=seconds)
        finally:
            _write(task.root, _Tried(place, "", original, self._before))
        await tell_tests(task.call, tried.result, "during")
        return tried

    def _question(self, task: Task, place: Place, notes: str, attempt: int) -> CompleteRequest:
        said = [f"Goal: {shortened(task.goal.strip(), GOAL_CHARACTERS)}"]
        if notes:
            said.append(f"Note: {shortened(notes, GOAL_CHARACTERS // 2)}")
        if place.last < place.first:
            said.append(f"The tests use `{place.name}` like this:\n{uses(task.root, place.name)}")
            said.append(f"Write the {place.language} function `{place.name}`, which is missing in {place.path}.")
            head = f"def {place.name}("
        else:
            what = f"the {place.language} function `{place.name}` of {place.path}" if place.name else place.path
            said.append(f"The tests fail like this:\n{shortened(_failure(self._before['tail']), OUTPUT_CHARACTERS)}")
            said.append(f"This is {what}:\n{place.code}")
            head = _head(place)
        shape = {"fault": "what is wrong, in one sentence", "code": f"{head}\n    <line>\n    <line>"}
        said.append(f"Answer like this, with all of the code, each line of it on its own: {json.dumps(shape)}")
        return CompleteRequest(
            model=task.model,
            turns=[
                Turn(role=ROLE_SYSTEM, parts=[Part(text=SYSTEM)]),
                Turn(role=ROLE_USER, parts=[Part(text="\n\n".join(said))]),
            ],
            format=OutputFormat(schema=OutputSchema(name="function", schema=json.dumps(SCHEMA), strict=True)),
            sampling=Sampling(max_tokens=_tokens(place), temperature=TEMPERATURES[attempt], seed=attempt + 1),
            deadline=min(time.time() + ANSWER_S, task.deadline),
        )


def _answer(completion: Completion, place: Place) -> tuple[str, str | None]:
    """The fault and the function of an answer; no function where there is none that fits."""
    try:
        said = json.loads(completion.text)
        fault, code = str(said["fault"]), str(said["code"])
    except (ValueError, TypeError, KeyError):
        return "", None
    return " ".join(fault.split())[:300], only(place, code)


def _told(kept: list[_Tried]) -> str:
    """What was kept, in words."""
    return "; ".join(each.summary for each in kept)


def _head(place: Place) -> str:
    """The line that a function begins with."""
    lines = [each.strip() for each in place.code.splitlines() if each.strip()]
    return next((each for each in lines if not each.startswith("@")), "")


def _plain(code: str) -> str:
    """Code by what counts in it."""
    return "\n".join(each.rstrip() for each in dedent(code).splitlines() if each.strip())


def _tokens(place: Place) -> int:
    """What the answer may have: the function again, with room for another way to write it."""
    return min(200 + len(place.code) // 2, ANSWER_TOKENS) if place.code else ANSWER_TOKENS // 2


def _failure(tail: str) -> str:
    """The part of a test run's output that tells the most: from the first failure on."""
    for mark in ("= FAILURES =", "Traceback (most", "--- FAIL", "not ok ", "AssertionError", "error:"):
        at = tail.find(mark)
        if at >= 0:
            return tail[tail.rfind("\n", 0, at) + 1 :]
    return tail


def _read(root: Path, path: str) -> str:
    return (root / path).read_bytes().decode("utf-8", "surrogateescape")


def _write(root: Path, tried: _Tried) -> None:
    (root / tried.place.path).write_bytes(tried.text.encode("utf-8", "surrogateescape"))
