"""The journal: everything that was said or done, in one file, in one order, for ever.

Rules of this room
  1. *Acknowledged means on the disk.* An `append` returns after the commit that holds its entries was synced.
  2. *One writer.* One connection writes and checkpoints, one caller at a time. Readers have connections of their own,
     read only, and never checkpoint: SQLite before 3.51.3 can corrupt a WAL that two connections checkpoint.
  3. *After one failed write, none.* When a sync fails, Linux forgets which pages were dirty, and the next sync succeeds
     over lost data. So the first error of the disk seals the journal: nobody is acknowledged, reading goes on, and
     only a restart (which reads what really is there) opens it again.
  4. *The same id is the same entry.* Whoever was not acknowledged asks again with the same id and cannot do it twice.

Group commit
  An `append` puts its call behind `_pending` and has a commit start when the loop has gone round once: whoever appends
  in the same turn rides along. The commit is made where it is quickest.

  *In the loop*, as long as the disk is quick (`pace`): the transaction, the listeners, the publishers' wake-up, in one
  go and without a thread. Nothing else runs meanwhile; what came in while it did is ready by the next turn, and so are
  the publishers who have more to say, so the next commit has all of them. More than may keep the loop is cut: what is
  left comes with the next turn.

  *On the writer's thread* where the disk is slow, where one call alone is large, and behind whatever the thread is
  doing: checkpoints, the head, retention and other amendments are always its. `_pending` gathers the next batch; when
  the thread is done it calls back into the loop, once, and that call delivers, wakes, and has the next commit start
  *behind* whom it woke.

  The connection passes from one to the other by the thread's queue and its call back: `_busy` while a commit is on its
  way, `_handed_over` jobs that the thread has not given back. There is no task, hence nothing to cancel half-way: a
  cancelled `append` may still be committed.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import structlog

from core.rogers.call import Call
from core.rogers.connection import Connection, open_reader
from core.rogers.entry import Entry, Filled, Row, View
from core.rogers.lock import lock
from core.rogers.pace import STALL_S, Pace
from core.rogers.verify import Head, Verification, verify
from core.rogers.writer import Done, Writer, owe_scrub, rebuild
from protos.errors import Unavailable

logger = structlog.get_logger()

SCRUB_AGAIN_S = 0.5  # after a reader kept the log from being cut
RIDE_ALONG_S = 0.05  # how long what nobody waits for may wait for a commit to ride in
READERS = 2
MAX_RIDING = 65_536  # entries that nobody waits for, pending at once; more are lost, and counted

T = TypeVar("T")
_Cursors = dict[tuple[str, str], tuple[int, bool]]  # `writer.Cursors`


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
    sync_s: float = 0.0  # what the last commit's sync took


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
        filled: Filled | None = None,  # finds bodies that are archived, for views that are made anew
        clean: Callable[[Entry], Entry] | None = None,  # what of an entry may be written: the secrets taken out
        synchronous: str = "FULL",  # "OFF" is for the test that shows why not
        checkpoint_bytes: int = 16 << 20,  # of WAL, about
        stall_s: float = STALL_S,  # for so long a sync may keep the loop; 0: commits are the thread's
    ) -> None:
        self.path = path
        self.sealed: str | None = None
        self._views = {view.name: view for view in views}
        self._clean = clean
        self._filled = filled
        self._writer = Writer(path, views, synchronous=synchronous, checkpoint_bytes=checkpoint_bytes, filled=filled)
        self._pace = Pace(stall_s)
        self._listeners: list[Callable[[Sequence[Row]], None]] = []
        self._pending: list[Call] = []
        self._pending_entries = 0
        self._awaited = False  # somebody waits for a pending call
        self._cursors: _Cursors = {}
        self._cursors_in_flight: _Cursors = {}
        self._busy = False  # a commit, and the care that follows it, is scheduled or made
        self._handed_over = 0  # jobs that the thread has; until none is left, the connection is its
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._scrubbing: asyncio.TimerHandle | None = None
        self.tending = anyio.Lock()  # held by who takes bodies out or puts them back
        self._closed = True
        self._idle: asyncio.Event | None = None
        self._readers: list[Connection] = []
        self._turn = 0

    # --- opening and closing

    async def __aenter__(self) -> Self:
        self._lock = await anyio.to_thread.run_sync(lock, self.path)
        try:
            self._thread = Connection(self._writer.open)
            await self._thread.open()
            try:
                for _ in range(READERS):
                    reader = Connection(partial(open_reader, self.path))
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
            if self._scrubbing is not None:
                self._scrubbing.cancel()  # the last checkpoint cuts the log
            self._idle = asyncio.Event()
            self._kick()
            if self._busy:
                await self._idle.wait()
            if self.sealed is None:
                reason = await self._thread.run(lambda _: self._writer.maintain(last=True))
                if reason is not None:
                    self._seal(reason, [])
            await self._close_connections()
            self._lock.close()

    async def _close_connections(self) -> None:
        """The last connection to close checkpoints, so it is the writer; but never after an error (rule 3): then it is
        a reader, which cannot, and the next opening recovers from the log."""
        connections = [*self._readers, self._thread] if self.sealed is None else [self._thread, *self._readers]
        self._readers = []
        for each in connections:
            with contextlib.suppress(sqlite3.Error):  # of a disk that is gone; it has been said by then
                await each.close()

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
        if self._clean is not None:
            entries = tuple([self._clean(each) for each in entries])
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._pending.append(Call(entries, future))
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
        if self._clean is not None:
            entries = tuple([self._clean(each) for each in entries])
        # A call of its own for each: they have nothing to do with one another.
        self._pending.extend([Call((entry,), None) for entry in entries])
        self._pending_entries += len(entries)
        self._kick_later()
        return len(entries)

    def clean(self, entry: Entry) -> Entry:
        """`entry` as it will be written, for who must show it before it is."""
        return entry if self._clean is None else self._clean(entry)

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

    # --- group commit

    def _kick_later(self) -> None:
        if self._timer is None and not self._busy:
            self._timer = asyncio.get_running_loop().call_later(RIDE_ALONG_S, self._kick)

    def _kick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._busy and (self._pending or self._cursors):
            self._busy = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        calls, weight = self._take()
        cursors = self._cursors_in_flight = self._cursors
        self._cursors = {}
        if weight:
            began = time.perf_counter()
            rows = self._writer.commit(calls, cursors)
            took = time.perf_counter() - began
            self._committed(calls, rows)
            self._pace.note(weight, took, self._writer.sync_s)
        else:
            self._hand_over(partial(self._writer.commit, calls, cursors), partial(self._came_back, calls))

    def _came_back(self, calls: list[Call], rows: list[Row] | str) -> None:
        self._committed(calls, rows)
        self._pace.heard(self._writer.sync_s)

    def _take(self) -> tuple[list[Call], int]:
        """The calls to commit next, and what the loop takes on with them: 0 where it is the thread's to do."""
        room = 0 if self._handed_over else self._pace.room()
        weight, some = len(self._cursors), 0
        for call in self._pending:
            if weight + call.weight > room:
                break
            weight += call.weight
            some += 1
        if 0 < some < len(self._pending):
            calls, self._pending = self._pending[:some], self._pending[some:]
            self._pending_entries -= sum(len(call.entries) for call in calls)
            return calls, weight
        in_loop = some == len(self._pending) and weight <= room
        calls, self._pending = self._pending, []
        self._pending_entries = 0
        self._awaited = False
        return calls, weight if in_loop else 0

    def _hand_over(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Has the thread do `work` with the connection, and then the loop `done`."""

        def back(result: T) -> None:
            self._handed_over -= 1
            done(result)

        self._handed_over += 1
        self._thread.submit(work, back)

    def _committed(self, calls: list[Call], rows: list[Row] | str) -> None:
        """`rows` are durable, or a sentence says why nothing ever will be again."""
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
        if self._writer.needs_care:
            self._hand_over(self._writer.maintain, self._maintained)
        else:
            self._rest()

    def _maintained(self, reason: str | None) -> None:
        if reason is not None:
            self._seal(reason, [])
        else:
            self._rest()

    def _rest(self) -> None:
        """Goes on with what has gathered, behind whoever has just been woken."""
        self._busy = False
        if self._awaited or self._closed:
            self._kick()
        elif self._pending or self._cursors:
            # Whoever was just woken may append within this turn; only if nobody does is there time to wait.
            self._kick_later()
        if self._idle is not None and not self._busy:
            self._idle.set()

    def _seal(self, reason: str, calls: list[Call]) -> None:
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

    # --- reading and tending

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

    async def verify(self, kept: Sequence[Head] = ()) -> Verification:
        """Checks the whole journal against its hash chain, and heads `kept` elsewhere, from a connection of its own."""
        return await anyio.to_thread.run_sync(verify, self.path, kept)

    async def rebuild(self, view: str) -> None:
        """Drops the tables of a view and makes them again from the journal, in one transaction.

        Raises:
            KeyError: there is no such view.
            Unavailable: the journal is sealed or closed.
        """
        chosen = self._views[view]
        await self.amend(lambda db: rebuild(db, chosen, self._filled))

    async def amend(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on the writer's thread between two commits, in a transaction of its own.

        For what tends the tables and is no entry: rebuilding, retention. Keep it short: commits wait for it.

        Raises:
            Unavailable: the journal is sealed or closed.
        """
        self._refuse()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_over(partial(self._writer.amend, work), partial(self._amended, future))
        return await future

    def _amended(self, future: asyncio.Future[T], result: Done[T] | Exception | str) -> None:
        if isinstance(result, str):
            self._seal(result, [])
            result = _sealed_error(result)
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result.value)

    async def owe_scrub(self) -> None:
        """Makes it durable, before something is removed, that a thorough `scrub` is due.

        Raises:
            Unavailable: the journal is sealed or closed.
        """
        await self.amend(owe_scrub)

    async def owes_scrub(self) -> bool:
        """Whether a thorough `scrub` was due and has not been done.

        Raises:
            Unavailable: the journal is closed.
        """
        return bool((await self.query("PRAGMA user_version"))[0][0])

    async def scrub(self, *, thorough: bool = False) -> bool:
        """Has the files hold no more of what was removed: call it behind the amendment that did. Returns whether it is
        done; a reader of older pages holds it up, and then it is tried again twice a second. `thorough` has a small
        file written anew, for which commits wait a moment, and is for what a person has forgotten.

        Raises:
            Unavailable: the journal is sealed or closed.
        """
        self._refuse()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._hand_over(partial(self._writer.scrub, thorough=thorough), partial(self._scrubbed, future))
        return await future

    def _scrubbed(self, future: asyncio.Future[bool] | None, done: bool | str) -> None:
        if isinstance(done, str):
            self._seal(done, [])
            if future is not None and not future.done():
                future.set_exception(_sealed_error(done))
            return
        if not done and not self._closed and self._scrubbing is None:
            self._scrubbing = asyncio.get_running_loop().call_later(SCRUB_AGAIN_S, self._scrub_again)
        if future is not None and not future.done():
            future.set_result(done)

    def _scrub_again(self) -> None:
        self._scrubbing = None
        self._hand_over(partial(self._writer.scrub, thorough=False), partial(self._scrubbed, None))

    def statistics(self) -> Statistics:
        return Statistics(
            entries=self._writer.sequence,
            messages=self._writer.messages,
            bytes=self._writer.bytes,
            commits=self._writer.commits,
            pending=self._pending_entries,
            lost=self._lost,
            sealed=self.sealed,
            sync_s=self._writer.sync_s,
        )


def _sealed_error(reason: str) -> Unavailable:
    return Unavailable(
        f"the journal is sealed, nothing more can be made durable: {reason}",
        next="mend or free the disk, then restart the lab; what was acknowledged is safe and can be read",
    )


def _closed_error() -> Unavailable:
    return Unavailable("the journal is closed", next="the lab is stopping: start it again with `madlab up`")
