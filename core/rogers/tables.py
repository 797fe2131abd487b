"""The journal's tables as SQL sees them: a transaction, many rows in few statements, and all rows again."""

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from typing import Any

from core.rogers.entry import Row
from core.rogers.segments import read_segments

COLUMNS = """j.sequence, j.id, j.kind, CASE WHEN j.size = 0 THEN x'' ELSE b.body END,
    j.conversation, j.sender, j.recipient, j.at"""  # a Row, from `journal j LEFT JOIN body b USING (sequence)`
DISK_ERRORS = frozenset(
    (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    )
)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; the exception is the first thing that went wrong."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # what went wrong first is what counts
                db.execute("ROLLBACK")
        raise


def insert(db: sqlite3.Connection, table: str, columns: int, values: list[Any]) -> None:
    """Inserts many rows by few statements, of 64, 32, 16 ... rows each: half of what `executemany` takes.

    And each step of a statement gives the interpreter's lock away. On a thread, while the loop is busy, each costs up
    to 5 ms to get it back: row by row, one commit of 64 would take more than half a second.
    """
    at, left, rows = 0, len(values) // columns, 64
    while left:
        while rows > left:
            rows //= 2
        end = at + rows * columns
        db.execute(_insertion(table, columns, rows), values[at:end])
        at, left = end, left - rows


@functools.cache
def _insertion(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"


def read_rows(db: sqlite3.Connection, kinds: frozenset[str]) -> Iterator[Row]:
    """Every entry of `kinds`, oldest first, the sealed ones too."""
    for row in read_segments(db):
        if row.kind in kinds:
            yield row
    sql = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence) ORDER BY j.sequence"
    for values in db.execute(sql):
        if values[2] in kinds:
            yield Row(*values)


def is_of_disk(error: Exception) -> bool:
    """Whether the file or the disk failed, not the one who asked."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in DISK_ERRORS
    return isinstance(error, OSError)


def sentence(error: Exception) -> str:
    """What went wrong, with SQLite's name for it."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)
