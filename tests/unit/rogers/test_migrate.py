"""Migrations: in order, once, tried first, with a way back."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core.rogers.migrate import Migration, dry_run, load_migrations, migrate
from core.rogers.writer import MIGRATIONS
from protos.errors import Conflict

ONE = Migration(1, "0001_things", "CREATE TABLE thing (name TEXT); -- a comment; with a semicolon\n")
TWO = Migration(2, "0002_size", "ALTER TABLE thing ADD COLUMN size INTEGER;\nUPDATE thing SET size = length(name);\n")
BROKEN = Migration(3, "0003_broken", "ALTER TABLE thing ADD COLUMN x;\nUPDATE absent SET y = 1;\n")


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def columns(path: Path) -> list[str]:
    with closing(opened(path)) as db:
        return [row[1] for row in db.execute("PRAGMA table_info(thing)")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "things.db"
    with closing(opened(path)) as db:
        assert migrate(db, path, [ONE]) is None, "a new file has nothing to lose"
        db.execute("INSERT INTO thing VALUES ('lamp')")
    return path


def test_a_migration_leaves_a_backup_of_how_it_was(path: Path) -> None:
    with closing(opened(path)) as db:
        backup = migrate(db, path, [ONE, TWO])
        assert db.execute("SELECT name, size FROM thing").fetchall() == [("lamp", 4)]
        assert migrate(db, path, [ONE, TWO]) is None, "once is enough"
    assert backup is not None
    assert columns(backup) == ["name"]
    with closing(opened(backup)) as db:
        assert db.execute("SELECT name FROM thing").fetchall() == [("lamp",)]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(path: Path) -> None:
    assert dry_run(path, [ONE, TWO]) == [TWO]
    assert columns(path) == ["name"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_dry_run_fails_where_the_migration_would(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: absent"):
        dry_run(path, [ONE, TWO, BROKEN])
    assert columns(path) == ["name"]


def test_a_migration_that_fails_leaves_nothing_of_itself(path: Path) -> None:
    with closing(opened(path)) as db, pytest.raises(sqlite3.OperationalError):
        migrate(db, path, [ONE, TWO, BROKEN])
    assert columns(path) == ["name", "size"], "the one before it stands"


def test_data_of_a_newer_version_is_refused(path: Path) -> None:
    with closing(opened(path)) as db:
        migrate(db, path, [ONE, TWO])
        with pytest.raises(Conflict, match="a newer madlab wrote this data: its form is 2, this version knows 1"):
            migrate(db, path, [ONE])


def test_a_migration_changed_after_it_was_applied_is_refused(path: Path) -> None:
    with closing(opened(path)) as db, pytest.raises(Conflict, match="0001_things is not the one that was applied"):
        migrate(db, path, [Migration(1, "0001_things", ONE.sql + " ")])


def test_the_journals_own_migrations_are_numbered_without_a_gap() -> None:
    numbers = [each.number for each in load_migrations(MIGRATIONS)]
    assert numbers == [*range(1, len(numbers) + 1)]
