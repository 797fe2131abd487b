"""Numbered SQL files bring a database to the form this version knows: checked, tried first, and with a way back."""

import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from protos.errors import Conflict


@dataclass(frozen=True)
class Migration:
    """One numbered file: `0001_journal.sql`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(directory: Path) -> list[Migration]:
    """The numbered files of `directory`, in order; the numbers run from 1 without a gap."""
    found = [
        Migration(int(file.name.split("_", 1)[0]), file.stem, file.read_text())
        for file in sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    assert [each.number for each in found] == list(range(1, len(found) + 1)), f"{directory}: numbers with a gap"
    return found


def pending(db: sqlite3.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """What `db` still lacks.

    Raises:
        Conflict: `db` was written by a newer version, or a file changed after it was applied.
    """
    known = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migration'").fetchone()
    applied = dict(db.execute("SELECT number, checksum FROM migration")) if known else {}
    if applied and max(applied) > len(migrations):
        raise Conflict(
            f"a newer madlab wrote this data: its form is {max(applied)}, this version knows {len(migrations)}",
            next="start the newer version, or restore the backup made before it was first started",
        )
    for each in migrations:
        if each.number in applied and applied[each.number] != each.checksum:
            raise Conflict(
                f"migration {each.name} is not the one that was applied to this data",
                next="restore the file as it was released; a change belongs in a new migration",
            )
    return [each for each in migrations if each.number not in applied]


def apply(db: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Applies `migrations`, each in a transaction of its own."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS migration"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, at REAL NOT NULL)"
    )
    for each in migrations:
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements(each.sql):
                db.execute(statement)
            row = (each.number, each.name, each.checksum, time.time())
            db.execute("INSERT INTO migration VALUES (?, ?, ?, ?)", row)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def dry_run(path: Path, migrations: Sequence[Migration]) -> list[Migration]:
    """Applies what the database at `path` lacks to a copy, which is thrown away, and returns what that was.

    Raises:
        Conflict: as for `pending`.
        sqlite3.Error: a migration does not apply to this data.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="dry-run-") as directory:
        copy = Path(directory) / path.name
        _copy(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            lacking = pending(db, migrations)
            apply(db, lacking)
            return lacking


def migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> Path | None:
    """Brings `db`, the file at `path`, up to date; returns the backup made before, None where nothing was to lose.

    Raises:
        Conflict: as for `pending`.
    """
    lacking = pending(db, migrations)
    if not lacking:
        return None
    backup = None
    if lacking[0].number > 1:
        backup = path.with_name(f"{path.name}.before-{lacking[0].number:04}")
        _copy(path, backup)
    apply(db, lacking)
    return backup


def _copy(path: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def statements(sql: str) -> list[str]:
    """The single statements of `sql`: `executescript` would commit what is open."""
    found, text = [], ""
    for line in sql.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return [*found, text] if text.strip() else found
