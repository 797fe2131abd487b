"""A report of a scan is always one that the lab reads, however much was found or left out."""

import json

from core.grace.reports import parse
from periphery.mcnamara.scan import SKIPPED, Staged, scan


async def no_progress(what: str, done: int, total: int) -> None:
    """Nobody watches."""


async def test_of_too_many_skipped_files_those_that_could_not_be_read_are_listed_and_the_rest_is_one_row() -> None:
    skipped = {f"link-{number:06}": "a link" for number in range(SKIPPED + 10_000)}
    staged = Staged([], skipped=skipped, unread={"zip": "damaged"})
    scanned = await scan(staged, [], [], run="mcnamara-1", progress=no_progress)
    report = parse(json.dumps(scanned.report).encode(), {"id": "mcnamara-1", "outcome": "partial"})
    rows = {each.path: each.reason for each in report.coverage.skipped}
    assert len(rows) == SKIPPED
    assert rows["zip"] == "damaged"
    assert report.coverage.skipped[-1].path == "(10,002 more)"
