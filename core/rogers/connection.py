"""Connections to the journal's file, each with a thread of its own that takes whole functions."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import anyio.to_thread


class Connection(aiosqlite.Connection):
    """A connection whose thread takes whole functions: a transaction is one hop there and one back."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)

    async def open(self) -> None:
        try:
            await self
        except BaseException:
            # aiosqlite tells its thread to stop and does not wait; a thread that outlives the loop would crash.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)
            raise

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Runs `work`, which must not raise, on the thread and then `done`, with its result, in the loop."""
        loop = asyncio.get_running_loop()
        self._tx.put_nowait((None, lambda: loop.call_soon_threadsafe(done, work())))

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._execute(lambda: work(self._conn))  # type: ignore[no-untyped-call]


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can only read, and never checkpoints."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA cache_size = -4000")
    return db
