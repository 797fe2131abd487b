"""What the journal forgets: bodies by age and size, then headers into sealed segments; never a link of the chain.

What is to be removed is first said in the journal, by an entry that tells per kind up to which sequence bodies are
gone, with a proof (`proofs`), and only then done: so a verifier can tell policy from loss, and a crash half-way leaves
bodies that need not be there, never a hole that nobody explains.

Which bodies go. Messages, events and answers of models: the few views that are made of them know what to do without.
Of acts, only those that no view is made of (`is_free`): calls of tools and what else is only there to be audited. What
models cost, which blobs and packages there are, runs, grants and approvals are views, and a view is made again from
the beginning whenever its form changes; a saved copy of its tables would be of the old form. So those bodies stay.
What a person archived or restored (`apart`) is left to persons.

Pages that get free are used again; the file stays as large as it was at its largest. What was removed is overwritten,
also in the log (`Journal.scrub`).
"""

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from anyio import to_thread

from core.rogers.apart import NOT_APART
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.ranges import format_ranges
from core.rogers.segments import Header, checksum, pack, unpack
from protos.ids import new_id

DAY_S = 86_400.0
FORGOTTEN = ("event", "message", "answer")  # kinds whose bodies no view is made from
FREE_ACTS = frozenset({"bus.call", "run.start", "files.get", "secret.use", "web.fetch"})
WINDOW = 1000  # bodies that one transaction removes
SEGMENT = 1024  # headers in a sealed segment
LISTED = 10_000  # sequences that one proof names
TOLD = 1 << 19  # bytes of proofs in one entry, about

Proof = dict[str, Any]


@dataclass(frozen=True)
class Retention:
    """How much the journal remembers. `None` for ever."""

    events_s: float | None = 7 * DAY_S  # bodies of progress, log and metric events
    messages_s: float | None = 90 * DAY_S  # bodies of what was said
    answers_s: float | None = 90 * DAY_S  # bodies of models' answers, kept to be given again
    acts_s: float | None = None  # bodies of acts that no view is made of
    max_bytes: int | None = 4 << 30  # of pages in use; beyond, the oldest bodies go whatever their age
    seal_s: float | None = 180 * DAY_S  # headers older than this, and without bodies to lose, are sealed

    def age_of(self, kind: str) -> float | None:
        """How old a body of that kind gets."""
        return {"event": self.events_s, "answer": self.answers_s}.get(kind, self.messages_s)


@dataclass(frozen=True)
class Retained:
    """What one turn of retention did."""

    bodies_removed: int = 0
    headers_sealed: int = 0


async def retain(journal: Journal, retention: Retention, *, now: float | None = None) -> Retained:
    """Applies `retention` once, in many short transactions; the core calls it every hour or so.

    Raises:
        Unavailable: the journal is sealed or closed.
    """
    async with journal.tending:
        return await _retain(journal, retention, time.time() if now is None else now)


async def _retain(journal: Journal, retention: Retention, now: float) -> Retained:
    told = await _told(journal)
    removed: dict[str, int] = told.get("removed", {})
    upto = dict(removed)
    for kind in FORGOTTEN:
        age = retention.age_of(kind)
        if age is not None:
            upto[kind] = max(removed.get(kind, 0), await _before(journal, now - age, removed.get(kind, 0)))
    if retention.max_bytes is not None:
        oversize = await _oversize(journal, retention.max_bytes, upto)
        upto = {kind: max(sequence, oversize) for kind, sequence in (dict.fromkeys(FORGOTTEN, 0) | upto).items()}
    acts, looked = await _old_acts(journal, retention.acts_s, now, told.get("looked", 0))
    bodies = 0
    if upto != removed or acts:
        proofs = [each for kind in upto if (each := await _proof(journal, kind, removed.get(kind, 0), upto[kind]))]
        proofs += listed("act", acts)
        await say(journal, retention, proofs, removed=upto, looked=looked)
    for kind, last in upto.items():
        bodies += await _remove(journal, kind, last)
    bodies += await remove_listed(journal, [sequence for sequence, _ in acts])
    headers = 0
    if retention.seal_s is not None:
        old = await _before(journal, now - retention.seal_s, 0)
        limit = min(old, *(upto.get(kind, 0) for kind in FORGOTTEN), await _first_in_archive(journal) - 1)
        while await journal.amend(lambda db: _seal(db, limit)):
            headers += SEGMENT
    owed = await journal.owes_scrub()  # by who had something forgotten, and died
    if bodies or headers or owed:
        await journal.scrub(thorough=owed)
    return Retained(bodies, headers)


