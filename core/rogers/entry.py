"""What the journal holds, and how a view follows it."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """Something that happened. `id` is unique for ever: appending it twice is appending it once."""

    id: str
    # "message", "event", "act", "run", "member", "dead", "file", "budget", "answer", "retention", "archive", "policy",
    # "approval", "taint", "grant", "secret", "incident", "token", "dismissal", "usage", "trace"
    kind: str
    body: bytes = b""  # serialized protobuf for "message", "event" and "answer", JSON for the rest
    conversation: str = ""
    sender: str = ""  # the participant or principal who did it
    recipient: str = ""
    at: float = 0.0  # seconds since the epoch; 0: now


class Row(NamedTuple):
    """An entry with its place in the journal. `body` is None when retention removed it."""

    sequence: int
    id: str
    kind: str
    body: bytes | None
    conversation: str
    sender: str
    recipient: str
    at: float


# Rows as a connection to the journal read them; those whose bodies are in archives with them.
Filled = Callable[[sqlite3.Connection, Sequence[Row]], list[Row]]


class View(Protocol):
    """Tables that follow from the journal: kept in the same transaction, dropped and rebuilt at will.

    A view whose `schema` or `kinds` changed is rebuilt when the journal opens: changing it needs no migration.
    """

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> frozenset[str]:
        """The entries it wants to see."""
        ...

    @property
    def tables(self) -> tuple[str, ...]:
        """What a rebuild drops; nothing where rows outlive the bodies that they were made of."""
        ...

    @property
    def schema(self) -> str:
        """CREATE statements, each IF NOT EXISTS."""
        ...

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes one entry in, on the writer's thread, inside the entry's transaction. Touches its own tables only.

        Raising refuses the entry: whoever appended it gets the exception, and nothing of it stays.
        """
        ...
