"""`madlab dispatch FILE.toml`: many jobs, once each, in their order and within one budget."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.grace.cli.client import Client
from core.home import Home
from tests.commands import ECHO, LIMIT_S, Madlab, Result, a_lab

BATCH = '[batch]\nname = "one"\nat_once = 3\n'
POLICY = """
[[rules]]
name = "stores"
kinds = ["files.put"]
principals = ["mad:echo"]
verdict = "ask"
reason = "a job that takes until somebody has looked at it"
"""


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    def prepare(home: Home) -> None:
        (home.path / "policy.toml").write_text(POLICY)

    with a_lab(ECHO, prepare=prepare) as lab:
        yield lab


def dispatched(madlab: Madlab, place: Path, text: str, *options: str) -> Result:
    (place / "batch.toml").write_text(text)
    return madlab("dispatch", place / "batch.toml", "--json", *options)


def jobs(told: Result) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in told.json["jobs"]}


def say(name: str, text: str, *rest: str) -> str:
    return f'[jobs.{name}]\ncall = "echo.say"\narguments = {{ text = "{text}" }}\n' + "".join(f"{x}\n" for x in rest)


def test_jobs_are_done_and_the_same_file_again_does_nothing_twice(madlab: Madlab, tmp_path: Path) -> None:
    text = BATCH + say("a", "hello") + say("b", "you", 'after = ["a"]')
    first = dispatched(madlab, tmp_path, text)
    assert first.code == 0, first.err
    assert first.json["ok"] is True
    assert {name: (each["state"], each["data"], each["found"]) for name, each in jobs(first).items()} == {
        "a": ("done", {"text": "hello"}, False),
        "b": ("done", {"text": "you"}, False),
    }
    messages = madlab("status", "--json").json["journal"]["messages"]
    again = dispatched(madlab, tmp_path, text)
    assert [each["found"] for each in again.json["jobs"]] == [True, True]
    assert madlab("status", "--json").json["journal"]["messages"] == messages
    assert {name: each["message"] for name, each in jobs(again).items()} == {
        name: each["message"] for name, each in jobs(first).items()
    }
    assert (again.code, "at work" in again.err) == (0, False), "what has ended is not at work"
    assert "done     a before\n" in again.err
    assert "Nothing was begun: the batch had ended before." in again.err
    changed = dispatched(madlab, tmp_path, text.replace("you", "them"))
    assert {name: each["found"] for name, each in jobs(changed).items()} == {"a": True, "b": False}
    anew = dispatched(madlab, tmp_path, text, "--round", "2")
    assert [each["found"] for each in anew.json["jobs"]] == [False, False]


def test_what_waits_for_a_failed_job_is_skipped_and_the_rest_is_done(madlab: Madlab, tmp_path: Path) -> None:
    bad = '[jobs.bad]\ncall = "echo.misbehave"\narguments = { how = "raise" }\n'
    told = dispatched(madlab, tmp_path, BATCH + bad + say("then", "x", 'after = ["bad"]') + say("other", "y"))
    assert (told.code, told.error["code"]) == (4, "jobs_failed")
    states = {name: each["state"] for name, each in jobs(told).items()}
    assert states == {"bad": "failed", "then": "skipped", "other": "done"}
    assert "on request" in jobs(told)["bad"]["why"]
    assert jobs(told)["then"]["why"] == "it waits for bad"
    again = madlab("dispatch", tmp_path / "batch.toml")
    assert (again.code, "at work" in again.err) == (4, False)
    assert [line.split()[:3] for line in again.out.splitlines()[1:]] == [
        ["bad", "failed", "before"],
        ["other", "done", "before"],
        ["then", "skipped", "-"],
    ]
    assert "say --round TEXT" in again.err


def test_a_job_that_nobody_can_do_fails_alone(madlab: Madlab, tmp_path: Path) -> None:
    nobody = '[jobs.nobody]\ncall = "nobody.works"\n'
    told = dispatched(madlab, tmp_path, BATCH + nobody + say("other", "y"))
    assert {name: each["state"] for name, each in jobs(told).items()} == {"nobody": "failed", "other": "done"}


def test_without_money_nothing_is_begun(madlab: Madlab, tmp_path: Path) -> None:
    told = dispatched(madlab, tmp_path, BATCH + "usd = 0\n" + say("poor", "x"))
    assert jobs(told)["poor"]["state"] == "skipped"
    assert "budget" in jobs(told)["poor"]["why"]


def test_who_leaves_finds_the_jobs_where_they_are(madlab: Madlab, tmp_path: Path) -> None:
    text = BATCH + '[jobs.slow]\ncall = "echo.keep"\narguments = { text = "kept" }\n'
    (tmp_path / "batch.toml").write_text(text)
    with madlab.started("dispatch", tmp_path / "batch.toml") as left:
        assert left.stderr is not None
        assert "at work" in left.stderr.readline()
        while not (waiting := Client(madlab.home).get("/api/v1/approvals")["approvals"]):
            assert left.poll() is None
            time.sleep(0.02)
        left.send_signal(signal.SIGINT)
        assert left.wait(LIMIT_S) == 130
        assert "the same command takes it up again" in left.stderr.read()
    assert madlab("approve", waiting[0]["id"]).code == 0
    (job,) = jobs(dispatched(madlab, tmp_path, text)).values()
    assert (job["found"], job["state"]) == (True, "done")
    assert job["data"]["text"].startswith("sha256:")


def test_a_look_begins_nothing_and_a_person_gets_a_table(madlab: Madlab, tmp_path: Path) -> None:
    (tmp_path / "batch.toml").write_text(BATCH + say("a", json.dumps("never")[1:-1]))
    told = madlab("dispatch", tmp_path / "batch.toml", "--check")
    assert told.code == 0
    assert [line.split()[:2] for line in told.out.splitlines()] == [["JOB", "STATE"], ["a", "waiting"]]


def test_a_look_tells_every_job_that_this_lab_cannot_do_and_sends_nothing(madlab: Madlab, tmp_path: Path) -> None:
    wrong = BATCH + say("fits", "x") + '[jobs.nobody]\ncall = "nobody.works"\n[jobs.none]\ncall = "echo.sing"\n'
    wrong += '[jobs.misfit]\ncall = "echo.say"\narguments = { text = 3 }\n[jobs.bare]\ncall = "echo.say"\n'
    wrong += '[jobs.nowhere]\nscan = "./nowhere"\n'
    messages = madlab("status", "--json").json["journal"]["messages"]
    told = dispatched(madlab, tmp_path, wrong, "--check")
    assert (told.code, told.error["code"], told.out) == (2, "INVALID_ARGUMENT", "")
    for each in (
        "jobs.nobody.call: there is no MAD called 'nobody' (there are:",
        "jobs.none.call: echo has no tool 'sing' (it has:",
        "jobs.misfit.arguments.text: 3 is not of type 'string'",
        "jobs.bare.arguments: 'text' is a required property",
        f"jobs.nowhere.scan: {tmp_path / 'nowhere'} does not exist",
    ):
        assert each in told.error["message"]
    assert "jobs.fits" not in told.error["message"]
    assert madlab("status", "--json").json["journal"]["messages"] == messages


def test_a_look_without_a_lab_says_what_was_not_looked_at(tmp_path: Path) -> None:
    nowhere = Madlab(Home(tmp_path / "home", "", tmp_path))
    told = dispatched(nowhere, tmp_path, BATCH + '[jobs.nobody]\ncall = "nobody.works"\n', "--check")
    assert (told.code, [each["state"] for each in told.json["jobs"]]) == (0, ["waiting"])
    assert "Not checked: the tools and their arguments" in told.err
    gone = dispatched(nowhere, tmp_path, BATCH + '[jobs.gone]\nscan = "gone"\n', "--check")
    assert (gone.code, "jobs.gone.scan" in gone.error["message"]) == (2, True)
    assert dispatched(nowhere, tmp_path, BATCH + say("a", "x")).code == 3
