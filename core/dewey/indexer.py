"""Takes the journal into the index, some hundred rows at a time, on a thread of its own.

It reads by a connection that can only read, in short transactions, so it never holds up the writer or its checkpoints.
What it has taken in and how far it came commit together: whatever is cut off is taken in again, and nothing twice.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.dewey import index
from core.dewey.documents import KINDS, Documents, owned, report_of
from core.dewey.index import Change, Place
from core.rogers.connection import open_reader
from core.rogers.entry import Filled, Row
from core.rogers.segments import unpack
from core.rogers.tables import COLUMNS
from protos.v1.message_pb2 import Message

ROWS = 200  # of one batch
UNKEPT = 20_000  # entries without anything to take in
WINDOW = 4000  # entries that a batch looks through at most, most of which may be events

_MARKS = ", ".join(f"'{each}'" for each in sorted(KINDS))
_READ = (
    f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
    f" WHERE j.sequence > ? AND j.sequence <= ? AND j.kind IN ({_MARKS}) ORDER BY j.sequence LIMIT {ROWS}"
)


@dataclass(frozen=True)
class Batch:
    """Rows that were read, and how far they reach."""

    rows: list[Row]
    place: Place
    reports: tuple[str, ...]  # digests of blobs that belong to them


class Indexer:
    """One index and the journal that it follows. All of it belongs to one thread."""

    def __init__(self, journal: Path, path: Path, archived: Filled) -> None:
        self.path = path
        self.reached = 0
        self.head = 0
        self._kept = 0  # of it, what is durable
        self.packs = False  # a part is to be packed
        self._journal = journal
        self._archived = archived

    def open(self) -> sqlite3.Connection:
        """Opens both; the answer is the index. One that does not fit the journal is made anew.

        Raises:
            sqlite3.Error, OSError: the disk does not let it.
        """
        self._source = open_reader(self._journal)
        self._documents = Documents(self._source, self._archived)
        db = index.open_index(self.path)
        place = index.reached(db)
        if not self._fits(place):
            db.close()
            index.remove(self.path)
            db = index.open_index(self.path)
            place = index.reached(db)
        self.reached = self._kept = place.sequence
        self.packs = index.unpacked(db)
        return db

    def close(self, db: sqlite3.Connection) -> None:
        """Closes the journal; the index is closed by whoever holds it."""
        self._source.close()

    def read(self, db: sqlite3.Connection) -> Batch | None:
        """The next batch; None where there is nothing to take in."""
        after = self.reached
        (last,) = self._source.execute("SELECT max(sequence) FROM journal").fetchone()
        sealed = self._source.execute(
            "SELECT last, headers FROM segment WHERE last > ? ORDER BY first LIMIT 1", (after,)
        ).fetchone()
        self.head = int(last or (sealed[0] if sealed else 0))
        if sealed:
            rows, upto = self._sealed(sealed[1], after), int(sealed[0])
        elif after >= self.head:
            return None
        else:
            upto = min(self.head, after + WINDOW)
            rows = [Row(*values) for values in self._source.execute(_READ, (after, upto))]
            if len(rows) == ROWS:
                upto = rows[-1].sequence
        rows = self._archived(self._source, rows)
        found = self._source.execute("SELECT hash FROM journal WHERE sequence = ?", (upto,)).fetchone()
        place = Place(upto, bytes(found[0]) if found else b"")
        return Batch(rows, place, tuple(_reports(rows)))

    def take_in(self, db: sqlite3.Connection, batch: Batch, reports: Mapping[str, bytes]) -> None:
        """Makes the index of what was read."""
        if not batch.rows and batch.place.sequence - self._kept < UNKEPT:
            self.reached = batch.place.sequence  # where there is nothing to take in, the place need not be durable
            return
        changes: list[Change] = []
        for row in batch.rows:
            changes += owned(row)
            changes += self._documents.of(row, reports)
        index.take_in(db, changes, batch.place)
        self.reached = self._kept = batch.place.sequence
        self.packs = self.packs or index.unpacked(db)

    def pack(self, db: sqlite3.Connection) -> None:
        """Packs one part."""
        index.pack(db)
        self.packs = index.unpacked(db)

    def _sealed(self, packed: bytes, after: int) -> list[Row]:
        headers = [each for each in unpack(packed) if each.sequence > after and each.kind in KINDS]
        rows = []
        for each in headers:
            found = self._source.execute("SELECT body FROM body WHERE sequence = ?", (each.sequence,)).fetchone()
            body = (found[0] if found else None) if each.size else b""
            rows.append(
                Row(each.sequence, each.id, each.kind, body, each.conversation, each.sender, each.recipient, each.at)
            )
        return rows

    def _fits(self, place: Place) -> bool:
        """Whether the journal is the one that was taken in, and reaches as far."""
        if not place.sequence:
            return True
        (last,) = self._source.execute("SELECT max(sequence) FROM journal").fetchone()
        if last is None or last < place.sequence:
            sealed = self._source.execute("SELECT max(last) FROM segment").fetchone()[0]
            return bool(sealed is not None and sealed >= place.sequence)
        found = self._source.execute("SELECT hash FROM journal WHERE sequence = ?", (place.sequence,)).fetchone()
        return found is None or not place.hash or bytes(found[0]) == place.hash


def _reports(rows: Sequence[Row]) -> list[str]:
    found = []
    for row in rows:
        if row.kind == "message" and row.body and b"report.json" in row.body:
            report = report_of(Message.FromString(row.body))
            if report is not None:
                found.append(report.digest)
    return found
