"""Suppressions: what a baseline sets aside, and what counts all the same.

A baseline never comes from the scanned tree: whoever wrote that may not decide what is overlooked.
"""

from collections.abc import Iterable
from datetime import date

from periphery.mcnamara.findings import Finding
from protos.baseline import Accepted, read

__all__ = ["Accepted", "read", "split"]


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
