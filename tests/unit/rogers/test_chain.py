"""The hash chain finds every change, and says which."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from core.rogers import chain
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.verify import Verification, head_path, verify
from protos.errors import Conflict
from protos.ids import new_id

ENTRIES = 60


async def written(path: Path, seed: int = 0) -> Path:
    """A closed journal of entries with words of every kind."""
    chance = random.Random(seed)
    async with Journal(path) as journal:
        for _ in range(ENTRIES):
            words = ["", "a", "ab", "ä\0b", "1:x", "c" * chance.randrange(40)]
            kind, conversation, sender, recipient = chance.choice(words[1:5]), *chance.choices(words, k=3)
            body = chance.randbytes(chance.choice([0, 1, 100, 9000]))
            await journal.append(Entry(new_id(), kind, body, conversation, sender, recipient))
    return path


def spoil(path: Path, *statements: str) -> Verification:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
        db.commit()
    return verify(path)


def test_headers_that_differ_never_read_alike() -> None:
    assert chain.header("a", "b", "", "", "") != chain.header("ab", "", "", "", "")
    assert chain.header("", "1:a", "", "", "") != chain.header("1:", "a", "", "", "")
    assert chain.header("a", "", "b", "", "") != chain.header("a", "b", "", "", "")


async def test_a_journal_left_alone_is_whole(tmp_path: Path) -> None:
    found = verify(await written(tmp_path / "journal.db"))
    assert found.ok
    assert (found.entries, found.noted, found.problems) == (ENTRIES, ENTRIES, [])
    assert found.bodies_present > 0


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 0.000001",
        "kind = kind || 'x'",
        "id = id || 'x'",
        "conversation = conversation || 'x'",
        "sender = sender || 'x'",
        "recipient = recipient || 'x'",
        "size = size + 1",
        "digest = zeroblob(32)",
        "hash = zeroblob(32)",
        "sequence = sequence + 1000",
        "digest = 'text'",
        "at = 'noon'",
        "sender = x'ff'",
    ],
)
async def test_a_changed_header_breaks_the_chain_where_it_was_changed(tmp_path: Path, change: str) -> None:
    at = random.Random(change).randrange(1, ENTRIES)
    found = spoil(await written(tmp_path / "journal.db"), f"UPDATE journal SET {change} WHERE sequence = {at}")
    assert not found.chain_intact
    assert any(str(at) in problem for problem in found.problems), found.problems


@pytest.mark.parametrize("seed", range(5))
async def test_words_moved_from_one_column_to_the_next_break_the_chain(tmp_path: Path, seed: int) -> None:
    path = await written(tmp_path / "journal.db", seed)
    found = spoil(path, "UPDATE journal SET sender = sender || recipient, recipient = '' WHERE recipient <> ''")
    assert not found.chain_intact


async def test_a_dropped_entry_is_told_by_its_number(tmp_path: Path) -> None:
    found = spoil(await written(tmp_path / "journal.db"), "DELETE FROM journal WHERE sequence IN (17, 18)")
    assert not found.chain_intact
    assert "entries 17 to 18 are gone" in found.problems


async def test_swapped_entries_break_the_chain(tmp_path: Path) -> None:
    found = spoil(
        await written(tmp_path / "journal.db"),
        "UPDATE journal SET sequence = 999 WHERE sequence = 8",
        "UPDATE journal SET sequence = 8 WHERE sequence = 9",
        "UPDATE journal SET sequence = 9 WHERE sequence = 999",
    )
    assert not found.chain_intact


async def test_an_altered_body_is_no_broken_chain(tmp_path: Path) -> None:
    found = spoil(
        await written(tmp_path / "journal.db"),
        "UPDATE body SET body = zeroblob(3) WHERE sequence = (SELECT min(sequence) FROM body)",
    )
    assert found.chain_intact
    assert (found.bodies_altered, found.bodies_missing, found.ok) == (1, 0, False)


async def test_a_missing_body_is_an_error_where_no_policy_removed_it(tmp_path: Path) -> None:
    found = spoil(
        await written(tmp_path / "journal.db"),
        "DELETE FROM body WHERE sequence = (SELECT max(sequence) FROM body)",
    )
    assert found.chain_intact
    assert (found.bodies_missing, found.bodies_removed, found.ok) == (1, 0, False)


@pytest.mark.parametrize("cut", [1, 10, ENTRIES])
async def test_a_cut_tail_is_seen(tmp_path: Path, cut: int) -> None:
    found = spoil(
        await written(tmp_path / "journal.db"),
        f"DELETE FROM journal WHERE sequence > {ENTRIES - cut}",
    )
    assert found.chain_intact, "what is left hangs together"
    assert not found.tail_intact
    assert f"{ENTRIES} entries were known, {ENTRIES - cut} are there" in found.problems[0]


async def test_a_tail_written_anew_is_seen(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db")
    head = head_path(path).read_bytes()
    spoil(path, f"DELETE FROM journal WHERE sequence = {ENTRIES}")
    head_path(path).unlink()
    async with Journal(path) as journal:
        await journal.append(*[Entry(f"false {at}", "act") for at in range(5)])
    head_path(path).write_bytes(head)
    found = verify(path)
    assert found.chain_intact
    assert not found.tail_intact


async def test_a_journal_that_lost_its_tail_does_not_cover_it_up(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db")
    spoil(path, "DELETE FROM journal WHERE sequence > 50")
    with pytest.raises(Conflict, match="has lost its tail: 60 entries were known, it ends at 50") as refused:
        async with Journal(path):
            pass
    assert "remove" in refused.value.next
    assert not verify(path).tail_intact, "the proof is still there"
    head_path(path).unlink()
    async with Journal(path) as journal:
        assert journal.statistics().entries == 50


async def test_a_damaged_file_is_told_and_not_raised(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db")
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        file.seek(size // 4)
        file.write(b"\xff" * (size // 2))
    found = verify(path)
    assert not found.ok
    assert not found.chain_intact
    assert found.problems


async def test_a_head_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal.db")
    for wrong in ("", "[]", '{"entries": 1}'):
        head_path(path).write_text(wrong)
        found = verify(path)
        assert found.chain_intact
        assert not found.tail_intact


PIECES: list[tuple[str, Callable[[Verification], bool]]] = [
    ("UPDATE journal SET sender = 'mallory' WHERE sequence = {at}", lambda found: not found.chain_intact),
    ("DELETE FROM journal WHERE sequence = {at}", lambda found: not found.chain_intact),
    ("UPDATE body SET body = x'00' WHERE sequence = {at}", lambda found: found.bodies_altered == 1),
    ("DELETE FROM body WHERE sequence = {at}", lambda found: found.bodies_missing == 1),
    ("DELETE FROM journal WHERE sequence >= {at}", lambda found: not found.tail_intact),
]


@pytest.mark.parametrize("seed", range(10))
async def test_any_one_change_is_found(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = await written(tmp_path / "journal.db", seed)
    with closing(sqlite3.connect(path)) as db:
        places = [at for (at,) in db.execute("SELECT sequence FROM body WHERE sequence BETWEEN 2 AND 59")]
    statement, is_found = chance.choice(PIECES)
    found = spoil(path, statement.format(at=chance.choice(places)))
    assert not found.ok
    assert is_found(found), (statement, found)
