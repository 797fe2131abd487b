"""A scan's report: checked for its shape, shown as a table, turned into an exit code.

It was written in a sandbox by a program that read hostile files. So it is data of a known shape and size or it is
nothing, and which run it belongs to and how that ended is the core's word.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.grace.cli import screen
from protos.errors import Unavailable

MANY = 100_000
SKIPPED_SHOWN = 10
COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


class Severity(StrEnum):
    """How bad a finding is, in rising order."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


RISING = list(Severity)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Skipped(_Part):
    """A file that was not scanned."""

    path: str
    reason: str


class Scanner(_Part):
    """What one scanner did."""

    name: str
    version: str
    state: str


class Coverage(_Part):
    """What was looked at."""

    files: Annotated[int, Field(ge=0)]
    scanned: Annotated[int, Field(ge=0)]
    skipped: Annotated[tuple[Skipped, ...], Field(max_length=MANY)]
    scanners: Annotated[tuple[Scanner, ...], Field(max_length=1000)]


class Finding(_Part):
    """One thing found."""

    id: str
    rule: str
    severity: Severity
    confidence: Literal["low", "medium", "high"]
    cwe: str
    path: str
    line: Annotated[int, Field(ge=0)]
    snippet: str
    message: str
    fix: str
    scanners: tuple[str, ...]


class Report(_Part):
    """The whole of it."""

    run: str
    outcome: str
    coverage: Coverage
    findings: Annotated[tuple[Finding, ...], Field(max_length=MANY)]


def parse(content: bytes, run: dict[str, Any]) -> Report:
    """The report of `run`.

    Raises:
        Unavailable: it is not of the shape that a report has.
    """
    try:
        found = Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Unavailable(
            f"the report of {run['id']} is malformed at {place or 'its start'}: {first['msg']}",
            next=f"see what the worker wrote: madlab logs {run['id']}",
        ) from None
    return found.model_copy(update={"run": run["id"], "outcome": run["outcome"]})


def says_no(report: Report, fail_on: Severity | None) -> bool:
    """Whether anything is at least as bad as the operator accepts. Without a threshold nothing is."""
    return fail_on is not None and any(RISING.index(each.severity) >= RISING.index(fail_on) for each in report.findings)


def show(report: Report, reason: str) -> None:
    """Prints the report for a person: the worst first."""
    from rich.text import Text

    ordered = sorted(report.findings, key=lambda each: (-RISING.index(each.severity), each.path, each.line))
    rows = [
        (
            Text(each.severity, style=COLOURS[each.severity]),
            Text(screen.plain(f"{each.path}:{each.line}" if each.line else each.path)),
            each.rule,
            f"{each.message} Mend: {each.fix}" if each.fix else each.message,
        )
        for each in ordered
    ]
    if rows:
        screen.table(("SEVERITY", "PLACE", "RULE", "WHY, AND HOW TO MEND IT"), rows)
        screen.say()
    counts = ", ".join(
        f"{count} {level}" for level in reversed(RISING) if (count := sum(each.severity == level for each in ordered))
    )
    coverage = report.coverage
    screen.say(f"{report.outcome}: {counts or 'nothing found'}. {reason}".strip())
    screen.say(
        f"Scanned {coverage.scanned:,} of {coverage.files:,} files" + (", skipped:" if coverage.skipped else ".")
    )
    for each in coverage.skipped[:SKIPPED_SHOWN]:
        screen.say(f"  {screen.plain(each.path)}: {screen.plain(each.reason)}")
    if len(coverage.skipped) > SKIPPED_SHOWN:
        screen.say(f"  and {len(coverage.skipped) - SKIPPED_SHOWN:,} more: see --format json")
    for scanner in coverage.scanners:
        screen.say(f"  {screen.plain(f'{scanner.name} {scanner.version}'.strip())}: {screen.plain(scanner.state)}")
