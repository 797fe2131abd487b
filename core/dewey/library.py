"""Dewey's index as others use it: opened with the lab, kept up with the journal, searched, made anew.

One task follows the journal. It is woken by commits, waits a moment so that many share one batch, works on a thread
and rests as long as it has worked: so it takes half a core at most, and the loop and the writer have the other half.
Searches have connections and threads of their own and go on whatever the follower does, also while the index is made
anew beside the old one (`rebuild`), until the new one takes its place.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from anyio import AsyncContextManagerMixin, CancelScope, Event, create_task_group, move_on_after, sleep

from core.dewey import index
from core.dewey.indexer import Indexer
from core.dewey.query import parse, within
from core.dewey.search import Found, find
from core.horace.store import Horace
from core.rogers.connection import Connection, open_reader
from core.rogers.entry import Filled, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, Error, Unavailable

logger = structlog.get_logger()

READERS = 2
CACHE_KB = 16_000  # of pages, for each of them
GATHER_S = 0.1  # from a commit to its batch
LONGEST_REST_S = 0.5
RETRY_S = 30.0  # after a fault of the disk
MOST = 100  # hits on one page


@dataclass(frozen=True)
class Status:
    """How the index fares."""

    documents: int
    reached: int  # sequence of the journal that was taken in last
    head: int  # the journal's last
    lag: int  # entries between the two
    bytes: int  # on the disk
    rebuilding: float | None  # the share that is done, 0 to 1; None where the index is not being made anew
    error: str  # why it does not follow; empty where it does


def _nothing_archived(db: Any, rows: Sequence[Row]) -> list[Row]:
    return list(rows)


class Library(AsyncContextManagerMixin):
    """The index of one lab, open and up to date within `async with`."""

    def __init__(
        self, journal: Journal, path: Path, horace: Horace | None = None, archived: Filled = _nothing_archived
    ) -> None:
        self._journal = journal
        self._path = path
        self._horace = horace
        self._archived = archived
        self._changed = Event()
        self._stepped = Event()
        self._readers: list[Connection] = []
        self._asked = Event()  # for an index made anew
        self._turn = 0
        self._fresh: tuple[Indexer, Connection] | None = None
        self._wants_fresh = False
        self._error = ""

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["Library"]:
        async with AsyncExitStack() as stack:
            await self._open()
            stack.push_async_callback(self._close)
            self._journal.on_commit(self._committed)
            tasks = await stack.enter_async_context(create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._follow)
            yield self

    # --- searching

    async def search(
        self,
        text: str,
        *,
        fields: dict[str, list[str]] | None = None,
        limit: int = 20,
        more: str = "",
        sees: Sequence[str] | None = None,
    ) -> Found:
        """What `text` finds. `fields` are values of fields beside it, `sees` the keys (`query.key`) of which a document
        must have one to be found by whoever asks; None: everything.

        Raises:
            InvalidArgument: the text, a field or `more` means nothing; the sentence says what would.
        """
        query = parse(text, fields)
        if sees is not None:
            query = within(query, sees)
        readers = await self._open_readers()
        self._turn = (self._turn + 1) % len(readers)
        most, now = max(1, min(limit, MOST)), time.time()
        found: Found = await readers[self._turn].run(lambda db: find(db, query, limit=most, more=more, now=now))
        return found

    async def owner_of(self, conversation: str) -> str:
        """The client whose conversation it is; empty where it is no client's."""
        (reader, *_) = await self._open_readers()
        return str(await reader.run(lambda db: index.owner_of(db, conversation)))

    async def status(self) -> Status:
        """How the index fares."""
        (reader, *_) = await self._open_readers()
        documents = await reader.run(lambda db: db.execute("SELECT count(*) FROM doc").fetchone()[0])
        head = self._journal.statistics().entries
        share = None
        if self._fresh is not None or self._wants_fresh:
            share = self._fresh[0].reached / max(1, head) if self._fresh is not None else 0.0
        size = sum(each.stat().st_size for each in self._path.parent.glob(f"{self._path.name}*"))
        reached = self._indexer.reached
        return Status(int(documents), reached, head, max(0, head - reached), size, share, self._error)

    async def _open_readers(self) -> list[Connection]:
        """
        Raises:
            Unavailable: the index cannot be opened.
        """
        while not self._readers:
            if self._error:
                raise Unavailable(
                    f"The index cannot be opened: {self._error}", next="It is tried again twice a minute."
                )
            await self._stepped.wait()
        return self._readers

    # --- keeping up

    async def caught_up(self, sequence: int | None = None) -> None:
        """Waits until the journal is taken in up to `sequence`, or as far as it goes now, and what was forgotten is
        packed away."""
        upto = self._journal.statistics().entries if sequence is None else sequence
        self._changed.set()
        while self._indexer.reached < upto or self._indexer.packs or self._error:
            await self._stepped.wait()

    async def rebuild(self) -> None:
        """Has the index made anew from the journal, beside the one that is searched meanwhile; returns at once.

        Raises:
            Conflict: that is being done already.
        """
        if self._wants_fresh or self._fresh is not None:
            raise Conflict("the index is being made anew already", next="see: madlab index status")
        self._wants_fresh = True
        self._changed.set()
        self._asked.set()

    async def rebuilt(self) -> None:
        """Waits until no index is being made anew."""
        while self._wants_fresh or self._fresh is not None:
            await self._stepped.wait()

    def _committed(self, rows: Sequence[Row]) -> None:
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            if self._changed.is_set():
                self._changed = Event()
            if self._asked.is_set():
                self._asked = Event()
            try:
                works = await self._round()
                self._error = ""
            except Error as error:
                works, self._error = True, error.message
            except Exception as error:  # the lab must outlive a fault of what can be made anew
                logger.exception("the index does not follow the journal")
                works, self._error = True, f"{type(error).__name__}: {error}"[:500]
            self._stepped.set()
            self._stepped = Event()
            if self._error:
                with move_on_after(RETRY_S):
                    await self._asked.wait()
            elif not works:
                await self._changed.wait()
                await sleep(GATHER_S)

    async def _round(self) -> bool:
        """One batch for each index; whether there is more to do."""
        if not self._readers:
            await self._open()
        if self._wants_fresh:
            self._fresh = await self._connect(self._path.with_name(f"{self._path.name}.new"), anew=True)
            self._wants_fresh = False
        try:
            works = await self._step(self._indexer, self._writer)
        except Exception as error:  # whatever is wrong with the old one, the new one takes its place
            if self._fresh is None:
                raise
            logger.debug("the index that is being replaced does not follow the journal", why=str(error))
            works = False
        if self._fresh is not None:
            if await self._step(*self._fresh):
                return True
            if self._fresh[0].packs:
                await self._fresh[1].run(self._fresh[0].pack)
                return True
            await self._swap()
        if not works and self._indexer.packs:
            await self._writer.run(self._indexer.pack)
            return True
        return works

    async def _step(self, indexer: Indexer, thread: Connection) -> bool:
        """Takes in one batch; whether there was more. What is committed from then on is gathered for a while first: a
        batch for each commit would have the core look into the journal as often as it writes."""
        began = time.perf_counter()
        batch = await thread.run(indexer.read)
        if batch is None:
            return False
        reports = {digest: content for digest in batch.reports if (content := await self._report(digest))}
        await thread.run(lambda db: indexer.take_in(db, batch, reports))
        self._stepped.set()
        self._stepped = Event()
        await sleep(min(LONGEST_REST_S, time.perf_counter() - began))
        return indexer.reached < indexer.head

    async def _report(self, digest: str) -> bytes:
        if self._horace is None:
            return b""
        try:
            return b"".join([chunk async for chunk in self._horace.get(digest)])
        except Error:
            return b""  # forgotten, or never stored: the message is found all the same

    # --- opening and closing

    async def _open(self) -> None:
        self._indexer, self._writer = await self._connect(self._path)
        readers: list[Connection] = []
        try:
            for _ in range(READERS):
                reader = Connection(partial(open_reader, self._path))
                await reader.open()
                readers.append(reader)
                await reader.run(lambda db: db.execute(f"PRAGMA cache_size = -{CACHE_KB}"))
        except BaseException:
            await self._close_all(readers)
            raise
        self._readers = readers

    async def _connect(self, path: Path, *, anew: bool = False) -> tuple[Indexer, Connection]:
        if anew:
            index.remove(path)
        indexer = Indexer(self._journal.path, path, self._archived)
        thread = Connection(indexer.open)
        await thread.open()
        return indexer, thread

    async def _close(self) -> None:
        """The last to close is the one that checkpoints."""
        with CancelScope(shield=True):
            if self._fresh is not None:
                await self._disconnect(*self._fresh)
                self._fresh = None
            readers, self._readers = self._readers, []
            if readers:
                await self._close_all(readers)

    async def _close_all(self, readers: Sequence[Connection]) -> None:
        with CancelScope(shield=True):
            for each in readers:
                await each.close()
            await self._disconnect(self._indexer, self._writer)

    async def _disconnect(self, indexer: Indexer, thread: Connection) -> None:
        await thread.run(indexer.close)
        await thread.close()

    async def _swap(self) -> None:
        """Puts the new index into the old one's place. Searches wait for the milliseconds that it takes."""
        with CancelScope(shield=True):
            assert self._fresh is not None
            fresh = self._fresh[0].path
            await self._close()
            index.remove(self._path)  # with its log, which must not meet the new file
            fresh.replace(self._path)
            await self._open()
        logger.info("the index was made anew", entries=self._indexer.reached)
