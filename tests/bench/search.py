"""Searching a large journal: a mixed set of queries through Dewey's own code, beside bare FTS5 with the same words.

100,000 messages, or a million with MADLAB_FULL=1 (some minutes to take in). The words are drawn as words are used: few
very often, most seldom. Nothing is cached between queries but what SQLite and the machine keep.
"""

import itertools
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from anyio import to_thread

from core.dewey import index
from core.dewey.documents import Documents
from core.dewey.query import parse
from core.dewey.search import find
from core.rogers.connection import open_reader
from core.rogers.entry import Row
from core.rogers.journal import Journal
from core.rogers.views import VIEWS
from core.runs import RunsView
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY, Message
from tests.bench.figure import Figure
from tests.sizes import full

MESSAGES = 1_000_000 if full() else 100_000
WORDS, BATCH, EACH = 50_000, 500, 25
BEGAN = 1_700_000_000.0
MADS = ("operator", "hopper", "marco", "mcnamara", "foreman", "playfair")


async def run() -> list[Figure]:
    """Takes in, asks, compares."""
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        async with Journal(Path(directory) / "journal.db", [*VIEWS, RunsView()]) as journal:
            return await to_thread.run_sync(_measured, journal.path)


def _measured(journal: Path) -> list[Figure]:
    chosen = random.Random(7)
    words = _vocabulary(chosen)
    path = journal.with_name("dewey.db")
    with closing(index.open_index(path)) as db, closing(open_reader(journal)) as source:
        plain = _plain(journal.with_name("plain.db"))
        spent = 0.0
        for batch in _batches(chosen, words):
            started = time.perf_counter()
            documents = Documents(source)
            changes = [change for row in batch for change in documents.of(row, {})]
            index.take_in(db, changes, index.Place(batch[-1].sequence))
            spent += time.perf_counter() - started
            texts = [(row.sequence, Message.FromString(row.body or b"").text) for row in batch]
            plain.execute("BEGIN")
            plain.executemany("INSERT INTO said (rowid, text) VALUES (?, ?)", texts)
            plain.execute("COMMIT")
        started = time.perf_counter()
        while index.unpacked(db):
            index.pack(db)
        spent += time.perf_counter() - started
        with closing(open_reader(path)) as reader:
            figures = [
                Figure("search: taken in", MESSAGES / spent, "messages/s", higher_is_better=True),
                Figure("search: index on disk", path.stat().st_size / MESSAGES, "bytes a message"),
            ]
            return figures + _asked(reader, plain, chosen, words)


def _asked(db: sqlite3.Connection, plain: sqlite3.Connection, chosen: random.Random, words: list[str]) -> list[Figure]:
    sets = _queries(chosen, words)
    ours: dict[str, list[float]] = {name: [] for name in sets}
    bare: dict[str, list[float]] = {name: [] for name in sets}
    now = BEGAN + MESSAGES

    processor: list[float] = []

    def ask(text: str) -> None:
        began = time.thread_time()
        find(db, parse(text), limit=20, now=now)
        processor.append((time.thread_time() - began) * 1000)

    def ask_plain(match: str) -> None:
        sql = "SELECT rowid, snippet(said, 0, '', '', '', 32) FROM said WHERE said MATCH ? ORDER BY rank LIMIT 20"
        plain.execute(sql, (match,)).fetchall()

    for turn in range(EACH):
        for name, make in sets.items():
            text, match = make()
            ours[name].append(_took(ask, text))
            if turn < EACH // 3:  # it is slow, and the point is made
                bare[name].append(_took(ask_plain, match))
    figures = [
        Figure(f"search: {name}, p95", _p95(ours[name]), "ms", "bare FTS5 p95", _p95(bare[name])) for name in sets
    ]
    everything = [each for some in ours.values() for each in some]
    all_bare = [each for some in bare.values() for each in some]
    figures.append(
        Figure("search: all, p50", statistics.median(everything), "ms", "bare FTS5 p50", statistics.median(all_bare))
    )
    figures.append(Figure("search: all, processor time p95", _p95(processor), "ms"))
    figures.append(Figure("search: all, bare FTS5 p95", _p95(all_bare), "ms"))
    figures.append(Figure(f"search: all of {MESSAGES:,}, p95", _p95(everything), "ms", "limit", 50.0, 1.0))
    return figures


def _queries(chosen: random.Random, words: list[str]) -> dict[str, Callable[[], tuple[str, str]]]:
    """Sets of queries: each call is another one, for Dewey and in FTS5's own words."""

    def common() -> str:
        return chosen.choice(words[:20])

    def middling() -> str:
        return chosen.choice(words[200:2000])

    def rare() -> str:
        return chosen.choice(words[20_000:])

    def two(first: str, second: str) -> tuple[str, str]:
        return f"{first} {second}", f"{first} {second}"

    def phrase() -> tuple[str, str]:
        text = f'"{common()} {common()}"'
        return text, text

    def prefix(length: int) -> tuple[str, str]:
        text = f"{middling()[:length]}*"
        return text, text

    def beside(word: str, more: str) -> tuple[str, str]:
        return f"{word} {more}", word

    def alone(word: str) -> tuple[str, str]:
        return word, word

    day = "2023-11-20"
    return {
        "a rare word": lambda: alone(rare()),
        "a word": lambda: alone(middling()),
        "a common word": lambda: alone(common()),
        "two common words": lambda: two(common(), common()),
        "a common and a rare word": lambda: two(common(), rare()),
        "a phrase of common words": phrase,
        "a beginning of 2": lambda: prefix(2),
        "a beginning of 4": lambda: prefix(4),
        "a common word from one": lambda: beside(common(), f"from:{chosen.choice(MADS)}"),
        "a common word in one conversation": lambda: beside(common(), f"conversation:c{chosen.randrange(2000)}"),
        "a common word before a day": lambda: beside(common(), f"before:{day}"),
        "a common word without another": lambda: beside(common(), f"-{common()}"),
    }


def _took(act: Callable[[str], None], text: str) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act(text)
    return (time.perf_counter() - began) * 1000


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _vocabulary(chosen: random.Random) -> list[str]:
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    weights = [1 / (at + 2) for at in range(len(letters))]
    return ["".join(chosen.choices(letters, weights, k=chosen.randint(3, 10))) for _ in range(WORDS)]


def _batches(chosen: random.Random, words: list[str]) -> Iterator[tuple[Row, ...]]:
    rows = _rows(chosen, words)
    while batch := tuple(itertools.islice(rows, BATCH)):
        yield batch


def _rows(chosen: random.Random, words: list[str]) -> Iterator[Row]:
    weights = list(itertools.accumulate(1 / (at + 1) for at in range(WORDS)))
    kinds = (KIND_CALL, KIND_REPLY, KIND_PROSE)
    for sequence in range(1, MESSAGES + 1):
        text = " ".join(chosen.choices(words, cum_weights=weights, k=chosen.randint(5, 60)))
        message = Message(id=f"m{sequence}", conversation=f"c{sequence // 50}", text=text, kind=kinds[sequence % 3])
        message.tool = "" if message.kind == KIND_PROSE else "work"
        sender, recipient = MADS[sequence % 5], MADS[(sequence + 1) % 5]
        body = message.SerializeToString()
        yield Row(sequence, message.id, "message", body, message.conversation, sender, recipient, BEGAN + sequence)


def _plain(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE VIRTUAL TABLE said USING fts5 (text)")
    return db
