"""The main job from outside: scan, its three forms, its exit codes, and a core that dies meanwhile."""

import json
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Madlab, Result, a_lab

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
SETTINGS = f'emads = ["{ROOT / "periphery/mcnamara"}"]\n'
LARGE = ROOT / "core/fiedler"  # takes some seconds
FINDING = {"id", "rule", "severity", "confidence", "cwe", "path", "line", "snippet", "message", "fix", "scanners"}


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(SETTINGS, images=("base", "mcnamara")) as lab:
        yield lab


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a grave fault in it."""
    place = tmp_path_factory.mktemp("work")
    (place / "bad.py").write_text("import subprocess\n\n\ndef run(text):\n    subprocess.call(text, shell=True)\n")
    (place / "fine.py").write_text("print('fine')\n")
    return place


@pytest.fixture(scope="module")
def told(madlab: Madlab, work: Path) -> Result:
    """The scan of it, for programs, where what is grave is a no."""
    return madlab("scan", work, "--format", "json", "--fail-on", "high")


def test_json_has_exactly_what_programs_rely_on(madlab: Madlab, told: Result) -> None:
    assert told.code == 1
    report = told.json
    assert set(report) == {"run", "outcome", "coverage", "findings"}
    assert set(report["coverage"]) == {"files", "scanned", "skipped", "scanners"}
    assert (report["outcome"], report["coverage"]["files"]) == ("succeeded", 2)
    assert all(set(each) == FINDING for each in report["findings"])
    assert "bad.py" in {each["path"] for each in report["findings"]}
    run = madlab("show", report["run"], "--json").json
    assert (run["outcome"], run["mad"]) == ("succeeded", "mcnamara")
    assert {each["name"] for each in run["artifacts"]} == {"report.json", "report.sarif"}


def test_a_table_for_people_names_place_and_coverage(madlab: Madlab, work: Path) -> None:
    told = madlab("scan", work)
    assert told.code == 0
    assert "bad.py:5" in told.out
    assert "Scanned 2 of 2 files" in told.out
    assert "Sending 2 files" in told.err


def test_sarif_goes_to_a_file_and_the_exit_code_says_no_from_the_threshold_on(
    madlab: Madlab, work: Path, told: Result, tmp_path: Path
) -> None:
    assert (told.code, told.json["findings"][0]["severity"]) == (1, "high")
    above = madlab("scan", work, "--format", "sarif", "--out", tmp_path / "report.sarif", "--fail-on", "critical")
    assert (above.code, above.out) == (0, "")
    assert json.loads((tmp_path / "report.sarif").read_text())["version"] == "2.1.0"


def test_a_baseline_that_a_person_wrote_silences_what_it_names(
    madlab: Madlab, work: Path, told: Result, tmp_path: Path
) -> None:
    found = told.json["findings"]
    accepted = [{"id": each["id"], "reason": "a test", "who": "ada", "until": "2100-01-01"} for each in found]
    (tmp_path / "baseline.json").write_text(json.dumps({"version": 1, "accepted": accepted}))
    silent = madlab("scan", work, "--format", "json", "--fail-on", "low", "--baseline", tmp_path / "baseline.json")
    assert (silent.code, silent.json["findings"]) == (0, [])


def test_an_archive_is_opened_in_the_sandbox_and_what_would_escape_is_a_finding(madlab: Madlab, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../escape\x1b.py", "print()\n")
        archive.writestr("ok.py", "print()\n")
    told = madlab("scan", tmp_path / "evil.zip", "--format", "json", "--fail-on", "high")
    assert told.code == 1
    assert "\x1b" not in told.out
    assert any("escape" in each["path"] for each in told.json["findings"])


def test_a_report_that_cannot_be_written_is_told_before_or_after(madlab: Madlab, work: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none" / "report.json"):
        told = madlab("scan", work, "--out", out)
        assert (told.code, told.out) == (2, "")
        assert "Sending" not in told.err
    full = madlab("scan", work, "--out", "/dev/full")
    assert full.code == 4
    assert "/dev/full cannot be written: No space left on device" in full.err


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut off", "unreadable baseline"])
def test_bad_input_is_2_and_one_sentence(madlab: Madlab, work: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("words")
    (tmp_path / "cut off").write_bytes(b"PK\x03\x04 and nothing more")  # which the sandbox alone can tell
    arguments: list[object] = [tmp_path / kind]
    if kind == "unreadable baseline":
        arguments = [work, "--baseline", tmp_path / "text"]
    told = madlab("scan", *arguments, "--format", "json")
    assert (told.code, told.out) == (2, "")
    assert told.error["message"]
    assert told.error["next"]


def until_running(madlab: Madlab, scan: "subprocess.Popen[str]") -> None:
    while not any(each["state"] == "running" for each in madlab.runs()):
        assert scan.poll() is None
        time.sleep(0.05)


def test_ctrl_c_asks_that_the_run_be_cancelled(madlab: Madlab) -> None:
    with madlab.started("scan", LARGE, "--format", "json") as scan:
        until_running(madlab, scan)
        scan.send_signal(signal.SIGINT)
        out, err = scan.communicate(timeout=180)
        assert (scan.returncode, out) == (4, "")
        assert json.loads(err.splitlines()[-1])["error"]["code"] == "cancelled"
    assert madlab("runs", "--json").json["runs"][0]["outcome"] == "cancelled"


def test_a_scan_outlives_the_core(madlab: Madlab) -> None:
    with madlab.started("scan", LARGE, "--format", "json") as scan:
        until_running(madlab, scan)
        madlab.kill_core()
        madlab.up()
        out, err = scan.communicate(timeout=180)
        assert scan.returncode == 0, err
    assert "waiting up to 60 s" in err
    assert json.loads(out)["outcome"] == "succeeded"
