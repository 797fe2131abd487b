"""Archives of a lab: conversations leave the journal's table for files, come back bit for bit, or are forgotten.

Each step is said in the journal before anything goes, so `kill -9` anywhere leaves wholly before or wholly after:

    archive   file written and synced ─▶ entry *archived* ─▶ bodies out of the table
    restore   bodies into the table ─▶ entry *restored* ─▶ file removed
    forget    entry with the proofs ─▶ bodies, files and blobs removed

The entry is the line between the two. `finish`, when the lab opens, does what was said and not done, and takes away
what was done and never said. One of these, or a turn of retention, at a time (`Journal.tending`); and who asks for one
and is gone before it is done does not end it half-way.

An archived conversation is read as before: who asks for a message whose body is in a file gets it from there.
"""

import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from anyio import CancelScope, sleep, to_thread

from core.dewey.archive import Kept, Written, read, sync_directory, write
from core.dewey.shelf import APART, Shelf
from core.horace.store import Horace
from core.rogers.chain import GENESIS
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.rogers.ranges import format_ranges
from core.rogers.retention import is_free, listed, remove_listed, say, sealed_acts
from core.rogers.tables import COLUMNS
from protos.errors import Conflict, Error, NotFound
from protos.ids import new_id

ROWS, BYTES = 20_000, 8 << 20  # of one archive, bytes of bodies; what is longer has several
WINDOW = 500  # bodies that one transaction brings back
EVERY_S = 3600.0

