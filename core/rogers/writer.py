"""The one connection that writes and checkpoints: transactions, the first failure, how far the file has come.

Nothing here waits or knows of the event loop. Whoever holds the connection calls, one at a time: the journal's thread,
or the loop while the thread has nothing (`journal` says when). That is why the connection may be used by both.

A batch is one transaction: rows, what the views make of them, cursors. It is written on the assumption that its ids
are new. If one is not, the transaction rolls back and is written again with what was known; if a view refuses an
entry, the calls are written one by one, so that only the culprit's caller hears of it.

Automatic checkpoints are off, because they swallow the errors of their syncs (5 of 12 injected ones never reached the
application). A checkpoint is asked for between commits, its result looked at, and its error is one like any other.
Beside the file lies `*.head`: how many entries there were, and the hash of the last, as of some moments ago. It is
written after the commit it names, so a journal that ends before it has lost its tail.

What was removed shall not stand in the files either. SQLite writes zeros where content was (`secure_delete`), but two
places keep copies: the log, until it is cut (`TRUNCATE`, which waits for the last reader of an older page), and the
unused part of pages out of which rows were once moved, until the file is written anew (`VACUUM`, which commits wait
for: only after a person has something forgotten, and where the file is small). `Writer.scrub` is both. That the second
is due stands in the file (`user_version`, which a transaction carries along), so that a next core knows.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from core.rogers import chain
from core.rogers.call import Call, Known, conflict
from core.rogers.entry import Filled, Row, View
from core.rogers.migrate import load_migrations, migrate, statements
from core.rogers.tables import insert, is_of_disk, read_rows, sentence, transaction
from core.rogers.verify import Head, head_path, read_head, write_head
from protos.errors import Conflict

logger = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD_EVERY_S = 10.0
WINDOW = 500  # rows that a view which is made anew takes at once
PAGE = 8192  # bytes, of a new file: fewer writes and less waste for messages of some 1 KiB; an older one keeps its own
SMALL = 64 << 20  # bytes of a file that is written anew in a moment: half a second
SCRUB_MS = 50  # how long commits wait for readers of older pages, each time the log shall be cut
CACHES = 12 << 20  # bytes of pages that all connections of the process hold, Dewey's too; beyond, they use theirs again

T = TypeVar("T")
Cursors = Mapping[tuple[str, str], tuple[int, bool]]  # where each stands, and whether what stood before is forgotten


@dataclass(frozen=True)
class Done(Generic[T]):
    """What an amendment returned."""

    value: T


class _Refused(Exception):
    """A view would not take an entry."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


