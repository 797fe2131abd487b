"""Conversations go into archives and come back bit for bit, are read there as before, are forgotten with a proof."""

import hashlib
import json
import lzma
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope, fail_after, sleep

from core.app import open_journal
from core.dewey import library
from core.dewey.archive import Kept, read
from core.dewey.archives import Archives
from core.dewey.library import Library
from core.dewey.query import key
from core.dewey.shelf import Shelf
from core.home import Home
from core.horace.store import Horace
from core.ports.links import linked_since
from core.rogers.bus import Rogers
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.rogers.retention import DAY_S, SEGMENT, Retention, retain
from protos.errors import Conflict, NotFound, Unavailable
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Blob, Message
from tests.labs import a_home

PACKAGE: dict[str, object] = {
    **dict.fromkeys(("ecosystem", "project", "version", "name", "digest"), "p"),
    "uploaded": 1.0,
}
FOREVER = Retention(events_s=None, messages_s=None, answers_s=None, max_bytes=None, seal_s=None)


class Room:
    """What a lab has of what is tested here: the journal with all its views, the bus, files, archives, the index."""

    def __init__(self, home: Home, journal: Journal, rogers: Rogers, horace: Horace, archives: Archives) -> None:
        self.home, self.journal, self.rogers, self.horace, self.archives = home, journal, rogers, horace, archives
        self.library = Library(journal, home.path / "dewey.db", horace, archives.filled_now)

    async def say(self, text: str, conversation: str, *, blobs: list[Blob] | None = None) -> Message:
        said = Message(id=new_id(), conversation=conversation, kind=KIND_PROSE, text=text, blobs=blobs or [])
        await self.rogers.publish(said, sender="operator")
        return said

    async def store(self, content: bytes) -> Blob:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        return await self.horace.put(chunks(), name="some.txt")

    async def found(self, text: str) -> int:
        await self.library.caught_up()
        return (await self.library.search(text)).total


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    with fail_after(120), a_home() as home:
        async with (
            open_journal(home) as journal,
            Rogers(journal) as rogers,
            Horace(home.path / "blobs", journal, quota_bytes=1 << 30) as horace,
        ):
            archives = Archives(journal, home.path / "archives", home.lab, horace)
            await archives.finish()
            rogers.filled = archives.filled
            room = Room(home, journal, rogers, horace, archives)
            async with room.library:
                yield room


def everything(room: Room) -> str:
    """A digest over headers and bodies as the file has them."""
    with closing(sqlite3.connect(room.journal.path)) as db:
        sql = (
            "SELECT j.*, b.body FROM journal j LEFT JOIN body b USING (sequence)"
            " WHERE j.kind NOT IN ('archive', 'retention') ORDER BY j.sequence"
        )
        return hashlib.sha256(repr(db.execute(sql).fetchall()).encode()).hexdigest()


async def test_a_thousand_messages_and_their_links_come_back_bit_for_bit(room: Room) -> None:
    blob = await room.store(b"linked")
    for at in range(1000):
        await room.say(f"message {at} of the emu\x1b[31m \u7814\u7a76", "c", blobs=[blob] if at % 100 == 0 else None)
        if at % 3 == 0:
            await room.say("of another", "d")
    await room.rogers.publish(Message(id=new_id(), conversation="c", kind=KIND_EVENT, text="a line"), sender="echo")
    before, said = everything(room), [each.SerializeToString() for each in await room.rogers.history("c", limit=1000)]
    assert await room.found("emu 999") == 1

    (archive,) = await room.archives.create(["c"])
    assert archive.count == 1001
    assert archive.bytes < 1000 * 200
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    assert (verified.bodies_archived, verified.bodies_removed, verified.bodies_missing) == (1001, 0, 0)
    assert (await room.archives.verify()).ok
    assert [each.SerializeToString() for each in await room.rogers.history("c", limit=1000)] == said, "read as before"
    assert await room.found("emu 999") == 1, "and found"
    for view in ("links", "tag"):  # made of messages: as before, from the file
        await room.journal.rebuild(view)
    assert await room.journal.query("SELECT count(*) FROM links WHERE conversation = 'c'") == [(1,)]

    assert await room.archives.restore("c") == 1001
    assert everything(room) == before
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    assert verified.bodies_archived == 0
    assert await room.archives.listed() == []
    assert not list((room.home.path / "archives").iterdir())
    assert (await retain(room.journal, Retention(messages_s=0.0, events_s=0.0))).bodies_removed == 334
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    assert (await room.rogers.history("c"))[0].text.startswith("message 0"), "what a person brought back stays"


