"""Retention removes bodies and seals headers; the chain stays whole and says which was which."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from anyio import fail_after

from core.rogers.bus import Rogers
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.rogers.retention import DAY_S, SEGMENT, Retained, Retention, retain, sealed_acts
from core.rogers.verify import verify
from core.rogers.views import VIEWS
from protos.v1.message_pb2 import KIND_PROSE, Message

NOW = 2_000_000_000.0
FOREVER = Retention(events_s=None, messages_s=None, max_bytes=None, seal_s=None)


class Counted:
    """A view for tests: how many acts there were, whose bodies no policy takes."""

    name = "counted"
    kinds = frozenset({"act"})
    tables = ("counted",)
    schema = "CREATE TABLE IF NOT EXISTS counted (id TEXT PRIMARY KEY, size INTEGER)"

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        db.execute("INSERT INTO counted VALUES (?, ?)", (row.id, len(row.body or b"")))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    with fail_after(60):
        async with Journal(tmp_path / "journal.db", [*VIEWS, Counted()]) as journal:
            yield journal


async def fill(journal: Journal, kind: str, count: int, days_ago: float, *, size: int = 100) -> list[Entry]:
    first = journal.statistics().entries
    entries = [
        Entry(
            f"{kind} {first + at}",
            kind,
            Message(id=f"{kind} {first + at}", conversation="c", kind=KIND_PROSE, text="x" * size).SerializeToString(),
            "c",
            "hopper",
            at=NOW - days_ago * DAY_S,
        )
        for at in range(count)
    ]
    await journal.append(*entries)
    return entries


async def test_old_bodies_go_and_young_ones_stay(journal: Journal) -> None:
    await fill(journal, "event", 10, 40)
    await fill(journal, "message", 10, 40)
    await fill(journal, "act", 10, 40)
    await fill(journal, "message", 10, 3)
    policy = Retention(events_s=7 * DAY_S, messages_s=30 * DAY_S, max_bytes=None, seal_s=None)
    assert await retain(journal, policy, now=NOW) == Retained(bodies_removed=20)
    found = await journal.verify()
    assert found.ok, found.problems
    assert (found.bodies_removed, found.bodies_present, found.bodies_missing) == (20, 21, 0)
    assert await retain(journal, policy, now=NOW) == Retained()
    assert journal.statistics().entries == 41, "an idle turn writes nothing"


async def test_what_went_stands_in_no_file_while_the_journal_is_open(journal: Journal) -> None:
    await fill(journal, "message", 10, 40)
    await retain(journal, Retention(messages_s=30 * DAY_S, max_bytes=None, seal_s=None), now=NOW)
    files = [each for each in journal.path.parent.iterdir() if each.name.startswith("journal.db")]
    assert len(files) >= 3, "the log, too"
    for each in files:
        assert b"x" * 100 not in each.read_bytes(), each.name


async def test_what_went_before_a_crash_leaves_the_log_when_the_journal_opens_again(tmp_path: Path) -> None:
    living, left = tmp_path / "living", tmp_path / "left"
    living.mkdir()
    async with Journal(living / "journal.db", VIEWS) as journal:
        await fill(journal, "message", 10, 40)
        await journal.amend(lambda db: db.execute("DELETE FROM body"))
        shutil.copytree(living, left)  # as a kill would leave it
    assert b"x" * 100 in (left / "journal.db-wal").read_bytes()
    with fail_after(60):
        async with Journal(left / "journal.db", VIEWS) as journal:
            await journal.append(Entry("next", "event", b"", at=NOW))
            await journal.amend(lambda db: None)  # behind the care that follows the commit
            assert b"x" * 100 not in (left / "journal.db-wal").read_bytes()


async def test_answers_of_models_are_forgotten_like_what_was_said(journal: Journal) -> None:
    await fill(journal, "answer", 10, 40)
    await fill(journal, "answer", 10, 20)
    policy = Retention(answers_s=30 * DAY_S, max_bytes=None, seal_s=None)
    assert await retain(journal, policy, now=NOW) == Retained(bodies_removed=10)
    found = await journal.verify()
    assert found.ok, found.problems
    assert (found.bodies_removed, found.bodies_missing) == (10, 0)
    assert await retain(journal, policy, now=NOW) == Retained()


async def test_a_journal_that_forgot_no_answers_yet_begins_to(journal: Journal) -> None:
    await fill(journal, "answer", 10, 40)
    await fill(journal, "message", 10, 40)
    await journal.append(Entry("before", "retention", b'{"removed": {"event": 20, "message": 20}}', at=NOW))
    policy = Retention(messages_s=30 * DAY_S, answers_s=30 * DAY_S, max_bytes=None, seal_s=None)
    assert (await retain(journal, policy, now=NOW)).bodies_removed == 20
    assert (await journal.verify()).ok


async def test_a_body_beyond_the_policy_is_missing_not_removed(journal: Journal) -> None:
    await fill(journal, "message", 10, 40)
    await fill(journal, "message", 10, 3)
    await retain(journal, Retention(messages_s=30 * DAY_S, seal_s=None), now=NOW)
    await journal.amend(lambda db: db.execute("DELETE FROM body WHERE sequence = 15"))
    found = await journal.verify()
    assert (found.bodies_removed, found.bodies_missing) == (10, 1)
    assert found.chain_intact
    assert not found.ok


async def test_a_journal_that_cannot_be_written_anew_is_not_sealed_by_it(journal: Journal) -> None:
    await journal.amend(lambda db: db.execute("PRAGMA busy_timeout = 50"))
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        await journal.owe_scrub()
        other.execute("BEGIN IMMEDIATE")  # so that VACUUM fails, as on a disk that is full
        await journal.scrub(thorough=True)
        other.execute("ROLLBACK")
    assert await journal.owes_scrub()
    await retain(journal, FOREVER)
    assert not await journal.owes_scrub(), "the next turn has done it"
    assert journal.sealed is None
    assert await journal.append(Entry(id="after", kind="note", body=b"{}"))


async def test_a_turn_that_was_cut_off_is_finished_by_the_next(journal: Journal) -> None:
    await fill(journal, "message", 10, 40)
    policy = Retention(messages_s=30 * DAY_S, max_bytes=None, seal_s=None)
    await journal.append(Entry("cut", "retention", b'{"removed": {"event": 10, "message": 10}}', at=NOW))
    assert (await journal.verify()).bodies_present == 11
    assert (await retain(journal, policy, now=NOW)).bodies_removed == 10
    assert (await journal.verify()).ok


@pytest.mark.parametrize("kind", ["message", "answer"])
async def test_pages_in_use_stay_under_the_cap(journal: Journal, kind: str) -> None:
    policy = Retention(events_s=None, messages_s=None, max_bytes=1 << 20, seal_s=None)
    sizes = []
    for _ in range(8):
        await fill(journal, kind, 300, 0, size=3000)
        await retain(journal, policy, now=NOW)
        ((used, pages),) = await journal.query(
            "SELECT (page_count - freelist_count) * page_size, page_count"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        sizes.append(pages)
        assert used <= 1 << 20
    assert sizes[-1] == sizes[2], "free pages are used again, the file does not grow"
    assert (await journal.verify()).ok


async def test_old_headers_are_sealed_and_the_chain_goes_on(journal: Journal) -> None:
    old = await fill(journal, "message", 2 * SEGMENT + 100, 400)
    await fill(journal, "act", 5, 400)
    await fill(journal, "message", 10, 1)
    done = await retain(journal, Retention(), now=NOW)
    assert done.headers_sealed == 2 * SEGMENT
    assert await journal.query("SELECT min(sequence) FROM journal") == [(2 * SEGMENT + 1,)]
    found = await journal.verify()
    assert found.ok, found.problems
    assert found.entries == journal.statistics().entries
    assert found.bodies_removed == len(old)
    assert journal.statistics().messages == len(old) + 10
    assert await journal.append(old[7]) == [8], "an id is known for ever"
    again = journal.statistics().entries
    assert await journal.append(Entry("new", "act"), old[7]) == [again + 1, 8]


async def test_a_sealed_journal_opens_again_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(path) as journal:
        old = await fill(journal, "message", SEGMENT, 400)
        await retain(journal, Retention(), now=NOW)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM journal")
        db.commit()
    Path(f"{path}.head").unlink()
    async with Journal(path) as journal:
        assert await journal.append(old[3], Entry("next", "act")) == [4, SEGMENT + 1]
        assert (await journal.verify()).chain_intact


@pytest.mark.parametrize("spoiled", ["headers = headers || x'00'", "head = zeroblob(32)", "anchor = zeroblob(31)"])
async def test_a_changed_segment_is_found(tmp_path: Path, spoiled: str) -> None:
    path = tmp_path / "journal.db"
    async with Journal(path) as journal:
        await fill(journal, "message", 2 * SEGMENT, 400)
        await retain(journal, Retention(), now=NOW)
    assert verify(path).ok
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE segment SET {spoiled} WHERE first = 1")
        db.commit()
    found = verify(path)
    assert not found.chain_intact
    assert "the sealed segment 1 to" in found.problems[0]


async def test_views_are_rebuilt_from_sealed_entries_too(journal: Journal) -> None:
    await fill(journal, "act", 20, 400)
    await fill(journal, "message", SEGMENT, 400)
    await fill(journal, "act", 20, 0)
    await retain(journal, Retention(), now=NOW)
    assert await journal.query("SELECT count(*) FROM segment") == [(1,)]
    before = await journal.query("SELECT * FROM counted ORDER BY id")
    assert len(before) == 40
    await journal.rebuild("counted")
    assert await journal.query("SELECT * FROM counted ORDER BY id") == before


async def test_acts_that_are_sealed_go_when_their_time_comes(journal: Journal) -> None:
    free = json.dumps({"act": "bus.call"}).encode()
    old = [Entry(f"act {at}", "act", free, "c/1" if at % 2 else "cc", at=NOW - 400 * DAY_S) for at in range(20)]
    young = [Entry(f"young {at}", "act", free, "c", at=NOW - 300 * DAY_S) for at in range(20)]
    await journal.append(*old)
    await fill(journal, "message", SEGMENT, 350)
    await journal.append(*young)
    await fill(journal, "message", SEGMENT, 250)
    assert (await retain(journal, Retention(), now=NOW)).headers_sealed == 2 * SEGMENT
    assert [sequence for sequence, _ in await sealed_acts(journal, "c")] == [*range(2, 21, 2), *range(1045, 1065)]
    policy = Retention(acts_s=365 * DAY_S)
    assert (await retain(journal, policy, now=NOW)).bodies_removed == 20
    assert (await retain(journal, policy, now=NOW)).bodies_removed == 0
    assert (await retain(journal, policy, now=NOW + 100 * DAY_S)).bodies_removed == 20
    found = await journal.verify()
    assert found.ok, found.problems
    assert found.bodies_missing == 0


async def test_history_shows_that_something_was_said_and_inboxes_skip_it(journal: Journal) -> None:
    await fill(journal, "message", 3, 40)
    await fill(journal, "message", 1, 0)
    async with Rogers(journal) as rogers:
        await retain(journal, Retention(messages_s=30 * DAY_S), now=NOW)
        said = await rogers.history("c")
        assert [message.tool for message in said] == ["removed"] * 3 + [""]
        assert [message.sequence for message in said] == [1, 2, 3, 4]


async def test_for_ever_is_for_ever(journal: Journal) -> None:
    await fill(journal, "message", SEGMENT, 10_000)
    assert await retain(journal, FOREVER, now=NOW) == Retained()