class Writer:
    """Writes the journal at `path`. After its first failure it writes nothing more, and says why."""

    def __init__(
        self,
        path: Path,
        views: Sequence[View],
        *,
        synchronous: str,
        checkpoint_bytes: int,
        filled: Filled | None = None,  # finds bodies that are archived, for views that are made anew
    ) -> None:
        self.failure: str | None = None  # the first error of the disk
        self.sequence = 0  # of the last entry
        self.messages = 0  # messages and events among the entries
        self.bytes = 0  # on disk, as of the last commit or so
        self.commits = 0
        self.sync_s = 0.0  # what the last COMMIT took
        self.committed_at = 0.0  # when it came back, by `time.perf_counter`
        self._path = path
        self._synchronous = synchronous
        self._checkpoint_bytes = checkpoint_bytes
        self._views = views
        self._filled = filled
        self._by_kind: dict[str, list[View]] = {}
        for view in views:
            for kind in view.kinds:
                self._by_kind.setdefault(kind, []).append(view)
        self._hash = chain.GENESIS
        self._any_sealed = False
        self._page = PAGE
        self._wal_bytes = 0
        self._head_noted = 0
        self._head_at = 0.0
        self._to_cut = False  # the log holds what is removed
        self._db: sqlite3.Connection

    # --- opening

    def open(self) -> sqlite3.Connection:
        """Opens the file for writing, brings it up to date, and finds its end.

        Raises:
            Conflict: a newer version wrote it, or its tail is lost.
            OSError, sqlite3.Error: it cannot be opened.
        """
        path = self._path
        self._to_cut = _size(path.with_name(f"{path.name}-wal")) > 0  # nobody knows what a crash left there
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256, check_same_thread=False)
        try:
            db.execute(f"PRAGMA page_size = {PAGE}")
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise Conflict(f"{path} cannot have a write-ahead log here", next="use a local disk for the data")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA cache_size = -16000")
            db.execute(f"PRAGMA soft_heap_limit = {CACHES}")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(f"PRAGMA journal_size_limit = {4 * self._checkpoint_bytes}")
            migrate(db, path, load_migrations(MIGRATIONS))
            (self._page,) = db.execute("PRAGMA page_size").fetchone()
            last = db.execute("SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1").fetchone()
            segment = db.execute("SELECT last, head FROM segment ORDER BY first DESC LIMIT 1").fetchone()
            self._any_sealed = segment is not None
            self.sequence, self._hash = last or segment or (0, chain.GENESIS)
            self._compare_head(db)
            (self.messages,) = db.execute("SELECT count(*) FROM journal WHERE kind IN ('message', 'event')").fetchone()
            self._open_views(db)
            self._measure()
            _sync_directory(path.parent)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _compare_head(self, db: sqlite3.Connection) -> None:
        """Refuses to go on behind a lost tail: the next entries would cover it up."""
        try:
            noted = read_head(self._path)
        except ValueError:
            return  # half a note proves nothing; `verify` tells
        if noted is None:
            return
        row = db.execute("SELECT hash FROM journal WHERE sequence = ?", (noted.entries,)).fetchone()
        if self.sequence < noted.entries or (row and row[0].hex() != noted.hash):
            raise Conflict(
                f"the journal {self._path} has lost its tail: {noted.entries} entries were known, it ends at"
                f" {self.sequence}, or was written anew from there",
                next=f"restore its newest copy, or remove {head_path(self._path)} to go on without what is lost",
            )

    def _open_views(self, db: sqlite3.Connection) -> None:
        known = dict(db.execute("SELECT name, fingerprint FROM view"))
        for view in self._views:
            if known.get(view.name) != _fingerprint(view):
                with transaction(db):
                    rebuild(db, view, self._filled)

    # --- committing

    def commit(self, calls: list[Call], cursors: Cursors) -> list[Row] | str:
        """Writes one batch and returns its rows; a string says why nothing can be written any more."""
        if self.failure is not None:  # for what was on its way when it happened
            return self.failure
        try:
            try:
                return self._transact(calls, cursors)
            except _Refused:
                rows: list[Row] = []
                for call in calls:
                    try:
                        rows += self._transact([call], {})
                    except _Refused as refused:
                        call.answer = refused.reason
                self._transact([], cursors)
                return rows
        except (sqlite3.Error, OSError) as error:
            self.failure = sentence(error)
        except BaseException as error:  # noqa: BLE001  whatever it was, what is in memory may not be what is on disk
            self.failure = f"a fault of the journal itself: {error!r}"
        return self.failure

    def _transact(self, calls: list[Call], cursors: Cursors) -> list[Row]:
        try:
            return self._write(calls, cursors, self._known(calls) if self._any_sealed else None)
        except sqlite3.IntegrityError:  # an id that is known
            return self._write(calls, cursors, self._known(calls))

    def _write(self, calls: list[Call], cursors: Cursors, known: dict[str, Known] | None) -> list[Row]:
        """`known` is what is there already, or None where that is believed to be nothing."""
        sequence, last = self.sequence, self._hash
        now = time.time()
        headers: list[object] = []
        bodies: list[object] = []
        rows: list[Row] = []
        link = chain.link
        written = messages = 0
        for call in calls:
            if known and (refusal := conflict(call.entries, known)):
                call.answer = refusal
                continue
            places: list[int] = []
            for entry, (header, digest) in zip(call.entries, call.prepared, strict=True):
                id, kind, body, conversation, sender, recipient, at = entry
                if known is not None:
                    if id in known:
                        places.append(known[id][0])
                        continue
                    known[id] = (sequence + 1, kind, conversation, sender)
                sequence += 1
                at = at or now
                size = len(body)
                last = link(last, sequence, at, size, digest, header)
                headers += (sequence, at, kind, id, conversation, sender, recipient, size, digest, last)
                if size:
                    bodies += (sequence, body)
                    written += size
                if kind == "message" or kind == "event":
                    messages += 1
                rows.append(Row(sequence, id, kind, body, conversation, sender, recipient, at))
                places.append(sequence)
            call.answer = places
        db = self._db
        with transaction(db):
            insert(db, "journal", 10, headers)
            insert(db, "body", 2, bodies)
            self._follow(db, rows)
            if cursors:
                _keep(db, cursors)
            began = time.perf_counter()
        self.committed_at = time.perf_counter()
        self.sync_s = self.committed_at - began
        self.sequence, self._hash = sequence, last
        self.commits += 1
        self.messages += messages
        self._wal_bytes += written + 512 * len(rows) + 8 * self._page  # a guess: SQLite does not tell
        return rows

    def _follow(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        by_kind = self._by_kind
        for row in rows:
            for view in by_kind.get(row.kind, ()):
                try:
                    view.apply(db, row)
                except Exception as error:  # whatever a view may think of; the one who appended hears of it
                    if is_of_disk(error):
                        raise
                    raise _Refused(error) from error

    def _known(self, calls: Sequence[Call]) -> dict[str, Known]:
        """What is already there under the ids of `calls`."""
        ids = json.dumps([entry.id for call in calls for entry in call.entries])
        known: dict[str, Known] = {}
        if self._any_sealed:
            sql = "SELECT id, sequence FROM sealed WHERE id IN (SELECT value FROM json_each(?))"
            known = {id: (sequence, None, None, None) for id, sequence in self._db.execute(sql, (ids,))}
        sql = (
            "SELECT id, sequence, kind, conversation, sender FROM journal WHERE id IN (SELECT value FROM json_each(?))"
        )
        return known | {id: tuple(rest) for id, *rest in self._db.execute(sql, (ids,))}

    def amend(self, work: Callable[[sqlite3.Connection], T]) -> Done[T] | Exception | str:
        """Runs `work` in a transaction of its own; a string says why nothing can be written any more."""
        if self.failure is not None:
            return self.failure
        try:
            with transaction(self._db):
                value = work(self._db)
            self._any_sealed = self._any_sealed or _has_segments(self._db)
        except Exception as error:  # noqa: BLE001  raised again where somebody waits for it
            if not is_of_disk(error):
                return error
            self.failure = sentence(error)
            return self.failure
        return Done(value)

    # --- between commits

    @property
    def needs_care(self) -> bool:
        """Whether it is time for `maintain`."""
        return self._wal_bytes >= self._checkpoint_bytes or time.monotonic() - self._head_at > HEAD_EVERY_S

    def maintain(self, *, last: bool = False) -> str | None:
        """Checkpoints and notes the head; a string says why nothing can be written any more."""
        if self.failure is not None:
            return self.failure
        try:
            if last:
                self._checkpoint("TRUNCATE")
            elif self._to_cut:
                self._cut()
            elif self._wal_bytes >= self._checkpoint_bytes:
                self._checkpoint("PASSIVE")
            self._note_head()
        except (sqlite3.Error, OSError) as error:
            self.failure = sentence(error)
        return self.failure

    def scrub(self, *, thorough: bool) -> bool | str:
        """Has the files hold no more of what was removed; `thorough` also where rows once were, in a small file.

        False: a reader still looks at older pages, `maintain` tries again. A string says why nothing can be written
        any more.
        """
        if self.failure is not None:
            return self.failure
        self._to_cut = True
        try:
            if thorough:
                if _size(self._path) <= SMALL:
                    self._db.execute("VACUUM")
                self._db.execute("PRAGMA user_version = 0")
        except (sqlite3.Error, OSError) as error:  # it is rolled back, and stays due: a disk that is full, say
            logger.warning("the journal could not be written anew", reason=sentence(error))
        return self.maintain() or not self._to_cut

    def _cut(self) -> None:
        (patience,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {SCRUB_MS}")
        self._to_cut = not self._checkpoint("TRUNCATE")
        self._db.execute(f"PRAGMA busy_timeout = {patience}")

    def _checkpoint(self, mode: str) -> bool:
        """Whether it got to the end, and `TRUNCATE` cut the log."""
        busy, pages, done = self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy or done < pages:
            # A reader still looks at older pages: the WAL goes on growing until the next turn.
            logger.debug("a checkpoint stopped half-way", pages=pages, done=done)
        self._wal_bytes = max(0, pages - done) * self._page
        return not busy and done == pages

    def _note_head(self) -> None:
        if self._head_noted != self.sequence:
            write_head(self._path, Head(self.sequence, self._hash.hex(), time.time()))
            self._head_noted = self.sequence
        self._head_at = time.monotonic()
        self._measure()

    def _measure(self) -> None:
        self.bytes = sum(file.stat().st_size for file in self._path.parent.glob(self._path.name + "*"))


def rebuild(db: sqlite3.Connection, view: View, filled: Filled | None = None) -> None:
    """Drops the tables of a view and makes them again from the journal, and from what `filled` finds in archives.

    What the view refuses is left out: it was accepted when it happened, and the lab must open whatever a view thinks
    of its past.
    """
    refused: list[tuple[int, Exception]] = []
    for table in view.tables:
        db.execute(f'DROP TABLE IF EXISTS "{table}"')
    for statement in statements(view.schema):
        db.execute(statement)
    rows = read_rows(db, view.kinds)
    while some := list(islice(rows, WINDOW)):
        for row in filled(db, some) if filled is not None else some:
            db.execute("SAVEPOINT row")
            try:
                view.apply(db, row)
            except Exception as error:  # whatever a view may think of
                if is_of_disk(error):
                    raise
                db.execute("ROLLBACK TO row")
                refused.append((row.sequence, error))
            db.execute("RELEASE row")
    if refused:
        sequence, why = refused[0]
        logger.warning("a view leaves out entries", view=view.name, entries=len(refused), first=sequence, why=str(why))
    db.execute("INSERT OR REPLACE INTO view VALUES (?, ?)", (view.name, _fingerprint(view)))


def _fingerprint(view: View) -> str:
    return sha256("\0".join((view.schema, *view.tables, *sorted(view.kinds))).encode()).hexdigest()


def owe_scrub(db: sqlite3.Connection) -> None:
    """Notes that the file holds, or will hold, what `Writer.scrub` must take away."""
    db.execute("PRAGMA user_version = 1")


def _has_segments(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM segment LIMIT 1").fetchone() is not None


def _keep(db: sqlite3.Connection, cursors: Cursors) -> None:
    db.executemany(
        "DELETE FROM cursor WHERE participant = ? AND conversation = ?",
        [key for key, (_, anew) in cursors.items() if anew],
    )
    db.executemany(
        "INSERT INTO cursor VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence"
        " WHERE excluded.sequence > sequence",
        [(*key, place) for key, (place, _) in cursors.items() if place],
    )


def _size(path: Path) -> int:
    """In bytes; 0 where there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
