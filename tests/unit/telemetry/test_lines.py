"""What of a log line is told: what happened, and to what, never what somebody said."""

from collections.abc import MutableMapping
from typing import Any

from core.telemetry.logs import MOST, Lines, told

LINE: MutableMapping[str, Any] = {
    "event": "a run failed", "level": "error", "timestamp": "now", "run": "hopper-1", "number": 15, "ok": True,
    "reason": "planted", "path": "/planted", "mads": ["planted"], "mad": "planted by a\nstranger",
}  # fmt: skip


def test_ids_and_numbers_are_told_and_words_are_not() -> None:
    line = told(LINE, "error")
    assert (line.event, line.level, dict(line.attributes)) == (
        "a run failed", "error", {"run": "hopper-1", "number": 15, "ok": True}
    )  # fmt: skip


def test_of_an_exception_its_type_is_told() -> None:
    try:
        raise ValueError("planted")
    except ValueError:
        line = told({"event": "it failed", "exc_info": True}, "exception")
    assert dict(line.attributes) == {"exception.type": "ValueError"}


def test_lines_pass_as_they_are_and_are_kept_only_while_somebody_takes_them() -> None:
    lines = Lines()
    assert lines(None, "error", LINE) is LINE
    assert len(lines) == 0
    lines.open = True
    for _ in range(MOST + 5):
        lines(None, "error", LINE)
    assert (len(lines), lines.dropped) == (MOST, 5)
    assert len(lines.take(10)) == 10
    assert len(lines) == MOST - 10
