"""Which policy held when: each that differs from the last is an entry of the journal, with its whole text."""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from core.policy.policy import Policy
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal


@dataclass(frozen=True)
class Version:
    """A policy as it was loaded."""

    version: int  # from 1
    digest: str
    at: float  # seconds since the epoch


class PolicyView:
    """One row a version. A policy that comes back is a version of its own."""

    name = "policies"
    kinds = frozenset({"policy"})
    tables = ("policies",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS policies (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, at REAL NOT NULL);
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Adds a version."""
        body = json.loads(row.body or b"{}")
        db.execute("INSERT INTO policies VALUES (?, ?, ?)", (body["version"], body["digest"], row.at))


async def record(journal: Journal, policy: Policy) -> Version:
    """The version of `policy`, journalled now if it is not the one that held last.

    Raises:
        Unavailable: the journal is sealed.
    """
    last = await versions(journal, limit=1)
    if last and last[0].digest == policy.digest:
        return last[0]
    version = Version(last[0].version + 1 if last else 1, policy.digest, time.time())
    body = {
        "version": version.version,
        "digest": version.digest,
        "files": [{"name": each.name, "text": each.text} for each in policy.files],
    }
    entry = Entry(
        id=f"policy:{version.version}",
        kind="policy",
        body=json.dumps(body, ensure_ascii=False).encode(),
        sender="operator",
        at=version.at,
    )
    await journal.append(entry)
    return version


async def versions(journal: Journal, *, limit: int = 20) -> Sequence[Version]:
    """The newest first."""
    rows = await journal.query("SELECT version, digest, at FROM policies ORDER BY version DESC LIMIT ?", (limit,))
    return [Version(*each) for each in rows]
