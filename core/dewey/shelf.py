"""Archives as they are read from: the body of a message that is not in the journal's table comes from its file.

What was read last stays in memory, up to `OPEN_BYTES`: whoever reads a conversation asks for its messages one after the
other, and a file can only be read whole.
"""

import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import structlog

from core.dewey.archive import read
from core.rogers.entry import Row
from protos.errors import Conflict

OPEN_BYTES = 16 << 20  # of archives that are in memory; the one that was read last may have more
ENTRY_BYTES = 150  # that an entry takes beside its body

APART = (  # the ranges from one sequence to another
    "SELECT first, last, archive FROM set_apart WHERE state = 'archived' AND last >= ?1 AND first <= ?2"
    " AND first >= coalesce((SELECT max(first) FROM set_apart WHERE first <= ?1), 0) ORDER BY first"
)

logger = structlog.get_logger()


class Shelf:
    """The archives of a directory. May be used by several threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: OrderedDict[str, tuple[int, dict[int, bytes]]] = OrderedDict()  # the one read last at the end
        self._lock = Lock()

    def filled(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
        """`rows`, those whose bodies are in an archive with them. `db` is the journal."""
        gone = [row.sequence for row in rows if row.body is None]
        return self.fill(rows, db.execute(APART, (min(gone), max(gone))).fetchall()) if gone else list(rows)

    def fill(self, rows: Sequence[Row], apart: Sequence[tuple[Any, ...]]) -> list[Row]:
        """`rows` with their bodies from archives. `apart`: first, last and archive of ranges, in order."""
        starts = [first for first, _, _ in apart]
        filled = []
        for row in rows:
            place = bisect_right(starts, row.sequence) - 1
            if row.body is None and place >= 0 and apart[place][1] >= row.sequence:
                try:
                    row = row._replace(body=self._bodies(apart[place][2]).get(row.sequence))
                except (Conflict, OSError):
                    logger.exception("an archive cannot be read", archive=apart[place][2])
            filled.append(row)
        return filled

    def _bodies(self, id: str) -> dict[int, bytes]:
        with self._lock:
            if id in self._open:
                self._open.move_to_end(id)
                return self._open[id][1]
        bodies = {each.row.sequence: each.row.body or b"" for each in read(self._directory / f"{id}.xz")}
        size = sum(len(each) + ENTRY_BYTES for each in bodies.values())
        with self._lock:
            self._open[id] = size, bodies
            while len(self._open) > 1 and sum(each for each, _ in self._open.values()) > OPEN_BYTES:
                self._open.popitem(last=False)
        return bodies