async def say(
    journal: Journal,
    policy: Retention | str,
    proofs: Sequence[Proof],
    *,
    sender: str = "core",
    conversation: str = "",
    archives: Sequence[str] = (),
    removed: dict[str, int] | None = None,
    looked: int | None = None,
) -> int:
    """Makes it durable what is about to be removed, and why; returns the entry's sequence. `policy` is the one that
    asks for it, or in a word what else does. Many proofs make several entries, all of them durable or none.

    Raises:
        Unavailable: the journal is sealed or closed.
    """
    before = await _told(journal)
    told: dict[str, Any] = {
        "removed": before.get("removed", {}) if removed is None else removed,
        "looked": before.get("looked", 0) if looked is None else looked,
        "policy": policy if isinstance(policy, str) else asdict(policy),
    }
    if conversation:
        told["conversation"] = conversation
    parts = [told | {"proofs": some} for some in _portions(proofs)]
    if archives:
        parts[-1]["archives"] = list(archives)
    bodies = [json.dumps(each).encode() for each in parts]
    return (await journal.append(*(Entry(new_id(), "retention", each, conversation, sender) for each in bodies)))[-1]


def _portions(proofs: Sequence[Proof]) -> list[list[Proof]]:
    """`proofs` in order, in portions that an entry can hold; one of them, if an empty one, there always is."""
    portions: list[list[Proof]] = [[]]
    size = 0
    for each in proofs:
        size += len(each.get("sequences", ""))
        if size > TOLD and portions[-1]:
            portions.append([])
            size = len(each.get("sequences", ""))
        portions[-1].append(each)
    return portions


def listed(kind: str, rows: Sequence[tuple[int, bytes]]) -> list[Proof]:
    """Proofs for bodies of one kind, named one by one by sequence and digest, in rising order."""
    found = []
    for at in range(0, len(rows), LISTED):
        some = rows[at : at + LISTED]
        proof = {"kind": kind, "sequences": format_ranges(sequence for sequence, _ in some), "count": len(some)}
        found.append(proof | {"digest": sha256(b"".join(digest for _, digest in some)).hexdigest()})
    return found


async def remove_listed(journal: Journal, sequences: Sequence[int]) -> int:
    """Removes these bodies; returns how many. Doing it again does no harm."""
    for at in range(0, len(sequences), WINDOW):
        await journal.amend(_delete([(each,) for each in sequences[at : at + WINDOW]]))
    return len(sequences)


def is_free(act: str, body: bytes) -> bool:
    """Whether no view is made of an act, so that its body may go."""
    return act in FREE_ACTS and b'"package"' not in body


async def _old_acts(
    journal: Journal, age: float | None, now: float, looked: int
) -> tuple[list[tuple[int, bytes]], int]:
    """Sequences and digests of the acts whose bodies go now, at most as many as one entry can name, and how far they
    were looked through."""
    found: list[tuple[int, bytes]] = []
    if age is None:
        return found, looked
    async for headers in _sealed(journal, looked):
        old = [each for each in headers if each.sequence > looked and each.at < now - age]
        found += await _free_ones(journal, old)
        looked = max((each.sequence for each in old), default=looked)
        if looked < headers[-1].sequence or len(found) >= LISTED:
            return found, looked
    upto = await _before(journal, now - age, looked)
    while looked < upto and len(found) < LISTED:
        rows = await journal.query(
            "SELECT j.sequence, j.digest, b.body FROM journal j JOIN body b USING (sequence)"
            " WHERE j.kind = 'act' AND j.sequence > ? AND j.sequence <= ? ORDER BY j.sequence LIMIT ?",
            (looked, upto, WINDOW),
        )
        looked = rows[-1][0] if len(rows) == WINDOW else upto
        found += [(sequence, digest) for sequence, digest, body in rows if is_free(_act_of(body), body)]
    return found, looked


async def sealed_acts(journal: Journal, conversation: str) -> list[tuple[int, bytes]]:
    """Sequences and digests of what is sealed of a conversation, and of those within it, and whose bodies may go."""
    found: list[tuple[int, bytes]] = []
    async for headers in _sealed(journal, 0):
        within = [each for each in headers if f"{each.conversation}/".startswith(f"{conversation}/")]
        found += await _free_ones(journal, within)
    return found


async def _sealed(journal: Journal, after: int) -> AsyncIterator[list[Header]]:
    """The sealed headers past a sequence, by segments."""
    sql = "SELECT last, headers FROM segment WHERE last > ? ORDER BY first LIMIT 1"
    while rows := await journal.query(sql, (after,)):
        ((after, packed),) = rows
        yield await to_thread.run_sync(unpack, packed)


async def _free_ones(journal: Journal, headers: Sequence[Header]) -> list[tuple[int, bytes]]:
    """Sequences and digests of the acts among them that no view is made of and whose bodies are there."""
    acts = {each.sequence: each.digest for each in headers if each.kind == "act" and each.size}
    sql = "SELECT sequence, body FROM body WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence"
    rows = await journal.query(sql, (json.dumps(list(acts)),)) if acts else []
    return [(sequence, acts[sequence]) for sequence, body in rows if is_free(_act_of(body), body)]


def _act_of(body: bytes) -> str:
    return str(json.loads(body).get("act", ""))


