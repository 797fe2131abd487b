"""Which conversation knows which blob: what a run may read, and what upkeep may forget."""

import json
import sqlite3
from typing import ClassVar

from core.policy.capabilities import Identity
from core.ports.services import Services
from core.rogers.entry import Row
from core.rogers.journal import Journal
from protos.errors import NotFound
from protos.v1.message_pb2 import Message


class LinksView:
    """Which conversation knows which blob, and since when last: linked by a message there, or stored by a run there.

    A rebuild drops nothing: a link outlives the body of the message that made it, and what nothing links is swept.
    """

    name = "links"
    kinds = frozenset({"message", "act", "retention"})
    tables: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS links (
            conversation TEXT, digest TEXT, at REAL, PRIMARY KEY (conversation, digest)) WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Adds what the entry links."""
        if row.kind == "retention":
            self._forget(db, row)
            return
        if row.kind == "message":
            digests = [each.digest for each in Message.FromString(row.body or b"").blobs]
        else:
            act = json.loads(row.body or b"{}")
            digests = [act["digest"]] if act.get("act") == "files.put" and act.get("digest") else []
        for each in digests:
            db.execute(
                "INSERT INTO links VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                (row.conversation, each, row.at),
            )

    def _forget(self, db: sqlite3.Connection, row: Row) -> None:
        """A conversation that was forgotten knows nothing any more of what was linked there until then."""
        if gone := json.loads(row.body or b"{}").get("conversation"):
            within = (gone, f"{gone}/", f"{gone}0", row.at)  # 0 is what follows / in ASCII
            db.execute(
                "DELETE FROM links WHERE (conversation = ? OR (conversation > ? AND conversation < ?)) AND at <= ?",
                within,
            )


async def linked_since(journal: Journal, moment: float) -> set[str]:
    """The digests that something linked after `moment`, in seconds since the epoch."""
    return {str(row[0]) for row in await journal.query("SELECT DISTINCT digest FROM links WHERE at >= ?", (moment,))}


async def may_read(services: Services, identity: Identity, digest: str) -> None:
    """
    Raises:
        NotFound: there is no such blob, or none the caller may read: the two look the same.
    """
    if not identity.run:
        return
    known = await services.journal.query(
        "SELECT 1 FROM links WHERE conversation = ? AND digest = ?", (identity.conversation, digest)
    )
    if not known and identity.core:
        within = (f"{identity.conversation}/", f"{identity.conversation}0", digest)  # 0 is what follows / in ASCII
        known = await services.journal.query(
            "SELECT 1 FROM links WHERE conversation > ? AND conversation < ? AND digest = ? LIMIT 1", within
        )
    if not known and not await _is_named(services, identity, digest):
        raise NotFound("There is no such blob, or none that this run may read.")


async def _is_named(services: Services, identity: Identity, digest: str) -> bool:
    for port in identity.ports:
        family, _, name = port.partition(":")
        if family == "files" and name:
            try:
                if (await services.horace.find(name)).digest == digest:
                    return True
            except NotFound:
                continue
    return False
