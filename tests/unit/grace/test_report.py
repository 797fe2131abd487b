"""A report is data of a known shape, or it is nothing."""

import json
from typing import Any

import pytest

from core.grace.cli.report import says_no, show
from core.grace.reports import Severity, parse
from protos.errors import Unavailable

RUN = {"id": "mcnamara-1", "outcome": "partial"}


def a_report(**changes: Any) -> dict[str, Any]:
    finding = {
        "id": "mcn-1", "rule": "B602", "severity": "high", "confidence": "medium", "cwe": "CWE-78", "path": "a.py",
        "line": 3, "snippet": "shell", "message": "A shell runs this.", "fix": "Pass a list.", "scanners": ["bandit"],
    }  # fmt: skip
    coverage = {
        "files": 2,
        "scanned": 1,
        "skipped": [{"path": "b.bin", "reason": "binary"}],
        "scanners": [{"name": "bandit", "version": "1", "state": "ok"}],
    }
    return {"run": "forged", "outcome": "succeeded", "coverage": coverage, "findings": [finding]} | changes


def encoded(report: dict[str, Any]) -> bytes:
    return json.dumps(report).encode()


def test_run_and_outcome_are_the_cores_word() -> None:
    report = parse(encoded(a_report()), RUN)
    assert (report.run, report.outcome) == ("mcnamara-1", "partial")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"run": 1}',
        encoded(a_report(findings=[{"id": "x"}])),
        encoded(a_report(coverage={"files": -1, "scanned": 0, "skipped": [], "scanners": []})),
        encoded(a_report(findings=[{**a_report()["findings"][0], "severity": "fine"}])),
        b"[" * 100_000,
    ],
)
def test_a_malformed_report_is_refused_with_one_sentence(content: bytes) -> None:
    with pytest.raises(Unavailable, match="the report of mcnamara-1 is malformed") as told:
        parse(content, RUN)
    assert "\n" not in told.value.message


@pytest.mark.parametrize(
    ("threshold", "no"),
    [(None, False), (Severity.LOW, True), (Severity.MEDIUM, True), (Severity.HIGH, True), (Severity.CRITICAL, False)],
)
def test_the_threshold_decides(threshold: Severity | None, no: bool) -> None:
    assert says_no(parse(encoded(a_report()), RUN), threshold) is no


def test_the_table_shows_escapes_as_text_and_says_what_was_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    finding = {**a_report()["findings"][0], "path": "\x1b[31mevil\n.py", "message": "[bold]no markup[/bold]"}
    show(parse(encoded(a_report(findings=[finding])), RUN), "one scanner crashed")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[31mevil\\n.py:3" in shown
    assert "[bold]no markup[/bold] Mend: Pass a list." in shown
    assert "partial: 1 high. one scanner crashed" in shown
    assert "Scanned 1 of 2 files, skipped:" in shown
    assert "b.bin: binary" in shown
