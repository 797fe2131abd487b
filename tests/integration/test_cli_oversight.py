"""Watching over a lab from outside: its policy, what waits for a person, what was done, and checkpoints of it."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.grace.cli.client import Client
from core.home import Home
from tests.commands import ECHO, LIMIT_S, Madlab, Result, a_lab
from tests.labs import a_home

POLICY = """
[[rules]]
name = "stores"
kinds = ["files.put"]
principals = ["mad:echo"]
verdict = "ask"
reason = "storing is looked at"

[[rules]]
name = "never-hangs"
kinds = ["bus.call"]
principals = ["operator"]
targets = ["echo.misbehave"]
verdict = "deny"
reason = "it does no good"

[[rules]]
name = "docs"
kinds = ["web.fetch"]
principals = ["mad:echo"]
hosts = ["docs.test"]
paths = ["/v1"]
verdict = "allow"
limits = { bytes_down = 1000000 }
"""
KEEP = ("call", "echo.keep", '{"text": "kept"}')


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    def prepare(home: Home) -> None:
        (home.path / "policy.toml").write_text(POLICY)

    with a_lab(f"{ECHO}\n[audit]\ncheckpoint = 'elsewhere.jsonl'\nminutes = 0.01\n", prepare=prepare) as lab:
        yield lab


def waiting(madlab: Madlab) -> dict[str, object]:
    """What waits for a person, once something does."""
    until = time.monotonic() + LIMIT_S
    while not Client(madlab.home).get("/api/v1/approvals")["approvals"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    return dict(madlab("approvals", "--json").json["approvals"][0])


def stored(madlab: Madlab) -> None:
    """An act that was asked about, approved and done."""
    with madlab.started(*KEEP) as call:
        assert madlab("approve", waiting(madlab)["id"]).code == 0
        assert call.wait(LIMIT_S) == 0


def refused(madlab: Madlab) -> Result:
    """A call that the policy forbids."""
    return madlab("call", "echo.misbehave", '{"how": "hang"}', "--json")


def test_an_act_waits_is_shown_in_its_exact_form_and_goes_on_when_approved(madlab: Madlab) -> None:
    with madlab.started(*KEEP) as call:
        found = waiting(madlab)
        shown = madlab("approvals").out
        for each in (found["short"], "files.put kept.txt", "mad:echo", "rule stores: storing is looked at", "approve"):
            assert str(each) in shown
        assert str(found["id"]) not in shown
        with madlab.started("approvals", "-f", "--json") as following:
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["id"] == found["id"]
        assert "waiting    1 for a person, see: madlab approvals" in madlab("status").out
        told = madlab("approve", found["short"])
        assert (told.code, told.out) == (0, "approved: files.put kept.txt by mad:echo\n")
        assert call.wait(LIMIT_S) == 0
    assert madlab("approvals").err == "Nothing waits for a person.\n"
    states = {each["id"]: each["state"] for each in madlab("approvals", "--all", "--json").json["approvals"]}
    assert states[found["id"]] == "used up"
    assert madlab("approve", found["id"], "--for", "2", "--json").error["code"] == "FAILED_PRECONDITION"


def test_a_denial_ends_the_act_with_its_rule_and_is_explained(madlab: Madlab) -> None:
    # Of another act than the others approve: a denial holds against its act for a while.
    with madlab.started("call", "echo.repeat", '{"text": "ab", "times": 20000}') as call:
        found = waiting(madlab)
        assert madlab("deny", found["id"]).code == 0
        assert call.wait(LIMIT_S) == 4
        assert call.stderr is not None
        assert "rule stores: operator denied it" in call.stderr.read()
    acts = madlab("audit", "--json").json["acts"]
    denied = [each for each in acts if each["outcome"] == "denied" and each["act"] == "files.put"][-1]
    told = madlab("policy", "explain", denied["id"]).out
    assert "rule     stores" in told
    assert "[[rules]]" in told


def test_the_operators_own_calls_are_decided_about_too(madlab: Madlab) -> None:
    told = refused(madlab)
    assert told.code == 2
    assert told.error["code"] == "PERMISSION_DENIED"
    assert told.error["message"] == "rule never-hangs: it does no good (operator: bus.call echo.misbehave)."
    id = told.error["next"].rpartition(" ")[2]
    explained = madlab("policy", "explain", id, "--json").json
    assert explained["rule"]["name"] == "never-hangs"
    assert explained["now"]["verdict"] == "deny"
    file = madlab.home.path / "policy.toml"
    assert explained["place"] == str(file)
    assert f"for the top of {file}. Try it first" in madlab("policy", "explain", id).out
    file.write_text(f"{explained['suggestion']}\n{POLICY}")
    assert madlab("policy", "reload").code == 0
    again = madlab("policy", "explain", id, "--json").json
    assert (again["now"]["verdict"], again["suggestion"]) == ("allow", "")
    file.write_text(POLICY)
    assert madlab("policy", "reload").code == 0


def test_the_policy_is_shown_and_checked(madlab: Madlab) -> None:
    shown = madlab("policy", "show", "--json").json
    assert [each["name"] for each in shown["rules"]][:4] == ["stores", "never-hangs", "docs", "models"]
    assert len(shown["digest"]) == 71
    assert shown["version"] == shown["versions"][0]["version"]
    assert "never-hangs" in madlab("policy", "show").out
    yes = madlab("policy", "check", "web.fetch", "https://docs.test/v1/a", "--as", "mad:other", "--as", "mad:echo")
    assert yes.code == 0
    assert yes.out.startswith("allow  rule docs (")
    assert "up to 1.0 MB down" in yes.out
    no = madlab("policy", "check", "web.fetch", "https://docs.test/v2", "--as", "mad:echo", "--json")
    assert (no.code, no.json["rule"]) == (1, "default")
    bare = madlab("policy", "check", "web.fetch", "https://docs.test/v1/a", "--as", "echo", "--json")
    assert (bare.code, bare.json["rule"]) == (0, "docs"), "a bare name is a MAD, as in a grant"
    assert madlab("policy", "check", "web.fetch", "https://docs.test/v1/a", "--as", "a slip").code == 2
    asked = madlab(
        *("policy", "check", "web.fetch", "https://docs.test/v1", "--as", "mad:echo", "--method", "POST"),
        *("--taint", "web", "--json"),
    )
    assert (asked.code, asked.json["verdict"], asked.json["rule"]) == (1, "ask", "taint")
    assert "judged when it is reached" in yes.out
    inside = madlab("policy", "check", "web.fetch", "HTTP://2130706433/latest", "--as", "marco", "--json")
    assert (inside.code, inside.json["verdict"], inside.json["rule"]) == (1, "deny", "address")
    assert inside.json["says"].startswith("rule address: the address is loopback")
    nowhere = madlab("policy", "check", "web.fetch", "http://me@docs.test/", "--as", "marco", "--json")
    assert (nowhere.code, nowhere.json["rule"]) == (1, "address")


def test_a_new_policy_is_tried_on_what_was_done(madlab: Madlab, tmp_path: Path) -> None:
    stored(madlab)
    refused(madlab)
    new = tmp_path / "new.toml"
    new.write_text(POLICY.replace('"ask"', '"deny"').replace('targets = ["echo.misbehave"]', 'targets = ["x.y"]'))
    found = madlab("policy", "backtest", new, "--json").json
    changes = {(each["change"], each["kind"], each["before"], each["after"]) for each in found["groups"]}
    assert changes >= {
        ("newly blocked", "files.put", "stores", "stores"),
        ("newly allowed", "bus.call", "never-hangs", "calls"),
    }
    assert "newly blocked" in madlab("policy", "backtest", new).out
    new.write_text("[[rules]]\nname = 'x'\n")
    wrong = madlab("policy", "backtest", new, "--json")
    assert (wrong.code, wrong.error["code"]) == (2, "INVALID_ARGUMENT")
    assert "rule x: kinds is missing" in wrong.error["message"]


def test_files_are_read_again_while_the_lab_runs(madlab: Madlab) -> None:
    file = madlab.home.path / "policy.toml"
    check = ("policy", "check", "web.fetch", "https://docs.test/v1", "--as", "mad:echo")
    file.write_text(POLICY.replace("verdict", "verdikt"))
    assert "rule stores: verdict is missing" in madlab("policy", "reload").err
    assert madlab(*check).code == 0
    file.write_text(POLICY.replace('"docs.test"', '"other.test"'))
    changed = madlab("policy", "reload", "--json").json["version"]
    assert madlab(*check).code == 1
    file.write_text(POLICY)
    assert madlab("policy", "reload").out.startswith(f"Version {changed + 1} holds: ")
    assert madlab(*check).code == 0


def test_the_audit_tells_intent_decision_and_outcome(madlab: Madlab) -> None:
    stored(madlab)
    refused(madlab)
    acts = madlab("audit", "--json").json["acts"]
    done = [each for each in acts if each["act"] == "files.put" and each["outcome"] == "done"][-1]
    assert (done["principal"], done["verdict"], done["rule"]) == ("echo", "ask", "stores")
    assert done["ended"] >= done["at"]
    assert {each["outcome"] for each in acts if each["act"] == "approval"} >= {"asked", "approved", "used"}
    assert next(each["target"] for each in acts if each["act"] == "policy") == "version 1"
    of_operator = madlab("audit", "--principal", "operator", "--json").json["acts"]
    assert {each["principal"] for each in of_operator} == {"operator"}
    assert madlab("audit", "--since", "0s", "--json").json["acts"] == []
    shown = madlab("audit", "--since", "1h").out
    assert "files.put" in shown
    assert done["details"]["digest"].startswith("sha256:")
    assert "sha256:" not in shown
    assert madlab("audit", "--since", "soon").code == 2
    with madlab.started("audit", "-f", "--json") as following:
        assert following.stdout is not None
        lines = [json.loads(following.stdout.readline()) for _ in acts]
        assert [each["id"] for each in lines] == [each["id"] for each in acts]
        refused(madlab)
        assert json.loads(following.stdout.readline())["rule"] == "never-hangs"


def test_a_policy_that_is_wrong_keeps_the_lab_down_and_says_why() -> None:
    with a_home(ECHO) as home:
        (home.path / "policy.toml").write_text(POLICY.replace("principals", "principal", 1))
        down = Madlab(home)("up")
        assert down.code == 2
        assert f"{home.path / 'policy.toml'}: rule stores: principals is missing" in down.err


def test_checkpoints_from_elsewhere_see_a_tail_that_was_cut_off_and_a_wrong_signature(
    madlab: Madlab, tmp_path: Path
) -> None:
    kept = madlab.home.path / "elsewhere.jsonl"
    before = len(kept.read_text().splitlines())
    madlab("call", "echo.say", '{"text": "one more"}')
    until = time.monotonic() + LIMIT_S
    while len(kept.read_text().splitlines()) < before + 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    copy = tmp_path / "kept.jsonl"
    copy.write_text(kept.read_text())
    good = madlab("journal", "verify", "--checkpoint", copy)
    assert good.code == 0
    assert "are in the chain where they say, signed by " in good.out
    last = json.loads(copy.read_text().splitlines()[-1])
    copy.write_text(json.dumps(last | {"count": 1}))
    assert "line 1 has a wrong signature" in madlab("journal", "verify", "--checkpoint", copy).err
    copy.write_text("nothing")
    assert "line 1 is no checkpoint" in madlab("journal", "verify", "--checkpoint", copy).err
    copy.write_text(json.dumps(last))
    other = madlab("journal", "verify", "--checkpoint", copy, "--key", "A" * 43 + "=")
    assert "signed by another key" in other.err

    assert madlab("down").code == 0
    last = kept.read_text().splitlines()[-1]
    with sqlite3.connect(madlab.home.path / "journal.db") as db:
        (end,) = db.execute("SELECT max(sequence) FROM journal").fetchone()
        assert json.loads(last)["count"] == end
        db.execute("DELETE FROM journal WHERE sequence = ?", (end,))
        db.execute("DELETE FROM body WHERE sequence = ?", (end,))
    db.close()
    (madlab.home.path / "journal.db.head").unlink()  # by somebody who knows what they do
    copy.write_text(last)
    madlab.up()
    assert madlab("journal", "verify").code == 0
    cut = madlab("journal", "verify", "--checkpoint", copy)
    assert cut.code == 1
    assert "tail          CUT OFF" in cut.out
