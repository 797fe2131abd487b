"""The journal: everything that was said or done, in one file, in one order, for ever.

Rules of this file
  1. *Acknowledged means on the disk.* An `append` returns after the commit that holds its entries was synced.
  2. *One writer.* One connection, on one thread, writes and checkpoints. Readers have connections of their own, read
     only, and never checkpoint: SQLite before 3.51.3 can corrupt a WAL that two connections checkpoint.
  3. *After one failed write, none.* When a sync fails, Linux forgets which pages were dirty, and the next sync succeeds
     over lost data. So the first error of the disk seals the journal: nobody is acknowledged, reading goes on, and
     only a restart (which reads what really is there) opens it again.
  4. *The same id is the same entry.* Whoever was not acknowledged asks again with the same id and cannot do it twice.

Group commit
  The loop and the writer's thread play one game with two states. Idle: a lone `append` starts a commit at once; where
  the last batch was of many, it starts at the loop turn's end, so that whoever appends in the same turn rides along.
  Committing: the thread has a batch,
  and `_pending` gathers the next. When the thread is done it calls back into the loop, once; that one call delivers to
  the listeners, wakes the publishers, and schedules the next commit *behind* them, so that a publisher who has more to
  say rides in it. There is no task, hence nothing to cancel half-way: a cancelled `append` may still be committed.

  The batch is one transaction: rows, what the views make of them, cursors. It is written on the assumption that its
  ids are new. If one is not, the transaction rolls back and is written again without what was known; if a view
  refuses an entry, the calls are written one by one, so that only the culprit's caller hears of it.

Automatic checkpoints are off, because they swallow the errors of their syncs (5 of 12 injected ones never reached the
application). The writer checkpoints between commits, looks at the result, and seals on an error like any other.
Beside the file lies `*.head`: how many entries there were, and the hash of the last, as of some moments ago. It is
written after the commit it names, so a journal that ends before it has lost its tail.
"""

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar

import aiosqlite
import anyio
import anyio.to_thread
import structlog

from core.rogers import chain
from core.rogers.entry import Entry, Row, View
from core.rogers.migrate import load_migrations, migrate, statements
from core.rogers.segments import read_segments
from core.rogers.verify import Head, Verification, head_path, read_head, verify, write_head
from protos.errors import Conflict, InvalidArgument, Unavailable

logger = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
RIDE_ALONG_S = 0.05  # how long what nobody waits for may wait for a commit to ride in
HEAD_EVERY_S = 10.0
READERS = 2
MAX_ENTRY = 1 << 20  # bytes of a body
MAX_RIDING = 65_536  # entries that nobody waits for, pending at once; more are lost, and counted

COLUMNS = """j.sequence, j.id, j.kind, CASE WHEN j.size = 0 THEN x'' ELSE b.body END,
    j.conversation, j.sender, j.recipient, j.at"""  # a Row, from `journal j LEFT JOIN body b USING (sequence)`


@dataclass(frozen=True)
class Statistics:
    """The journal in figures."""

    entries: int  # ever appended; the last sequence
    messages: int  # of them messages and events
    bytes: int  # on disk, as of the last commit or so
    commits: int  # since it was opened
    pending: int  # entries waiting for the next commit
    lost: int  # entries of `append_soon` that never became durable
    sealed: str | None


class _Call:
    """One `append`: committed whole or not at all."""

    __slots__ = ("answer", "digests", "entries", "future", "headers")

    def __init__(self, entries: Sequence[Entry], future: "asyncio.Future[list[int]] | None") -> None:
        self.entries = entries
        self.headers = [_header(entry) for entry in entries]
        self.digests = [sha256(entry.body).digest() for entry in entries]
        self.future = future  # None: nobody waits
        self.answer: list[int] | Exception = []


T = TypeVar("T")
_Known = tuple[Any, ...]  # sequence, kind, conversation, sender; None where only the sequence is known
Cursors = dict[tuple[str, str], tuple[int, bool]]  # where each stands, and whether what stood before is forgotten
DISK_ERRORS = frozenset(
    (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    )
)


class _Refused(Exception):
    """A view would not take an entry."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


class _Connection(aiosqlite.Connection):
    """A connection whose thread takes whole functions: a transaction is one hop there and one back."""

    async def open(self) -> None:
        try:
            await self
        except BaseException:
            # aiosqlite tells its thread to stop and does not wait; a thread that outlives the loop would crash.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)
            raise

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Runs `work`, which must not raise, on the thread and then `done`, with its result, in the loop."""
        loop = asyncio.get_running_loop()
        self._tx.put_nowait((None, lambda: loop.call_soon_threadsafe(done, work())))

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._execute(lambda: work(self._conn))  # type: ignore[no-untyped-call]


