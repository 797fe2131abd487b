"""Archives of a lab: conversations leave the journal's table for files, come back bit for bit, or are forgotten.

Each step is said in the journal before anything goes, so `kill -9` anywhere leaves wholly before or wholly after:

    archive   file written and synced ─▶ entry *archived* ─▶ bodies out of the table
    restore   bodies into the table ─▶ entry *restored* ─▶ file removed
    forget    entry with the proofs ─▶ bodies, files and blobs removed

The entry is the line between the two. `finish`, when the lab opens, does what was said and not done, and takes away
what was done and never said. One of these, or a turn of retention, at a time (`Journal.tending`).

An archived conversation is read as before: who asks for a message whose body is in a file gets it from there.
"""

import json
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from anyio import sleep, to_thread

from core.dewey.archive import Kept, read, sync_directory, write
from core.horace.store import Horace
from core.rogers.chain import GENESIS
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.rogers.ranges import format_ranges
from core.rogers.retention import is_free, listed, remove_listed, say
from core.rogers.tables import COLUMNS
from protos.errors import Conflict, Error, NotFound
from protos.ids import new_id

ROWS = 20_000  # of one archive; a longer conversation has several
WINDOW = 500  # bodies that one transaction brings back
OPEN = 8  # archives that are in memory, to be read from
EVERY_S = 3600.0

_WITHIN = "(j.conversation = ?1 OR (j.conversation > ?1 || '/' AND j.conversation < ?1 || '0'))"  # 0 follows /
_APART = (
    "SELECT first, last, archive FROM set_apart WHERE state = 'archived' AND last >= ? AND first <= ? ORDER BY first"
)
_LINKS = f"SELECT digest FROM links j WHERE {_WITHIN}"

logger = structlog.get_logger()


@dataclass(frozen=True)
class Archive:
    """One archive."""

    id: str
    conversation: str
    at: float  # when it was made; seconds since the epoch
    count: int  # entries
    bytes: int  # of the file
    sha256: str
    ended: float  # when the last of it was said


