"""What every journal promises its callers."""

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import fail_after

from core.rogers.call import MAX_ENTRY
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, InvalidArgument, Unavailable
from protos.ids import new_id


class Totals:
    """A view for tests: the sum of what each sender wrote."""

    name = "total"
    kinds = frozenset({"act"})
    tables = ("total",)
    schema = "CREATE TABLE IF NOT EXISTS total (sender TEXT PRIMARY KEY, amount INTEGER NOT NULL);"

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        amount = json.loads(row.body or b"0")
        db.execute(
            "INSERT INTO total VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            (row.sender, amount),
        )


def act(amount: int, sender: str = "hopper", id: str | None = None) -> Entry:
    return Entry(id or new_id(), "act", json.dumps(amount).encode(), sender=sender)


def ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.id for entry in entries]


@pytest.fixture(params=[0, 1000], ids=["commits on the thread", "commits in the loop"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    with fail_after(60):
        async with Journal(tmp_path / "journal.db", [Totals()], stall_s=request.param) as journal:
            yield journal


async def test_what_is_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    entries = [act(at) for at in range(10)]
    async with Journal(tmp_path / "journal.db") as journal:
        assert await journal.append(*entries) == list(range(1, 11))
    async with Journal(tmp_path / "journal.db") as journal:
        rows = await journal.query("SELECT id FROM journal ORDER BY sequence")
        assert [id for (id,) in rows] == ids(entries)


async def test_the_same_id_is_the_same_entry(journal: Journal) -> None:
    first, second = act(1), act(2)
    assert await journal.append(first) == [1]
    assert await journal.append(first) == [1]
    assert await journal.append(second, first, second) == [2, 1, 2]
    assert journal.statistics().entries == 2


async def test_the_same_id_twice_in_one_batch_is_one_entry(journal: Journal) -> None:
    entry = act(5)
    answers: list[int] = []

    async def append() -> None:
        answers.extend(await journal.append(entry))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(append)
    assert answers == [1] * 20
    assert await journal.query("SELECT amount FROM total") == [(5,)]


async def test_an_id_cannot_be_taken_by_another_sender(journal: Journal) -> None:
    entry = act(1, "marco", id="taken")
    fine = act(7, "hopper")
    await journal.append(entry)
    with pytest.raises(Conflict, match="taken"):
        await journal.append(fine, act(1, "hopper", id="taken"))
    assert await journal.query("SELECT sender, amount FROM total") == [("marco", 1)], "whole or not at all"


async def test_what_cannot_be_written_is_refused_at_the_door(journal: Journal) -> None:
    long = Entry("a", "act", b"x" * (MAX_ENTRY + 1))
    for wrong in (long, Entry("", "act"), Entry("a", ""), Entry("a", "act", at=float("nan")), Entry("\ud800", "act")):
        with pytest.raises(InvalidArgument):
            await journal.append(wrong)
    assert await journal.append(act(1)) == [1]


async def test_listeners_hear_of_each_new_row_once_and_in_order(journal: Journal) -> None:
    heard: list[Row] = []
    journal.on_commit(heard.extend)
    again = act(0)

    async def publish() -> None:
        for at in range(20):
            await journal.append(act(at), again)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(publish)
    assert [row.sequence for row in heard] == list(range(1, 162))


async def test_what_rides_along_is_written_without_anybody_waiting(journal: Journal) -> None:
    heard = anyio.Event()
    journal.on_commit(lambda rows: heard.set())
    assert journal.append_soon(act(1), act(2)) == 2
    with fail_after(60):
        await heard.wait()
    assert journal.statistics().entries == 2


async def test_what_rides_along_is_flushed_at_close(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        journal.append_soon(act(1))
        journal.keep_cursor("marco", "c", 1)
    async with Journal(tmp_path / "journal.db") as journal:
        assert journal.statistics().entries == 1
        assert await journal.cursor("marco", "c") == 1


async def test_a_dropped_cursor_leaves_no_row_and_may_be_kept_anew_from_an_earlier_place(journal: Journal) -> None:
    journal.keep_cursor("marco", "c", 7)
    await journal.append(act(1))
    journal.drop_cursor("marco", "c")
    assert await journal.cursor("marco", "c") == 0, "at once"
    journal.keep_cursor("marco", "c", 3)
    assert await journal.cursor("marco", "c") == 3
    await journal.append(act(1))
    assert await journal.cursor("marco", "c") == 3
    journal.drop_cursor("marco", "c")
    await journal.append(act(1))
    assert await journal.query("SELECT * FROM cursor") == []


async def test_cursors_only_move_forward(journal: Journal) -> None:
    await journal.append(*[act(1) for _ in range(9)])
    journal.keep_cursor("marco", "c", 7)
    assert await journal.cursor("marco", "c") == 7
    await journal.append(act(1))
    journal.keep_cursor("marco", "c", 5)
    assert await journal.cursor("marco", "c") == 7
    assert await journal.cursor("marco", "d") == 0


async def test_a_view_dropped_and_rebuilt_is_equal(journal: Journal) -> None:
    await journal.append(*[act(at, f"s{at % 7}") for at in range(200)])
    before = await journal.query("SELECT * FROM total ORDER BY sender")
    await journal.rebuild("total")
    assert await journal.query("SELECT * FROM total ORDER BY sender") == before


async def test_a_view_that_is_new_to_the_journal_sees_the_past(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.append(act(1), act(2))
    async with Journal(tmp_path / "journal.db", [Totals()]) as journal:
        assert await journal.query("SELECT amount FROM total") == [(3,)]


async def test_an_entry_that_a_view_refuses_fails_alone(journal: Journal) -> None:
    failures: list[Exception] = []

    async def append(entry: Entry) -> None:
        try:
            await journal.append(entry)
        except ValueError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        for at in range(10):
            tasks.start_soon(append, act(at))
        tasks.start_soon(append, Entry("poison", "act", b"no number"))
    assert len(failures) == 1
    assert journal.sealed is None
    assert await journal.query("SELECT amount FROM total") == [(45,)]
    assert (await journal.verify()).ok


async def test_a_view_that_refuses_the_past_does_not_keep_the_journal_closed(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.append(act(1), Entry("poison", "act", b"no number"), act(2))
    async with Journal(tmp_path / "journal.db", [Totals()]) as journal:
        assert await journal.query("SELECT amount FROM total") == [(3,)]
        await journal.rebuild("total")
        assert await journal.query("SELECT amount FROM total") == [(3,)]


async def test_readers_cannot_write(journal: Journal) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await journal.query("DELETE FROM journal")


async def test_commits_go_on_in_order_wherever_they_are_made(tmp_path: Path) -> None:
    """The bound is so low that the loop takes a few calls at a time, the thread what is large, and both take turns."""
    heard: list[Row] = []
    bodies: dict[str, bytes] = {}
    async with Journal(tmp_path / "journal.db", stall_s=0.0005, checkpoint_bytes=200_000) as journal:
        journal.on_commit(heard.extend)

        async def publish(publisher: int) -> None:
            for at in range(30):
                entries = [act(at) for _ in range(1 + publisher % 3)]
                if at % 10 == publisher % 10:
                    entries.append(Entry(new_id(), "message", b"x" * 400_000))
                bodies.update({entry.id: entry.body for entry in entries})
                journal.append_soon(soon := act(at))
                bodies[soon.id] = soon.body
                sequences = await journal.append(*entries)
                assert sequences == list(range(sequences[0], sequences[0] + len(entries))), "together"
                if at == 20:
                    await journal.amend(lambda db: db.execute("SELECT 1").fetchone())

        with fail_after(60):
            async with anyio.create_task_group() as tasks:
                for publisher in range(12):
                    tasks.start_soon(publish, publisher)
    assert [row.sequence for row in heard] == list(range(1, len(bodies) + 1))
    async with Journal(tmp_path / "journal.db") as journal:
        stored = await journal.query("SELECT j.id, b.body FROM journal j JOIN body b USING (sequence)")
        assert dict(stored) == bodies
        assert (await journal.verify()).ok


async def test_a_publisher_that_never_waits_for_anything_else_leaves_the_loop_to_others(journal: Journal) -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        for at in range(10):
            await journal.append(act(at))
        tasks.cancel_scope.cancel()
    assert turns >= 10


async def test_a_second_opener_is_refused(journal: Journal) -> None:
    with pytest.raises(Conflict, match="already open, in process"):
        async with Journal(journal.path):
            pass
    assert await journal.append(act(1)) == [1]


async def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        pass
    with pytest.raises(Unavailable, match="closed"):
        await journal.append(act(1))
    assert journal.append_soon(act(1)) == 0
    assert journal.statistics().lost == 1


async def test_nobody_else_can_read_the_files(journal: Journal) -> None:
    await journal.append(act(1))
    modes = {
        file.name: file.stat().st_mode & 0o777 for file in journal.path.parent.iterdir() if "head" not in file.name
    }
    assert set(modes.values()) == {0o600}, modes


async def test_work_that_fails_between_commits_leaves_nothing(journal: Journal) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM journal")
        raise ValueError("half-way")

    await journal.append(act(1))
    with pytest.raises(ValueError, match="half-way"):
        await journal.amend(work)
    assert journal.sealed is None
    assert await journal.append(act(2)) == [2]
    assert (await journal.verify()).ok


async def test_data_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO migration VALUES (99, 'later', 'x', 0)")
    db.close()
    with pytest.raises(Conflict, match="a newer madlab wrote this data"):
        async with Journal(path):
            pass
