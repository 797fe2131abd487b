"""Ranges of sequences, what is set apart, and proofs of deletion."""

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from anyio import fail_after

from core.rogers import retention
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.ranges import format_ranges, parse_ranges
from core.rogers.retention import Retention, listed, remove_listed, retain, say
from core.rogers.views import VIEWS
from protos.errors import InvalidArgument

ALL = Retention(events_s=0.0, messages_s=0.0, answers_s=0.0, max_bytes=None, seal_s=None)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    with fail_after(60):
        async with Journal(tmp_path / "journal.db", VIEWS) as journal:
            await journal.append(*(Entry(f"m{at}", "message", b"%d" % at, "c", at=1.0) for at in range(1, 11)))
            yield journal


async def remove(journal: Journal, *sequences: int) -> None:
    rows = [(each, sha256(b"%d" % each).digest()) for each in sequences]
    await say(journal, "forget", listed("message", rows))
    await remove_listed(journal, sequences)


def test_ranges_go_into_text_and_back() -> None:
    chosen = random.Random(3)
    for _ in range(200):
        sequences = sorted(chosen.sample(range(1, 60), chosen.randint(0, 50)))
        pairs = parse_ranges(format_ranges(sequences))
        assert [each for low, high in pairs for each in range(low, high + 1)] == sequences
    assert format_ranges([1, 2, 3, 7]) == "1-3,7"
    with pytest.raises(InvalidArgument):
        parse_ranges("1-x")


async def test_bodies_removed_alone_and_by_age_are_each_proven_once(journal: Journal) -> None:
    await remove(journal, 3, 4, 8)
    assert (await retain(journal, ALL)).bodies_removed == 7
    found = await journal.verify()
    assert found.ok, found.problems
    assert (found.bodies_removed, found.bodies_present) == (10, 2)
    await journal.rebuild("set_apart")
    assert await journal.query("SELECT first, last, state FROM set_apart") == [(3, 4, "removed"), (8, 8, "removed")]


async def test_more_proofs_than_an_entry_holds_are_several_entries(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LISTED", 2)
    monkeypatch.setattr(retention, "TOLD", 8)
    rows = [(each, sha256(b"%d" % each).digest()) for each in (1, 2, 4, 6, 8, 10)]
    last = await say(journal, "forget", listed("message", rows), conversation="c")
    await remove_listed(journal, [sequence for sequence, _ in rows])
    told = await journal.query("SELECT sequence FROM journal WHERE kind = 'retention' ORDER BY sequence")
    assert [sequence for (sequence,) in told] == [11, 12] == [last - 1, last]
    found = await journal.verify()
    assert found.ok, found.problems
    assert (found.bodies_removed, found.bodies_missing) == (6, 0)


async def test_what_was_said_and_not_done_is_no_lie(journal: Journal) -> None:
    await say(journal, "forget", listed("message", [(3, sha256(b"3").digest())]))
    found = await journal.verify()
    assert found.ok, found.problems
    assert found.bodies_removed == 0


async def test_a_body_that_no_proof_names_is_missing(journal: Journal) -> None:
    await remove(journal, 3)
    await journal.amend(lambda db: db.execute("DELETE FROM body WHERE sequence = 5"))
    found = await journal.verify()
    assert (found.bodies_removed, found.bodies_missing, found.ok) == (1, 1, False)


@pytest.mark.parametrize("body", [b'{"proofs": [{"kind": "message"}]}', b'{"proofs": 7}', b"[]", b"{"])
async def test_a_proof_of_another_shape_is_a_finding_and_no_crash(journal: Journal, body: bytes) -> None:
    head = journal.statistics().entries
    with closing(sqlite3.connect(journal.path)) as db:
        row = (head + 1, 1.0, "retention", "x", "", "", "", len(body), sha256(body).digest(), b"")
        db.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO body VALUES (?, ?)", (head + 1, body))
        db.commit()
    found = await journal.verify()
    assert not found.ok
    assert found.problems
