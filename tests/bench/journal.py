"""The journal beside what it could be at best, and beside brokers that do the same work.

All on the same disk, in turns: 64 publishers (or clients), 1 KiB each, each waiting for its acknowledgement before it
says the next. The bare loop is the ceiling: the same tables, indexes and pages, 64 rows to a commit at `FULL`, and
nothing else: no publishers, no hashes, no listeners. NATS acknowledges before it syncs, so it promises less and is
asked to be slower all the same. A broker is measured as a Python program meets it, by its own client; what it does at
best, where a thread drives its sockets and no program publishes, is told beside it (`brokers`).
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from hashlib import sha256
from pathlib import Path
from statistics import median

import aiosqlite
import anyio
import anyio.lowlevel

from core.app import settle_memory
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.migrate import load_migrations, migrate
from core.rogers.writer import MIGRATIONS, PAGE
from protos.ids import new_id
from tests.bench.brokers import Broker, open_nats, open_redis
from tests.bench.figure import Figure, in_turns

PUBLISHERS = 64
BODY = os.urandom(1024)
DIGEST = sha256(BODY).digest()
SECONDS = 0.4  # of one round
DISK = Path("/var/tmp") if Path("/var/tmp").is_dir() else Path(tempfile.gettempdir())  # rarely a tmpfs, as /tmp may be


def open_bare(path: Path, synchronous: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    migrate(db, path, load_migrations(MIGRATIONS))
    return db


class BareLoop:
    """Inserts into the journal's tables as fast as SQLite can."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sequence = 0

    def commit(self, rows: int) -> None:
        headers, bodies = [], []
        for _ in range(rows):
            self._sequence += 1
            now = time.time()
            headers.append(
                (self._sequence, now, "message", new_id(), "conversation", "hopper", "marco", 1024, DIGEST, DIGEST)
            )
            bodies.append((self._sequence, BODY))
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", headers)
        self._db.executemany("INSERT INTO body VALUES (?, ?)", bodies)
        self._db.execute("COMMIT")

    def rate(self, rows: int) -> float:
        """Rows a second, `rows` to a commit."""
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            self.commit(rows)
            done += rows
        return done / (time.perf_counter() - began)


async def publish_rate(journal: Journal, publishers: int) -> float:
    """Acknowledged entries a second."""
    done = 0
    began = time.perf_counter()

    async def publish() -> None:
        nonlocal done
        while time.perf_counter() - began < SECONDS:
            await journal.append(Entry(new_id(), "message", BODY, "conversation", "hopper", "marco"))
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(publishers):
            tasks.start_soon(publish)
    return done / (time.perf_counter() - began)


async def naive_rate(db: aiosqlite.Connection) -> float:
    """Acknowledged messages a second, as one would write it first: every publisher commits its own message."""
    done = 0
    began = time.perf_counter()
    lock = anyio.Lock()
    insert = (
        "INSERT INTO journal VALUES ((SELECT coalesce(max(sequence), 0) + 1 FROM journal), ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )

    async def publish() -> None:
        nonlocal done
        while time.perf_counter() - began < SECONDS:
            async with lock:
                header = (time.time(), "message", new_id(), "conversation", "hopper", "marco", 1024, DIGEST, DIGEST)
                await db.execute("BEGIN")
                await db.execute(insert, header)
                await db.execute("INSERT INTO body SELECT max(sequence), ? FROM journal", (BODY,))
                await db.commit()
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(PUBLISHERS):
            tasks.start_soon(publish)
    return done / (time.perf_counter() - began)


async def spin() -> None:
    """Computes, and gives way every quarter of a millisecond, as a core with much to do would."""
    while True:
        end = time.perf_counter() + 0.00025
        while time.perf_counter() < end:
            pass
        await anyio.lowlevel.checkpoint()


def typical(act: Callable[[], object], count: int = 60) -> float:
    """Seconds that `act` takes, the median of `count`."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return median(taken)


async def run() -> list[Figure]:
    settle_memory()  # as the core does when it is ready
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DISK, prefix="bench-")))
        journal = await stack.enter_async_context(Journal(directory / "journal.db"))
        bare, unsynced = (
            BareLoop(stack.enter_context(closing(open_bare(directory / f"{name}.db", synchronous))))
            for name, synchronous in (("bare", "FULL"), ("unsynced", "OFF"))
        )
        open_bare(directory / "naive.db", "FULL").close()
        naive = await stack.enter_async_context(aiosqlite.connect(directory / "naive.db", isolation_level=None))
        await naive.execute("PRAGMA synchronous = FULL")
        plain = stack.enter_context((directory / "plain").open("wb", buffering=0))

        def append_and_sync() -> None:
            plain.write(BODY)
            os.fdatasync(plain.fileno())

        async def ours() -> float:
            return await publish_rate(journal, PUBLISHERS)

        async def bare_loop() -> float:
            return bare.rate(PUBLISHERS)

        async def one_commit_each() -> float:
            return await naive_rate(naive)

        async def beside_a_busy_loop() -> float:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(spin)
                rate = await publish_rate(journal, PUBLISHERS)
                tasks.cancel_scope.cancel()
            return rate

        async def lone_publish() -> float:
            taken = []
            for _ in range(60):
                began = time.perf_counter()
                await journal.append(Entry(new_id(), "message", BODY, "conversation", "hopper", "marco"))
                taken.append(time.perf_counter() - began)
            return median(taken)

        async def disk_and_insert() -> float:
            return typical(append_and_sync) + typical(lambda: unsynced.commit(1))

        measures: dict[str, Callable[[], Awaitable[float]]] = {
            "ours": ours,
            "bare": bare_loop,
            "single": one_commit_each,
            "lone": lone_publish,
            "disk": disk_and_insert,
            "beside a busy loop": beside_a_busy_loop,
        }
        ours_alone = len(measures)
        for name, opening in (
            ("redis Streams, always", open_redis(directory, PUBLISHERS)),
            ("NATS JetStream, file", open_nats(directory, PUBLISHERS)),
        ):
            broker = await stack.enter_async_context(opening)
            if broker is not None:
                measures[name] = by_its_client(broker)
                measures[f"{name}, at best"] = at_best(broker)
        found = await in_turns(measures)
    rate = "acknowledged at 64 publishers, 1 KiB"
    figures = [
        Figure(rate, found["ours"], "/s", "aiosqlite, one commit each", found["single"], 20, True),
        Figure(rate, found["ours"], "/s", "bare loop", found["bare"], 0.6, True),
        Figure("a lone durable publish", found["lone"] * 1e6, "µs", "disk + insert", found["disk"] * 1e6, 1.3),
        Figure(f"{rate}, while a task keeps the loop busy", found["beside a busy loop"], "/s", higher_is_better=True),
    ]
    for name in list(measures)[ours_alone:]:
        limit = None if name.endswith("at best") else 1
        figures.append(Figure(rate, found["ours"], "/s", name, found[name], limit, True))
    return figures


def by_its_client(broker: Broker) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        rate = await broker.rate(BODY, SECONDS)
        os.sync()  # what it left unsynced would be charged to whoever syncs next
        return rate

    return measure


def at_best(broker: Broker) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        rate = broker.rate_at_best(BODY, SECONDS)
        os.sync()
        return rate

    return measure
