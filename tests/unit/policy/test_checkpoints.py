"""Signed lines about the journal: whose they are, what is in them, and when one cannot be handed out."""

import json
import stat
from pathlib import Path

import pytest

from core.policy.checkpoints import Checkpoints, line_for, name_of, open_key, read_lines
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.verify import Head, verify
from protos.errors import Conflict, InvalidArgument

HEAD = Head(7, "ab" * 32, 1.5)


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    made = name_of(open_key(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert name_of(open_key(path)) == made
    path.chmod(0o640)
    with pytest.raises(Conflict, match="can be read by others"):
        open_key(path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(Conflict, match="holds no key"):
        open_key(path)


def test_a_line_is_believed_as_it_was_written_and_from_whom_it_must_be(tmp_path: Path) -> None:
    key, other = open_key(tmp_path / "one"), open_key(tmp_path / "two")
    line = line_for("lab", HEAD, key)
    (found,) = read_lines([line], "lab", name_of(key))
    assert found.head == HEAD
    for changed in ({"count": 6}, {"head": "cd" * 32}, {"lab": "other"}, {"at": 2.0}, {"key": name_of(other)}):
        with pytest.raises(InvalidArgument, match="line 1 has a wrong signature"):
            read_lines([json.dumps(json.loads(line) | changed)], "lab", name_of(key))
    with pytest.raises(InvalidArgument, match="line 2 is of the lab other"):
        read_lines([line, line_for("other", HEAD, key)], "lab", name_of(key))
    with pytest.raises(InvalidArgument, match="line 1 is signed by another key"):
        read_lines([line_for("lab", HEAD, other)], "lab", name_of(key))
    for none in ("", "[]", "{}", '{"count": 1}', line[:-3]):
        with pytest.raises(InvalidArgument, match="line 1 is no checkpoint"):
            read_lines([none], "lab", name_of(key))


async def test_lines_go_to_a_file_and_to_a_command_at_the_start_and_the_end_and_are_met_later(tmp_path: Path) -> None:
    file, copy = tmp_path / "kept.jsonl", tmp_path / "copy.jsonl"
    async with Journal(tmp_path / "journal.db") as journal:
        command = ["sh", "-c", f"cat >> {copy}"]
        made = Checkpoints(journal, "lab", tmp_path / "audit.key", path=file, command=command, every_s=60)
        async with made:
            await journal.append(*[Entry(str(number), "act") for number in range(5)])
    assert file.read_text() == copy.read_text()
    lines = file.read_text().splitlines()
    kept = [each.head for each in read_lines(lines, "lab", name_of(open_key(tmp_path / "audit.key")))]
    assert [each.entries for each in kept] == [0, 5]
    found = verify(tmp_path / "journal.db", kept)
    assert (found.ok, found.checkpoints_met) == (True, 2)
    longer = verify(tmp_path / "journal.db", [*kept, Head(6, "ab" * 32, 0.0)])
    assert not longer.tail_intact
    assert "some of them are gone" in longer.problems[-1]
    anew = verify(tmp_path / "journal.db", [Head(5, "ab" * 32, 0.0)])
    assert "were written anew" in anew.problems[-1]


async def test_a_line_that_cannot_be_handed_out_keeps_nobody_from_working(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        nowhere = tmp_path / "nowhere" / "kept.jsonl"
        async with Checkpoints(journal, "lab", tmp_path / "key", path=nowhere, command=(), every_s=60) as made:
            assert "FileNotFoundError" in made.failed
            nowhere.parent.mkdir()
            await made.hand_out()
            assert made.failed == ""
        async with Checkpoints(journal, "lab", tmp_path / "key", path=None, command=["false"], every_s=60) as made:
            assert "CalledProcessError" in made.failed


async def test_where_nobody_wants_lines_there_is_no_key(tmp_path: Path) -> None:
    key = tmp_path / "audit.key"
    async with (
        Journal(tmp_path / "journal.db") as journal,
        Checkpoints(journal, "lab", key, path=None, command=(), every_s=60) as made,
    ):
        await made.serve()
    assert not key.exists()