class Journal:
    """One file that holds every entry, and the views that follow from them. Enter it to open it.

    Entering raises:
        Conflict: another process has it open, a newer version wrote it, or its tail is lost.
        OSError, sqlite3.Error: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        views: Sequence[View] = (),
        *,
        synchronous: str = "FULL",  # "OFF" is for the test that shows why not
        checkpoint_bytes: int = 16 << 20,  # of WAL, about
    ) -> None:
        self.path = path
        self.sealed: str | None = None
        self._views = {view.name: view for view in views}
        self._synchronous = synchronous
        self._checkpoint_bytes = checkpoint_bytes
        self._by_kind: dict[str, list[View]] = {}
        for view in views:
            for kind in view.kinds:
                self._by_kind.setdefault(kind, []).append(view)
        self._listeners: list[Callable[[Sequence[Row]], None]] = []
        self._pending: list[_Call] = []
        self._pending_entries = 0
        self._awaited = False  # somebody waits for a pending call
        self._cursors: Cursors = {}
        self._cursors_in_flight: Cursors = {}
        self._busy = False  # the thread has a batch, or a commit is scheduled
        self._crowded = False  # the last batch was of more than one call
        self._timer: asyncio.TimerHandle | None = None
        self._closed = True
        self._idle: asyncio.Event | None = None
        self._readers: list[_Connection] = []
        self._turn = 0
        # The writer thread's own:
        self._failure: str | None = None  # the first error of the disk
        self._sequence = 0
        self._hash = chain.GENESIS
        self._any_sealed = False
        self._messages = 0
        self._bytes = 0
        self._commits = 0
        self._lost = 0
        self._wal_bytes = 0
        self._head_noted = 0
        self._head_at = 0.0

    # --- opening and closing

    async def __aenter__(self) -> Self:
        self._lock = await anyio.to_thread.run_sync(_lock, self.path)
        try:
            self._writer = _Connection(self._open, iter_chunk_size=64)
            await self._writer.open()
            try:
                for _ in range(READERS):
                    reader = _Connection(lambda: _open_reader(self.path), iter_chunk_size=64)
                    await reader.open()
                    self._readers.append(reader)
            except BaseException:
                await self._close_connections()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with anyio.CancelScope(shield=True):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._idle = asyncio.Event()
            self._kick()
            if self._busy:
                await self._idle.wait()
            if self.sealed is None:
                try:
                    await self._writer.run(self._maintain_last)
                except (sqlite3.Error, OSError) as error:
                    self._seal(_sentence(error), [])
            await self._close_connections()
            self._lock.close()

    async def _close_connections(self) -> None:
        """The last connection to close checkpoints, so it is the writer; but never after an error (rule 3): then it is
        a reader, which cannot, and the next opening recovers from the log."""
        connections = [*self._readers, self._writer] if self.sealed is None else [self._writer, *self._readers]
        self._readers = []
        for each in connections:
            with contextlib.suppress(sqlite3.Error):  # of a disk that is gone; it has been said by then
                await each.close()

    def _open(self) -> sqlite3.Connection:
        """Opens the file for writing, on the writer's thread."""
        db = sqlite3.connect(self.path, isolation_level=None, cached_statements=256)
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise Conflict(f"{self.path} cannot have a write-ahead log here", next="use a local disk for the data")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA cache_size = -16000")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(f"PRAGMA journal_size_limit = {4 * self._checkpoint_bytes}")
            migrate(db, self.path, load_migrations(MIGRATIONS))
            last = db.execute("SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1").fetchone()
            segment = db.execute("SELECT last, head FROM segment ORDER BY first DESC LIMIT 1").fetchone()
            self._any_sealed = segment is not None
            self._sequence, self._hash = last or segment or (0, chain.GENESIS)
            self._compare_head(db)
            (self._messages,) = db.execute("SELECT count(*) FROM journal WHERE kind IN ('message', 'event')").fetchone()
            self._open_views(db)
            self._measure()
            _sync_directory(self.path.parent)
        except BaseException:
            db.close()
            raise
        return db

    def _compare_head(self, db: sqlite3.Connection) -> None:
        """Refuses to go on behind a lost tail: the next entries would cover it up."""
        try:
            noted = read_head(self.path)
        except ValueError:
            return  # half a note proves nothing; `verify` tells
        if noted is None:
            return
        row = db.execute("SELECT hash FROM journal WHERE sequence = ?", (noted.entries,)).fetchone()
        if self._sequence < noted.entries or (row and row[0].hex() != noted.hash):
            raise Conflict(
                f"the journal {self.path} has lost its tail: {noted.entries} entries were known, it ends at"
                f" {self._sequence}, or was written anew from there",
                next=f"restore its newest copy, or remove {head_path(self.path)} to go on without what is lost",
            )

    def _open_views(self, db: sqlite3.Connection) -> None:
        known = dict(db.execute("SELECT name, fingerprint FROM view"))
        for view in self._views.values():
            if known.get(view.name) != _fingerprint(view):
                with _transaction(db):
                    _rebuild(db, view)

    # --- appending

    async def append(self, *entries: Entry) -> list[int]:
        """Makes `entries` durable, together or not at all, and returns their sequences.

        An entry whose id is known returns the old sequence and changes nothing.

        Raises:
            InvalidArgument: an entry that cannot be written: no id or kind, text that is not Unicode, no real time.
            Conflict: the id belongs to an entry of another kind, conversation or sender.
            Unavailable: the journal is sealed or closed; the same append may succeed after a restart.
        """
        if not entries:
            return []
        self._refuse()
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._pending.append(_Call(entries, future))
        self._pending_entries += len(entries)
        self._awaited = True
        if not self._busy:
            self._kick()
        return await future

    def append_soon(self, *entries: Entry) -> int:
        """Lets `entries` ride in the next commit, which comes within 50 ms; returns how many will.

        What does not become durable after all (the disk failed, too many are waiting) is counted as lost.

        Raises:
            InvalidArgument: as for `append`.
        """
        if self._closed or self.sealed is not None or self._pending_entries + len(entries) > MAX_RIDING:
            self._lost += len(entries)
            return 0
        # A call of its own for each: they have nothing to do with one another.
        self._pending.extend(_Call((entry,), None) for entry in entries)
        self._pending_entries += len(entries)
        self._kick_later()
        return len(entries)

    def keep_cursor(self, participant: str, conversation: str, sequence: int) -> None:
        """Moves a cursor forward; it becomes durable with the next commit, within 50 ms."""
        key = (participant, conversation)
        place, anew = self._cursors.get(key, (0, False))
        self._cursors[key] = max(sequence, place), anew
        self._kick_later()

    def drop_cursor(self, participant: str, conversation: str) -> None:
        """Forgets a cursor; it is gone from the disk with the next commit, within 50 ms."""
        self._cursors[participant, conversation] = 0, True
        self._kick_later()

    async def cursor(self, participant: str, conversation: str) -> int:
        """Where the cursor stands; 0 where there is none."""
        key = (participant, conversation)
        sql = "SELECT sequence FROM cursor WHERE participant = ? AND conversation = ?"
        place = 0
        for soon, anew in (self._cursors.get(key, (0, False)), self._cursors_in_flight.get(key, (0, False))):
            place = max(place, soon)
            if anew:
                return place
        stored = await self.query(sql, key)
        return max(place, stored[0][0] if stored else 0)

    def on_commit(self, listener: Callable[[Sequence[Row]], None]) -> None:
        """Has `listener` called in the event loop with the new rows, in order, right after each commit."""
        self._listeners.append(listener)

    def _refuse(self) -> None:
        if self.sealed is not None:
            raise _sealed_error(self.sealed)
        if self._closed:
            raise _closed_error()

    def _kick_later(self) -> None:
        if self._timer is None and not self._busy:
            self._timer = asyncio.get_running_loop().call_later(RIDE_ALONG_S, self._kick)

    def _kick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._busy and (self._pending or self._cursors):
            self._busy = True
            if self._crowded:
                asyncio.get_running_loop().call_soon(self._start)
            else:
                self._start()

    def _start(self) -> None:
        calls, self._pending = self._pending, []
        self._crowded = len(calls) > 1
        self._pending_entries = 0
        self._awaited = False
        self._cursors_in_flight, self._cursors = self._cursors, {}
        cursors = self._cursors_in_flight
        self._writer.submit(lambda: self._commit(calls, cursors), lambda rows: self._committed(calls, rows))

    def _committed(self, calls: list[_Call], rows: list[Row] | str) -> None:
        """Back in the loop: `rows` are durable, or a sentence says why nothing ever will be again."""
        if isinstance(rows, str):
            self._seal(rows, calls)
            return
        self._cursors_in_flight = {}
        if rows:
            for listener in self._listeners:
                try:
                    listener(rows)
                except Exception:  # what is durable stays so, whatever a listener makes of it
                    logger.exception("a listener failed", listener=repr(listener), after=rows[-1].sequence)
        for call in calls:
            future, answer = call.future, call.answer
            if future is None:
                if isinstance(answer, Exception):
                    self._lost += len(call.entries)
            elif not future.done():
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        if self._wal_bytes >= self._checkpoint_bytes or time.monotonic() - self._head_at > HEAD_EVERY_S:
            self._writer.submit(self._maintain, self._maintained)
        else:
            self._rest()

    def _maintained(self, reason: str | None) -> None:
        if reason is not None:
            self._seal(reason, [])
        else:
            self._rest()

    def _rest(self) -> None:
        """The thread is free: go on with what has gathered, behind whoever has just been woken."""
        self._busy = False
        if self._awaited or self._closed:
            self._kick()
        elif self._pending or self._cursors:
            # Whoever was just woken may append within this turn; only if nobody does is there time to wait.
            self._kick_later()
        if self._idle is not None and not self._busy:
            self._idle.set()

    def _seal(self, reason: str, calls: list[_Call]) -> None:
        if self.sealed is None:
            self.sealed = reason
            logger.error("the journal is sealed", reason=reason, path=str(self.path))
        self._busy = False
        for call in calls + self._pending:
            if call.future is None:
                self._lost += len(call.entries)
            elif not call.future.done():
                call.future.set_exception(_sealed_error(reason))
        self._pending = []
        self._pending_entries = 0
        if self._idle is not None:
            self._idle.set()

    # --- on the writer's thread

    def _commit(self, calls: list[_Call], cursors: Cursors) -> list[Row] | str:
        """Writes one batch; a string says why the journal must be sealed."""
        if self._failure is not None:  # rule 3, for what was on its way when it happened
            return self._failure
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
            self._failure = _sentence(error)
        except BaseException as error:  # noqa: BLE001  the thread has nobody else to tell
            self._failure = f"a fault of the journal itself: {error!r}"
        return self._failure

    def _transact(self, calls: list[_Call], cursors: Cursors) -> list[Row]:
        try:
            return self._write(calls, cursors, self._known(calls) if self._any_sealed else {})
        except sqlite3.IntegrityError:  # an id that is known
            return self._write(calls, cursors, self._known(calls))

    def _write(self, calls: list[_Call], cursors: Cursors, known: dict[str, _Known]) -> list[Row]:
        sequence, last = self._sequence, self._hash
        now = time.time()
        headers: list[Any] = []
        bodies: list[Any] = []
        rows: list[Row] = []
        known = known.copy()
        link = chain.link
        written = 0
        for call in calls:
            if known and (conflict := _conflict(call.entries, known)):
                call.answer = conflict
                continue
            places: list[int] = []
            for entry, header, digest in zip(call.entries, call.headers, call.digests, strict=True):
                id, kind, body, conversation, sender, recipient, at = entry
                if id in known:
                    places.append(known[id][0])
                    continue
                at = at or now
                sequence += 1
                size = len(body)
                last = link(last, sequence, at, size, digest, header)
                headers += (sequence, at, kind, id, conversation, sender, recipient, size, digest, last)
                if size:
                    bodies += (sequence, body)
                    written += size
                rows.append(Row(sequence, id, kind, body, conversation, sender, recipient, at))
                known[id] = (sequence, kind, conversation, sender)
                places.append(sequence)
            call.answer = places
        db = self._writer._conn
        with _transaction(db):
            _insert(db, "journal", 10, headers)
            _insert(db, "body", 2, bodies)
            self._follow(db, rows)
            if cursors:
                db.executemany(
                    "DELETE FROM cursor WHERE participant = ? AND conversation = ?",
                    [key for key, (_, anew) in cursors.items() if anew],
                )
                db.executemany(
                    "INSERT INTO cursor VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence"
                    " WHERE excluded.sequence > sequence",
                    [(*key, place) for key, (place, _) in cursors.items() if place],
                )
        self._sequence, self._hash = sequence, last
        self._commits += 1
        self._messages += sum(row.kind in ("message", "event") for row in rows)
        self._wal_bytes += written + 512 * len(rows) + 8 * 4096  # a guess: SQLite does not tell
        return rows

    def _follow(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        by_kind = self._by_kind
        for row in rows:
            for view in by_kind.get(row.kind, ()):
                try:
                    view.apply(db, row)
                except Exception as error:  # whatever a view may think of; the one who appended hears of it
                    if _is_of_disk(error):
                        raise
                    raise _Refused(error) from error

    def _known(self, calls: Sequence[_Call]) -> dict[str, _Known]:
        """What is already there under the ids of `calls`."""
        db = self._writer._conn
        ids = json.dumps([entry.id for call in calls for entry in call.entries])
        known: dict[str, _Known] = {}
        if self._any_sealed:
            sql = "SELECT id, sequence FROM sealed WHERE id IN (SELECT value FROM json_each(?))"
            known = {id: (sequence, None, None, None) for id, sequence in db.execute(sql, (ids,))}
        sql = (
            "SELECT id, sequence, kind, conversation, sender FROM journal WHERE id IN (SELECT value FROM json_each(?))"
        )
        return known | {id: tuple(rest) for id, *rest in db.execute(sql, (ids,))}

    def _maintain(self) -> str | None:
        """Between two commits: checkpoints and notes the head; a string says why the journal must be sealed."""
        if self._failure is not None:
            return self._failure
        try:
            if self._wal_bytes >= self._checkpoint_bytes:
                self._checkpoint("PASSIVE")
            self._note_head()
        except (sqlite3.Error, OSError) as error:
            self._failure = _sentence(error)
        return self._failure

    def _maintain_last(self, db: sqlite3.Connection) -> None:
        self._checkpoint("TRUNCATE")
        self._note_head()

    def _checkpoint(self, mode: str) -> None:
        busy, pages, done = self._writer._conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy or done < pages:
            # A reader still looks at older pages: the WAL goes on growing until the next turn.
            logger.debug("a checkpoint stopped half-way", pages=pages, done=done)
        self._wal_bytes = max(0, pages - done) * 4096

    def _note_head(self) -> None:
        if self._head_noted != self._sequence:
            write_head(self.path, Head(self._sequence, self._hash.hex(), time.time()))
            self._head_noted = self._sequence
        self._head_at = time.monotonic()
        self._measure()

    def _measure(self) -> None:
        self._bytes = sum(file.stat().st_size for file in self.path.parent.glob(self.path.name + "*"))

    # --- reading

    async def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one SELECT on a connection that can only read; it sees every commit that was acknowledged.

        Raises:
            Unavailable: the journal is closed.
        """
        if self._closed:
            raise _closed_error()
        self._turn = (self._turn + 1) % READERS
        rows: list[tuple[Any, ...]] = await self._readers[self._turn].run(
            lambda db: db.execute(sql, parameters).fetchall()
        )
        return rows

    async def verify(self) -> Verification:
        """Checks the whole journal against its hash chain, from a connection of its own."""
        return await anyio.to_thread.run_sync(verify, self.path)

    async def rebuild(self, view: str) -> None:
        """Drops the tables of a view and makes them again from the journal, in one transaction.

        Raises:
            KeyError: there is no such view.
            Unavailable: the journal is sealed or closed.
        """
        chosen = self._views[view]
        await self.amend(lambda db: _rebuild(db, chosen))

    async def amend(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on the writer's thread between two commits, in a transaction of its own.

        For what tends the tables and is no entry: rebuilding, retention. Keep it short: commits wait for it.

        Raises:
            Unavailable: the journal is sealed or closed.
        """
        self._refuse()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.submit(lambda: self._amend(work), lambda result: self._amended(done, result))
        return await done

    def _amend(self, work: Callable[[sqlite3.Connection], T]) -> "_Done[T] | Exception":
        if self._failure is not None:
            return _sealed_error(self._failure)
        db = self._writer._conn
        try:
            with _transaction(db):
                value = work(db)
            self._any_sealed = self._any_sealed or _has_segments(db)
        except Exception as error:  # noqa: BLE001  raised again where somebody waits for it
            if not _is_of_disk(error):
                return error
            self._failure = _sentence(error)
            return _sealed_error(self._failure)
        return _Done(value)

    def _amended(self, done: asyncio.Future[T], result: "_Done[T] | Exception") -> None:
        if self._failure is not None:
            self._seal(self._failure, [])
        if done.done():
            return
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result.value)

    def statistics(self) -> Statistics:
        return Statistics(
            entries=self._sequence,
            messages=self._messages,
            bytes=self._bytes,
            commits=self._commits,
            pending=self._pending_entries,
            lost=self._lost,
            sealed=self.sealed,
        )


