"""Named, versioned files: a view of the journal's "file" entries."""

import json
import sqlite3

from core.rogers.entry import Row


class Names:
    """Which blob each version of a named file is. The newest version is the file.

    The body of a "file" entry is `{"name", "version", "digest", "size", "media_type"}`.
    """

    name = "names"
    kinds = frozenset({"file"})
    tables = ("names",)
    schema = """
        CREATE TABLE IF NOT EXISTS names (
            name TEXT NOT NULL,
            version INTEGER NOT NULL,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL,
            media_type TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (name, version)
        ) STRICT, WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes one "file" entry in."""
        if row.body is None:
            return
        fields = json.loads(row.body)
        db.execute(
            "INSERT OR IGNORE INTO names (name, version, digest, size, media_type, at) VALUES (?, ?, ?, ?, ?, ?)",
            (fields["name"], fields["version"], fields["digest"], fields["size"], fields["media_type"], row.at),
        )
