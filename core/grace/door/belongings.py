"""What is whose: the conversations that a client has spoken in, with all within them, and the blobs that it stored.

A client speaks in conversations of its own only (`callers.may_speak_in`), so one that it has spoken in is one that it
began. Runs are in conversations: whoever sees the one sees the other, with the runs that work for it.
"""

import json
import sqlite3
from typing import ClassVar

from core.rogers.entry import Row
from core.rogers.journal import Journal

# Of a column with a conversation: whether it is the owner's, or within one that is. `?` is the owner.
WITHIN = """
    (CASE instr({0}, '/') WHEN 0 THEN {0} ELSE substr({0}, 1, instr({0}, '/') - 1) END
     IN (SELECT conversation FROM belongings WHERE owner = ?))"""
_LINKED = """
    SELECT 1 FROM owned_blobs WHERE owner = ?1 AND digest = ?2
    UNION ALL
    SELECT 1 FROM belongings b WHERE b.owner = ?1 AND (
        EXISTS (SELECT 1 FROM links l WHERE l.conversation = b.conversation AND l.digest = ?2)
        OR EXISTS (SELECT 1 FROM links l WHERE l.conversation > b.conversation || '/'
            AND l.conversation < b.conversation || '0' AND l.digest = ?2))  -- 0 is what follows / in ASCII
    LIMIT 1"""

_HAS = """
    SELECT digest FROM owned_blobs WHERE owner = ?1
    UNION SELECT l.digest FROM belongings b JOIN links l ON l.conversation = b.conversation WHERE b.owner = ?1
    UNION SELECT l.digest FROM belongings b JOIN links l
        ON l.conversation > b.conversation || '/' AND l.conversation < b.conversation || '0' WHERE b.owner = ?1"""


class BelongingsView:
    """What each client has."""

    name = "belongings"
    kinds = frozenset({"message", "act"})
    tables = ("belongings", "owned_blobs")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS belongings (
            owner TEXT NOT NULL, conversation TEXT NOT NULL, PRIMARY KEY (owner, conversation)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS owned_blobs (
            owner TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (owner, digest)) STRICT, WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Adds where a client spoke, and what it stored."""
        if not row.sender.startswith("client:"):
            return
        if row.kind == "message":
            root = row.conversation.partition("/")[0]
            db.execute("INSERT OR IGNORE INTO belongings VALUES (?, ?)", (row.sender, root))
            return
        act = json.loads(row.body or b"{}")
        if act.get("act") == "files.put" and act.get("digest"):
            db.execute("INSERT OR IGNORE INTO owned_blobs VALUES (?, ?)", (row.sender, act["digest"]))


async def owns_conversation(journal: Journal, owner: str, conversation: str) -> bool:
    """Whether a conversation, or the one that it is within, is a client's."""
    sql = "SELECT 1 FROM belongings WHERE owner = ? AND conversation = ?"
    return bool(await journal.query(sql, (owner, conversation.partition("/")[0])))


async def owns_blob(journal: Journal, owner: str, digest: str) -> bool:
    """Whether a client stored a blob, or it is linked in one of its conversations."""
    return bool(await journal.query(_LINKED, (owner, digest)))


async def blobs_of(journal: Journal, owner: str) -> list[str]:
    """The digests of what a client stored, and of what is linked in its conversations; some may be gone by now."""
    return [digest for (digest,) in await journal.query(_HAS, (owner,))]
