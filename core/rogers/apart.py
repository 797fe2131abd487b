"""Bodies that are not where the kind's policy alone would have them: in an archive, brought back from one, or removed
one by one. A view of the "archive" and "retention" entries; ranges of sequences, none within another.

    archived   the body is in an archive file; the journal's table has none
    restored   a person brought it back: it stays until a person archives or forgets it
    removed    gone for good, with a proof
"""

import json
import sqlite3
from typing import Any, ClassVar

from core.rogers.entry import Row
from core.rogers.ranges import parse_ranges

# Of a row `j` of the journal: whether the policy of its kind alone decides about its body.
NOT_APART = """coalesce((SELECT s.last FROM set_apart s WHERE s.first <= j.sequence
    ORDER BY s.first DESC LIMIT 1), 0) < j.sequence"""


class SetApartView:
    """Which bodies were archived, restored or removed by themselves, and the archives that there are."""

    name = "set_apart"
    kinds = frozenset({"archive", "retention"})
    tables = ("set_apart", "archive")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS set_apart (
            first INTEGER PRIMARY KEY, last INTEGER NOT NULL, state TEXT NOT NULL, archive TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS archive (
            id TEXT PRIMARY KEY, conversation TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
            count INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, ended REAL NOT NULL);
        CREATE INDEX IF NOT EXISTS archive_conversation ON archive (conversation) WHERE state = 'archived';
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in one step of an archive, or a removal."""
        told: dict[str, Any] = json.loads(row.body or b"{}")
        if row.kind == "retention":
            for each in told.get("proofs", ()):
                if "sequences" in each:
                    _set(db, each["sequences"], "removed", "")
            for id in told.get("archives", ()):
                db.execute("UPDATE archive SET state = 'removed' WHERE id = ?", (id,))
        elif told.get("step") == "archived":
            _set(db, told["sequences"], "archived", told["archive"])
            db.execute(
                "INSERT OR REPLACE INTO archive VALUES (?, ?, ?, 'archived', ?, ?, ?, ?)",
                (
                    *(told["archive"], row.conversation, row.at, told["count"]),
                    told["bytes"],
                    told["sha256"],
                    told["ended"],
                ),
            )
        elif told.get("step") == "restored":
            db.execute("UPDATE set_apart SET state = 'restored', archive = '' WHERE archive = ?", (told["archive"],))
            db.execute("UPDATE archive SET state = 'restored' WHERE id = ?", (told["archive"],))


def _set(db: sqlite3.Connection, ranges: str, state: str, archive: str) -> None:
    for first, last in parse_ranges(ranges):
        _cut_out(db, first, last)
        db.execute("INSERT INTO set_apart VALUES (?, ?, ?, ?)", (first, last, state, archive))


def _cut_out(db: sqlite3.Connection, first: int, last: int) -> None:
    """Makes room: what reaches over an end keeps what lies outside. As no range is within another, only the one that
    begins before can reach in from there: there is no need to look at all that are there."""
    within = (
        "SELECT first, last, state, archive FROM set_apart WHERE last >= ?1 AND first <= ?2"
        " AND first >= coalesce((SELECT max(first) FROM set_apart WHERE first <= ?1), 0)"
    )
    for low, high, state, archive in db.execute(within, (first, last)).fetchall():
        db.execute("DELETE FROM set_apart WHERE first = ?", (low,))
        if low < first:
            db.execute("INSERT INTO set_apart VALUES (?, ?, ?, ?)", (low, first - 1, state, archive))
        if high > last:
            db.execute("INSERT INTO set_apart VALUES (?, ?, ?, ?)", (last + 1, high, state, archive))
