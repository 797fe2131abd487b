"""The vault with 10,000 secrets: reading one, finding what a request may use, and changing the vault.

The baseline reads the same sealed value the way one would write it first: the row from SQLite by its name, one AES-GCM
of `cryptography` with a key at hand, and nothing else: no envelope, no versions, no binding to a place. A request is
asked about with 1,000 grants around, and its use is journalled as a port would do it, beside a bare entry.
"""

import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from statistics import median

from anyio import to_thread
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.app import settle_memory
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.turing.grants import GrantsView
from core.turing.places import place_of
from core.turing.secret import Secret
from core.turing.settings import Vault as Settings
from core.turing.turing import Turing
from core.turing.vault import Carried, Vault
from protos.ids import new_id
from tests.bench.figure import Figure, in_turns
from tests.bench.journal import DISK

SECRETS = 10_000
GRANTS = 1000
READS = 500  # of one round
ME = ("run:7", "mad:marco")
URL = "https://api7.example.org/repos/x"


def typical(act: Callable[[], object], count: int = READS) -> float:
    """Seconds that `act` takes, the median of `count`."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return median(taken)


async def awaited(act: Callable[[], Awaitable[object]], count: int = 40) -> float:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        taken.append(time.perf_counter() - began)
    return median(taken)


def bare(path: Path, names: list[str]) -> Callable[[], bytes]:
    """Reads one value as one would write it first."""
    key = AESGCM.generate_key(256)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE secret (name TEXT PRIMARY KEY, nonce BLOB, value BLOB) WITHOUT ROWID")
    db.execute("BEGIN")
    for name in names:
        nonce = os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, os.urandom(80), None)
        db.execute("INSERT INTO secret VALUES (?, ?, ?)", (name, nonce, sealed))
    db.execute("COMMIT")

    def read() -> bytes:
        nonce, value = db.execute("SELECT nonce, value FROM secret WHERE name = ?", (random.choice(names),)).fetchone()
        return AESGCM(key).decrypt(nonce, value, None)

    return read


async def run() -> list[Figure]:
    settle_memory()  # as the core does when it is ready
    settings = Settings.model_validate({"key_file": "vault.key"})
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DISK, prefix="bench-")))
        journal = await stack.enter_async_context(Journal(home / "journal.db", [GrantsView()]))
        names = [f"secret-{number}" for number in range(SECRETS)]
        async with Turing(home, "lab", journal, settings) as first:
            await first.custody.create()
            values = [Carried(name, 1, time.time(), os.urandom(40).hex().encode()) for name in names]
            await to_thread.run_sync(first._keeper.vault.take_in, values, time.time())
        began = time.perf_counter()
        turing = await stack.enter_async_context(Turing(home, "lab", journal, settings))
        opening = time.perf_counter() - began
        vault = turing._keeper.vault
        read_bare = bare(home / "bare.db", names)
        for number in range(GRANTS):
            place, methods = place_of(f"api{number}.example.org/repos"), frozenset({"GET"})
            await turing.grant(new_id(), names[number], "mad:marco", place, methods, "header:Authorization=Bearer {}")

        async def read() -> float:
            return typical(lambda: vault.read(random.choice(names)).reveal())

        async def read_as_one_would() -> float:
            return typical(read_bare)

        async def credentials() -> float:
            return typical(lambda: turing.credentials(ME, "GET", URL), 60)

        async def used() -> float:
            async def use() -> None:
                (added,) = turing.credentials(ME, "GET", URL)
                await journal.append(added.entry)

            return await awaited(use)

        async def entry() -> float:
            return await awaited(lambda: journal.append(Entry(new_id(), "act", b"{}")))

        async def rotated() -> float:
            return await awaited(lambda: turing.custody.rotate(names[0], Secret(os.urandom(40))), 8)

        found = await in_turns(
            {
                "read": read,
                "bare": read_as_one_would,
                "credentials": credentials,
                "used": used,
                "entry": entry,
                "rotated": rotated,
            }
        )
        began = time.perf_counter()
        await turing.custody.rekey()
        rekeying = time.perf_counter() - began
        began = time.perf_counter()
        with closing(await to_thread.run_sync(Vault.open, home / "vault.db")):
            loading = time.perf_counter() - began
    micro = 1e6
    return [
        Figure("a value read, of 10,000", found["read"] * micro, "µs", "limit", 100, 1),
        Figure("a value read, of 10,000", found["read"] * micro, "µs", "SQLite + AES-GCM", found["bare"] * micro),
        Figure("what a request may use, of 1,000 grants", found["credentials"] * micro, "µs"),
        Figure("a use, durable", found["used"] * micro, "µs", "a bare entry", found["entry"] * micro),
        Figure("a rotation, durable", found["rotated"] * 1e3, "ms"),
        Figure("opening and unlocking 10,000", opening * 1e3, "ms"),
        Figure("opening 10,000, the file alone", loading * 1e3, "ms"),
        Figure("a new master key for 10,000", rekeying * 1e3, "ms"),
    ]
