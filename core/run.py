"""The life of one run, as a table.

Rules of this file: everything that decides which state may follow which lives here; nothing here does I/O.

A run goes right along the first row, and may leave it early. `collecting` is where its outcome is fixed: before that
line the outcome is open, after it nothing changes it. `destroyed` is the only end, so that whatever was created is
gone when a run has ended. An illegal move raises and changes nothing.

    requested → admitted → starting → ready → running → collecting → destroyed
        │           │          │        │                    ▲
        └───────────┴──────────┴────────┴────────────────────┘   cancelled, timed out, failed to start

`admitted`: it holds its share of the machine. `starting`: its sandbox is being made, or a warm one claimed.
`ready`: its worker has attached. `running`: the worker was told what it is for.
"""

import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from protos.errors import Conflict
from protos.v1.message_pb2 import KIND_CALL, Message

TITLE = 160  # characters of a run's title
GOALS = (  # what a call is about, the arguments that say it best first
    *("goal", "task", "question", "prompt", "command", "url", "query", "q", "text", "message", "target", "path"),
    *("file", "tool", "title", "name"),
)
RESUMES = "resumes"  # the argument of a call that names the run it goes on from
RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}-[0-9a-f]{10}")
DIGEST = re.compile(r"(?:sha256:)?[0-9a-fA-F]{32,}")  # it says nothing to a person


class State(StrEnum):
    """Where a run stands."""

    REQUESTED = "requested"
    ADMITTED = "admitted"
    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    COLLECTING = "collecting"
    DESTROYED = "destroyed"


class Outcome(StrEnum):
    """What it came to. Only `succeeded` is green."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_BUDGET = "out_of_budget"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    STUCK = "stuck"
    LOST = "lost"
    KILLED = "killed"


FOLLOWS: dict[State, frozenset[State]] = {
    State.REQUESTED: frozenset({State.ADMITTED, State.COLLECTING}),
    State.ADMITTED: frozenset({State.STARTING, State.COLLECTING}),
    State.STARTING: frozenset({State.STARTING, State.READY, State.COLLECTING}),  # again: a start that a crash cut off
    State.READY: frozenset({State.RUNNING, State.STARTING, State.COLLECTING}),
    State.RUNNING: frozenset({State.RUNNING, State.COLLECTING}),  # again: a renewed credential, a wish to cancel
    State.COLLECTING: frozenset({State.DESTROYED}),
    State.DESTROYED: frozenset(),
}

TAKEN_BACK = frozenset({State.READY, State.RUNNING})  # states with a worker that outlives the core

# What a worker may say of itself; everything else is the core's to say.
WORKER_OUTCOMES = frozenset(
    {
        Outcome.SUCCEEDED,
        Outcome.PARTIAL,
        Outcome.FAILED,
        Outcome.STUCK,
        Outcome.OUT_OF_BUDGET,
        Outcome.OUT_OF_DISK,
    }
)


@dataclass(frozen=True)
class Run:
    """One run as the table of runs holds it. Times are seconds since the epoch, 0 while not reached."""

    id: str
    mad: str
    conversation: str
    trigger: str  # id of the message it is for
    trigger_sequence: int
    state: State
    created: float
    outcome: Outcome | None = None
    started: float = 0.0
    ended: float = 0.0
    deadline: float = 0.0
    reason: str = ""
    sandbox: str = ""  # its name in the engine
    token: str = ""  # SHA-256 of the one-use token
    credential: str = ""  # SHA-256 of the session credential
    confirmed: bool = False  # the worker has used its credential: the token is dead
    parent: str = ""  # the run that asked for it
    terms: dict[str, Any] = field(default_factory=dict)  # what whoever asked has set: usd, tokens, seconds, image, web
    cancel: str = ""  # why it shall end, once somebody asked
    killed: bool = False  # the core ends it for what it did: this is no wish
    cost: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    title: str = ""  # what it is for, in one line
    resumes: str = ""  # the run that it goes on from, as whoever asked for it says
    asker: str = ""  # who asked for it, or for the run that it works for: "operator", "client:NAME", a resident
    forgotten: float = 0.0  # when its conversation was, for good; 0 where it was not
    changed: int = 0  # the sequence of the last entry about it, as of when it was read from the table

    @property
    def live(self) -> bool:
        """Whether something of it may still exist."""
        return self.state is not State.DESTROYED


def forgotten(run: str, at: float) -> str:
    """Why nothing is there any more of what a run has made, in a sentence; `at` is in seconds since the epoch."""
    day = time.strftime("%Y-%m-%d", time.gmtime(at))
    return f"The conversation of {run} was forgotten on {day} (UTC), and what the run had made with it."


def check_move(current: State, next: State) -> None:
    """
    Raises:
        Conflict: the table does not allow the move.
    """
    if next not in FOLLOWS[current]:
        raise Conflict(f"A run that is {current} cannot become {next}.")


def title_of(message: Message) -> str:
    """What a run that `message` starts is for, in one line of at most 160 characters: its goal, or the call itself."""
    if message.kind != KIND_CALL:
        return _one_line(message.text)
    arguments = {name: each for name, each in _arguments(message).items() if not _is_mute(each)}
    goal = next((arguments[each] for each in GOALS if isinstance(arguments.get(each), str)), None)
    if goal is not None:
        return _one_line(f"{message.tool}: {goal}")
    shown = ", ".join(f"{key}={_one_line(json.dumps(value, ensure_ascii=False))}" for key, value in arguments.items())
    return _one_line(f"{message.tool}({shown})")


def resumed_by(message: Message) -> str:
    """The run that a call names as the one it goes on from; empty where it names none. Not checked: for people."""
    named = _arguments(message).get(RESUMES) if message.kind == KIND_CALL else None
    return named if isinstance(named, str) and RUN_ID.fullmatch(named) else ""


def _arguments(message: Message) -> dict[str, Any]:
    """What a call was asked with; nothing where that cannot be read."""
    try:
        arguments = json.loads(message.data or "{}")
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _is_mute(value: object) -> bool:
    """Whether an argument tells a person nothing: a digest, or nothing at all."""
    if isinstance(value, list):
        return all(map(_is_mute, value))
    return value is None or (isinstance(value, str) and (not value.strip() or DIGEST.fullmatch(value) is not None))


def _one_line(text: str) -> str:
    """`text` without line ends and what else a line cannot hold, cut."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * TITLE]).split())
    return words if len(words) <= TITLE else f"{words[: TITLE - 1]}…"


def run_id(key: bytes, mad: str, trigger: str) -> str:
    """The id of the run that `trigger` starts: always the same one.

    It is short, for people, and who chooses a message's id must not choose a run's with it: hence the lab's secret.
    """
    return f"{mad}-{hmac.digest(key, chr(0).join(('run', mad, trigger)).encode(), 'sha256').hex()[:10]}"


def judge(outcome: Outcome, evidence: Mapping[str, Any], needed: tuple[str, ...]) -> tuple[Outcome, str]:
    """What a worker's word is worth: `succeeded` without the evidence its manifest names is `failed`."""
    if outcome not in WORKER_OUTCOMES:
        return Outcome.FAILED, f"The worker claimed the outcome {outcome}, which is not a worker's to say."
    missing = [each for each in needed if each not in evidence]
    if outcome is Outcome.SUCCEEDED and missing:
        return Outcome.FAILED, f"The worker claimed success without its evidence: {', '.join(missing)}."
    return outcome, ""