async def _proof(journal: Journal, kind: str, after: int, upto: int) -> Proof | None:
    """The proof for all bodies of one kind in a range; None where there are none."""
    hashed, count, place = sha256(), 0, after
    apart = await _apart(journal)
    while True:
        rows = await journal.query(
            f"SELECT j.sequence, j.digest FROM journal j WHERE j.kind = ? AND j.size > 0 AND j.sequence > ?"
            f" AND j.sequence <= ? AND {apart} ORDER BY j.sequence LIMIT ?",
            (kind, place, upto, WINDOW),
        )
        for _, digest in rows:
            hashed.update(digest)
        count += len(rows)
        if len(rows) < WINDOW:
            break
        place = rows[-1][0]
    if not count:
        return None
    return {"kind": kind, "after": after, "upto": upto, "count": count, "digest": hashed.hexdigest()}


async def _apart(journal: Journal) -> str:
    """The condition that leaves out what is set apart; nothing is where the journal has no such view."""
    known = await journal.query("SELECT 1 FROM sqlite_master WHERE name = 'set_apart'")
    return NOT_APART if known else "1"


async def _first_in_archive(journal: Journal) -> int:
    """The first entry whose body may come back, and which must therefore be found where it was."""
    if await _apart(journal) != NOT_APART:
        return 1 << 62
    rows = await journal.query("SELECT min(first) FROM set_apart WHERE state IN ('archived', 'restored')")
    return int(rows[0][0] or 1 << 62)


async def _told(journal: Journal) -> dict[str, Any]:
    """What the last entry about removals says: up to where bodies are gone already."""
    rows = await journal.query(
        "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'retention'"
        " ORDER BY j.sequence DESC LIMIT 1"
    )
    return dict(json.loads(rows[0][0])) if rows else {}


async def _before(journal: Journal, moment: float, after: int) -> int:
    """The last sequence before anything as young as `moment`; all up to `after` is known to be older."""
    ((last, young),) = await journal.query(
        "SELECT (SELECT coalesce(max(sequence), 0) FROM journal),"
        " (SELECT sequence FROM journal WHERE sequence > ? AND at >= ? ORDER BY sequence LIMIT 1)",
        (after, moment),
    )
    return int(last if young is None else young - 1)


async def _oversize(journal: Journal, max_bytes: int, upto: dict[str, int]) -> int:
    """The sequence up to which bodies must go for the pages in use to fit into `max_bytes`; 0 if they fit."""
    ((used,),) = await journal.query(
        "SELECT (p.page_count - f.freelist_count) * s.page_size"
        " FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s"
    )
    excess = used - max_bytes
    last = 0
    apart = await _apart(journal)
    while excess > 0:
        rows = await journal.query(
            "SELECT j.sequence, j.size FROM journal j JOIN body b USING (sequence)"
            f" WHERE j.kind IN {FORGOTTEN} AND j.sequence > ? AND {apart} ORDER BY j.sequence LIMIT 1000",
            (last,),
        )
        if not rows:
            break
        for sequence, size in rows:
            excess -= size
            last = sequence
            if excess <= 0:
                break
    return last


async def _remove(journal: Journal, kind: str, last: int) -> int:
    """Removes the bodies of `kind` up to sequence `last`, also those that an earlier turn did not get to."""
    removed, after = 0, 0
    apart = await _apart(journal)
    while True:
        found = await journal.query(
            "SELECT b.sequence FROM body b JOIN journal j USING (sequence)"
            f" WHERE j.kind = ? AND b.sequence > ? AND b.sequence <= ? AND {apart} ORDER BY b.sequence LIMIT ?",
            (kind, after, last, WINDOW),
        )
        if not found:
            return removed
        after = found[-1][0]
        removed += len(found)
        await journal.amend(_delete(found))


def _delete(sequences: Sequence[tuple[Any, ...]]) -> Callable[[sqlite3.Connection], Any]:
    """Overwrites the bodies first: where rows go, SQLite moves those beside them, and leaves copies of these."""

    def work(db: sqlite3.Connection) -> None:
        db.executemany("UPDATE body SET body = zeroblob(length(body)) WHERE sequence = ?", sequences)
        db.executemany("DELETE FROM body WHERE sequence = ?", sequences)

    return work


def _seal(db: sqlite3.Connection, limit: int) -> bool:
    """Seals the oldest full segment of headers, if all of it is at or below `limit`."""
    rows = db.execute(
        "SELECT sequence, at, kind, id, conversation, sender, recipient, size, digest, hash FROM journal"
        " WHERE sequence <= ? ORDER BY sequence LIMIT ?",
        (limit, SEGMENT),
    ).fetchall()
    if len(rows) < SEGMENT:
        return False
    headers = [Header(*row[:-1]) for row in rows]
    first, last, head = headers[0].sequence, headers[-1].sequence, rows[-1][-1]
    before = db.execute("SELECT head FROM segment ORDER BY first DESC LIMIT 1").fetchone()
    anchor = before[0] if before else bytes(32)
    packed = pack(headers)
    messages = sum(header.kind in ("message", "event") for header in headers)
    check = checksum(first, last, anchor, head, packed)
    db.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)", (first, last, anchor, head, messages, check, packed))
    db.executemany("INSERT INTO sealed VALUES (?, ?)", [(header.id, header.sequence) for header in headers])
    db.execute("DELETE FROM journal WHERE sequence <= ?", (last,))
    return True
