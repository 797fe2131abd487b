"""What the journal knows of earlier: asked when something has ended, to say what it was and what led to it.

Everything here is looked up and nothing is kept but a bounded memory of places, so whoever begins again after a restart
finds the same.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from core.rogers.entry import Row
from core.rogers.journal import Journal
from core.rogers.subscription import to_message
from core.rogers.tables import COLUMNS
from core.run import Run, State
from core.runs import Runs
from core.telemetry.traced import Traced
from protos.errors import NotFound
from protos.ids import is_uuid
from protos.v1.message_pb2 import Message

REMEMBERED = 4096  # places of messages
DEPTH = 128  # messages, and runs between them, that can have led to one
BACKLOG = 64  # messages of a resident that are looked through for the one it has in hand

STATES = frozenset(State)

_ROWS = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"


def span_id(kind: str, id: str) -> bytes:
    """The id of the span of a message, a run or an act: always the same one, and never zero."""
    return sha256(f"{kind}\0{id}".encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something belongs: its trace, and the span it is part of; none for what began by itself."""

    trace: bytes
    parent: bytes = b""
    traced: Traced | None = None  # how the request came in, where it did at a door

    @staticmethod
    def root(id: str) -> "Place":
        """Of what nothing led to: its own id is the trace's."""
        return Place(UUID(id).bytes if is_uuid(id) else sha256(id.encode()).digest()[:16])


class Past:
    """The journal, looked up."""

    def __init__(self, journal: Journal, runs: Runs, is_resident: Callable[[str], bool]) -> None:
        self._journal, self._runs, self._is_resident = journal, runs, is_resident
        self._places: OrderedDict[str, Place] = OrderedDict()

    async def row(self, id: str) -> Row | None:
        """An entry by its id; None where there is none, or only its sealed header."""
        rows = await self._journal.query(f"{_ROWS} WHERE j.id = ?", (id,))
        return Row(*rows[0]) if rows else None

    async def fields(self, id: str) -> tuple[float, dict[str, Any]] | None:
        """When an entry was made, and its body, which is JSON."""
        row = await self.row(id)
        return (row.at, json.loads(row.body or b"{}")) if row is not None else None

    async def message(self, id: str) -> Message | None:
        """A message, without its body where retention took that."""
        row = await self.row(id)
        return to_message(row) if row is not None and row.kind == "message" else None

    async def run(self, id: str) -> Run | None:
        """A run."""
        try:
            return await self._runs.get(id)
        except NotFound:
            return None

    async def states(self, run: str) -> list[tuple[str, float]]:
        """The states that a run went through, and when."""
        rows = await self._journal.query(
            "SELECT id, at FROM journal WHERE id >= ? AND id < ? ORDER BY sequence", (f"run:{run}:", f"run:{run};")
        )
        states = [(str(id).removeprefix(f"run:{run}:").partition(":")[0], float(at)) for id, at in rows]
        return [each for each in states if each[0] in STATES]

    async def events(self, run: Run, *, limit: int) -> list[Message]:
        """What a run has told of its steps, oldest first."""
        rows = await self._journal.query(
            f"{_ROWS} WHERE j.kind = 'event' AND j.conversation = ? AND j.sequence > ? AND j.sender = ? AND j.at <= ?"
            " ORDER BY j.sequence LIMIT ?",
            (run.conversation, run.trigger_sequence, run.mad, run.ended, limit),
        )
        return [to_message(Row(*each)) for each in rows]

    async def call(self, attempt: str) -> dict[str, Any] | None:
        """One attempt at a model, as the ledger's table has it."""
        names = ["request", "act", "at", "ended", "principal", "run", "alias", "provider", "model", "number", "first"]
        names += ["outcome", "input", "cached", "output", "reasoning", "usd", "assumed"]
        rows = await self._journal.query(f"SELECT {', '.join(names)} FROM calls WHERE attempt = ?", (attempt,))
        return dict(zip(names, rows[0], strict=True)) if rows else None

    async def place_of_run(self, run: Run) -> Place:
        """Where a run belongs: below the message that it is for."""
        return Place((await self.place_of_message(run.trigger)).trace, span_id("message", run.trigger))

    async def place_of_act(self, principal: str, request: str, before: int) -> Place | None:
        """Where an act of `principal` belongs: below its run, or the message that a resident has in hand; None where
        nothing led to it. `request` is what it was asked under, if that is a message."""
        if (run := await self.run(principal)) is not None:
            return Place((await self.place_of_run(run)).trace, span_id("run", run.id))
        if request and await self.message(request) is not None:
            return Place((await self.place_of_message(request)).trace, span_id("message", request))
        if self._is_resident(principal) and (held := await self._in_hand(principal, before)):
            return Place((await self.place_of_message(held)).trace, span_id("message", held))
        return None

    async def place_of_message(self, id: str) -> Place:
        """Where a message belongs: below the run or the message that led to it, the request it came by, or nowhere."""
        way: list[tuple[str, bytes]] = []  # from the message up: each with the span it hangs below
        place: Place | None = None
        while place is None:
            if (known := self._places.get(id)) is not None:
                place = known
                break
            above = await self._above(id) if len(way) < DEPTH else None
            if above is None:
                place = self._places[id] = await self._began(id)
                break
            way.append((id, above[1]))
            id = above[0]
        for below, parent in reversed(way):
            place = self._places[below] = Place(place.trace, parent)
        while len(self._places) > REMEMBERED:
            self._places.popitem(last=False)
        return place

    async def _above(self, id: str) -> tuple[str, bytes] | None:
        """The message that led to one, and the span between: the run's that said it, or that message's own."""
        message = await self.message(id)
        if message is None:
            return None
        if message.run and (run := await self.run(message.run)) is not None:
            return run.trigger, span_id("run", run.id)
        if not self._is_resident(message.sender):  # a person, or a client: nothing they write is above it
            return None
        cause = message.causation
        if not cause or cause == id or await self.message(cause) is None:
            cause = await self._in_hand(message.sender, message.sequence) or ""
        return (cause, span_id("message", cause)) if cause else None

    async def _began(self, id: str) -> Place:
        """The place of a message that nothing in the lab led to."""
        told = await self.fields(f"trace:{id}")
        if told is None:
            return Place.root(id)
        traced = Traced.of(told[1])
        return Place(traced.trace or Place.root(id).trace, span_id("request", id), traced)

    async def _in_hand(self, resident: str, before: int) -> str | None:
        """The message that a resident was handling: it takes one after the other, so the oldest of the last ones that
        had no answer yet."""
        rows = await self._journal.query(
            "SELECT j.id, EXISTS (SELECT 1 FROM journal r WHERE r.id = j.id || '.reply' AND r.sequence < :before)"
            " FROM journal j WHERE j.kind = 'message' AND j.recipient <> '' AND j.recipient = :resident"
            " AND j.sequence < :before AND j.id NOT LIKE '%.reply' ORDER BY j.sequence DESC LIMIT :limit",
            {"before": before, "resident": resident, "limit": BACKLOG},
        )
        held = None
        for id, is_answered in rows:
            if is_answered:
                break
            held = str(id)
        return held
