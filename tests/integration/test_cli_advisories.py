"""The OSV database: without one the coverage says so; imported, it finds what is vulnerable."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Madlab, a_lab

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
SETTINGS = f'emads = ["{ROOT / "periphery/mcnamara"}"]\n[advisories]\nurl = "https://127.0.0.1:1/all.zip"\n'
RECORD = {
    "schema_version": "1.6.0",
    "id": "GHSA-test-test-test",
    "modified": "2026-01-02T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "Everything about it is wrong",
    "database_specific": {"severity": "HIGH", "cwe_ids": ["CWE-79"]},
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "sorrowful"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(SETTINGS, images=("base", "mcnamara")) as lab:
        yield lab


def a_database(place: Path, records: list[dict[str, Any]]) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for record in records:
            archive.writestr(f"{record['id']}.json", json.dumps(record))
    return place


def dependencies_of(report: dict[str, Any]) -> str:
    (state,) = (each["state"] for each in report["coverage"]["scanners"] if each["name"] == "dependencies")
    return str(state)


def test_a_database_is_taken_in_once_and_used_by_every_scan_from_then_on(madlab: Madlab, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "requirements.txt").write_text("sorrowful==1.5\n")
    before = madlab("scan", work, "--format", "json", "--fail-on", "low")
    assert (before.code, before.json["outcome"]) == (0, "succeeded")
    assert "no advisory database" in dependencies_of(before.json)

    told = madlab("advisories", "import", a_database(tmp_path / "osv.zip", [RECORD]), "--json")
    assert told.code == 0, told.err
    assert (told.json["database"]["version"], told.json["evidence"]["advisories"]) == (1, 1)
    assert madlab("advisories", "status", "--json").json == {"installed": True, "database": told.json["database"]}
    assert "version 1" in madlab("advisories", "status").out

    after = madlab("scan", work, "--format", "json", "--fail-on", "high")
    assert after.code == 1
    assert "no advisory database" not in dependencies_of(after.json)
    assert any("GHSA-test-test-test" in json.dumps(each) for each in after.json["findings"])

    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(json.dumps(RECORD | {"id": "GHSA-other"}))
    for name, text in (("two", "{bad"), ("three", "[1,2]")):
        (tmp_path / "records" / f"{name}.json").write_text(text)
    told = madlab("advisories", "import", tmp_path / "records")
    assert told.code == 0
    assert "1 advisory of 1 package; 2 records could not be read" in told.out
    assert madlab("advisories", "status", "--json").json["database"]["version"] == 2


def test_what_is_no_database_is_a_sentence_and_changes_nothing(madlab: Madlab, tmp_path: Path) -> None:
    before = madlab("advisories", "status", "--json").json
    (tmp_path / "text").write_text("words")
    assert madlab("advisories", "import", tmp_path / "text").code == 2
    assert madlab("advisories", "import", tmp_path / "missing").code == 2
    empty = madlab("advisories", "import", a_database(tmp_path / "empty.zip", []), "--json")
    assert (empty.code, empty.out) == (2, "")
    assert "advisor" in empty.error["message"]
    update = madlab("advisories", "update", "--json")
    assert (update.code, update.out) == (3, "")
    assert "https://127.0.0.1:1/all.zip cannot be fetched" in update.error["message"]
    assert "madlab advisories import" in update.error["next"]
    assert madlab("advisories", "status", "--json").json == before
