"""What an attempt has shown, which of several is best, and what the run has come to: plain data and plain rules.

The one thing that makes a run green is a test command that passes on the original tree plus only the patch, in a
sandbox that no agent has touched. What an agent says of its own work counts for nothing here; it is kept beside the
proof, so that people can compare the two.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from core.coding.controls import Control
from core.run import Outcome
from protos.treerules import escaped

TestResult = Mapping[str, Any]  # as `hopper.test` returns it

# Evidence goes into the journal, so it is of bounded size: how many of each kind, and the characters of each.
LISTED, PATH = 50, 100
COMMANDS = 100
TEXT = 4096
EVIDENCE_BYTES = 128 * 1024  # of all of it as JSON

# How an attempt that was not proved ended, the most telling first: it is what the run has come to.
_TELLING = (
    Outcome.OUT_OF_BUDGET,
    Outcome.STUCK,
    Outcome.TIMED_OUT,
    Outcome.OUT_OF_MEMORY,
    Outcome.OUT_OF_DISK,
    Outcome.KILLED,
    Outcome.LOST,
)


@dataclass
class Attempt:
    """One try at the goal, and what is known of it on the trusted side."""

    number: int
    claimed: Outcome = Outcome.FAILED  # what its worker came to, by its own word or by the core's
    reason: str = ""
    worked: Mapping[str, Any] = field(default_factory=dict)  # what `hopper.work` returned
    files: int = 0
    added: int = 0
    removed: int = 0
    refused: Sequence[tuple[str, str]] = ()  # paths left out of the patch, and why: the first
    unlisted: int = 0  # paths left out, too
    flags: Sequence[tuple[str, int, str]] = ()  # path, line, what a person should look at
    tests_changed: Sequence[str] = ()  # tests that were there and read differently now, and files that steer tests
    proof: TestResult | None = None  # the clean room
    original: TestResult | None = None  # the same with the tests as they were, where the patch changes any
    missing: int = 0  # tests that ran before and do not run in the clean room
    control: Control | None = None  # whether the clean room's word is worth anything, where it was green
    review: str = ""  # what a reviewer said

    @property
    def proved(self) -> bool:
        """Whether its patch passes the tests in a clean sandbox, as far as that shows anything."""
        return bool(self.proof and self.proof["found"] and self.proof["passed"]) and not self.tampered

    @property
    def tampered(self) -> bool:
        """Whether its tests pass without being able to fail."""
        return self.control is not None and self.control.state == "unnoticed"

    @property
    def lucky(self) -> int:
        """How many tests passed in one clean sandbox and not in another."""
        return self.control.lucky if self.control is not None else 0

    @property
    def weakened(self) -> Sequence[str]:
        """Tests that were changed, and without whose change the patch does not pass."""
        return self.tests_changed if self.original is not None and not self.original["passed"] else ()


def missing_tests(before: TestResult | None, proof: TestResult) -> int:
    """How many tests ran on the untouched tree and not in the clean room: a program that ends early looks green."""
    if before is None or not before.get("counts"):
        return 0
    return max(_ran(before) - _ran(proof), 0)


def _ran(result: TestResult) -> int:
    counts = result.get("counts") or {}
    return sum(int(counts.get(each, 0)) for each in ("passed", "failed"))


def best(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt with the best evidence: proved, with the tests as they were, nothing refused or flagged, short."""
    return min(attempts, key=_order)


def _order(attempt: Attempt) -> tuple[Any, ...]:
    return (
        not attempt.proved,
        bool(attempt.weakened) or attempt.missing > 0 or attempt.lucky > 0,
        bool(attempt.refused),
        len(attempt.flags),
        not attempt.files,
        attempt.claimed is not Outcome.SUCCEEDED,
        attempt.added + attempt.removed,
        attempt.number,
    )