async def test_an_index_made_anew_reads_the_archives(room: Room) -> None:
    await room.say("the only axolotl", "c")
    await room.archives.create(["c"])
    await room.library.rebuild()
    await room.library.rebuilt()
    assert await room.found("axolotl") == 1


async def test_an_index_that_fails_is_made_anew_and_one_that_does_not_open_is_told(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.say("the only axolotl", "c")
    await room.library.caught_up()
    with closing(sqlite3.connect(room.home.path / "dewey.db")) as db:
        db.execute("DROP TABLE text")
    await room.say("the second axolotl", "c")
    while not (await room.library.status()).error:
        await sleep(0.01)
    await room.library.rebuild()
    with fail_after(20):  # at once, not when the old one is tried again
        await room.library.rebuilt()
    assert await room.found("axolotl") == 2

    def refused(path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(library, "open_reader", refused)
        await room.library.rebuild()
        await room.library.rebuilt()
        with fail_after(20), pytest.raises(Unavailable, match="disk I/O error"):
            await room.library.search("axolotl")
    await room.library.rebuild()
    with fail_after(20):
        await room.library.rebuilt()
    assert await room.found("axolotl") == 2


async def test_a_client_keeps_the_conversation_that_it_begins_again_after_it_was_forgotten(room: Room) -> None:
    for text in ("the first kiwi", "the second kiwi"):
        await room.rogers.publish(
            Message(id=new_id(), conversation="c", kind=KIND_PROSE, text=text), sender="client:ann"
        )
        if text.startswith("the first"):
            await room.archives.forget("c")
    await room.library.rebuild()
    await room.library.rebuilt()
    assert await room.library.owner_of("c") == "client:ann"
    assert (await room.library.search("kiwi", sees=[key("owner", "client:ann")])).total == 1


async def test_what_is_archived_is_still_found_when_its_time_in_the_journal_is_over(room: Room) -> None:
    await room.say("the axolotl of old", "c")
    await room.say("the quagga of old", "d")
    await room.archives.create(["c"])
    await retain(room.journal, Retention(messages_s=0.0))
    assert (await room.found("axolotl"), await room.found("quagga")) == (1, 0)
    await room.archives.restore("c")
    await room.say("the dodo of old", "d")
    await retain(room.journal, Retention(messages_s=0.0))
    assert (await room.found("axolotl"), await room.found("dodo")) == (1, 0)
    await room.library.rebuild()
    await room.library.rebuilt()
    assert (await room.found("axolotl"), await room.found("dodo")) == (1, 0)


async def test_the_file_is_what_its_page_says_and_a_change_is_noticed(room: Room) -> None:
    for at in range(5):
        await room.say(f"said {at}", "c")
    (archive,) = await room.archives.create(["c"])
    path = room.home.path / "archives" / f"{archive.id}.xz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert hashlib.sha256(path.read_bytes()).hexdigest() == archive.sha256
    first, *rows, last = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    assert (first["format"], first["conversation"], len(rows)) == ("madlab-archive", "c", 5)
    assert [each["previous"] for each in rows[1:]] == [each["hash"] for each in rows[:-1]]
    good = path.read_bytes()
    rows[2]["body"] = rows[1]["body"]
    lines = [json.dumps(each).encode() + b"\n" for each in (first, *rows, last)]
    path.write_bytes(lzma.compress(b"".join(lines)))
    assert not (await room.archives.verify()).ok
    with pytest.raises(Conflict):
        await room.archives.restore("c")
    path.unlink()
    assert "gone" in (await room.archives.verify()).problems[0]
    path.write_bytes(good)
    assert (await room.archives.verify()).ok
    assert await room.archives.restore("c") == 5


async def test_only_what_is_idle_goes_and_never_what_is_at_work(room: Room) -> None:
    await room.say("old", "busy")
    await room.say("old", "idle")
    run: dict[str, Any] = {"id": "echo-1", "mad": "echo", "conversation": "busy", "trigger": "t", "trigger_sequence": 1}
    run |= {"state": "running", "created": 1.0}
    await room.journal.append(Entry(new_id(), "run", json.dumps(run).encode(), "busy"))
    assert await room.archives.create(None, idle_s=3600) == []
    assert [each.conversation for each in await room.archives.create(None, idle_s=0)] == ["idle"]
    with pytest.raises(Conflict, match="run is going on"):
        await room.archives.create(["busy"])
    with pytest.raises(Conflict, match="run is going on"):
        await room.archives.forget("busy")
    with pytest.raises(NotFound):
        await room.archives.create(["nowhere"])


async def test_a_forgotten_conversation_is_gone_everywhere_and_proven(room: Room) -> None:
    own, shared = await room.store(b"its own"), await room.store(b"shared")
    await room.say("the secret of the dodo", "c", blobs=[own, shared])
    await room.archives.create(["c"])
    await room.say("the dodo again", "c/1")
    await room.say("no bird", "d", blobs=[shared])
    act = {"act": "bus.call", "step": "started", "target": "echo.say", "details": {"arguments": "dodo"}}
    await room.journal.append(Entry("act:1:started", "act", json.dumps(act).encode(), "c", "operator"))
    assert await room.found("dodo") == 3

    gone = await room.archives.forget("c")
    assert (gone.bodies, gone.archives, gone.blobs) == (3, 1, 1)
    assert await room.found("dodo") == 0
    assert await room.found("bird") == 1
    assert await room.horace.digests() == [shared.digest]
    assert not list((room.home.path / "archives").iterdir())
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    assert (verified.bodies_archived, verified.bodies_removed) == (0, 3)
    with pytest.raises(NotFound):
        await room.archives.forget("c")
    await room.library.rebuild()
    await room.library.rebuilt()
    assert await room.found("dodo") == 0
    await gone_from_the_disk(room, "dodo")


async def test_what_was_moved_when_others_were_forgotten_stands_nowhere_either(room: Room) -> None:
    def marked(number: int) -> str:
        return f"moa{number:02}x"

    for at in range(600):
        await room.say(f"{marked(at * 7 % 12)} " * (4 + at % 5 * 60), f"c{at * 7 % 12}")
    for number in range(12):
        await room.archives.forget(f"c{number}")
        await room.library.caught_up()
        assert await room.found(marked(number)) == 0
        await gone_from_the_disk(room, marked(number))


async def test_a_reader_holds_up_the_cutting_of_the_log_and_nothing_else(room: Room) -> None:
    await room.say("the secret of the huia", "c")
    with closing(sqlite3.connect(room.journal.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM body").fetchone()
        await room.archives.forget("c")
        await room.say("goes on", "d")
        assert "journal.db-wal" in holding(room, b"huia")
        reader.execute("COMMIT")
    await gone_from_the_disk(room, "huia")


async def gone_from_the_disk(room: Room, words: str) -> None:
    """Waits until no file of the lab, which is at work, has them: not in free pages, not in logs."""
    with fail_after(60):
        while holding(room, words.encode()):
            await sleep(0.05)


def holding(room: Room, words: bytes) -> list[str]:
    """The files of the lab that hold these words."""
    found = []
    for path in (each for each in room.home.path.rglob("*") if each.is_file()):
        kept = b""
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                if words in kept + piece:
                    found.append(path.name)
                    break
                kept = piece[-len(words) :]
    return found


async def test_what_is_sealed_or_outlived_its_message_is_forgotten_too(room: Room) -> None:
    long_ago = time.time() - 400 * DAY_S
    called = json.dumps({"act": "bus.call", "details": {"arguments": "the kakapo"}}).encode()
    await room.journal.append(Entry("a", "act", called, "c", at=long_ago))
    said = Message(id="t", kind=KIND_PROSE, text="of the kakapo #parrots").SerializeToString()
    asked = {"id": "r-1", "mad": "echo", "conversation": "d", "trigger": "t", "state": "destroyed", "created": 1.0}
    await room.journal.append(Entry("t", "message", said, "d", "operator", "echo", at=long_ago))
    await room.journal.append(Entry("r", "run", json.dumps(asked).encode(), "d", at=long_ago))
    await room.journal.append(*(Entry(f"{at}", "message", b"", "e", at=long_ago) for at in range(SEGMENT)))
    assert (await retain(room.journal, Retention(max_bytes=None))).headers_sealed == SEGMENT
    assert await room.journal.query("SELECT title FROM runs") == [("of the kakapo #parrots",)]
    assert (await room.archives.forget("c")).bodies == 1
    assert (await room.archives.forget("d")).bodies == 0
    assert await room.journal.query("SELECT title FROM runs") == [("",)]
    assert await rows_of(room, "tag") == []
    kept = await room.journal.query("SELECT count(*) FROM body WHERE instr(CAST(body AS TEXT), 'kakapo')")
    assert kept == [(0,)]
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    with pytest.raises(NotFound):
        await room.archives.forget("d")


async def test_an_archive_that_is_too_old_goes_for_good_with_a_proof(room: Room) -> None:
    await room.say("the auk", "c")
    (archive,) = await room.archives.create(["c"])
    assert await room.archives.drop(archive.at) == 0
    assert await room.archives.drop(archive.at + DAY_S) == 1
    verified = await room.journal.verify()
    assert verified.ok, verified.problems
    assert (verified.bodies_archived, verified.bodies_removed) == (0, 1)
    assert (await room.rogers.history("c"))[0].tool == "removed"
    assert await room.found("auk") == 0


async def test_what_retention_takes_from_the_journal_goes_from_the_index(room: Room) -> None:
    await room.say("the quagga", "c")
    requested: dict[str, Any] = {
        "id": "r-1",
        "mad": "echo",
        "conversation": "c",
        "state": "destroyed",
        "outcome": "failed",
    }
    requested |= {"reason": "the thylacine", "trigger": "", "trigger_sequence": 1, "created": 1.0}
    await room.journal.append(Entry(new_id(), "run", json.dumps(requested).encode(), "c"))
    assert await room.found("quagga") == 1
    await retain(room.journal, Retention(messages_s=0.0))
    assert await room.found("quagga") == 0
    assert await room.found("thylacine") == 1


async def test_links_and_tags_outlive_the_bodies_that_they_were_made_of(room: Room) -> None:
    blob = await room.store(b"the tree of a run")
    await room.say("before #past", "c", blobs=[blob])
    await room.say("of another #other", "d", blobs=[blob])
    await room.archives.forget("c")
    assert await room.journal.query("SELECT tag, conversation FROM tag") == [("other", "d")]
    await room.say("said again #again", "c", blobs=[blob])
    before = await rows_of(room, "links"), await rows_of(room, "tag")
    assert [len(each) for each in before] == [2, 2]
    await retain(room.journal, Retention(messages_s=0.0), now=time.time() + 10)
    for view in ("links", "tag"):  # what an upgrade does where the form of a view has changed
        await room.journal.rebuild(view)
    assert (await rows_of(room, "links"), await rows_of(room, "tag")) == before
    await room.horace.sweep(await linked_since(room.journal, 0.0), idle_s=0.0)
    assert [blob.digest] == await room.horace.digests()


async def rows_of(room: Room, table: str) -> list[tuple[Any, ...]]:
    return await room.journal.query(f"SELECT * FROM {table} ORDER BY 1, 2")


async def test_views_are_the_same_without_the_acts_that_retention_takes(room: Room) -> None:
    acts: list[tuple[str, dict[str, object]]] = [
        ("bus.call", {"target": "echo.say", "details": {"arguments": "{}"}}),
        ("files.put", {"digest": "sha256:1", "taint": ["web"]}),
        ("web.fetch", {"target": "https://example.org/"}),
        ("web.fetch", {"package": PACKAGE}),
    ]
    for number, (act, more) in enumerate(acts):
        told = {"act": act, "step": "outcome", "principals": ["client:ann"], **more}
        entry = Entry(f"act:{number}:outcome", "act", json.dumps(told).encode(), "c", "client:ann")
        await room.journal.append(entry)
    with closing(sqlite3.connect(room.journal.path)) as db:
        views = [name for (name,) in db.execute("SELECT name FROM view ORDER BY 1")]
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]

        def contents() -> dict[str, object]:
            kept = {"journal", "body", "cursor", "view", "set_apart"}
            return {each: db.execute(f'SELECT * FROM "{each}"').fetchall() for each in tables if each not in kept}

        before = contents()
        assert (await retain(room.journal, Retention(acts_s=0.0))).bodies_removed == 2
        for view in views:
            await room.journal.rebuild(view)
        assert contents() == before
    verified = await room.journal.verify()
    assert verified.ok, verified.problems


async def test_a_proof_that_does_not_fit_is_told(room: Room) -> None:
    for at in range(3):
        await room.say(f"said {at}", "c")
    await retain(room.journal, FOREVER)
    told = {"removed": {"message": 3}, "proofs": [
        {"kind": "message", "after": 0, "upto": 3, "count": 2, "digest": "00"}]}  # fmt: skip
    await room.journal.append(Entry(new_id(), "retention", json.dumps(told).encode(), sender="core"))
    verified = await room.journal.verify()
    assert not verified.ok
    assert verified.proofs_broken == 1
    assert "speaks of 2 bodies of message entries, and 3" in verified.problems[0]


async def gone_meanwhile(room: Room, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[object]]) -> None:
    """Does `work` for somebody who is gone as soon as anything of it is written."""
    append, amend = room.journal.append, room.journal.amend
    with CancelScope() as scope, monkeypatch.context() as patch:

        async def appended(*entries: Entry) -> list[int]:
            scope.cancel()
            return await append(*entries)

        async def amended(change: Callable[[sqlite3.Connection], Any]) -> Any:
            scope.cancel()
            return await amend(change)

        patch.setattr(room.journal, "append", appended)
        patch.setattr(room.journal, "amend", amended)
        await work()
    assert scope.cancel_called


async def test_who_is_gone_before_it_is_done_leaves_nothing_half_done(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await room.store(b"its own")
    for number in range(3):
        await room.say(f"said {number}", "c", blobs=[blob])
    before = everything(room)

    async def whole() -> None:
        verified = await room.journal.verify()
        assert verified.ok, verified.problems
        assert (await room.archives.verify()).ok
        assert len(list((room.home.path / "archives").iterdir())) == len(await room.archives.listed())

    await gone_meanwhile(room, monkeypatch, lambda: room.archives.create(["c"]))
    await whole()
    assert [each.count for each in await room.archives.listed()] == [3]
    await gone_meanwhile(room, monkeypatch, lambda: room.archives.restore("c"))
    await whole()
    assert everything(room) == before
    assert [each.count for each in await room.archives.create(["c"])] == [3]
    assert await room.archives.restore("c") == 3
    await gone_meanwhile(room, monkeypatch, lambda: room.archives.forget("c"))
    await whole()
    assert {each.tool for each in await room.rogers.history("c")} == {"removed"}
    assert await room.horace.digests() == []
    with pytest.raises(NotFound):
        await room.archives.forget("c")
    await room.say("of old", "d")
    (archive,) = await room.archives.create(["d"])
    await gone_meanwhile(room, monkeypatch, lambda: room.archives.drop(archive.at + DAY_S))
    await whole()
    assert await room.archives.listed() == []


async def test_what_was_said_to_be_elsewhere_or_gone_is_not_said_twice(room: Room) -> None:
    for number in range(3):
        await room.say(f"said {number}", "c")
    with closing(sqlite3.connect(room.journal.path)) as db:
        bodies = db.execute("SELECT * FROM body").fetchall()

    async def put_back() -> None:
        """As a turn leaves it that said what it would do, and did not get to."""
        await room.journal.amend(lambda db: db.executemany("INSERT INTO body VALUES (?, ?)", bodies))

    await room.archives.create(["c"])
    await put_back()
    with pytest.raises(NotFound):
        await room.archives.create(["c"])
    assert (await room.archives.verify()).ok
    assert await room.archives.restore("c") == 3
    await room.archives.forget("c")
    await put_back()
    with pytest.raises(NotFound):
        await room.archives.forget("c")
    assert {each.tool for each in await room.rogers.history("c")} == {"removed"}
    verified = await room.journal.verify()
    assert verified.ok, verified.problems


async def test_of_several_archives_a_broken_one_does_not_keep_the_others(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.dewey.archives.BYTES", 2000)
    for number in range(5):
        await room.say(f"{number}" * 1000, "c")
    before = everything(room)
    first, second, third, *rest = await room.archives.create(["c"])
    assert [each.count for each in (first, second, third)] == [1, 1, 1], "no more than so many bytes in each"
    assert len(rest) == 2
    path = room.home.path / "archives" / f"{second.id}.xz"
    good = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(Conflict, match="4 entries of its other archives are back"):
        await room.archives.restore("c")
    assert [each.id for each in await room.archives.listed()] == [second.id]
    path.write_bytes(good)
    assert await room.archives.restore("c") == 1
    assert everything(room) == before


async def test_what_is_in_memory_to_be_read_from_is_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.dewey.shelf.OPEN_BYTES", 5000)
    names: dict[str, str] = {}
    for each in "abc":
        await room.say("x" * 2000, each)
        (archive,) = await room.archives.create([each])
        names[archive.id] = each
    await room.library.caught_up()
    opened: list[str] = []

    def counted(path: Path) -> list[Kept]:
        opened.append(names[path.stem])
        return read(path)

    monkeypatch.setattr("core.dewey.shelf.read", counted)
    shelf = Shelf(room.home.path / "archives")
    with closing(sqlite3.connect(room.journal.path)) as db:
        sql = "SELECT sequence, id, kind, NULL, conversation, sender, recipient, at FROM journal WHERE conversation = ?"
        for each in "abacab":
            row = Row(*db.execute(f"{sql} AND kind = 'message'", each).fetchone())
            (filled,) = shelf.filled(db, [row])
            assert Message.FromString(filled.body or b"").text == "x" * 2000
    assert "".join(opened) == "abcb", "two are in memory, and the one read longest ago goes"


async def test_only_what_is_an_archives_file_is_taken_away(room: Room) -> None:
    directory = room.home.path / "archives"
    for conversation in ("here", "back"):
        await room.say(f"the emu is {conversation}", conversation)
    (here,), (back,) = [await room.archives.create([each]) for each in ("here", "back")]
    written = (directory / f"{back.id}.xz").read_bytes()
    await room.archives.restore("back")
    ended, unsaid, draft, unknown, damaged, folder = back.id, *(new_id() for _ in range(5))
    for name in (ended, unsaid):
        (directory / f"{name}.xz").write_bytes(written)  # all that it has is in the journal's table
    (directory / f"{draft}.xz.new").write_bytes(b"half")
    (directory / f"{unknown}.xz").write_bytes((directory / f"{here.id}.xz").read_bytes())
    (directory / f"{damaged}.xz").write_bytes(b"of another lab")
    (directory / f"{folder}.xz").mkdir()
    (directory / "old").mkdir()
    (directory / "notes.txt").write_text("mine")
    await room.archives.finish()
    left = {f"{here.id}.xz", f"{unknown}.xz.unknown", f"{damaged}.xz.unknown", f"{folder}.xz", "old", "notes.txt"}
    assert {each.name for each in directory.iterdir()} == left
    assert await room.archives.restore("here") == 1


async def test_a_lab_opens_without_the_directory_of_its_archives(room: Room) -> None:
    await room.say("the emu", "c")
    (room.home.path / "archives").rmdir()
    (room.home.path / "archives").write_text("no directory")
    await room.archives.finish()
    with pytest.raises(OSError, match="directory"):
        await room.archives.create(["c"])
    assert (await room.rogers.history("c"))[0].text == "the emu"


async def test_forgetting_leaves_the_files_that_somebody_is_just_storing(room: Room) -> None:
    own, again = await room.store(b"its own"), await room.store(b"stored again")
    await room.say("said", "c", blobs=[own, again])
    waiting = await room.store(b"of a message that is not written yet")
    await room.store(b"stored again")
    assert (await room.archives.forget("c")).blobs == 1
    assert await room.horace.digests() == sorted([again.digest, waiting.digest])
