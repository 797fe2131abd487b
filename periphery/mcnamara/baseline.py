"""Suppressions: findings that a person has looked at and accepts, for a while.

A baseline is JSON that the operator hands in beside what is scanned:

    {"version": 1, "accepted": [
      {"id": "mcn-0123456789abcdef", "reason": "fixture of a test", "who": "ada", "until": "2027-03-31"}]}

It never comes from the scanned tree: whoever wrote that may not decide what is overlooked. Each entry says why, who
and until when; from the day after `until` (UTC) the finding counts again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from periphery.mcnamara.findings import Finding
from protos.errors import InvalidArgument

FIELDS = {"id", "reason", "who", "until"}


@dataclass(frozen=True)
class Accepted:
    """One finding a person accepts."""

    id: str
    reason: str
    who: str
    until: date  # the last day it holds


def read(text: str) -> list[Accepted]:
    """The entries of a baseline.

    Raises:
        InvalidArgument: it is no baseline, or an entry lacks a reason, a name or a date.
    """
    try:
        whole = json.loads(text)
        entries = whole["accepted"]
        if whole["version"] != 1 or not isinstance(entries, list):
            raise ValueError("version 1 with a list `accepted` is what is read")
        return [_entry(number, each) for number, each in enumerate(entries, 1)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgument(
            f"The baseline cannot be read: {error}.",
            next='It is {"version": 1, "accepted": [{"id", "reason", "who", "until": "YYYY-MM-DD"}]}.',
        ) from error


def _entry(number: int, value: dict[str, str]) -> Accepted:
    if set(value) != FIELDS or not all(isinstance(each, str) and each.strip() for each in value.values()):
        raise ValueError(f"entry {number} needs exactly {', '.join(sorted(FIELDS))}, none empty")
    return Accepted(value["id"], value["reason"], value["who"], date.fromisoformat(value["until"]))


def split(
    findings: Iterable[Finding], accepted: Iterable[Accepted], today: date
) -> tuple[list[Finding], list[tuple[Finding, Accepted]]]:
    """The findings that count, and those that are accepted today."""
    valid = {each.id: each for each in accepted if each.until >= today}
    counting: list[Finding] = []
    suppressed: list[tuple[Finding, Accepted]] = []
    for finding in findings:
        entry = valid.get(finding["id"])
        if entry is None:
            counting.append(finding)
        else:
            suppressed.append((finding, entry))
    return counting, suppressed
