"""What the journal forgets: bodies by age and size, then headers into sealed segments; never a link of the chain.

What is to be removed is first said in the journal, by an entry that tells per kind up to which sequence bodies are
gone, and only then done: so a verifier can tell policy from loss, and a crash half-way leaves bodies that need not be
there, never a hole that nobody explains. Only messages, events and answers of models lose their bodies. Acts, runs,
members and files keep them: the views are rebuilt from these.

Pages that get free are used again; the file stays as large as it was at its largest.
"""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.segments import Header, checksum, pack
from protos.ids import new_id

DAY_S = 86_400.0
FORGOTTEN = ("event", "message", "answer")  # kinds whose bodies no view is made from
WINDOW = 1000  # bodies that one transaction removes
SEGMENT = 1024  # headers in a sealed segment


@dataclass(frozen=True)
class Retention:
    """How much the journal remembers. `None` for ever."""

    events_s: float | None = 7 * DAY_S  # bodies of progress, log and metric events
    messages_s: float | None = 90 * DAY_S  # bodies of what was said, and of answers kept to be given again
    max_bytes: int | None = 4 << 30  # of pages in use; beyond, the oldest bodies go whatever their age
    seal_s: float | None = 180 * DAY_S  # headers older than this, and without bodies to lose, are sealed


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
    now = time.time() if now is None else now
    removed = await _removed(journal)
    upto = dict(removed)
    for kind in FORGOTTEN:
        age = retention.events_s if kind == "event" else retention.messages_s
        if age is not None:
            upto[kind] = max(removed.get(kind, 0), await _before(journal, now - age, removed.get(kind, 0)))
    if retention.max_bytes is not None:
        oversize = await _oversize(journal, retention.max_bytes, upto)
        upto = {kind: max(sequence, oversize) for kind, sequence in (dict.fromkeys(FORGOTTEN, 0) | upto).items()}
    bodies = 0
    if upto != removed:
        await journal.append(Entry(new_id(), "retention", json.dumps({"removed": upto}).encode(), sender="core"))
    for kind, last in upto.items():
        bodies += await _remove(journal, kind, last)
    headers = 0
    if retention.seal_s is not None:
        old = await _before(journal, now - retention.seal_s, 0)
        limit = min(old, *(upto.get(kind, 0) for kind in FORGOTTEN))
        while await journal.amend(lambda db: _seal(db, limit)):
            headers += SEGMENT
    return Retained(bodies, headers)


async def _removed(journal: Journal) -> dict[str, int]:
    """Up to where bodies are already said to be gone."""
    rows = await journal.query(
        "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'retention'"
        " ORDER BY j.sequence DESC LIMIT 1"
    )
    return dict(json.loads(rows[0][0])["removed"]) if rows else {}


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
    while excess > 0:
        rows = await journal.query(
            "SELECT j.sequence, j.size FROM journal j JOIN body b USING (sequence)"
            f" WHERE j.kind IN {FORGOTTEN} AND j.sequence > ? ORDER BY j.sequence LIMIT 1000",
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
    while True:
        found = await journal.query(
            "SELECT b.sequence FROM body b JOIN journal j USING (sequence)"
            " WHERE j.kind = ? AND b.sequence > ? AND b.sequence <= ? ORDER BY b.sequence LIMIT ?",
            (kind, after, last, WINDOW),
        )
        if not found:
            return removed
        after = found[-1][0]
        removed += len(found)
        await journal.amend(_delete(found))


def _delete(sequences: list[tuple[Any, ...]]) -> Callable[[sqlite3.Connection], Any]:
    return lambda db: db.executemany("DELETE FROM body WHERE sequence = ?", sequences)


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
