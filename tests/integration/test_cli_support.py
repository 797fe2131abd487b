"""`madlab support-bundle`: what is needed to help, and nothing that was said; with the core up and down."""

import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli.support import log, settings, strained
from core.home import Home
from tests.commands import ECHO, Madlab, a_lab
from tests.labs import a_home

PLANTED = "planted-7f3a"
SECRET = "correct-horse-battery-staple-9"
SETTINGS = f"""{ECHO}
[runs]
max_running = 3
[audit]
command = ["/bin/true", "{PLANTED}"]
[egress.names]
"{PLANTED}.test" = "127.0.0.1"
[providers.here]
kind = "openai"
base_url = "https://{PLANTED}.test/v1"
"""


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(SETTINGS) as lab:
        assert lab("secret", "set", PLANTED, "--from-stdin", stdin=SECRET).code == 0
        assert lab("call", "echo.say", json.dumps({"text": f"{PLANTED} {SECRET}"})).code == 0
        assert lab("call", "echo.misbehave", '{"how": "raise"}').code == 4
        with (lab.home.path / "core.log").open("a") as file:
            file.write(
                json.dumps({"event": "a run failed", "level": "error", "reason": PLANTED, "run": "echo-1"}) + "\n"
            )
            file.write(f"a library said {PLANTED}\n")
        yield lab


def parts(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        read = {each.name: archive.extractfile(each) for each in archive}
        return {name.removeprefix("madlab-support/"): found.read().decode() for name, found in read.items() if found}


def test_it_says_what_the_lab_is_and_nothing_that_was_said(madlab: Madlab, tmp_path: Path) -> None:
    told = madlab("support-bundle", "--out", tmp_path / "bundle.tar.gz", "--json")
    assert told.code == 0, told.err
    found = parts(tmp_path / "bundle.tar.gz")
    names = {"README.txt", "versions.json", "doctor.json", "settings.json", "home.json", "core.log", "status.json"}
    names |= {"runs.json", "incidents.json", "journal.json", "metrics.txt"}
    assert set(found) == set(told.json["contents"]) == names
    assert told.json["left_out"] == []
    for name, text in found.items():
        assert PLANTED not in text, name
        assert SECRET not in text, name
        assert str(madlab.home.path) not in text, name
    assert json.loads(found["journal.json"])["ok"] is True
    assert json.loads(found["settings.json"])["runs"] == {"max_running": 3}
    assert "madlab_journal_entries_total" in found["metrics.txt"]
    assert '"a run failed"' in found["core.log"]
    assert "Not in it, on purpose:" in found["README.txt"]
    assert stat.S_IMODE((tmp_path / "bundle.tar.gz").stat().st_mode) == 0o600


def test_it_overwrites_nothing(madlab: Madlab, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    told = madlab("support-bundle", "--out", tmp_path / "mine", "--json")
    assert (told.code, told.error["code"]) == (2, "FAILED_PRECONDITION")
    assert (tmp_path / "mine").read_text() == "mine"


def test_with_the_core_down_it_has_what_can_be_read_without_it(tmp_path: Path) -> None:
    with a_home(SETTINGS) as home:
        told = Madlab(home)("support-bundle", "--out", tmp_path / "bundle.tar.gz", "--json")
    assert told.code == 0, told.err
    found = parts(tmp_path / "bundle.tar.gz")
    assert {"README.txt", "versions.json", "doctor.json", "settings.json", "home.json"} == set(found)
    assert "the core does not run" in str(told.json["left_out"])
    assert PLANTED not in str(found)


def test_without_any_lab_it_has_the_machine(tmp_path: Path) -> None:
    home = Home(tmp_path / "none", "00000000", tmp_path)
    told = Madlab(home)("support-bundle", "--out", tmp_path / "bundle.tar.gz")
    assert told.code == 0, told.err
    assert {"README.txt", "versions.json", "doctor.json"} == set(parts(tmp_path / "bundle.tar.gz"))


def test_a_key_that_stands_in_the_wrong_place_is_not_shown() -> None:
    shown = settings(
        '[providers.here]\nkind = "openai"\nkey_file = "sk-live-1234567890abcdef"\n[llm]\nusd_per_day = 3\n'
    )
    assert shown == {
        "providers": {"here": {"kind": "openai", "key_file": "(24 characters)"}},
        "llm": {"usd_per_day": 3},
    }


@pytest.mark.parametrize(
    "key",
    ["sk-proj-abcdefghijklmnop1234", "ghp_abcdefghijklmnopqrstuvwx", "AKIAIOSFODNN7EXAMPLE", "Bearer abc.def-123456",
     "-----BEGIN PRIVATE KEY-----\nMIIB\nabc\n-----END PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\nMIIB",
     "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "xoxb-1234567890-abc"],
)  # fmt: skip
def test_what_looks_like_a_key_is_taken_out(key: str) -> None:
    assert strained(f"before {key} ".encode(), None).strip() == b"before [looks like a key]"


def test_of_what_was_raised_stays_where_and_its_type() -> None:
    raised = (
        f'Traceback (most recent call last):\n  File "/home/{PLANTED}/core/gate.py", line 7, in f\n    x("{PLANTED}")'
    )
    line = json.dumps({"event": "failed", "level": "error", "exception": f"{raised}\nValueError: {PLANTED}"})
    assert log(line).splitlines()[1:] == ["    core/gate.py:7 f", "    ValueError"]
