"""What needs a person: ranked, grouped, and with acts that can be posted as they stand."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from core.fiedler.escrow import Account
from core.fiedler.money import Amount, picodollars
from core.grace.door.attention import LITTLE_BYTES, RANKS, SOON_S, Facts, Item, Resident, items_of
from core.policy.approvals import Approval
from core.run import Outcome, Run, State
from core.troubles import OTHERS, Trouble

NOW = 10_000.0
GRACE = Path(__file__).parents[3] / "core/grace"


def facts(**known: Any) -> Facts:
    return Facts(now=NOW, started=1_000.0, **known)


def approval(id: str, *, run: str = "hopper-1", target: str = "https://a.example/", **known: Any) -> Approval:
    form: dict[str, Any] = {
        "kind": "web.fetch",
        "principals": [f"run:{run}", "mad:hopper"],
        "target": target,
        "taint": [],
    }
    form["details"] = known.pop("details", {"method": known.pop("method", "POST")})
    given: dict[str, Any] = {"asked": NOW - 60, "expires": NOW + 540, "rule": "writing", "reason": "It writes."} | known
    return Approval(
        id=id, digest=f"sha256:{id}", principal=run, conversation="c", form=json.dumps(form, sort_keys=True), **given
    )


def trouble(kind: str = "run", **known: Any) -> Trouble:
    given: dict[str, Any] = {"id": f"{kind}-1", "mad": "hopper", "what": "failed", "detail": "tests fail", "title": "t"}
    given |= {"run": "hopper-1", "count": 1, "since": NOW - 100, "last": NOW - 50, "sequence": 7} | known
    return Trouble(kind=kind, **given)


def a_run(**known: Any) -> Run:
    return Run("hopper-1", "hopper", "c", "t", 1, known.pop("state", State.RUNNING), NOW - 30, **known)


def patch(id: str, *, proved: bool = True, title: str = "code: mend it", source: str = "sha256:1", **known: Any) -> Run:
    evidence = {"clean_room": proved, "patch": {"files": 1, "added": 3, "removed": 2}, "source": source}
    given: dict[str, Any] = {"ended": NOW - 20, "title": title, "evidence": evidence} | known
    given["outcome"] = Outcome.SUCCEEDED if proved else Outcome.PARTIAL
    return Run(id, "foreman", "c", "t", 1, State.DESTROYED, NOW - 90, **given)


def only(items: list[Item]) -> Item:
    (item,) = items
    return item


def test_where_all_is_well_there_is_nothing() -> None:
    assert items_of(facts(free_bytes=LITTLE_BYTES, queue_max=10, vault={"state": "open"})) == []


def test_what_can_wait_least_comes_first_and_among_equals_the_older() -> None:
    runs = [trouble(), trouble(id="run-0", since=NOW - 500), trouble(what="stuck", id="s")]
    items = items_of(
        facts(
            approvals=[(approval("a"), 1), (approval("b", target="https://b.example/", expires=NOW + SOON_S - 1), 1)],
            troubles=[*runs, trouble("incident")],
            sealed="the disk is full",
            lost=3,
            vault={"state": "locked", "reason": "no key", "next": "unlock it", "way": "passphrase"},
            free_bytes=1,
            queued=10,
            queue_max=10,
        )
    )
    assert [(each.kind, each.id) for each in items] == [
        ("journal", "journal-sealed"),
        ("incident", "incident-1"),
        ("machine", "machine-disk"),
        ("approval", items[3].id),
        ("approval", items[4].id),
        ("machine", "machine-queue"),
        ("run", "s"),
        ("run", "run-0"),
        ("run", "run-1"),
        ("journal", "journal-lost"),
        ("vault", "vault"),
    ]
    assert "b.example" in items[3].title
    assert [each.rank for each in items] == sorted((each.rank for each in items), reverse=True)


def test_a_question_is_approved_once_or_for_all_that_wait_or_denied() -> None:
    item = only(items_of(facts(approvals=[(approval("a"), 3)])))
    assert item.title == "hopper wants to send POST https://a.example/"
    assert item.count == 3
    assert [(each.path, each.body, each.danger) for each in item.acts] == [
        ("/approvals/a/approve", {"uses": 1}, True),
        ("/approvals/a/approve", {"uses": 3}, True),
        ("/approvals/a/deny", {}, False),
    ]
    assert item.evidence[0].path == "/runs/hopper-1"


def test_equal_questions_of_several_runs_are_one_and_answered_by_their_ids() -> None:
    asked = [approval("a"), approval("b", run="hopper-2"), approval("c", target="https://other.example/")]
    grouped, single = sorted(items_of(facts(approvals=[(each, 1) for each in asked])), key=lambda each: -each.count)
    assert grouped.count == 2
    assert [each.body for each in grouped.acts] == [
        {"approvals": ["a", "b"], "answer": "approve"},
        {"approvals": ["a", "b"], "answer": "deny"},
    ]
    assert single.acts[0].path == "/approvals/c/approve"


def test_what_would_be_approved_is_shown_whole_for_one_and_for_many() -> None:
    details = {"method": "POST", "body": "rm -rf " + "x" * 300, "bytes": 307}
    target = "https://a.example/" + "p" * 400
    one = approval("a", target=target, details=details)
    item = only(items_of(facts(approvals=[(one, 1)])))
    assert {each.name: each.text for each in item.form} == {
        "act": "web.fetch", "who": "mad:hopper for run:hopper-1", "target": target, "method": "POST",
        "body": details["body"], "bytes": "307",
    }  # fmt: skip
    assert [each.shows for each in item.acts] == ["", ""]
    many = only(
        items_of(facts(approvals=[(one, 1), (approval("b", run="hopper-2", target=target, details=details), 1)]))
    )
    who = {"who": "mad:hopper for run:hopper-1\nmad:hopper for run:hopper-2"}
    assert {each.name: each.text for each in many.form} == {each.name: each.text for each in item.form} | who


def test_what_is_too_long_for_the_list_has_to_be_read_whole_before_it_is_approved() -> None:
    long = [approval(each, run=run, details={"text": "x" * 5_000}) for each, run in (("a", "h-1"), ("b", "h-2"))]
    one, many = only(items_of(facts(approvals=[(long[0], 2)]))), only(items_of(facts(approvals=[(e, 1) for e in long])))
    assert [each.shows for each in one.acts] == ["/approvals/a", "/approvals/a", ""]
    assert [each.shows for each in many.acts] == ["/approvals/a", ""]
    assert sum(len(each.text) for each in one.form) < 2_000


def test_what_one_client_could_not_do_in_many_ways_is_one_item_and_not_run_again() -> None:
    item = only(items_of(facts(troubles=[trouble(what=OTHERS, asker="client:ann", count=205)])))
    assert item.title == "hopper for client:ann: 205 more runs went wrong, each in its own way"
    assert [each.label for each in item.acts] == ["Dismiss"]


def test_the_same_act_under_another_rule_is_another_question() -> None:
    assert len(items_of(facts(approvals=[(approval("a"), 1), (approval("b", rule="other"), 1)]))) == 2


def test_what_only_reads_is_no_danger() -> None:
    assert not only(items_of(facts(approvals=[(approval("a", method="GET"), 1)]))).acts[0].danger


def test_one_failed_run_can_be_run_again_and_many_are_shown_as_a_list() -> None:
    one = only(items_of(facts(troubles=[trouble()])))
    assert [each.path for each in one.acts] == ["/runs/hopper-1/retry", "/attention/run-1/dismiss"]
    assert one.acts[1].body == {"seen": 7}
    many = only(items_of(facts(troubles=[trouble(count=12)])))
    assert [each.path for each in many.acts] == ["/attention/run-1/dismiss"]
    assert many.evidence[-1].path == "/runs?mad=hopper&outcome=failed"
    assert "12 times" in many.title


def test_what_somebody_else_asked_for_is_run_again_as_theirs_and_not_by_one_click() -> None:
    own, theirs = (only(items_of(facts(troubles=[trouble(asker=each)]))) for each in ("operator", "client:ann"))
    assert (own.acts[0].label, own.acts[0].danger) == ("Run it again", False)
    assert (theirs.acts[0].label, theirs.acts[0].danger) == ("Run the words of client:ann again", True)


@pytest.mark.parametrize(
    ("spent", "cap", "rank"), [(79, 100, None), (80, 100, 400), (100, 100, 650), (5, None, None), (0, 0, 650)]
)
def test_a_budget_is_told_of_when_it_nears_its_end(spent: int, cap: int | None, rank: int | None) -> None:
    account = Account("run:hopper-1", cap_usd=None if cap is None else picodollars(cap))
    account.spent = Amount(10, picodollars(spent))
    items = items_of(facts(accounts=[account], live=[a_run()]))
    assert [each.rank for each in items] == ([] if rank is None else [rank])
    if items:
        assert items[0].acts[0].path == "/runs/hopper-1/cancel"
        assert items[0].acts[0].danger


def test_the_budget_of_the_day_is_told_of_and_that_of_a_run_that_ended_is_not() -> None:
    day, gone = (Account(name, cap_tokens=10, spent=Amount(9, 0)) for name in ("day:2026-01-01", "run:marco-2"))
    assert only(items_of(facts(accounts=[day, gone]))).title == "The day has spent 90% of its budget"


def test_a_locked_vault_asks_for_a_passphrase_where_it_has_one() -> None:
    locked = {"state": "locked", "reason": "", "next": ""}
    assert only(items_of(facts(vault=locked | {"way": "passphrase"}))).acts[0].asks == ("passphrase",)
    assert only(items_of(facts(vault=locked | {"way": "key_file"}))).acts[0].asks == ()
    assert items_of(facts(vault={"state": "none"})) == []


def test_a_resident_that_keeps_dying_and_a_long_queue_are_the_machines_trouble() -> None:
    dying, queue = items_of(
        facts(
            residents=[Resident("fiedler", "running", "", 0), Resident("echo", "waiting", "boom", 4)],
            queued=9,
            queue_max=10,
        )
    )
    assert (dying.id, dying.count) == ("machine-resident-echo", 4)
    assert queue.rank < dying.rank


def test_a_patch_that_waits_is_looked_at_and_not_approved_blindly() -> None:
    item = only(items_of(facts(patches=[patch("foreman-1")])))
    assert item.title == "A patch waits for you: mend it"
    assert item.detail == "1 file, +3 -2; proved in a clean sandbox"
    assert [(each.label, each.path) for each in item.evidence] == [("Look at it", "/patches/foreman-1")]
    assert item.acts == []


def test_patches_for_one_goal_in_one_tree_are_one_item_with_the_best_first() -> None:
    doubtful, old, new = patch("d", proved=False, ended=NOW), patch("o", ended=NOW - 50), patch("n")
    item = only(items_of(facts(patches=[doubtful, old, new])))
    assert (item.title, item.count, item.since) == ("3 patches wait for you: mend it", 3, NOW - 50)
    assert [each.path for each in item.evidence] == ["/patches/n", "/patches/o", "/patches/d"]
    elsewhere = patch("e", source="sha256:2")
    assert len(items_of(facts(patches=[new, elsewhere, patch("g", title="code: another goal")]))) == 3


def test_a_proved_patch_comes_before_a_failed_run_and_a_doubtful_one_after_it() -> None:
    doubtful = patch("d", proved=False, title="code: b", reason="Its tests cannot fail.")
    items = items_of(facts(patches=[doubtful, patch("p")], troubles=[trouble(), trouble(what="stuck", id="s")]))
    assert [each.kind for each in items] == ["run", "patch", "run", "patch"]
    assert items[-1].detail == "1 file, +3 -2; Its tests cannot fail."


def test_a_patch_without_sizes_is_told_of_too() -> None:
    bare = patch("p", evidence={"patch": "none"}, reason="")
    assert only(items_of(facts(patches=[bare]))).detail == "0 files, +0 -0; not proved"


def test_every_place_that_attention_names_is_one_of_the_page() -> None:
    day = Account("day:2026-01-01", cap_tokens=10, spent=Amount(10, 0))
    mine = Account("run:hopper-1", cap_tokens=10, spent=Amount(9, 0))
    all_there_is = facts(
        approvals=[(approval("a"), 1), (approval("b", expires=NOW + 1, target="https://b.example/"), 1)],
        troubles=[trouble(count=3), trouble("incident"), trouble(what="stuck", id="s")],
        patches=[patch("p"), patch("d", proved=False, title="code: another")],
        live=[a_run()],
        accounts=[day, mine],
        vault={"state": "damaged"},
        sealed="the disk is full",
        lost=3,
        queued=10,
        queue_max=10,
        free_bytes=1,
        residents=[Resident("echo", "waiting", "boom", 4)],
    )
    others = facts(vault={"state": "locked"}, queued=9, queue_max=10, free_bytes=LITTLE_BYTES - 1)
    items = [*items_of(all_there_is), *items_of(others)]
    assert {each.rank for each in items} == set(RANKS.values()), "a kind of item is missing here"
    for place in chain.from_iterable(each.evidence for each in items):
        check_place(place.path)


def check_place(path: str) -> None:
    """A route of the page, a part of the lab that there is, and a query that its view reads."""
    app = (GRACE / "web/js/app.js").read_text()
    routes = re.findall(r'^  \["(/[^"]*)", "(\w+)"\],$', app, re.MULTILINE)
    told = urlsplit(path)
    views = [view for route, view in routes if re.fullmatch(re.sub(":[a-z]+", "[^/]+", route), told.path)]
    assert views, path
    source = (GRACE / f"web/js/view_{views[0]}.js").read_text()
    if told.path.startswith("/lab/"):
        part = told.path.removeprefix("/lab/")
        assert f'["{part}", "' in source, path
        source = (GRACE / f"web/js/lab_{part}.js").read_text()
    for name in re.findall(r"(?:^|&)(\w+)=", told.query):
        assert f'get("{name}")' in source or f'"{name}"' in source, path
