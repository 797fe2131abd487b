"""McNamara's tools as they are called, with files and bus in memory and our own scanners alone."""

import json
from pathlib import Path

import anyio
import pytest

from periphery.mcnamara import McNamara
from periphery.mcnamara.own import Own
from protos.errors import InvalidArgument
from protos.v1.session_pb2 import OUTCOME_PARTIAL, OUTCOME_SUCCEEDED
from tests.unit.mcnamara.crafted import entry, zip_of, zipped
from tests.unit.mcnamara.lab import call, packed, write

SETUP = "import os\nos.system('curl x')\n"
TREE: dict[str, str | bytes] = {"setup.py": SETUP, "README.md": "hello\n", "data.bin": b"\0\1\2", "empty": ""}


def mcnamara() -> McNamara:
    return McNamara([Own("hooks"), Own("patterns")])


async def test_a_scan_reports_findings_coverage_and_evidence(tmp_path: Path) -> None:
    asked, files, bus = call()
    with anyio.fail_after(60):
        summary = await mcnamara().scan(asked, source=files.keep(packed(write(tmp_path, TREE))), name="x")
    verdict = asked.ctx.verdict
    report = json.loads(files.blobs[verdict.artifacts[0].digest])
    assert [each.name for each in verdict.artifacts] == ["report.json", "report.sarif"]
    assert set(report) == {"run", "outcome", "coverage", "findings"}
    assert (report["run"], report["outcome"], verdict.outcome) == ("run-1", "succeeded", OUTCOME_SUCCEEDED)
    assert [each["rule"] for each in report["findings"]] == ["hook.setup-py"]
    assert {each["path"]: each["reason"] for each in report["coverage"]["skipped"]} == {
        "data.bin": "binary: no scanner reads it",
        "empty": "empty",
    }
    assert (summary["files"], summary["scanned"], summary["findings"]["high"]) == (4, 2, 1)
    assert {"files", "scanned", "scanners"} <= verdict.evidence.keys()
    assert any(each.text == "scanners 2/2" for each in bus.events)


async def test_without_a_database_dependencies_are_a_row_and_no_fault(tmp_path: Path) -> None:
    asked, files, _ = call()
    summary = await mcnamara().scan(asked, source=files.keep(packed(write(tmp_path, {"requirements.txt": "a==1\n"}))))
    assert {each["name"]: each["state"] for each in summary["scanners"]}["dependencies"] == "no advisory database"
    assert summary["outcome"] == "succeeded"


async def test_an_indexed_database_is_what_the_next_scan_uses(tmp_path: Path) -> None:
    asked, files, _ = call()
    package = {"package": {"ecosystem": "PyPI", "name": "a"}, "versions": ["1"]}
    record = {"id": "GHSA-1", "modified": "2026-10-01T00:00:00Z", "summary": "bad", "affected": [package]}
    for source, kind in (
        (zipped({"x/GHSA-1.json": json.dumps(record).encode(), "README": b"no record"}), "archive"),
        (packed(write(tmp_path / "osv", {"GHSA-1.json": json.dumps(record)})), "tree"),
    ):
        counts = await mcnamara().index_advisories(asked, source=files.keep(source), kind=kind)  # type: ignore[arg-type]
        assert (counts["advisories"], counts["newest"]) == (1, "2026-10-01T00:00:00Z")
    files.named["advisories"] = asked.ctx.verdict.artifacts[0].digest
    asked, again, _ = call()
    again.blobs, again.named = files.blobs, files.named
    tree = write(tmp_path / "tree", {"requirements.txt": "a==1\n"})
    summary = await mcnamara().scan(asked, source=again.keep(packed(tree)))
    report = json.loads(again.blobs[asked.ctx.verdict.artifacts[0].digest])
    assert [each["rule"] for each in report["findings"]] == ["osv.GHSA-1"]
    assert {"name": "dependencies", "version": "2026-10-01", "state": "ok"} in summary["scanners"]


async def test_a_broken_index_makes_the_scan_partial(tmp_path: Path) -> None:
    asked, files, _ = call()
    files.named["advisories"] = files.keep(b"no index at all")
    tree = write(tmp_path, {"requirements.txt": "a==1\n"})
    summary = await mcnamara().scan(asked, source=files.keep(packed(tree)))
    assert summary["outcome"] == "partial"
    assert summary["reason"].startswith("dependencies failed")


async def test_a_file_that_cannot_be_read_makes_the_scan_partial_and_the_rest_is_scanned() -> None:
    asked, files, _ = call()
    source = zip_of(entry(b"locked.py", b"x", flags=1), entry(b"setup.py", SETUP.encode()))
    summary = await mcnamara().scan(asked, source=files.keep(source), kind="archive", name="x.zip")
    report = json.loads(files.blobs[asked.ctx.verdict.artifacts[0].digest])
    assert asked.ctx.verdict.outcome == OUTCOME_PARTIAL
    assert (summary["files"], summary["scanned"]) == (2, 1)
    assert {each["rule"] for each in report["findings"]} == {"archive-encrypted", "hook.setup-py"}
    assert report["coverage"]["skipped"] == [{"path": "locked.py", "reason": "encrypted"}]


async def test_a_python_file_that_does_not_parse_is_named_as_unread(tmp_path: Path) -> None:
    asked, files, _ = call()
    summary = await mcnamara().scan(asked, source=files.keep(packed(write(tmp_path, {"setup.py": "print 'x'\n"}))))
    assert summary["outcome"] == "partial"
    assert "hooks" in summary["reason"]


@pytest.mark.parametrize("tool", ["scan", "index_advisories"])
async def test_what_is_no_archive_is_refused_with_a_sentence(tool: str) -> None:
    asked, files, _ = call()
    with pytest.raises(InvalidArgument, match="is no archive" if tool == "scan" else "no OSV database"):
        await getattr(mcnamara(), tool)(asked, source=files.keep(b"text"), kind="archive")


async def test_a_baseline_sets_a_finding_aside_as_text_or_as_a_blob(tmp_path: Path) -> None:
    source = packed(write(tmp_path, TREE))
    asked, files, _ = call()
    await mcnamara().scan(asked, source=files.keep(source))
    (finding,) = json.loads(files.blobs[asked.ctx.verdict.artifacts[0].digest])["findings"]
    entries = [{"id": finding["id"], "reason": "known", "who": "ada", "until": "2999-01-01"}]
    text = json.dumps({"version": 1, "accepted": entries})
    for given in (text, files.keep(text.encode())):
        summary = await mcnamara().scan(asked, source=files.keep(source), baseline_json=given)
        assert (summary["suppressed"], sum(summary["findings"].values())) == (1, 0)


async def test_git_data_is_no_text_and_its_configuration_is(tmp_path: Path) -> None:
    asked, files, _ = call()
    tree = {".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\tfsmonitor = ./x\n", "a.txt": "x\n"}
    tree |= {".git/objects/aa/" + "b" * 38: "junk", ".git/hooks/post-checkout": "#!/bin/sh\n"}
    summary = await mcnamara().scan(asked, source=files.keep(packed(write(tmp_path, tree))))
    report = json.loads(files.blobs[asked.ctx.verdict.artifacts[0].digest])
    assert {each["rule"] for each in report["findings"]} == {"hook.git-config", "hook.git-hook"}
    assert summary["files"] == 3
