"""A scan's report as the faces of the lab know it: checked for its shape, ordered, filtered, set against another one.

It was written in a sandbox by a program that read hostile files. So it is data of a known shape and size or it is
nothing, and which run it belongs to and how that ended is the core's word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from protos.errors import Unavailable

FINDINGS, SKIPPED = 20_000, 50_000  # that a report lists: all that a scan leaves has a place


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
    skipped: Annotated[tuple[Skipped, ...], Field(max_length=SKIPPED), FailFast()]
    scanners: Annotated[tuple[Scanner, ...], Field(max_length=1000), FailFast()]


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

    @property
    def place(self) -> str:
        """Where it is: a path, with the line where there is one."""
        return f"{self.path}:{self.line}" if self.line else self.path


class Report(_Part):
    """The whole of it."""

    run: str
    outcome: str
    coverage: Coverage
    findings: Annotated[tuple[Finding, ...], Field(max_length=FINDINGS), FailFast()]


def parse(content: bytes, run: dict[str, Any]) -> Report:
    """The report of `run`.

    Raises:
        Unavailable: it is not of the shape that a report has.
    """
    try:
        found = Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "too_long":
            raise Unavailable(
                f"the report of {run['id']} is too big: over {first['ctx']['max_length']:,} {place}",
                next="take the file itself: report.json, among what the run left",
            ) from None
        raise Unavailable(
            f"the report of {run['id']} is malformed at {place or 'its start'}: {first['msg']}",
            next=f"see what the worker wrote: madlab logs {run['id']}",
        ) from None
    return found.model_copy(update={"run": run["id"], "outcome": run["outcome"]})


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """In the order a person reads them."""
    return sorted(findings, key=lambda each: (-RISING.index(each.severity), each.path, each.line))


def counts(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many there are of each severity."""
    return {level: sum(each.severity is level for each in findings) for level in RISING}


@dataclass(frozen=True)
class Wanted:
    """Which findings are asked for; what is empty asks for nothing in particular."""

    severity: str = ""
    rule: str = ""
    path: str = ""
    text: str = ""

    def has(self, finding: Finding) -> bool:
        """Whether it is one of them."""
        if self.severity and finding.severity != self.severity:
            return False
        if (self.rule and finding.rule != self.rule) or (self.path and finding.path != self.path):
            return False
        words = f"{finding.rule}\n{finding.path}\n{finding.message}\n{finding.cwe}".casefold()
        return not self.text or self.text.casefold() in words


@dataclass(frozen=True)
class Comparison:
    """What has changed since an earlier scan, told by the ids of findings, which outlive edits around them."""

    new: list[str]
    still: list[str]
    gone: list[Finding]


def compared(now: Report, before: Report) -> Comparison:
    """Sets a report against an earlier one."""
    known, there = {each.id for each in before.findings}, {each.id for each in now.findings}
    return Comparison(
        new=[each.id for each in now.findings if each.id not in known],
        still=[each.id for each in now.findings if each.id in known],
        gone=worst_first([each for each in before.findings if each.id not in there]),
    )
