"""What `scan` makes of how a run ended, and of the files that a person hands it."""

from pathlib import Path
from typing import Any

import pytest

from core.grace.cli.client import Fault
from core.grace.cli.scanning import failed, parsed, read_baseline
from protos.errors import InvalidArgument


def a_run(outcome: str, sender: str, code: str) -> dict[str, Any]:
    said = {"code": code, "message": "'x' is no archive.", "next": "Give a zip."}
    fault = {"kind": "fault", "sender": sender, "text": "", "data": said}
    return {"id": "mcnamara-1", "mad": "mcnamara", "outcome": outcome, "reason": "it ended", "messages": [fault]}


def test_a_run_that_failed_for_a_mistake_in_what_was_asked_says_the_mistake() -> None:
    told = failed(a_run("failed", "mcnamara", "invalid_argument"))
    assert told.is_mistake
    assert (told.message, told.next) == ("'x' is no archive.", "Give a zip. See: madlab show mcnamara-1")


@pytest.mark.parametrize(
    "run",
    [
        a_run("failed", "mcnamara", "internal"),
        a_run("failed", "hopper", "invalid_argument"),  # who worked for it, and was asked wrongly by it
        a_run("timed_out", "mcnamara", "invalid_argument"),
    ],
)
def test_whatever_else_ended_a_run_is_its_failure(run: dict[str, Any]) -> None:
    told = failed(run)
    assert not told.is_mistake
    assert (told.said, told.message) == (run["outcome"], f"the run mcnamara-1 ended {run['outcome']}: it ended")


@pytest.mark.parametrize("content", [b"[]", b"[" * 100_000, b"\xff"])
def test_a_malformed_report_is_the_runs_failure_and_no_lab_that_cannot_be_reached(content: bytes) -> None:
    with pytest.raises(Fault, match="the report of mcnamara-1 is malformed") as told:
        parsed(content, a_run("succeeded", "mcnamara", ""))
    assert not told.value.is_mistake


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[]", "it is no object"),
        ('{"run": "r", "findings": []}', "it is a scan's report"),
        ('{"version": 1}', "it has no list `accepted`"),
        ('{"version": 1, "accepted": [{"id": "mcn-1"}]}', "entry 1 needs exactly id, reason, until, who, none empty"),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        (" " * (5 << 20), "is larger than"),
    ],
)
def test_what_is_no_baseline_is_told_before_anything_is_sent(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "baseline.json").write_text(text)
    with pytest.raises(InvalidArgument, match=wrong) as told:
        read_baseline(tmp_path / "baseline.json")
    assert '"accepted": [{"id", "reason", "who", "until": "YYYY-MM-DD"}]' in told.value.next