@dataclass(frozen=True)
class Checked:
    """What a check of all archives found."""

    archives: int
    entries: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is there and is what was said."""
        return not self.problems


@dataclass(frozen=True)
class Forgotten:
    """What went with a conversation."""

    bodies: int
    archives: int
    blobs: int
    sequence: int  # of the entry that proves it


class Shelf:
    """The files of the archives, to be read from; the few that were read last are in memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bodies = lru_cache(maxsize=OPEN)(self._read)

    def filled(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
        """`rows`, those whose bodies are in an archive with them. `db` is the journal."""
        gone = [row.sequence for row in rows if row.body is None]
        return self.fill(rows, db.execute(_APART, (min(gone), max(gone))).fetchall()) if gone else list(rows)

    def fill(self, rows: Sequence[Row], apart: Sequence[tuple[Any, ...]]) -> list[Row]:
        """`rows` with their bodies from archives. `apart`: first, last and archive of ranges, in order."""
        starts = [first for first, _, _ in apart]
        filled = []
        for row in rows:
            place = bisect_right(starts, row.sequence) - 1
            if row.body is None and place >= 0 and apart[place][1] >= row.sequence:
                try:
                    row = row._replace(body=self._bodies(apart[place][2]).get(row.sequence))
                except (Conflict, FileNotFoundError):
                    logger.exception("an archive cannot be read", archive=apart[place][2])
            filled.append(row)
        return filled

    def _read(self, id: str) -> dict[int, bytes | None]:
        return {each.row.sequence: each.row.body for each in read(self._directory / f"{id}.xz")}


class Archives:
    """The archives of one lab. Call `finish` before anything else."""

    def __init__(self, journal: Journal, directory: Path, lab: str, horace: Horace | None = None) -> None:
        self._journal = journal
        self._directory = directory
        self._lab = lab
        self._horace = horace
        self._shelf = Shelf(directory)

    async def finish(self) -> None:
        """Does what was said and not done, and takes away what was done and never said.

        Raises:
            Unavailable: the journal is sealed.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        async with self._journal.tending:
            sql = (
                "SELECT b.sequence FROM set_apart s JOIN body b ON b.sequence BETWEEN s.first AND s.last"
                " WHERE s.state IN ('archived', 'removed')"
            )
            left = [row[0] for row in await self._journal.query(sql)]
            await remove_listed(self._journal, left)
            known = {row[0] for row in await self._journal.query("SELECT id FROM archive WHERE state = 'archived'")}
            for each in sorted(self._directory.iterdir()):
                if each.name.removesuffix(".xz") not in known:
                    each.unlink()
            sync_directory(self._directory)

    async def serve(self, idle_s: float | None, keep_s: float | None) -> None:
        """Once an hour, archives what was idle for `idle_s` and drops archives older than `keep_s`; None: never."""
        while True:
            try:
                if idle_s is not None:
                    await self.create(None, idle_s=idle_s)
                if keep_s is not None:
                    await self.drop(time.time() - keep_s)
            except Error as error:
                logger.warning("the archive has to wait", reason=error.message)
            except Exception:  # the lab must outlive a fault of its archive
                logger.exception("archiving failed")
            await sleep(EVERY_S)

    # --- making and bringing back

    async def create(
        self, conversations: Sequence[str] | None, *, idle_s: float = 0.0, sender: str = "operator"
    ) -> list[Archive]:
        """Archives these conversations, or all in which nothing was said for `idle_s`; the empty ones are left out.

        Raises:
            NotFound: there is no such conversation, or nothing of it is left to archive.
            Conflict: something is going on in it.
            OSError: the disk does not let it; nothing of that conversation has changed.
            Unavailable: the journal is sealed.
        """
        made: list[Archive] = []
        if conversations is None:
            for each in await self._idle(time.time() - idle_s):
                made += await self._archive(each, sender)
            return made
        for each in conversations:
            await self._check_quiet(each)
            some = await self._archive(each, sender)
            if not some:
                raise NotFound(
                    f"There is nothing to archive in conversation {each[:64]!r}.", next="See: madlab archive list"
                )
            made += some
        return made

    async def restore(self, conversation: str) -> int:
        """Brings a conversation back and returns how many entries it has; from now on it stays until it is archived
        again or forgotten. `conversation` may be the id of one archive.

        Raises:
            NotFound: it is not archived.
            Conflict: its file is missing or damaged; nothing has changed.
            Unavailable: the journal is sealed.
        """
        found = [each for each in await self.listed() if conversation in (each.conversation, each.id)]
        if not found:
            raise NotFound(f"{conversation[:64]!r} is not archived.", next="See: madlab archive list")
        count = 0
        for archive in found:
            async with self._journal.tending:
                kept = await self._checked(archive)
                for at in range(0, len(kept), WINDOW):
                    await self._journal.amend(_inserting(kept[at : at + WINDOW]))
                told = {"step": "restored", "archive": archive.id}
                await self._append(archive, told, "operator")
                self._path(archive.id).unlink(missing_ok=True)
                count += len(kept)
        return count

    async def listed(self) -> list[Archive]:
        """The archives that there are, oldest first."""
        sql = (
            "SELECT id, conversation, at, count, bytes, sha256, ended FROM archive WHERE state = 'archived'"
            " ORDER BY at, id"
        )
        return [Archive(*row) for row in await self._journal.query(sql)]

    async def verify(self) -> Checked:
        """Reads every archive and compares it with the journal's headers."""
        problems: list[str] = []
        archives = await self.listed()
        for each in archives:
            try:
                await self._checked(each)
            except Error as error:
                problems.append(error.message)
        return Checked(len(archives), sum(each.count for each in archives), tuple(problems))

    # --- reading

    async def filled(self, rows: Sequence[Row]) -> list[Row]:
        """`rows`, those whose bodies are in an archive with them."""
        gone = [row.sequence for row in rows if row.body is None]
        apart = await self._journal.query(_APART, (min(gone), max(gone))) if gone else []
        return await to_thread.run_sync(self._shelf.fill, rows, apart) if apart else list(rows)

    def filled_now(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
        """The same, on a thread that has a connection to the journal."""
        return self._shelf.filled(db, rows)

    # --- forgetting

    async def forget(self, conversation: str, *, sender: str = "operator") -> Forgotten:
        """Removes what was said in a conversation and within it, from the journal, from archives and, where nothing
        else links them, from the files; the entry that proves it stays. The index follows.

        Raises:
            NotFound: there is nothing of it.
            Conflict: something is going on in it.
            Unavailable: the journal is sealed.
        """
        await self._check_quiet(conversation)
        async with self._journal.tending:
            by_kind: dict[str, list[tuple[int, bytes]]] = {}
            for kind, sequence, digest in await self._present(conversation):
                by_kind.setdefault(kind, []).append((sequence, digest))
            sql = (
                "SELECT a.id, j.kind, j.sequence, j.digest FROM archive a JOIN set_apart s ON s.archive = a.id"
                " JOIN journal j ON j.sequence BETWEEN s.first AND s.last"
                f" WHERE a.state = 'archived' AND {_WITHIN.replace('j.', 'a.')}"
            )
            archives: dict[str, None] = {}
            for id, kind, sequence, digest in await self._journal.query(sql, (conversation,)):
                archives[id] = None
                by_kind.setdefault(kind, []).append((sequence, digest))
            if not by_kind:
                raise NotFound(
                    f"There is nothing left of conversation {conversation[:64]!r}.", next="See: madlab search"
                )
            linked = {row[0] for row in await self._journal.query(_LINKS, (conversation,))}
            proofs = [proof for kind, rows in sorted(by_kind.items()) for proof in listed(kind, sorted(set(rows)))]
            sequence = await say(
                *(self._journal, "forget", proofs), sender=sender, conversation=conversation, archives=list(archives)
            )
            bodies = sorted({each for rows in by_kind.values() for each, _ in rows})
            await remove_listed(self._journal, bodies)
            for id in archives:
                self._path(id).unlink(missing_ok=True)
        return Forgotten(len(bodies), len(archives), await self._sweep(linked), sequence)

    async def drop(self, before: float) -> int:
        """Removes the archives that were made before that moment, for good; returns how many.

        Raises:
            Unavailable: the journal is sealed.
        """
        old = [each for each in await self.listed() if each.at < before]
        for archive in old:
            async with self._journal.tending:
                sql = (
                    "SELECT j.kind, j.sequence, j.digest FROM set_apart s"
                    " JOIN journal j ON j.sequence BETWEEN s.first AND s.last WHERE s.archive = ? ORDER BY j.sequence"
                )
                by_kind: dict[str, list[tuple[int, bytes]]] = {}
                for kind, sequence, digest in await self._journal.query(sql, (archive.id,)):
                    by_kind.setdefault(kind, []).append((sequence, digest))
                proofs = [proof for kind, rows in sorted(by_kind.items()) for proof in listed(kind, rows)]
                await say(self._journal, "archives", proofs, archives=[archive.id])
                self._path(archive.id).unlink(missing_ok=True)
        return len(old)

    # --- within

    async def _archive(self, conversation: str, sender: str) -> list[Archive]:
        made: list[Archive] = []
        while True:
            async with self._journal.tending:
                sql = (
                    f"SELECT {COLUMNS}, j.digest, j.hash,"
                    " (SELECT p.hash FROM journal p WHERE p.sequence = j.sequence - 1)"
                    " FROM journal j JOIN body b USING (sequence) WHERE j.kind IN ('message', 'event')"
                    " AND j.conversation = ? AND j.size > 0 ORDER BY j.sequence LIMIT ?"
                )
                rows = await self._journal.query(sql, (conversation, ROWS))
                if not rows:
                    return made
                kept = [await self._kept(values) for values in rows]
                made.append(await self._put_away(conversation, kept, sender))
            if len(rows) < ROWS:
                return made

    async def _kept(self, values: tuple[Any, ...]) -> Kept:
        *row, digest, hash, previous = values
        entry = Row(*row)
        if previous is None:  # what it stands on is sealed, or it is the first
            sealed = await self._journal.query("SELECT head FROM segment WHERE last = ?", (entry.sequence - 1,))
            previous = sealed[0][0] if sealed else GENESIS
        return Kept(entry, digest, previous, hash)

    async def _put_away(self, conversation: str, kept: list[Kept], sender: str) -> Archive:
        id, moment = new_id(), time.time()
        about = {"lab": self._lab, "archive": id, "conversation": conversation, "made": moment}
        written = await to_thread.run_sync(write, self._path(id), about, kept)
        archive = Archive(id, conversation, moment, len(kept), written.bytes, written.sha256, kept[-1].row.at)
        told = {
            "step": "archived",
            "archive": id,
            "sequences": format_ranges(each.row.sequence for each in kept),
            "count": len(kept),
            "digest": written.digest,
            "bytes": written.bytes,
            "sha256": written.sha256,
            "ended": archive.ended,
        }
        await self._append(archive, told, sender)
        await remove_listed(self._journal, [each.row.sequence for each in kept])
        return archive

    async def _append(self, archive: Archive, told: dict[str, Any], sender: str) -> None:
        id = f"archive:{archive.id}:{told['step']}"
        await self._journal.append(Entry(id, "archive", json.dumps(told).encode(), archive.conversation, sender))

    async def _checked(self, archive: Archive) -> list[Kept]:
        """The archive's entries, each of them what the journal's header says.

        Raises:
            Conflict: they are not, or the file is missing or damaged.
        """
        try:
            kept = await to_thread.run_sync(lambda: read(self._path(archive.id), sha=archive.sha256))
        except FileNotFoundError:
            raise Conflict(
                f"the archive {archive.id} of conversation {archive.conversation[:64]!r} is gone",
                next=f"put {self._path(archive.id).name} back from a backup",
            ) from None
        sql = (
            "SELECT j.sequence, j.hash FROM set_apart s JOIN journal j ON j.sequence BETWEEN s.first AND s.last"
            " WHERE s.archive = ? ORDER BY j.sequence"
        )
        meant = [(sequence, bytes(hash)) for sequence, hash in await self._journal.query(sql, (archive.id,))]
        if meant != [(each.row.sequence, each.hash) for each in kept]:
            raise Conflict(
                f"the archive {archive.id} does not hold what the journal says of it",
                next="put back the file from a backup",
            )
        return kept

    async def _idle(self, before: float) -> list[str]:
        """Conversations with something to archive, in which nothing was said since, and nothing goes on."""
        sql = """
            SELECT said.conversation FROM (
                SELECT j.conversation, max(j.at) AS last FROM journal j JOIN body b USING (sequence)
                WHERE j.kind IN ('message', 'event') AND j.conversation <> '' GROUP BY 1) said
            WHERE said.last < ? AND NOT EXISTS (SELECT 1 FROM archive a  -- what a person brought back stays
                WHERE a.conversation = said.conversation AND a.state = 'restored' AND a.ended >= said.last)"""
        live = await self._live()
        return [row[0] for row in await self._journal.query(sql, (before,)) if row[0].partition("/")[0] not in live]

    async def _check_quiet(self, conversation: str) -> None:
        """
        Raises:
            Conflict: a run is going on in it.
        """
        if conversation.partition("/")[0] in await self._live():
            raise Conflict(f"a run is going on in conversation {conversation[:64]!r}", next="wait for it, or cancel it")

    async def _live(self) -> set[str]:
        sql = "SELECT conversation FROM runs WHERE state != 'destroyed'"
        return {row[0].partition("/")[0] for row in await self._journal.query(sql)}

    async def _present(self, conversation: str) -> list[tuple[str, int, bytes]]:
        """Kind, sequence and digest of what may go and is in the table."""
        found: list[tuple[str, int, bytes]] = []
        for kinds in ("('message', 'event')", "('answer')", "('act')"):
            sql = (
                "SELECT j.kind, j.sequence, j.digest, b.body FROM journal j JOIN body b USING (sequence)"
                f" WHERE j.kind IN {kinds} AND {_WITHIN} AND j.size > 0 ORDER BY j.sequence"
            )
            for kind, sequence, digest, body in await self._journal.query(sql, (conversation,)):
                if kind != "act" or is_free(str(json.loads(body).get("act", "")), body):
                    found.append((kind, sequence, digest))
        return found

    async def _sweep(self, digests: set[str]) -> int:
        """Removes those of these blobs that nothing links any more and no name holds; returns how many went."""
        if self._horace is None or not digests:
            return 0
        still = {row[0] for row in await self._journal.query("SELECT DISTINCT digest FROM links")}
        kept = set(await self._horace.digests()) - (digests - still)
        return (await self._horace.sweep(kept, idle_s=0.0)).blobs

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}.xz"


def _inserting(kept: Sequence[Kept]) -> Any:
    values = [(each.row.sequence, each.row.body) for each in kept]
    return lambda db: db.executemany("INSERT OR IGNORE INTO body VALUES (?, ?)", values)
