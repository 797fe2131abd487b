"""What the journal holds, and how a view follows it."""

import sqlite3
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """Something that happened. `id` is unique for ever: appending it twice is appending it once."""

    id: str
    kind: str  # "message", "act", "run", "member", "file"
    body: bytes = b""  # a serialized Message for "message", JSON for the rest
    conversation: str = ""
    sender: str = ""  # the participant or principal who did it
    recipient: str = ""
    at: float = 0.0  # seconds since the epoch; 0: now


@dataclass(frozen=True)
class Row:
    """An entry with its place in the journal. `body` is None when retention removed it."""

    sequence: int
    id: str
    kind: str
    body: bytes | None
    conversation: str
    sender: str
    recipient: str
    at: float


class View(Protocol):
    """Tables that follow from the journal alone: kept in the same transaction, dropped and rebuilt at will."""

    name: str
    kinds: frozenset[str]  # the entries it wants to see
    tables: tuple[str, ...]  # what a rebuild drops
    schema: str  # CREATE statements, each IF NOT EXISTS

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes one entry in, on the writer's thread, inside the entry's transaction. Touches its own tables only."""
        ...
