"""Runs of an eMAD, watched and ended from outside."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli.client import Client
from tests.commands import Madlab, a_lab

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
MORE = {"evidence", "artifacts", "packages", "messages", "moves", "resumes", "resumed_as", "forgotten"}
SETTINGS = f'emads = ["{ROOT / "tests/emads/echo"}"]\n[runs]\nmax_running = 1\n[vault]\nkey_file = "vault.key"\n'


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(SETTINGS, images=("base", "tests/emads/echo")) as lab:
        yield lab


def test_a_run_is_listed_shown_and_logged_as_programs_rely_on(madlab: Madlab) -> None:
    assert madlab("call", "echo.say_later", '{"text": "hi", "after_s": 0.4}').json == {"text": "hi"}
    listed = madlab("runs", "--json").json["runs"][0]
    assert {"id", "mad", "state", "outcome", "created", "started", "ended", "reason", "cost"} <= set(listed)
    run = listed["id"]
    with madlab.started("logs", run, "-f", "--json") as follower:  # ends by itself when the run does
        lines = [json.loads(each) for each in follower.communicate(timeout=60)[0].splitlines()]
        assert follower.returncode == 0
    assert lines
    assert all(each["kind"] == "event" and each["sender"] == "echo" for each in lines)
    assert [json.loads(each)["id"] for each in madlab("logs", run, "--json").out.splitlines()] == [
        e["id"] for e in lines
    ]
    shown = madlab("show", run, "--json").json
    assert set(shown) == set(listed) | MORE
    assert (shown["mad"], shown["state"], shown["outcome"]) == ("echo", "destroyed", "succeeded")
    assert [each["kind"] for each in shown["messages"]] == ["call", "reply"]
    assert shown["created"] <= shown["started"] <= shown["ended"]
    person = madlab("show", run)
    assert f"run        {run}" in person.out
    assert "destroyed, succeeded" in person.out
    assert "progress" in madlab("logs", run).out
    assert run in madlab("runs").out
    assert madlab("secret", "set", "token", "--from-stdin", stdin="tok-5e8d1c0b7a-first").code == 0
    over = madlab("secret", "grant", "token", "--to", f"run:{run}", "--for", "example.org")
    assert (over.code, f"the run {run} has ended" in over.err) == (2, True), over.err
    assert madlab("secret", "who-could", "token", "--json").json["grants"] == []


def test_a_run_that_waits_shows_its_place_and_either_can_be_cancelled(madlab: Madlab) -> None:
    forever = ("call", "echo.say_later", '{"text": "late", "after_s": 600}', "--json")
    with madlab.started(*forever) as first, madlab.started(*forever) as second:
        while Client(madlab.home).get("/api/v1/status")["runs"] != {"running": 1, "queued": 1}:
            time.sleep(0.02)
        waiting, working = madlab("runs", "--json", "--limit", "2").json["runs"]
        assert (waiting["state"], waiting["outcome"], waiting["place"]) == ("requested", None, 1)
        assert working["state"] in ("admitted", "starting", "running")
        assert "(1 in the queue)" in madlab("runs").out
        for each in (waiting, working):
            assert madlab("cancel", each["id"]).code == 0
        for process in (first, second):
            _, err = process.communicate(timeout=60)
            assert process.returncode == 4
            assert json.loads(err.splitlines()[-1])["error"]["code"] == "cancelled"
    for each in (waiting, working):
        ended = madlab("show", each["id"], "--json").json
        assert (ended["outcome"], ended["state"]) == ("cancelled", "destroyed")
        again = madlab("cancel", each["id"], "--json")
        assert (again.code, again.error["code"]) == (2, "FAILED_PRECONDITION")
    assert madlab("status", "--json").json["sandboxes"] == []


def test_down_ends_runs_and_down_with_keep_runs_leaves_them_to_the_next_core(madlab: Madlab) -> None:
    with madlab.started("call", "echo.say_later", '{"text": "kept", "after_s": 4}') as asker:
        madlab.at_work()
        assert madlab("down", "--keep-runs").code == 0
        madlab.up()
        out, err = asker.communicate(timeout=60)
        assert (asker.returncode, json.loads(out)) == (0, {"text": "kept"}), err
    with madlab.started("call", "echo.say_later", '{"text": "ended", "after_s": 600}', "--json") as asker:
        run = madlab.at_work()
        assert madlab("down").code == 0
        madlab.up()
        asker.send_signal(signal.SIGINT)
        asker.communicate(timeout=60)
    assert madlab("show", run, "--json").json["outcome"] == "cancelled"


def test_the_lines_of_a_run_go_on_through_the_death_of_the_core(madlab: Madlab) -> None:
    with madlab.started("call", "echo.say_later", '{"text": "x", "after_s": 3}'):
        run = madlab.at_work()
        with madlab.started("logs", run, "-f", "--json") as follower:
            assert follower.stdout
            follower.stdout.readline()
            madlab.kill_core()
            madlab.up()
            assert follower.wait(timeout=60) == 0
            out = follower.stdout.read()
    ids = [json.loads(each)["id"] for each in out.splitlines()]
    assert len(set(ids)) == len(ids)
    assert madlab("show", run, "--json").json["outcome"] == "succeeded"
    assert os.listdir(madlab.home.runtime / "s") == []