_WITHIN = "(j.conversation = ?1 OR (j.conversation > ?1 || '/' AND j.conversation < ?1 || '0'))"  # 0 follows /
_LINKS = f"SELECT digest, max(at) FROM links j WHERE {_WITHIN} GROUP BY digest"
_WORDS = (  # whether views still hold something of what was said
    f"SELECT 1 FROM links j WHERE {_WITHIN} UNION ALL SELECT 1 FROM tag j WHERE {_WITHIN}"
    f" UNION ALL SELECT 1 FROM runs j WHERE {_WITHIN} AND j.title != ''"
    f" UNION ALL SELECT 1 FROM troubles j WHERE {_WITHIN} AND j.title || j.detail != '' LIMIT 1"
)
_TO_ARCHIVE = "FROM journal j JOIN body b USING (sequence) WHERE j.kind IN ('message', 'event') AND j.size > 0"
_PREVIOUS = (  # the hash before an entry: its neighbour's, or what the sealed ones end with
    "coalesce((SELECT p.hash FROM journal p WHERE p.sequence = j.sequence - 1),"
    " (SELECT head FROM segment WHERE last = j.sequence - 1))"
)
# `CROSS JOIN` here and below has SQLite go through the ranges and look up entries, not the other way round.
_STATE = (  # of the body of an entry `j` that is set apart
    "(SELECT CASE WHEN s.last >= j.sequence THEN s.state END FROM set_apart s WHERE s.first <= j.sequence"
    " ORDER BY s.first DESC LIMIT 1)"
)
_FILE = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.xz(\.new)?")  # as they are named here

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
        async with self._journal.tending:
            sql = (
                "SELECT b.sequence FROM set_apart s CROSS JOIN body b ON b.sequence BETWEEN s.first AND s.last"
                " WHERE s.state IN ('archived', 'removed')"
            )
            left = [row[0] for row in await self._journal.query(sql)]
            if await remove_listed(self._journal, left):
                await self._journal.scrub(thorough=True)
            try:
                await self._tidy()
            except OSError:  # the lab opens without its archives rather than not at all
                logger.exception("the directory of the archives cannot be used", directory=str(self._directory))

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
            Conflict: a file of it is missing or damaged; what is in its others is back.
            Unavailable: the journal is sealed.
        """
        found = [each for each in await self.listed() if conversation in (each.conversation, each.id)]
        if not found:
            raise NotFound(f"{conversation[:64]!r} is not archived.", next="See: madlab archive list")
        count, broken = 0, None
        for archive in found:
            async with self._journal.tending:
                try:
                    kept = await self._checked(archive)
                except Conflict as error:
                    broken = broken or error
                    continue
                with CancelScope(shield=True):
                    for at in range(0, len(kept), WINDOW):
                        await self._journal.amend(_inserting(kept[at : at + WINDOW]))
                    await self._append(archive, {"step": "restored", "archive": archive.id}, "operator")
                    self._path(archive.id).unlink(missing_ok=True)
                count += len(kept)
        if broken is not None:
            also = f"; {count:,} entries of its other archives are back" if count else ""
            raise Conflict(broken.message + also, next=broken.next)
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
        apart = await self._journal.query(APART, (min(gone), max(gone))) if gone else []
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
            await self._settle(conversation)
            by_kind: dict[str, list[tuple[int, bytes]]] = {}
            for kind, sequence, digest in await self._present(conversation):
                by_kind.setdefault(kind, []).append((sequence, digest))
            sql = (
                "SELECT a.id, j.kind, j.sequence, j.digest FROM set_apart s CROSS JOIN archive a ON a.id = s.archive"
                " CROSS JOIN journal j ON j.sequence BETWEEN s.first AND s.last"
                f" WHERE a.state = 'archived' AND {_WITHIN.replace('j.', 'a.')}"
            )
            archives: dict[str, None] = {}
            for id, kind, sequence, digest in await self._journal.query(sql, (conversation,)):
                archives[id] = None
                by_kind.setdefault(kind, []).append((sequence, digest))
            if not by_kind and not await self._journal.query(_WORDS, (conversation,)):
                raise NotFound(
                    f"There is nothing left of conversation {conversation[:64]!r}.", next="See: madlab search"
                )
            linked = dict(await self._journal.query(_LINKS, (conversation,)))
            proofs = [proof for kind, rows in sorted(by_kind.items()) for proof in listed(kind, sorted(set(rows)))]
            bodies = sorted({each for rows in by_kind.values() for each, _ in rows})
            with CancelScope(shield=True):
                await self._journal.owe_scrub()
                sequence = await say(
                    *(self._journal, "forget", proofs),
                    sender=sender,
                    conversation=conversation,
                    archives=list(archives),
                )
                await remove_listed(self._journal, bodies)
                for id in archives:
                    self._path(id).unlink(missing_ok=True)
                blobs = await self._remove_unlinked(linked)
                await self._journal.scrub(thorough=True)
        return Forgotten(len(bodies), len(archives), blobs, sequence)

    async def drop(self, before: float) -> int:
        """Removes the archives that were made before that moment, for good; returns how many.

        Raises:
            Unavailable: the journal is sealed.
        """
        old = [each for each in await self.listed() if each.at < before]
        for archive in old:
            async with self._journal.tending:
                sql = (
                    "SELECT j.kind, j.sequence, j.digest FROM set_apart s CROSS JOIN journal j"
                    " ON j.sequence BETWEEN s.first AND s.last WHERE s.archive = ? ORDER BY j.sequence"
                )
                by_kind: dict[str, list[tuple[int, bytes]]] = {}
                for kind, sequence, digest in await self._journal.query(sql, (archive.id,)):
                    by_kind.setdefault(kind, []).append((sequence, digest))
                proofs = [proof for kind, rows in sorted(by_kind.items()) for proof in listed(kind, rows)]
                with CancelScope(shield=True):
                    await say(self._journal, "archives", proofs, archives=[archive.id])
                    self._path(archive.id).unlink(missing_ok=True)
        return len(old)

    # --- within

    async def _archive(self, conversation: str, sender: str) -> list[Archive]:
        made: list[Archive] = []
        while True:
            async with self._journal.tending:
                await self._settle(conversation)
                sql = f"SELECT j.sequence, j.size {_TO_ARCHIVE} AND j.conversation = ? ORDER BY j.sequence LIMIT ?"
                upto = _fitting(await self._journal.query(sql, (conversation, ROWS)))
                if not upto:
                    return made
                sql = (
                    f"SELECT {COLUMNS}, j.digest, {_PREVIOUS}, j.hash {_TO_ARCHIVE} AND j.conversation = ?"
                    " AND j.sequence <= ? ORDER BY j.sequence"
                )
                rows = await self._journal.query(sql, (conversation, upto))
                with CancelScope(shield=True):
                    made.append(await self._put_away(conversation, rows, sender))

    async def _put_away(self, conversation: str, rows: Sequence[tuple[Any, ...]], sender: str) -> Archive:
        id, moment = new_id(), time.time()
        about = {"lab": self._lab, "archive": id, "conversation": conversation, "made": moment}
        kept, written = await to_thread.run_sync(_write, self._path(id), about, rows)
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
        sql = (
            "SELECT j.sequence, j.hash FROM set_apart s CROSS JOIN journal j ON j.sequence BETWEEN s.first AND s.last"
            " WHERE s.archive = ? ORDER BY j.sequence"
        )
        meant = await self._journal.query(sql, (archive.id,))
        try:
            kept, same = await to_thread.run_sync(_compared, self._path(archive.id), archive.sha256, meant)
        except FileNotFoundError:
            raise Conflict(
                f"the archive {archive.id} of conversation {archive.conversation[:64]!r} is gone",
                next=f"put {self._path(archive.id).name} back from a backup",
            ) from None
        except OSError as error:
            raise Conflict(
                f"the archive {archive.id} cannot be read: {error.strerror}", next=f"see {self._path(archive.id)}"
            ) from None
        if not same:
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
        """Kind, sequence and digest of what may go and is in the table, or sealed."""
        found: list[tuple[str, int, bytes]] = []
        for kinds in ("('message', 'event')", "('answer')", "('act')"):
            sql = (
                "SELECT j.kind, j.sequence, j.digest, b.body FROM journal j JOIN body b USING (sequence)"
                f" WHERE j.kind IN {kinds} AND {_WITHIN} AND j.size > 0 ORDER BY j.sequence"
            )
            for kind, sequence, digest, body in await self._journal.query(sql, (conversation,)):
                if kind != "act" or is_free(str(json.loads(body).get("act", "")), body):
                    found.append((kind, sequence, digest))
        return found + [("act", *each) for each in await sealed_acts(self._journal, conversation)]

    async def _settle(self, conversation: str) -> None:
        """Takes the bodies out of the table that an earlier turn has said to be elsewhere, or gone, and did not get to:
        what is said twice is a proof that does not fit."""
        sql = f"SELECT j.sequence FROM journal j JOIN body b USING (sequence) WHERE {_WITHIN} AND {_STATE}"
        left = await self._journal.query(f"{sql} IN ('archived', 'removed')", (conversation,))
        await remove_listed(self._journal, [sequence for (sequence,) in left])

    async def _remove_unlinked(self, linked: Mapping[str, float]) -> int:
        """Removes those of these blobs that nothing links any more; returns how many went. Each comes with when it was
        linked last: who has stored it since may be about to link it."""
        if self._horace is None or not linked:
            return 0
        still = {row[0] for row in await self._journal.query("SELECT DISTINCT digest FROM links")}
        return (await self._horace.remove({each: at for each, at in linked.items() if each not in still})).blobs

    async def _tidy(self) -> None:
        """Removes files that are archives no longer, or not yet; what is not known to be either is left alone."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        states = dict(await self._journal.query("SELECT id, state FROM archive"))
        for path in sorted(self._directory.iterdir()):
            name = _FILE.fullmatch(path.name)
            if name is None or path.is_symlink() or not path.is_file():
                continue
            id, draft = name.groups()
            if states.get(id) == "archived" and not draft:
                continue
            if draft or id in states or await self._holds(path):
                path.unlink()
                continue
            aside = path.with_name(f"{path.name}.unknown")
            logger.warning("an archive that the journal does not know is put aside", file=path.name, now=aside.name)
            if not aside.exists():
                path.rename(aside)
        sync_directory(self._directory)

    async def _holds(self, path: Path) -> bool:
        """Whether the journal has all that is in the file: then it was written, and never said."""
        try:
            kept = await to_thread.run_sync(read, path)
        except Conflict:
            return False
        sql = "SELECT j.sequence, j.hash FROM journal j JOIN body b USING (sequence) WHERE j.sequence BETWEEN ? AND ?"
        ends = (kept[0].row.sequence, kept[-1].row.sequence) if kept else (0, 0)
        there = dict(await self._journal.query(sql, ends))
        return all(there.get(each.row.sequence) == each.hash for each in kept)

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}.xz"


def _inserting(kept: Sequence[Kept]) -> Any:
    values = [(each.row.sequence, each.row.body) for each in kept]
    return lambda db: db.executemany("INSERT OR IGNORE INTO body VALUES (?, ?)", values)


def _fitting(sizes: Sequence[tuple[int, int]]) -> int:
    """The last of these sequences that goes into one archive with all before it; 0 where there is none."""
    upto = held = 0
    for sequence, size in sizes:
        held += size
        if upto and held > BYTES:
            break
        upto = sequence
    return upto


def _write(path: Path, about: dict[str, Any], rows: Sequence[tuple[Any, ...]]) -> tuple[list[Kept], Written]:
    kept = [Kept(Row(*row), digest, previous or GENESIS, hash) for *row, digest, previous, hash in rows]
    return kept, write(path, about, kept)


def _compared(path: Path, sha: str, meant: Sequence[tuple[int, bytes]]) -> tuple[list[Kept], bool]:
    """What is in a file, and whether it is what is meant: sequences and hashes."""
    kept = read(path, sha=sha)
    return kept, [*meant] == [(each.row.sequence, each.hash) for each in kept]