@dataclass
class _Done(Generic[T]):
    value: T


@functools.cache
def _insertion(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"


def _insert(db: sqlite3.Connection, table: str, columns: int, values: list[Any]) -> None:
    """Inserts many rows by few statements, of 64, 32, 16 ... rows each.

    Each step of a statement gives the interpreter's lock away, and while the loop is busy each costs up to 5 ms to get
    it back: row by row, one commit of 64 would take more than half a second.
    """
    at, left, rows = 0, len(values) // columns, 64
    while left:
        while rows > left:
            rows //= 2
        end = at + rows * columns
        db.execute(_insertion(table, columns, rows), values[at:end])
        at, left = end, left - rows


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # what went wrong first is what counts
                db.execute("ROLLBACK")
        raise


def _rebuild(db: sqlite3.Connection, view: View) -> None:
    for table in view.tables:
        db.execute(f'DROP TABLE IF EXISTS "{table}"')
    for statement in statements(view.schema):
        db.execute(statement)
    for row in read_rows(db, view.kinds):
        view.apply(db, row)
    db.execute("INSERT OR REPLACE INTO view VALUES (?, ?)", (view.name, _fingerprint(view)))


def _has_segments(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM segment LIMIT 1").fetchone() is not None


def _is_of_disk(error: Exception) -> bool:
    """Whether the file or the disk failed, not the one who asked."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in DISK_ERRORS
    return isinstance(error, OSError)


def read_rows(db: sqlite3.Connection, kinds: frozenset[str]) -> Iterator[Row]:
    """Every entry of `kinds`, oldest first, the sealed ones too."""
    for row in read_segments(db):
        if row.kind in kinds:
            yield row
    sql = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence) ORDER BY j.sequence"
    for values in db.execute(sql):
        if values[2] in kinds:
            yield Row(*values)


def _header(entry: Entry) -> bytes:
    if not entry.id or not entry.kind:
        raise InvalidArgument("an entry needs an id and a kind")
    if len(entry.body) > MAX_ENTRY:
        raise InvalidArgument(
            f"an entry of {len(entry.body)} bytes; it may have {MAX_ENTRY}", next="what is longer is a blob"
        )
    if not 0 <= entry.at < 1e11:
        raise InvalidArgument(f"{entry.at!r} is no time in seconds since the epoch")
    try:
        return chain.header(entry.kind, entry.id, entry.conversation, entry.sender, entry.recipient)
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"an entry whose words are not Unicode text: {entry.id!r}") from error


def _conflict(entries: Sequence[Entry], known: Mapping[str, _Known]) -> Conflict | None:
    for entry in entries:
        old = known.get(entry.id)
        if old and old[1] is not None and old[1:] != (entry.kind, entry.conversation, entry.sender):
            return Conflict(
                f"the id {entry.id!r} already belongs to another entry, of another kind, conversation or sender",
                next="give a new thing a new id",
            )
    return None


def _sealed_error(reason: str) -> Unavailable:
    return Unavailable(
        f"the journal is sealed, nothing more can be made durable: {reason}",
        next="mend or free the disk, then restart the lab; what was acknowledged is safe and can be read",
    )


def _closed_error() -> Unavailable:
    return Unavailable("the journal is closed", next="the lab is stopping: start it again with `madlab up`")


def _sentence(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)


def _fingerprint(view: View) -> str:
    return sha256("\0".join((view.schema, *view.tables, *sorted(view.kinds))).encode()).hexdigest()


def _lock(path: Path) -> IO[str]:
    """Takes the one lock there is; the system gives it back when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (path, f"{path}.lock"):  # what is said in a lab is its owner's; SQLite's other files follow the first
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    lock = open(f"{path}.lock", "a+")  # noqa: SIM115  held as long as the journal is
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Conflict(
            f"the journal {path} is already open, in process {holder}",
            next="one lab, one core: stop the other with `madlab down`, or use another data directory",
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _open_reader(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA cache_size = -4000")
    return db


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
