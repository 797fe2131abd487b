"""Taint: where what a caller says may come from, kept for as long as it may say it.

A label is never taken off. It sticks
- to a *run* until it ends: what it was told, read or fetched once may be in anything it says later;
- to each holder's copy of a *blob* for ever: what its maker carried when it was stored (`core/ports/copies.py`);
- to a *resident* while it handles a message: the message's labels, and what it reads for it. Where it handles several
  at once each has its own (`Identity.hand`), and what is added to the resident as a whole marks them all.

A label that a run gains is an entry of the journal before the run is given what it came with, so a later core knows it.
A copy of a blob has its labels from the act that stored it. A blob that nobody is known to have stored came from
outside: it counts as an untrusted file.

All travel with messages, too. "worker", "file" and "web" say whom not to believe. "private" says what not to tell the
world: a run gains it with an answer that a secret has opened, and so does whoever hears what that run says.
"""

import json
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import ClassVar

from core.policy.capabilities import Identity
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.v1.message_pb2 import TAINT_FILE, TAINT_PRIVATE, TAINT_WEB, TAINT_WORKER, Message, Taint

NAMES: dict[Taint.ValueType, str] = {
    TAINT_WORKER: "worker",
    TAINT_FILE: "file",
    TAINT_WEB: "web",
    TAINT_PRIVATE: "private",
}
VALUES = {name: value for value, name in NAMES.items()}
UNKNOWN_BLOB = frozenset({"file"})
Hand = tuple[str, int]  # a resident, and which of its messages; 0: all of them
RUNS = 4096  # whose labels are in memory; of others they are read when they are needed


class TaintView:
    """Which labels stick to a run ("run:ID") or to a blob ("sha256:...")."""

    name = "taint"
    kinds = frozenset({"taint", "act"})
    tables = ("taint",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS taint (
            subject TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (subject, label)) WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in what a run has gained, or with what a blob was stored."""
        if row.kind == "act" and b'"files.put"' not in (row.body or b""):
            return
        body = json.loads(row.body or b"{}")
        if row.kind == "act":
            stored = body.get("act") == "files.put" and body.get("step") == "outcome" and "taint" in body
            # An empty label: stored by one of our own from nothing tainted, so known and clean.
            subject, labels = (body.get("digest", ""), body["taint"] or [""]) if stored else ("", [])
        else:
            subject, labels = body["subject"], body["labels"]
        db.executemany("INSERT OR IGNORE INTO taint VALUES (?, ?)", [(subject, each) for each in labels])


class Taints:
    """The labels of everybody who is at work."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._runs: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._residents: dict[Hand, frozenset[str]] = {}
        self._heard: dict[str | Hand, Counter[str]] = {}  # how often each was given something of a label

    async def of(self, identity: Identity) -> frozenset[str]:
        """What `identity` carries now."""
        if not identity.run:
            return frozenset().union(*(self._residents.get(each, ()) for each in _hands(identity)))
        known = self._runs.get(identity.run)
        if known is None:
            known = await self._stored(f"run:{identity.run}") | _own(identity)
            known |= self._runs.get(identity.run, frozenset())
            self._runs[identity.run] = known
            if len(self._runs) > RUNS:
                self._heard.pop(self._runs.popitem(last=False)[0], None)
        else:
            self._runs.move_to_end(identity.run)
        return known

    def fresh(self, identity: Identity) -> None:
        """A run that nobody has worked on before: there is nothing to look up."""
        self._runs.setdefault(identity.run, _own(identity))

    async def add(self, identity: Identity, labels: Iterable[str]) -> None:
        """From now on `identity` carries `labels` too; durable before this returns."""
        labels = frozenset(labels)
        self._heard.setdefault(identity.run or _hand(identity), Counter()).update(labels)
        if not identity.run:
            if labels:
                self._residents[_hand(identity)] = self._residents.get(_hand(identity), frozenset()) | labels
            return
        known = await self.of(identity)
        gained = labels - known
        if not gained:
            return
        self._runs[identity.run] = known | gained
        await self._journal.append(_gained(identity, gained))

    def heard(self, identity: Identity) -> dict[str, int]:
        """How often `identity` was given something of each label: it grows also where the label was there already."""
        if identity.run:
            return dict(self._heard.get(identity.run, ()))
        return dict(sum((self._heard.get(each, Counter()) for each in _hands(identity)), Counter[str]()))

    def put_down(self, identity: Identity) -> None:
        """A resident has nothing in hand: what it says next comes from nobody. What a run has heard it keeps."""
        if not identity.run:
            self._residents.pop(_hand(identity), None)
        if identity.hand:
            self._heard.pop(_hand(identity), None)

    async def of_blob(self, digest: str) -> frozenset[str]:
        """What a blob carries."""
        return await self._stored(digest, UNKNOWN_BLOB)

    async def _stored(self, subject: str, unknown: frozenset[str] = frozenset()) -> frozenset[str]:
        rows = await self._journal.query("SELECT label FROM taint WHERE subject = ?", (subject,))
        return frozenset(row[0] for row in rows if row[0]) if rows else unknown


def labels_of(message: Message) -> frozenset[str]:
    """The labels that a message carries."""
    return frozenset(NAMES[each] for each in message.taint if each in NAMES)


def marked(message: Message, labels: Iterable[str]) -> None:
    """Adds labels to a message; what its sender wrote there is kept as far as there are such labels."""
    values = {VALUES[each] for each in labels if each in VALUES}
    if values or message.taint:
        message.taint[:] = sorted(values.union(each for each in message.taint if each in NAMES))


def _hand(identity: Identity) -> Hand:
    return identity.participant, identity.hand


def _hands(identity: Identity) -> set[Hand]:
    """Where the labels are that stick to a resident: its own as a whole, and those of the message it acts for."""
    return {(identity.participant, 0), _hand(identity)}


def _own(identity: Identity) -> frozenset[str]:
    """What everything carries that a run says, whatever it has read."""
    return frozenset() if identity.core else frozenset({"worker"})


def _gained(identity: Identity, labels: Iterable[str]) -> Entry:
    gained = sorted(labels)
    return Entry(
        id=f"taint:{identity.run}:{'+'.join(gained)}",
        kind="taint",
        body=json.dumps({"subject": f"run:{identity.run}", "labels": gained}).encode(),
        conversation=identity.conversation,
        sender="core",
        at=time.time(),
    )
