"""The index: one SQLite file that can always be made again from the journal.

    doc     what was found where: one row a document, in the order of the journal, narrow, so that ranking reads little
    text    its title, its text, its keys (filters, as words), as they were taken in
    part_N  full-text indexes (FTS5, without a copy of the text), each of 65,536 documents
    part    of each, between which times its documents lie
    owner   who began a conversation: what clients may see hangs on it
    about   how far the journal has been taken in, and by which version of this room

Why parts. FTS5 reads what a word matches from one end of its table to the other: a common word in a million documents,
or a beginning that many words have, takes a second. In parts, the newest first, a search stops when it has enough, and
each step is bounded.
And a part is small enough to be packed when it is full, and anew when documents in it are forgotten, so that nothing
of their words stays.

Taking in and the place in the journal commit together: each row once, whatever was cut off. One connection writes and
checkpoints; all others can only read.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.dewey.query import EVERYTHING, key
from core.dewey.words import written
from core.rogers.tables import transaction

VERSION = 1  # of all that decides what stands in the file; another one is made anew
PART_BITS = 16
SMALL = 64 << 20  # bytes of a file that is written anew where something was forgotten: half a second
TEXT_CHARACTERS = 65_536  # of one document; what is longer is found by its beginning
TITLE_CHARACTERS = 200

SCHEMA = """
    CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE doc (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        kind         TEXT    NOT NULL,
        ref          TEXT    NOT NULL,
        sequence     INTEGER NOT NULL,
        source       TEXT    NOT NULL,
        at           REAL    NOT NULL,
        conversation TEXT    NOT NULL,
        run          TEXT    NOT NULL,
        sender       TEXT    NOT NULL,
        recipient    TEXT    NOT NULL,
        taint        TEXT    NOT NULL,
        weight       REAL    NOT NULL,
        UNIQUE (kind, ref)
    );
    CREATE INDEX doc_by_sequence ON doc (source, sequence);
    CREATE INDEX doc_by_conversation ON doc (conversation);
    CREATE TABLE text (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL, keys TEXT NOT NULL);
    CREATE TABLE part (number INTEGER PRIMARY KEY, earliest REAL NOT NULL, latest REAL NOT NULL);
    CREATE TABLE owner (conversation TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Document:
    """One thing that can be found. The same `kind` and `ref` again takes the place of what was there."""

    kind: str  # of `query.KINDS`
    ref: str  # its id for people: of a message, a run, an act; of a finding its run and place
    sequence: int  # of the entry it comes from
    source: str  # that entry's kind
    at: float  # seconds since the epoch
    title: str
    body: str
    conversation: str = ""
    run: str = ""
    sender: str = ""
    recipient: str = ""
    taint: tuple[str, ...] = ()
    weight: float = 1.0  # how much it counts among equals
    filters: tuple[tuple[str, str], ...] = ()  # names and values of fields, beside those that follow from the above


@dataclass(frozen=True)
class Gone:
    """Documents that must not be found any more: of one conversation and those within, or of one kind of entry."""

    sequence: int  # up to there
    conversation: str = ""
    source: str = ""
    sequences: tuple[tuple[int, int], ...] | None = None  # of these only: from and to, both included


@dataclass(frozen=True)
class Owned:
    """That a conversation is somebody's: who comes first has it, until it is forgotten."""

    conversation: str
    owner: str


Change = Document | Gone | Owned


def open_index(path: Path) -> sqlite3.Connection:
    """The one connection that writes. A file of another version, or that is none, is made anew.

    Raises:
        sqlite3.Error, OSError: the disk does not let it.
    """
    try:
        db = _open(path)
        if _version(db) == VERSION:
            return db
        db.close()
    except sqlite3.DatabaseError:
        pass  # damaged: it holds nothing that is not elsewhere
    remove(path)
    db = _open(path)
    with transaction(db):
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO about VALUES ('version', ?), ('reached', 0), ('hash', x'')", (VERSION,))
    return db


def remove(path: Path) -> None:
    """Takes the file away, and what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")  # a power cut may take the last commits; they are taken in again
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA cache_size = -16000")
    db.execute("PRAGMA recursive_triggers = OFF")
    return db


def _version(db: sqlite3.Connection) -> int:
    try:
        return int(db.execute("SELECT value FROM about WHERE name = 'version'").fetchone()[0])
    except (sqlite3.OperationalError, TypeError):
        return 0


@dataclass(frozen=True)
class Place:
    """How far the journal was taken in."""

    sequence: int
    hash: bytes = b""  # of that entry; empty where it is not known


def reached(db: sqlite3.Connection) -> Place:
    """The place up to which the journal was taken in."""
    told = dict(db.execute("SELECT name, value FROM about WHERE name IN ('reached', 'hash')").fetchall())
    return Place(int(told["reached"]), bytes(told["hash"]))


def take_in(db: sqlite3.Connection, changes: Sequence[Change], place: Place) -> None:
    """Makes `changes`, in order, and remembers that the journal was taken in up to `place`: all or nothing."""
    with transaction(db):
        added: list[Document] = []
        for each in changes:
            if isinstance(each, Document):
                added.append(each)
                continue
            if isinstance(each, Owned):
                db.execute("INSERT OR IGNORE INTO owner VALUES (?, ?)", (each.conversation, each.owner))
                continue
            _add(db, added)
            added = []
            _forget(db, each)
        _add(db, added)
        db.execute("UPDATE about SET value = ? WHERE name = 'reached'", (place.sequence,))
        db.execute("UPDATE about SET value = ? WHERE name = 'hash'", (place.hash,))


def owner_of(db: sqlite3.Connection, conversation: str) -> str:
    """Who began the conversation, or the one that it lies within; empty where that is not known."""
    found = db.execute("SELECT owner FROM owner WHERE conversation = ?", (root(conversation),)).fetchone()
    return found[0] if found else ""


def root(conversation: str) -> str:
    """The conversation that this one lies within: "ID/1" lies within "ID"."""
    return conversation.partition("/")[0]


def parts(db: sqlite3.Connection) -> list[tuple[int, float, float]]:
    """Number, earliest and latest time of each part, the newest first."""
    return db.execute("SELECT number, earliest, latest FROM part ORDER BY number DESC").fetchall()


def unpacked(db: sqlite3.Connection) -> bool:
    """Whether a part is to be packed: it is full, or words of something forgotten may still be in it."""
    return db.execute("SELECT 1 FROM about WHERE name LIKE 'pack:%'").fetchone() is not None


def pack(db: sqlite3.Connection) -> None:
    """Packs one part: a second or so. Nothing of what was forgotten stays in the file, and a seldom word is found in
    half the time."""
    (name,) = db.execute("SELECT name FROM about WHERE name LIKE 'pack:%'").fetchone()
    number = int(name.partition(":")[2])
    with transaction(db):
        if db.execute("SELECT 1 FROM part WHERE number = ?", (number,)).fetchone():
            db.execute(f"INSERT INTO part_{number} (part_{number}) VALUES ('optimize')")
        db.execute("DELETE FROM about WHERE name = ?", (name,))
    ((size,),) = db.execute("SELECT c.page_count * s.page_size FROM pragma_page_count c, pragma_page_size s")
    if size <= SMALL:
        db.execute("VACUUM")  # rows that were moved leave copies in what is not used of a page
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add(db: sqlite3.Connection, documents: Sequence[Document]) -> None:
    if not documents:
        return
    latest = {(each.kind, each.ref): each for each in documents}
    known = [row[0] for pair in latest for row in db.execute("SELECT id FROM doc WHERE kind = ? AND ref = ?", pair)]
    _take_out(db, known)
    first = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'doc'").fetchone()[0] + 1
    rows: list[tuple[object, ...]] = []
    texts: list[tuple[int, str, str, str]] = []
    for id, each in enumerate(latest.values(), first):
        taint = ",".join(each.taint)
        rows.append((id, each.kind, each.ref, each.sequence, each.source, each.at, each.conversation, each.run,
                     each.sender, each.recipient, taint, each.weight))  # fmt: skip
        keys = " ".join(_keys(db, each))
        texts.append((id, each.title[:TITLE_CHARACTERS], each.body[:TEXT_CHARACTERS], keys))
    db.executemany("INSERT INTO doc VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT INTO text VALUES (?, ?, ?, ?)", texts)
    numbers = range(first >> PART_BITS, (texts[-1][0] >> PART_BITS) + 1)
    for number in numbers:
        if number and not db.execute("SELECT 1 FROM part WHERE number = ?", (number,)).fetchone():
            db.execute("INSERT OR IGNORE INTO about VALUES (?, 1)", (f"pack:{number - 1}",))  # that one is full
        inside = [each for each in texts if each[0] >> PART_BITS == number]
        times = [float(str(row[5])) for row in rows if int(str(row[0])) >> PART_BITS == number]
        db.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS part_{number} USING fts5"
            " (title, body, keys, content = '', columnsize = 0, prefix = '2 3',"
            " tokenize = 'unicode61 remove_diacritics 0')"
        )
        db.execute(
            "INSERT INTO part VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)",
            (number, min(times), max(times)),
        )
        db.executemany(
            f"INSERT INTO part_{number} (rowid, title, body, keys) VALUES (?, ?, ?, ?)",
            [(id, written(title), written(body), keys) for id, title, body, keys in inside],
        )


def _keys(db: sqlite3.Connection, document: Document) -> list[str]:
    """Every filter that `document` answers to, as words."""
    told = [(EVERYTHING, ""), ("kind", document.kind), *document.filters]
    if document.sender:
        told += [("from", document.sender), ("mad", document.sender)]
    if document.recipient:
        told += [("to", document.recipient), ("mad", document.recipient)]
    if document.run:
        told.append(("run", document.run))
    conversation = document.conversation
    if conversation:
        whole = conversation.split("/")
        told += [("conversation", "/".join(whole[: at + 1])) for at in range(len(whole))]
        if owner := owner_of(db, conversation):
            told.append(("owner", owner))
    return [key(name, value) for name, value in dict.fromkeys(told)]


def _forget(db: sqlite3.Connection, gone: Gone) -> None:
    if gone.conversation:
        within = (gone.conversation, f"{gone.conversation}/", f"{gone.conversation}0", gone.sequence)  # 0 follows /
        sql = "SELECT id FROM doc WHERE (conversation = ? OR (conversation > ? AND conversation < ?)) AND sequence <= ?"
        _erase(db, [row[0] for row in db.execute(sql, within)])
        db.execute("DELETE FROM owner WHERE conversation = ?", (gone.conversation,))
    elif gone.sequences is not None:
        for first, last in gone.sequences:
            sql = "SELECT id FROM doc WHERE source = ? AND sequence BETWEEN ? AND ?"
            _erase(db, [row[0] for row in db.execute(sql, (gone.source, first, last))])
    else:
        sql = "SELECT id FROM doc WHERE source = ? AND sequence <= ?"
        _erase(db, [row[0] for row in db.execute(sql, (gone.source, gone.sequence))])


def _take_out(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """FTS5 forgets by being told again what it was told."""
    for id in ids:
        number = id >> PART_BITS
        title, body, keys = db.execute("SELECT title, body, keys FROM text WHERE id = ?", (id,)).fetchone()
        db.execute(
            f"INSERT INTO part_{number} (part_{number}, rowid, title, body, keys) VALUES ('delete', ?, ?, ?, ?)",
            (id, written(title), written(body), keys),
        )
        db.execute("DELETE FROM text WHERE id = ?", (id,))
        db.execute("DELETE FROM doc WHERE id = ?", (id,))


def _erase(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Takes documents out, and sees to it that none of their words stay: a part that is empty is dropped, and `pack`
    does the rest, for that one too."""
    _take_out(db, ids)
    for number in {id >> PART_BITS for id in ids}:
        span = (number << PART_BITS, (number + 1 << PART_BITS) - 1)
        db.execute("INSERT OR IGNORE INTO about VALUES (?, 1)", (f"pack:{number}",))
        if not db.execute("SELECT 1 FROM doc WHERE id BETWEEN ? AND ? LIMIT 1", span).fetchone():
            db.execute(f"DROP TABLE part_{number}")
            db.execute("DELETE FROM part WHERE number = ?", (number,))
