"""Whose copy of a blob carries what: labels stick to a copy, not to the bytes, which anybody may store again.

Equal bytes are one blob, whoever stores them, so labels of a blob would be everybody's to change: a hostile run that
stores a person's file again would make others shy of it, or pass it off as its own words. So each holder has labels of
its own. A holder is a conversation with all within it ("in:ID"), a named file ("file:NAME"), or somebody who stores
outside of conversations: the operator, a client, a resident.

- Who stores a blob has a copy with what it carries then. What comes in at the door is an untrusted file.
- Who links one in a conversation, or gives it a name, hands its own copy over; who has none hands on what all copies
  carry together.
- A MAD adds nothing to a copy that is there: whatever it says of a blob there it could say as its own words.
- A run hears, with a blob, what the copy of its conversation carries; where there is none, that of the named file.
"""

import json
import sqlite3
from collections.abc import Iterable
from typing import ClassVar

from core.policy.capabilities import Identity
from core.policy.taint import UNKNOWN_BLOB
from core.ports.services import Services
from core.rogers.entry import Entry, Row
from protos.v1.message_pb2 import Message

OUTSIDE = UNKNOWN_BLOB
_NEAR = """
    SELECT holder, label FROM copies
    WHERE digest = ? AND (holder = ? OR holder >= 'file:' AND holder < 'file;')  -- ; is what follows : in ASCII"""


class CopiesView:
    """The labels of each copy. A rebuild drops nothing: a copy outlives the body of the message that handed it over."""

    name = "copies"
    kinds = frozenset({"message", "act", "taint", "file"})
    tables: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS copies (  -- without a label, '': nothing sticks to it
            digest TEXT NOT NULL, holder TEXT NOT NULL, label TEXT NOT NULL,
            PRIMARY KEY (digest, holder, label)) STRICT, WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in what was stored, or handed over."""
        if row.kind == "message":
            said, to = Message.FromString(row.body or b""), _within(row.conversation)
            for digest in {each.digest for each in said.blobs}:
                if _is_outside(row.sender) or not _labels(db, digest, to):
                    _hand_over(db, digest, row.sender, to)
        elif row.kind == "file":
            body = json.loads(row.body or b"{}")
            if body:
                _hand_over(db, body["digest"], row.sender, f"file:{body['name']}")
        elif row.kind == "taint":
            body = json.loads(row.body or b"{}")
            if body.get("subject", "").startswith("sha256:"):
                _add(db, body["subject"], row.sender, body["labels"])
        elif b'"files.put"' in (row.body or b""):
            body = json.loads(row.body or b"{}")
            if body.get("act") == "files.put" and body.get("step") == "outcome" and body.get("digest"):
                holder = _within(row.conversation) if row.conversation else row.sender
                _add(db, body["digest"], holder, body.get("taint", OUTSIDE) or [""])


def _within(conversation: str) -> str:
    return f"in:{conversation.partition('/')[0]}"


def _is_outside(sender: str) -> bool:
    return sender == "operator" or sender.startswith("client:")


def _hand_over(db: sqlite3.Connection, digest: str, sender: str, to: str) -> None:
    _add(db, digest, to, _labels(db, digest, sender) or _labels(db, digest) or OUTSIDE)


def _labels(db: sqlite3.Connection, digest: str, holder: str = "") -> list[str]:
    """What the copy of one holder carries, or what all do; empty where there is none."""
    sql = "SELECT DISTINCT label FROM copies WHERE digest = ?" + (" AND holder = ?" if holder else "")
    return [label for (label,) in db.execute(sql, (digest, holder) if holder else (digest,))]


def _add(db: sqlite3.Connection, digest: str, holder: str, labels: Iterable[str]) -> None:
    db.executemany("INSERT OR IGNORE INTO copies VALUES (?, ?, ?)", [(digest, holder, each) for each in labels])


def brought_in(digest: str, sender: str) -> Entry:
    """What the journal is told when a person stores a blob: from now on there is a copy of theirs."""
    body = json.dumps({"subject": digest, "labels": sorted(OUTSIDE)}).encode()
    return Entry(id=f"taint:{sender}:{digest}", kind="taint", body=body, sender=sender)


async def carried(services: Services, identity: Identity, digest: str) -> frozenset[str]:
    """The labels that come with a blob for who reads it: those of the copy in its conversation, or of the named file.
    A resident, which is in no conversation, hears what all copies carry together."""
    if identity.run:
        within = _within(identity.conversation)
        rows = await services.journal.query(_NEAR, (digest, within))
        own = {label for holder, label in rows if holder == within}
        named = {f"file:{each.removeprefix('files:')}" for each in identity.ports if each.startswith("files:")}
        if labels := own or {label for holder, label in rows if holder in named}:
            return frozenset(labels - {""})
    return await services.taints.of_blob(digest)
