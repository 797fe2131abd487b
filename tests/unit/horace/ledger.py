"""A journal small enough to read: one SQLite table of entries, and the view of names."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from core.horace.names import Names
from core.rogers.entry import Entry, Row


class Ledger:
    """Appends entries, once per id, and applies the view in the same transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY, id TEXT UNIQUE, body BLOB)")
            db.executescript(Names.schema)

    async def append(self, *entries: Entry) -> list[int]:
        with closing(sqlite3.connect(self.path)) as db, db:
            return [self._append(db, each) for each in entries]

    def _append(self, db: sqlite3.Connection, entry: Entry) -> int:
        known = db.execute("SELECT sequence FROM entries WHERE id = ?", (entry.id,)).fetchone()
        if known:
            return int(known[0])
        sequence = db.execute("INSERT INTO entries (id, body) VALUES (?, ?)", (entry.id, entry.body)).lastrowid or 0
        Names().apply(db, Row(sequence, entry.id, entry.kind, entry.body, "", entry.sender, "", 1.0))
        return sequence

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            return db.execute(sql, params).fetchall()
