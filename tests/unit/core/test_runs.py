"""The table of runs: lists of them by every way there is to ask, and none of them reads all."""

import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.run import Outcome, Run, State, resumed_by, title_of
from core.runs import Runs, RunsView
from protos.errors import NotFound
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message

COUNT = 60
MADS = ("hopper", "marco", "mcnamara")


def a_run(number: int) -> Run:
    title = f'code: mend number {number}, the "quoted" 100%_one' if number % 10 == 0 else f"scan: tree {number}"
    return Run(
        *(f"run-{number}", MADS[number % 3], f"c{number}", f"t{number}", number, State.REQUESTED, 1000.0 + number),
        title=title,
    )


def asking(run: Run) -> Entry:
    """The message that starts it: what a run is called is its text."""
    body = Message(id=run.trigger, kind=KIND_PROSE, text=run.title).SerializeToString()
    return Entry(run.trigger, "message", body, run.conversation, "client:ann", run.mad)


@pytest.fixture(scope="module")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runs]:
    async with Journal(tmp_path_factory.mktemp("j") / "journal.db", [RunsView()]) as journal:
        runs = Runs(journal, b"key")
        for number in range(COUNT):
            run = a_run(number)
            await journal.append(asking(run))
            await runs.request(run)
            if number < 50:
                outcome = Outcome.FAILED if number % 5 == 0 else Outcome.SUCCEEDED
                run = await runs.move(run, State.COLLECTING, outcome=outcome, ended=2000.0)
                await runs.move(run, State.DESTROYED)
        yield runs


async def numbers(runs: Runs, **wanted: Any) -> list[int]:
    return [int(each.id.removeprefix("run-")) for each in await runs.newest(**wanted)]


async def test_pages_follow_each_other_without_a_gap_whatever_is_asked_for(runs: Runs) -> None:
    for wanted in ({}, {"mad": "marco"}, {"outcome": "failed"}, {"state": "destroyed"}, {"text": "tree"}):
        whole = await numbers(runs, limit=COUNT, **wanted)
        assert whole == sorted(whole, reverse=True)
        paged: list[int] = []
        while page := await numbers(runs, limit=7, before=f"run-{paged[-1]}" if paged else "", **wanted):
            paged += page
        assert paged == whole


async def test_what_is_asked_for_is_found_and_nothing_else(runs: Runs) -> None:
    every = list(range(COUNT - 1, -1, -1))
    assert await numbers(runs, limit=COUNT, mad="marco") == [each for each in every if each % 3 == 1]
    assert await numbers(runs, limit=COUNT, state="live") == [each for each in every if each >= 50]
    assert await numbers(runs, limit=COUNT, state="requested", mad="hopper") == [57, 54, 51]
    assert await numbers(runs, limit=COUNT, state="running") == []
    failed = [each for each in every if each < 50 and each % 5 == 0]
    assert await numbers(runs, limit=COUNT, outcome="failed") == failed
    assert await numbers(runs, limit=COUNT, outcome="failed", mad="marco") == [each for each in failed if each % 3 == 1]
    assert await numbers(runs, limit=COUNT, text="MEND", outcome="failed") == [40, 30, 20, 10, 0]
    assert await numbers(runs, limit=COUNT, text='"quoted" 100%_one', state="live") == [50]
    assert await numbers(runs, limit=COUNT, text="nd") == [50, 40, 30, 20, 10, 0]
    assert await numbers(runs, limit=COUNT, text="no such title") == []
    for strange in ("a\0b\0c\0d", '"', '"""', "NEAR(a b)", "title:x*"):
        assert await numbers(runs, limit=COUNT, text=strange) in ([], [50, 40, 30, 20, 10, 0])


async def test_a_page_behind_a_run_that_never_was_is_refused(runs: Runs) -> None:
    with pytest.raises(NotFound):
        await runs.newest(before="run-none")


async def test_runs_that_changed_come_in_the_order_of_their_last_entries(runs: Runs) -> None:
    ((last,),) = await runs._journal.query("SELECT max(sequence) FROM journal")
    found = await runs.changed(0, last, COUNT)
    assert len(found) == COUNT
    assert [each.changed for each in found] == sorted(each.changed for each in found)
    assert await runs.changed(found[-2].changed, last, 10) == found[-1:]
    assert set(await runs.some(["run-3", "none"])) == {"run-3"}


