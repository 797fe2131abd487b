"""What is set apart: ranges cut into one another as single sequences would, at a cost that is theirs alone."""

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from core.rogers.apart import SetApartView
from core.rogers.call import Call
from core.rogers.entry import Entry, Row
from core.rogers.ranges import format_ranges


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(SetApartView.schema)
        yield db


def archived(id: str, ranges: str) -> Entry:
    told = {"step": "archived", "archive": id, "sequences": ranges, "count": 1, "bytes": 1, "sha256": "", "ended": 1.0}
    return Entry(id, "archive", json.dumps(told).encode(), "c")


def take(db: sqlite3.Connection, id: str, ranges: str) -> None:
    entry = archived(id, ranges)
    SetApartView().apply(db, Row(1, entry.id, entry.kind, entry.body, "c", "", "", 1.0))


def test_ranges_cut_into_one_another_like_single_sequences(db: sqlite3.Connection) -> None:
    chance = random.Random(5)
    expected: dict[int, str] = {}
    for turn in range(300):
        starts = [chance.randrange(1, 200) for _ in range(3)]
        some = sorted({each for low in starts for each in range(low, low + chance.randrange(1, 30))})
        take(db, str(turn), format_ranges(some))
        expected |= dict.fromkeys(some, str(turn))
        found = db.execute("SELECT first, last, archive FROM set_apart").fetchall()
        assert {each: id for first, last, id in found for each in range(first, last + 1)} == expected
        assert sum(last - first + 1 for first, last, _ in found) == len(expected), "none is within another"


def test_a_range_costs_the_same_however_many_there_are(db: sqlite3.Connection) -> None:
    steps = []

    def ranges(start: int) -> str:
        return format_ranges(range(start, 10_000, 2))

    db.set_progress_handler(lambda: steps.append(1), 100)
    take(db, "few", ranges(9_001))
    few = len(steps)
    take(db, "most", ranges(1))
    steps.clear()
    take(db, "between", ranges(9_002))  # 500 again
    assert len(steps) < 3 * few, f"500 ranges among none took {few} steps, among 5,000 {len(steps)}"


def test_an_entry_weighs_what_its_ranges_cost() -> None:
    assert Call([archived("a", format_ranges(range(1, 4000, 2)))], None).weight >= 2000