def outcome_of(attempt: Attempt) -> tuple[Outcome, str]:
    """What the run has come to with this attempt as its best, and one sentence why."""
    if attempt.tampered and attempt.control:
        files = ", ".join(map(escaped, attempt.control.files[:5]))
        why = f"The tests pass and cannot fail: one that must, put into {files}, goes unnoticed."
        return Outcome.PARTIAL, f"{why} What runs the tests was tampered with."
    if attempt.proved and attempt.weakened:
        changed = ", ".join(map(escaped, attempt.weakened[:5]))
        return Outcome.PARTIAL, f"The tests pass only with changes to the tests or to what runs them: {changed}."
    if attempt.proved and attempt.missing:
        return Outcome.PARTIAL, f"The test command passes, and {attempt.missing} tests that ran before did not run."
    if attempt.proved and attempt.lucky:
        return Outcome.PARTIAL, f"The tests pass, and {attempt.lucky} of them fail when they are run once more."
    if attempt.proved and attempt.refused:
        path, why = attempt.refused[0]
        parts = len(attempt.refused) + attempt.unlisted
        more = f"{parts:,} parts of the patch were refused, the first" if parts > 1 else "a part of it was refused"
        return Outcome.PARTIAL, f"The tests pass, and {more}: {path!r}: {why}."
    if attempt.proved and attempt.files:
        return Outcome.SUCCEEDED, ""
    if attempt.claimed in _TELLING:
        return attempt.claimed, attempt.reason
    if not attempt.files:
        return Outcome.FAILED, attempt.reason or "Nothing was changed."
    if attempt.proof is None or not attempt.proof["found"]:
        return Outcome.PARTIAL, "There is a patch, and no test command that could show whether it works."
    claim = " Its author said it was done." if attempt.claimed is Outcome.SUCCEEDED else ""
    return Outcome.FAILED, f"The tests do not pass on a clean copy with only the patch.{claim}"


def as_json(before: TestResult | None, attempt: Attempt, others: Sequence[Attempt]) -> dict[str, Any]:
    """The evidence of a run."""
    worked = attempt.worked
    evidence = {
        "tests_before": before,
        "tests_after": worked.get("tests_after"),
        "clean_room": attempt.proved if attempt.proof is not None else None,
        "clean_room_tests": attempt.proof,
        "original_tests": attempt.original,
        "red_first": bool(before and before["found"] and not before["passed"]) or bool(worked.get("red_first")),
        "tests_changed": _shown(attempt.tests_changed),
        "tests_weakened": _shown(attempt.weakened),
        "tests_missing": attempt.missing,
        "control": _control(attempt.control),
        "refused": [{"path": escaped(path, PATH), "reason": reason[:300]} for path, reason in attempt.refused[:LISTED]],
        "flags": [
            {"path": escaped(path, PATH), "line": line, "what": what[:300]}
            for path, line, what in attempt.flags[:LISTED]
        ],
        "counts": {
            "refused": len(attempt.refused) + attempt.unlisted,
            "flags": len(attempt.flags),
            "tests_changed": len(attempt.tests_changed),
        },
        "claimed": str(attempt.claimed),
        "summary": str(worked.get("summary", "")),
        "agent": str(worked.get("agent", "")),
        "model": str(worked.get("model", "")),
        "small_model": bool(worked.get("small")),
        "commands": list(worked.get("commands") or ())[-COMMANDS:],
        "steps": worked.get("steps", 0),
        "seconds": {key: worked.get(f"{key}_seconds", 0.0) for key in ("model", "command", "loop")},
        "review": attempt.review,
        "attempt": attempt.number,
        "attempts": [
            {
                "attempt": each.number,
                "claimed": str(each.claimed),
                "clean_room": each.proved,
                "files": each.files,
                "added": each.added,
                "removed": each.removed,
                "reason": each.reason,
            }
            for each in sorted((attempt, *others), key=lambda each: each.number)
        ],
    }
    kept: dict[str, Any] = _Keeping(EVIDENCE_BYTES).kept(evidence)
    return kept


@dataclass
class _Keeping:
    """Takes plain data over, as much of it as there is room for; workers wrote most of it."""

    room: int  # bytes

    def kept(self, value: Any) -> Any:
        if isinstance(value, str):
            text = value[:TEXT].encode("utf-8", "replace").decode()
            self.room -= len(json.dumps(text, ensure_ascii=False).encode()) + 2
            return text if self.room > 0 else ""
        if isinstance(value, Mapping):
            return {self.kept(str(key)): self.kept(each) for key, each in value.items() if self.room > 0}
        if isinstance(value, (list, tuple)):
            return [self.kept(each) for each in value if self.room > 0]
        self.room -= 8
        if isinstance(value, float):
            return value if isfinite(value) else 0.0
        return value if value is None or (isinstance(value, int) and abs(value) < 2**53) else 0


def _control(control: Control | None) -> dict[str, Any] | None:
    if control is None:
        return None
    return {"state": control.state, "why": control.why, "files": _shown(control.files), "lucky": control.lucky}


def _shown(paths: Sequence[str]) -> list[str]:
    return [escaped(each, PATH) for each in paths[:LISTED]]
