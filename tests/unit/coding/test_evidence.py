"""What a worker says of its work is kept, as far as it can be kept."""

import json

from core.coding.evidence import Attempt, as_json


def test_whatever_a_worker_says_the_evidence_is_of_bounded_size_and_can_be_written() -> None:
    flood = "ü\ud800" * 50_000
    tests = {
        "command": flood,
        "passed": True,
        "found": True,
        "exit_code": 10**400,
        "tail": flood,
        "more": [flood] * 900,
    }
    worked = {
        "summary": flood,
        "model": flood,
        "tests_after": tests,
        "commands": [{"command": flood, "exit_code": 0, "seconds": 1.5}] * 5_000,
        "steps": {flood: flood},
    }
    attempt = Attempt(1, worked=worked, tests_changed=["\udcff" * 300] * 900, refused=[(flood, "no")] * 900)
    text = json.dumps(as_json(tests, attempt, []), ensure_ascii=False)
    assert len(text.encode()) < 128 * 1024
    assert json.loads(text)["tests_before"]["exit_code"] == 0


def test_what_fits_is_kept_as_it_is() -> None:
    tests = {
        "command": "make",
        "found": True,
        "passed": True,
        "exit_code": 0,
        "seconds": 1.5,
        "counts": {"passed": 3},
        "tail": "ok\n",
    }
    evidence = as_json(tests, Attempt(1, worked={"tests_after": tests, "commands": [{"command": "ls"}]}), [])
    assert (evidence["tests_before"], evidence["tests_after"]) == (tests, tests)
    assert evidence["commands"] == [{"command": "ls"}]
    assert evidence["clean_room"] is None
