"""One `append`: its entries, checked and hashed at the door, to be committed whole or not at all."""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from core.rogers import chain
from core.rogers.entry import Entry
from protos.errors import Conflict, InvalidArgument

MAX_ENTRY = 1 << 20  # bytes of a body
RANGED = frozenset({"archive", "retention"})  # kinds that name ranges of entries, each a row of a view (`apart`)

Known = tuple[Any, ...]  # sequence, kind, conversation, sender; None where only the sequence is known


class Call:
    """What one caller appends, and what becomes of it.

    Raises:
        InvalidArgument: an entry that cannot be written.
    """

    __slots__ = ("answer", "entries", "future", "prepared", "weight")

    def __init__(self, entries: Sequence[Entry], future: "asyncio.Future[list[int]] | None") -> None:
        self.entries = entries
        self.prepared: list[tuple[bytes, bytes]] = []  # of each entry its header and the digest of its body
        self.weight = len(entries)  # entries, KiB and ranges: what it costs to commit
        self.future = future  # None: nobody waits
        self.answer: list[int] | Exception = []
        for entry in entries:
            body = entry.body
            self.prepared.append((_header(entry), sha256(body).digest()))
            self.weight += len(body) >> 10
            if entry.kind in RANGED:
                self.weight += body.count(b",")


def _header(entry: Entry) -> bytes:
    id, kind, body, conversation, sender, recipient, at = entry
    if not id or not kind:
        raise InvalidArgument("an entry needs an id and a kind")
    if len(body) > MAX_ENTRY:
        raise InvalidArgument(
            f"an entry of {len(body)} bytes; it may have {MAX_ENTRY}", next="what is longer is a blob"
        )
    if not 0 <= at < 1e11:
        raise InvalidArgument(f"{at!r} is no time in seconds since the epoch")
    try:
        return chain.header(kind, id, conversation, sender, recipient)
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"an entry whose words are not Unicode text: {id!r}") from error


def conflict(entries: Sequence[Entry], known: Mapping[str, Known]) -> Conflict | None:
    """Why `entries` cannot be appended beside what is `known` under their ids; None if they can."""
    for entry in entries:
        old = known.get(entry.id)
        if old and old[1] is not None and old[1:] != (entry.kind, entry.conversation, entry.sender):
            return Conflict(
                f"the id {entry.id!r} already belongs to another entry, of another kind, conversation or sender",
                next="give a new thing a new id",
            )
    return None
