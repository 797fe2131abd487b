"""Agents played by the model server, good and bad, as an agent of Hopper's own loop meets its model over HTTP.

An agent is a script: it reads in each request how far the work is and says what comes next. Where it stands is told
by the ids of its own tool calls, which come back with every request: so it goes on where it was when a request is
repeated, when the core was killed between two, and when old turns are left out. Its name is the model's name, so that
one server plays all of them, to many runs at once.

`bad.py` holds those who do not play fair; beside each stands what its run must come to, whatever it says of itself.
`troupe.py` is everybody together, as the script of one server.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from tests.model_server import Play, Request
from tests.repositories import Seeded

Step = Mapping[str, Any]
Tries: TypeAlias = tuple[Step | Play, ...]
ADVICE = "change nothing"  # what planners and reviewers are told
STANDS = re.compile(r"a(\d+)s(\d+)_\d+")


@dataclass(frozen=True)
class Heard:
    """What a request tells of the work so far."""

    attempt: int  # which conversation of this agent's it is, from 0; -1: a new one
    step: int  # the step that was played last; -1: none yet
    results: list[str]  # what the tools answered, oldest first
    said: str  # everything else, the instructions first
    tools: frozenset[str]  # the tools that are offered


def heard(request: Request) -> Heard:
    """Reads a request of either protocol."""
    body = request.body
    said, results, ids = [_text(body.get("system"))], list[str](), list[str]()
    for message in body["messages"]:
        content = message.get("content")
        if message["role"] == "tool":
            results.append(_text(content))
            continue
        ids += [each["id"] for each in message.get("tool_calls") or ()]
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "tool_use":
                ids.append(part["id"])
            if part.get("type") == "tool_result":
                results.append(_text(part.get("content")))
        said.append(_text(content))
    stands = next((found for each in reversed(ids) if (found := STANDS.fullmatch(each))), None)
    attempt, step = (int(each) for each in stands.groups()) if stands else (-1, -1)
    names = {each.get("function", each)["name"] for each in body.get("tools") or ()}
    return Heard(attempt, step, results, "\n".join(said), frozenset(names))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


@dataclass(frozen=True)
class Until:
    """Waits, a command at a time, until it has been told some words."""

    words: str
    pause_s: float = 0.3


@dataclass
class Agent:
    """Somebody to play. What it was told stays in `heard`.

    A step that is a tuple is tried: each time the same place is reached, the next of it is played, the last again and
    again. Only that one counts as done, so the others may be answers that break.
    """

    name: str
    does: str  # for people
    steps: Callable[[int], Sequence[Step | Play | Tries | Until]]  # of one attempt, by its number
    repository: str = "python-unittest"
    outcome: str = "succeeded"  # what its run comes to
    or_else: str = ""  # or this, where chance decides
    for_ever: bool = False  # the last step is played again and again; else the model has nothing more to say
    many: bool = False  # its attempts differ
    terms: Sequence[str] = ()  # what a person would add to `madlab code`
    heard: list[Heard] = field(default_factory=list)
    reached: Counter[tuple[int, int]] = field(default_factory=Counter)
    attempts: int = 0

    def __call__(self, request: Request) -> Play:
        """What it says now."""
        told = heard(request)
        self.heard.append(told)
        if ADVICE in told.said:
            return Play(text="", calls=[called({"tool": "finish", "summary": "As you think.", "done": True})])
        attempt = max(told.attempt, 0)
        if told.attempt < 0 and self.many:
            attempt, self.attempts = self.attempts, self.attempts + 1
        steps = self.steps(attempt)
        at = told.step + 1
        if at >= len(steps):
            if not self.for_ever:
                return Play(text="There is nothing left to do.")
            at = len(steps) - 1
        step = steps[at]
        if isinstance(step, Until) and step.words in told.said:
            at += 1
            step = steps[at]
        stands = f"a{attempt}s{at}"
        if isinstance(step, Until):
            self.reached[attempt, at] += 1
            times = self.reached[attempt, at]
            wait = run(f"sleep {step.pause_s}; echo {times}")
            return Play(text="I wait.", calls=[called(wait)], call_id=f"waits{times}")
        if isinstance(step, tuple):
            times = self.reached[attempt, at]
            self.reached[attempt, at] += 1
            if times < len(step) - 1:
                stands = f"broken{times}"
            step = step[min(times, len(step) - 1)]
        if isinstance(step, Play):
            return replace(step, call_id=stands)
        return Play(text=f"Step {at + 1}.", calls=[called(step)], call_id=stands)

    @property
    def results(self) -> list[str]:
        """What the tools answered to it, in the longest of its conversations."""
        return max((each.results for each in self.heard), key=len, default=[])


def called(step: Step) -> tuple[str, str]:
    """A step as a tool call."""
    arguments = {name: value for name, value in step.items() if name != "tool"}
    return str(step["tool"]), json.dumps(arguments, ensure_ascii=False)


def good(repository: Seeded) -> Agent:
    """Does what stands in `repository.toml`."""
    return Agent(f"good/{repository.name}", "mends it", always(*repository.steps), repository.name, repository.outcome)


def always(*steps: Step | Play | Tries | Until) -> Callable[[int], Sequence[Step | Play | Tries | Until]]:
    """The same in every attempt."""
    return lambda _: steps


def run(command: str, **more: Any) -> Step:
    """A step that runs a command."""
    return {"tool": "run", "command": command.strip(), **more}
