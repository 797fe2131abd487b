"""A report of a scan is always one that the lab reads, however much was found or left out."""

import json
from pathlib import Path

import pytest

from core.grace.reports import parse
from periphery.mcnamara.scan import SKIPPED, Staged, fill_with_archive, scan
from periphery.mcnamara.stage import Stage
from protos.errors import InvalidArgument
from tests.unit.mcnamara.crafted import tarred, zipped


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


@pytest.mark.parametrize(
    ("content", "name"), [(zipped({}), "x.zip"), (tarred(mode="w:gz"), "x.tar.gz")], ids=["zip", "tar.gz"]
)
def test_an_archive_without_a_member_is_as_wrong_as_an_empty_directory(
    tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / "source").write_bytes(content)
    with pytest.raises(InvalidArgument, match=f"'{name}' holds no file"):
        fill_with_archive(tmp_path / "source", Stage(tmp_path / "stage"), name)