@pytest.mark.parametrize(
    "wanted",
    [
        "mad = 'a' AND number < 9 ORDER BY number DESC",
        "outcome = 'failed' AND number < 9 ORDER BY number DESC",
        "outcome = 'failed' AND mad = 'a' AND number < 9 ORDER BY number DESC",
        "changed > 5 AND changed <= 9 ORDER BY changed",
    ],
)
def test_each_way_to_ask_has_its_index(wanted: str) -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(RunsView.schema)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN SELECT id FROM runs WHERE {wanted} LIMIT 50")]
    db.close()
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH runs USING INDEX"), plan


def test_a_title_is_the_goal_or_the_call_in_one_line() -> None:
    said = Message(kind=KIND_PROSE, text="  Look at\n\tthis\x1b[31m tree \u202e ")
    assert title_of(said) == "Look at this [31m tree"
    call = Message(kind=KIND_CALL, tool="code", data='{"repository": "x", "goal": "mend\\nit"}')
    assert title_of(call) == "code: mend it"
    assert title_of(Message(kind=KIND_CALL, tool="sum", data='{"a": 1, "b": [2]}')) == "sum(a=1, b=[2])"
    assert title_of(Message(kind=KIND_CALL, tool="sum", data="[[[")) == "sum()"
    digest = "sha256:" + 64 * "0"
    test = {"source": digest, "command": "make test", "changes": digest, "control": []}
    assert title_of(Message(kind=KIND_CALL, tool="test", data=json.dumps(test))) == "test: make test"
    plain = {"source": digest, "goal": " ", "command": "", "deleted": None, "blobs": [digest], "size": 3}
    assert title_of(Message(kind=KIND_CALL, tool="test", data=json.dumps(plain))) == "test(size=3)"
    long = title_of(Message(kind=KIND_PROSE, text="word " * 1000))
    assert len(long) == 160
    assert long.endswith("…")


async def test_a_run_knows_what_it_goes_on_from_and_what_went_on_from_it(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db", [RunsView()]) as journal:
        runs, old = Runs(journal, b"key"), a_run(1)
        later = [replace(a_run(number), resumes=old.id) for number in (2, 3)]
        for each in (old, *later):
            await runs.request(each)
        await journal.rebuild("runs")
        assert [(await runs.get(each.id)).resumes for each in (old, *later)] == ["", old.id, old.id]
        assert await runs.resumed(old.id) == [each.id for each in later]
        assert await runs.resumed(later[0].id) == await runs.resumed("") == []


@pytest.mark.parametrize(
    ("data", "resumed"),
    [
        ({"resumes": "foreman-0123456789"}, "foreman-0123456789"),
        ({"resumes": "a person's words"}, ""),  # in the entries of a run there are none
        ({"resumes": ["foreman-0123456789"]}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_only_the_name_of_a_run_is_taken_for_what_is_resumed(data: object, resumed: str) -> None:
    assert resumed_by(Message(kind=KIND_CALL, data=json.dumps(data))) == resumed
    assert resumed_by(Message(kind=KIND_PROSE, data=json.dumps(data))) == ""


async def test_an_older_journal_gets_its_table_anew(tmp_path: Path) -> None:
    entry = Entry("run:a:requested", "run", b'{"id": "a", "mad": "m", "state": "requested", "created": 1}')
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.append(entry)
    async with Journal(tmp_path / "journal.db", [RunsView()]) as journal:
        (run,) = await Runs(journal, b"key").newest()
        assert (run.id, run.title, run.changed) == ("a", "", 1)


async def test_a_title_goes_with_the_conversation_and_stands_in_no_entry_of_the_run(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db", [RunsView()]) as journal:
        runs, run = Runs(journal, b"key"), a_run(10)
        await journal.append(asking(run))
        await runs.request(run)
        told = await journal.query("SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'run'")
        assert all(b"quoted" not in body for (body,) in told)
        (found,) = await runs.newest(text="quoted")
        await journal.rebuild("runs")
        assert await runs.newest(text="quoted") == [found]
        await journal.append(Entry("gone", "retention", json.dumps({"conversation": run.conversation}).encode()))
        assert await runs.newest(text="quoted") == []
        assert (await runs.get(run.id)).title == ""


async def test_runs_of_an_older_journal_get_their_titles_and_askers(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        asked, child = a_run(1), {"id": "child", "mad": "m", "parent": "run-1", "trigger": "unknown"}
        told = {"id": asked.id, "mad": asked.mad, "trigger": asked.trigger, "state": "requested", "created": 1.0}
        await journal.append(
            asking(asked), *(Entry(str(each["id"]), "run", json.dumps(each).encode()) for each in (told, child))
        )
    async with Journal(tmp_path / "journal.db", [RunsView()]) as journal:
        rows = await journal.query("SELECT id, title, asker FROM runs ORDER BY number")
        assert rows == [("run-1", "scan: tree 1", "client:ann"), ("child", "", "client:ann")]
