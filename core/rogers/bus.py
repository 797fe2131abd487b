"""Rogers, the conversation bus: a message is journalled, then whoever subscribes gets it.

Who gets a message
  One with a recipient goes to that participant; one without goes to everybody who has joined the conversation, but its
  sender. A participant listens by an inbox, for one conversation or for all of them; a run of an eMAD is the
  participant named like its MAD within its conversation. Followers (the faces, the dispatcher) see everything, or
  everything of one conversation, whoever it is for.

What holds
  - *Durable first.* `publish` returns after the commit, and nobody is given a message before it. Events (progress,
    logs, metrics) are the exception: given at once, durable with the next commit, bounded in rate, counted if dropped.
  - *In order, once.* A subscriber gets what is meant for it in the journal's order, the past first, without a gap or a
    duplicate; after a restart again what it had not acknowledged. `subscription` says how.
  - *Nobody waits for a reader.* Queues are bounded; who is slow reads the journal.
  - *The sender is the core's word.* Whatever a message says of its sender, sequence and time is replaced.
  - *No sharing.* What is published is serialized at the door, and each subscriber parses a message of its own.

What is in memory is only what the journal says: members are loaded from a view and follow each commit.
"""

import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Self

from anyio import Event

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.rogers.subscription import Subscription, to_message
from core.rogers.tables import COLUMNS
from protos.errors import InvalidArgument
from protos.ids import new_id
from protos.serve import answer_id, answer_to
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_FAULT, KIND_PROSE, Message

MAX_BODY = 16 * 1024  # bytes of text and data
MAX_MESSAGE = 64 * 1024  # bytes of the whole message
MAX_WORD = 255  # characters of an id, a name, a conversation
HISTORY = 1000  # messages at most in one answer
SPANS = 100  # that are looked at by one statement

_ROWS = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
_SAID = "j.kind IN ('message', 'event')"  # as the partial indexes have it
# An inbox wants what can be handled, so it skips what retention emptied; history and followers show that it was there.
_INBOX_ALL = f"""
    SELECT {COLUMNS} FROM journal j JOIN body b USING (sequence)
    WHERE {_SAID} AND j.recipient <> '' AND j.recipient = :participant AND j.sequence > :after
    UNION ALL
    SELECT {COLUMNS} FROM member m JOIN journal j ON j.conversation = m.conversation JOIN body b USING (sequence)
    WHERE m.participant = :participant AND {_SAID} AND j.recipient = '' AND j.sender <> :participant
      AND j.sequence > max(:after, m.since) AND (m.until IS NULL OR j.sequence < m.until)
    ORDER BY 1 LIMIT :limit"""
_INBOX_ONE = f"""
    SELECT {COLUMNS} FROM journal j JOIN body b USING (sequence)
    WHERE {_SAID} AND j.conversation = :conversation AND j.sequence > :after
      AND (j.recipient = :participant OR (j.recipient = '' AND j.sender <> :participant AND EXISTS (
        SELECT 1 FROM member m WHERE m.participant = :participant AND m.conversation = :conversation
          AND j.sequence > m.since AND (m.until IS NULL OR j.sequence < m.until))))
    ORDER BY j.sequence LIMIT :limit"""
_FOLLOW_ALL = f"{_ROWS} WHERE {_SAID} AND j.sequence > :after ORDER BY j.sequence LIMIT :limit"
_FOLLOW_MESSAGES = f"{_ROWS} WHERE j.kind = 'message' AND j.sequence > :after ORDER BY j.sequence LIMIT :limit"
_NEWEST = "SELECT sequence FROM journal WHERE kind = 'message' ORDER BY sequence DESC LIMIT 1"
_FOLLOW_ONE = (
    f"{_ROWS} WHERE {_SAID} AND j.conversation = :conversation AND j.sequence > :after ORDER BY j.sequence LIMIT :limit"
)
_BEFORE_ONE = (
    f"{_ROWS} WHERE {_SAID} AND j.conversation = :conversation AND j.sequence < :before"
    " ORDER BY j.sequence DESC LIMIT :limit"
)
_INNER = f"""
    WITH RECURSIVE names (name) AS (
        SELECT min(j.conversation) FROM journal j WHERE {_SAID} AND j.conversation > :start AND j.conversation < :end
        UNION ALL
        SELECT (SELECT min(j.conversation) FROM journal j
            WHERE {_SAID} AND j.conversation > names.name AND j.conversation < :end)
        FROM names WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL"""
# Hops from one conversation's index entries to the next's: as many steps as there are conversations, not messages.
_CONVERSATIONS = f"""
    WITH RECURSIVE names (name) AS (
        SELECT max(j.conversation) FROM journal j WHERE {_SAID}
        UNION ALL
        SELECT (SELECT max(j.conversation) FROM journal j WHERE {_SAID} AND j.conversation < names.name)
        FROM names WHERE names.name IS NOT NULL
    ), ends (name, first, last) AS (
        SELECT name, (SELECT min(j.sequence) FROM journal j WHERE {_SAID} AND j.conversation = name),
            (SELECT max(j.sequence) FROM journal j WHERE {_SAID} AND j.conversation = name)
        FROM names WHERE name IS NOT NULL
    )
    SELECT name, first, last,
        (SELECT at FROM journal WHERE sequence = first), (SELECT at FROM journal WHERE sequence = last)
    FROM ends WHERE last < :before ORDER BY last DESC LIMIT :limit"""


@dataclass(frozen=True)
class Limits:
    """What one sender may do to the bus."""

    hops: int = 32  # messages that led to a message
    queue: int = 1024  # rows that wait in memory for one subscriber
    events_per_s: float = 10_000
    event_bytes_per_s: float = 16 << 20


@dataclass(frozen=True)
class Span:
    """What was said in a conversation from one sequence to another, both included."""

    conversation: str
    first: int = 1
    last: int = 1 << 62


@dataclass(frozen=True)
class Conversation:
    """A conversation, told by its first and its last message."""

    id: str
    first: int  # sequence
    last: int
    started: float  # seconds since the epoch
    updated: float


@dataclass(frozen=True)
class DeadLetter:
    """A message that nobody can ever receive."""

    sequence: int  # of the verdict
    message: int  # sequence of the message
    id: str  # of the message
    conversation: str
    sender: str
    recipient: str
    reason: str
    at: float  # seconds since the epoch


@dataclass
class _Allowance:
    """A token bucket of one second: what one sender may still report."""

    events: float
    bytes: float
    at: float


class Rogers:
    """The bus over one journal, whose views must include `core.rogers.views.VIEWS`. Enter it to open it."""

    def __init__(self, journal: Journal, limits: Limits = Limits()) -> None:
        self.dropped = 0  # events over the rate or size, or that the journal could not take
        self.filled: Callable[[Sequence[Row]], Awaitable[list[Row]]] | None = None  # finds bodies that are archived
        self._journal = journal
        self._limits = limits
        self._members: dict[str, set[str]] = {}
        self._inboxes: dict[tuple[str, str], Subscription] = {}
        self._followers: set[Subscription] = set()
        self._message_followers: set[Subscription] = set()
        self._followers_of: dict[str, set[Subscription]] = {}
        self._awaited: dict[str, set[Event]] = {}  # answers that somebody waits for, by id
        self.newest = 0  # sequence of the newest message
        self._delivered = 0  # last sequence given to whoever is live
        self._numbers = 0  # events reported
        self._uncommitted: dict[str, int] = {}  # of them, by id, oldest first
        self._allowances: dict[str, _Allowance] = {}

    async def __aenter__(self) -> Self:
        sql = "SELECT conversation, participant FROM member WHERE until IS NULL"
        for conversation, participant in await self._journal.query(sql):
            self._members.setdefault(conversation, set()).add(participant)
        self.newest = sum(chain.from_iterable(await self._journal.query(_NEWEST)))
        self._delivered = self._journal.statistics().entries
        self._journal.on_commit(self._deliver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_all()

    # --- speaking

    async def publish(self, message: Message, *, sender: str, also: Sequence[Entry] = ()) -> int:
        """Makes `message` durable, delivers it and returns its sequence. The same id again: the same sequence.

        `also` are entries that become durable with it, or not at all.

        Raises:
            InvalidArgument: over 16 KiB of text and data, no id or conversation, an unknown kind, too many hops.
            Conflict: the id belongs to somebody else's message.
            Unavailable: the journal is sealed.
        """
        sequence, *_ = await self._journal.append(self._entry(message, sender), *also)
        return sequence

    async def report(self, events: Iterable[Message], *, sender: str) -> int:
        """Delivers events at once, with sequence 0; they become durable with the next commit.

        Returns how many were accepted; the rest were over the rate or size and are counted in `dropped`.

        Raises:
            InvalidArgument: what is reported is no event, or has no id or conversation.
        """
        entries = [self._journal.clean(self._entry(event, sender, event=True)) for event in events]
        accepted = 0
        for entry in entries:
            if entry.id in self._uncommitted:
                accepted += 1  # said twice, said once
            elif self._allows(sender, len(entry.body)) and self._journal.append_soon(entry):
                accepted += 1
                self._numbers += 1
                self._uncommitted[entry.id] = self._numbers
                row = Row(0, entry.id, entry.kind, entry.body, entry.conversation, sender, entry.recipient, entry.at)
                self._offer(row, self._delivered, self._numbers)
            else:
                self.dropped += 1
        return accepted

    async def join(self, participant: str, conversation: str) -> None:
        """From now on `participant` gets what is said in `conversation` to nobody in particular."""
        if participant not in self._members.get(conversation, ()):
            await self._journal.append(_member("join", participant, conversation))

    async def leave(self, participant: str, conversation: str) -> None:
        """Ends what `join` began; what was said until now is still delivered."""
        if participant in self._members.get(conversation, ()):
            await self._journal.append(_member("leave", participant, conversation))

    async def dead_letter(self, message: Message, reason: str) -> None:
        """Records that nobody can ever receive `message`; twice is once."""
        body = json.dumps({"message": message.sequence, "id": message.id, "reason": reason}).encode()
        await self._journal.append(
            Entry(f"{message.id}.dead", "dead", body, message.conversation, message.sender, message.recipient)
        )

    async def fault(self, question: Message, code: str, sentence: str, *, next: str = "") -> None:
        """The core's own answer to `question`, where nobody else can give one."""
        data = json.dumps({"code": code, "message": sentence, "next": next})
        fault = answer_to(question, KIND_FAULT, data=data, text=sentence)
        await self.publish(fault, sender="core")

    # --- listening

    @asynccontextmanager
    async def open_inbox(self, participant: str, conversation: str | None = None) -> AsyncIterator[Subscription]:
        """Opens the inbox of `participant`, in one conversation or in all, from its durable cursor.

        There is one such inbox at a time: opening it ends the one that was open.
        """
        where = conversation or ""
        after = await self._journal.cursor(participant, where)
        inbox = self._subscribe(
            _INBOX_ONE if where else _INBOX_ALL,
            {"participant": participant, "conversation": where},
            after,
            cursor=(participant, where),
        )
        self.end_inbox(participant, conversation)
        self._inboxes[participant, where] = inbox
        try:
            yield inbox
        finally:
            inbox.end()
            if self._inboxes.get((participant, where)) is inbox:
                del self._inboxes[participant, where]

    @asynccontextmanager
    async def follow(self, *, conversation: str | None = None, after: int | None = 0) -> AsyncIterator[Subscription]:
        """Everything that is said, or everything in one conversation: what is past `after` first, then live.

        `after` None begins with what comes from now on.
        """
        if after is None:
            after = self._delivered
        query = _FOLLOW_ALL if conversation is None else _FOLLOW_ONE
        follower = self._subscribe(query, {"conversation": conversation}, after)
        group = self._followers if conversation is None else self._followers_of.setdefault(conversation, set())
        group.add(follower)
        try:
            yield follower
        finally:
            follower.end()
            group.discard(follower)
            if conversation is not None and not group and self._followers_of.get(conversation) is group:
                del self._followers_of[conversation]

    @asynccontextmanager
    async def follow_messages(self, *, after: int = 0) -> AsyncIterator[Subscription]:
        """Like `follow` of everything, without the events: for who must not be woken by every line of a log."""
        follower = self._subscribe(_FOLLOW_MESSAGES, {}, after)
        self._message_followers.add(follower)
        try:
            yield follower
        finally:
            follower.end()
            self._message_followers.discard(follower)

    def end_inbox(self, participant: str, conversation: str | None = None) -> None:
        """Ends an inbox from this side: whoever iterates it returns."""
        inbox = self._inboxes.pop((participant, conversation or ""), None)
        if inbox is not None:
            inbox.end()

    def end_all(self) -> None:
        """Ends every subscription: everybody who listens returns."""
        of_one = (follower for group in self._followers_of.values() for follower in group)
        for each in (*self._inboxes.values(), *self._followers, *self._message_followers, *of_one):
            each.end()

    # --- looking up

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        """Messages of one conversation past sequence `after`, oldest first; at most 1,000."""
        given = {"conversation": conversation, "after": after, "limit": min(limit, HISTORY)}
        return await self._messages(await self._journal.query(_FOLLOW_ONE, given))

    async def within(
        self, spans: Sequence[Span], *, after: int = 0, upto: int = 1 << 62, limit: int = 100, events: bool = True
    ) -> list[Message]:
        """What was said in any of `spans` past `after` and up to `upto`, in the journal's order; at most 1,000.

        It costs what it returns, however long the spans are. Without `events` there are no logs and no progress.
        """
        kind = _SAID if events else "j.kind = 'message'"
        one = (
            f"SELECT * FROM (SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
            f" WHERE {kind} AND j.conversation = ? AND j.sequence >= ? AND j.sequence <= ?"
            " ORDER BY j.sequence LIMIT ?)"
        )
        limit, rows = min(limit, HISTORY), list[tuple[Any, ...]]()
        for at in range(0, len(spans), SPANS):
            some = spans[at : at + SPANS]
            bounds = [(each.conversation, max(each.first, after + 1), min(each.last, upto), limit) for each in some]
            sql = f"{' UNION ALL '.join([one] * len(some))} ORDER BY 1 LIMIT {limit}"
            rows += await self._journal.query(sql, [value for each in bounds for value in each])
        return await self._messages(sorted(rows, key=lambda row: int(row[0]))[:limit])

    async def history_before(self, conversation: str, before: int, *, limit: int = 100) -> Sequence[Message]:
        """The last messages of one conversation before sequence `before`, oldest first; at most 1,000."""
        given = {"conversation": conversation, "before": before, "limit": min(limit, HISTORY)}
        rows = await self._journal.query(_BEFORE_ONE, given)
        return await self._messages(rows[::-1])

    async def inner(self, conversation: str) -> list[str]:
        """The conversations within one: `ID/1`, `ID/1/2`; by as many steps as there are, not messages."""
        given = {"start": f"{conversation}/", "end": f"{conversation}0"}  # "0" comes right after "/"
        return [str(name) for (name,) in await self._journal.query(_INNER, given)]

    async def find(self, id: str) -> Message | None:
        """The message of that id, None if it was never said or is sealed away."""
        rows = await self._journal.query(f"{_ROWS} WHERE j.id = ? AND {_SAID}", (id,))
        return (await self._messages(rows))[0] if rows else None

    async def answer_to(self, question: str) -> Message:
        """Waits for the one answer to the message of that id, which may have been given long ago."""
        id = answer_id(Message(id=question))
        given = Event()
        waiting = self._awaited.setdefault(id, set())
        waiting.add(given)
        try:
            while (answer := await self.find(id)) is None:
                await given.wait()
            return answer
        finally:
            waiting.discard(given)
            if not waiting:
                self._awaited.pop(id, None)

    async def conversations(self, *, limit: int = 100, before: int | None = None) -> Sequence[Conversation]:
        """Conversations, the last spoken in first; `before` is the `last` of the one to go on behind."""
        given = {"limit": limit, "before": 1 << 62 if before is None else before}
        return [Conversation(*values) for values in await self._journal.query(_CONVERSATIONS, given)]

    def members(self, conversation: str) -> frozenset[str]:
        """Who has joined."""
        return frozenset(self._members.get(conversation, ()))

    async def dead_letters(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Messages that nobody can ever receive, the newest first."""
        sql = (
            "SELECT sequence, message, id, conversation, sender, recipient, reason, at FROM dead_letter"
            " ORDER BY sequence DESC LIMIT ?"
        )
        rows = await self._journal.query(sql, (limit,))
        return [DeadLetter(*values) for values in rows]

    # --- within

    async def _messages(self, found: Sequence[tuple[Any, ...]]) -> list[Message]:
        return [to_message(row) for row in await self._rows(found)]

    async def _rows(self, found: Sequence[tuple[Any, ...]]) -> list[Row]:
        """What was looked up; bodies that are archived, from there."""
        rows = [Row(*values) for values in found]
        if self.filled is None or all(row.body is not None for row in rows):
            return rows
        return await self.filled(rows)

    def _entry(self, message: Message, sender: str, *, event: bool = False) -> Entry:
        """Checks a message at the door and makes it the core's own."""
        own = Message()
        own.CopyFrom(message)
        own.sender = sender
        own.ClearField("sequence")
        own.hops = min(own.hops, self._limits.hops + 1)
        own.at = time.time()
        body = own.SerializeToString()
        if len(body) > MAX_BODY:
            _check_size(own, len(body))
        if not math.isfinite(own.deadline):
            raise InvalidArgument("a deadline is a number of seconds", next="leave it out where there is none")
        if not own.id or not own.conversation:
            raise InvalidArgument("a message needs an id and a conversation")
        if max(len(own.id), len(own.conversation), len(own.recipient), len(sender), len(own.tool)) > MAX_WORD:
            raise InvalidArgument(f"an id, a conversation, a participant and a tool have at most {MAX_WORD} characters")
        if not KIND_PROSE <= own.kind <= KIND_FAULT:
            raise InvalidArgument(f"a message is prose, a call, a reply, an event or a fault; not {own.kind}")
        if event and own.kind != KIND_EVENT:
            raise InvalidArgument("only events are reported", next="publish what must be durable")
        # Only what asks for something can go round for ever; an answer or an event may be one hop more than that.
        if own.hops > self._limits.hops and own.kind in (KIND_PROSE, KIND_CALL):
            raise InvalidArgument(
                f"{message.hops} messages led to this one, {self._limits.hops} may", next="stop answering answers"
            )
        kind = "event" if own.kind == KIND_EVENT else "message"
        return Entry(own.id, kind, body, own.conversation, sender, own.recipient, own.at)

    def _allows(self, sender: str, size: int) -> bool:
        limits, now = self._limits, time.monotonic()
        have = self._allowances.get(sender)
        if have is None:
            if len(self._allowances) > 4096:  # of senders long gone; a fresh second is all that anybody gains
                self._allowances.clear()
            have = self._allowances[sender] = _Allowance(limits.events_per_s, limits.event_bytes_per_s, now)
        passed, have.at = now - have.at, now
        have.events = min(limits.events_per_s, have.events + passed * limits.events_per_s)
        have.bytes = min(limits.event_bytes_per_s, have.bytes + passed * limits.event_bytes_per_s)
        if have.events < 1 or have.bytes < size:
            return False
        have.events -= 1
        have.bytes -= size
        return True

    def _subscribe(
        self, sql: str, parameters: dict[str, Any], after: int, *, cursor: tuple[str, str] | None = None
    ) -> Subscription:
        async def read(after: int, limit: int) -> list[Row]:
            given = parameters | {"after": after, "limit": limit}
            return await self._rows(await self._journal.query(sql, given))

        def keep(sequence: int) -> None:
            if cursor is not None:
                self._journal.keep_cursor(*cursor, min(sequence, self._delivered))

        return Subscription(
            read,
            after=after,
            queue=self._limits.queue,
            keep=keep,
            uncommitted=self._uncommitted,
            next_number=lambda: self._numbers + 1,
        )

    def _deliver(self, rows: Sequence[Row]) -> None:
        """Right after a commit: gives each row to whoever is live."""
        uncommitted, committed = self._uncommitted, 0
        for row in rows:
            if row.kind == "message":
                self.newest = row.sequence
                for given in self._awaited.get(row.id, ()):
                    given.set()
                for follower in self._message_followers:
                    follower.offer(row, row.sequence - 1)
                self._offer(row, row.sequence - 1)
            elif row.kind == "event":
                number = uncommitted.get(row.id)
                committed = number or committed
                self._offer(row, row.sequence - 1, number)
            elif row.kind == "member":
                self._follow_member(row)
        if committed:
            # Events commit in the order of their reporting: an older one that did not come was known already.
            for id in [id for id, number in uncommitted.items() if number <= committed]:
                del uncommitted[id]
        self._delivered = rows[-1].sequence

    def _offer(self, row: Row, before: int, number: int | None = None) -> None:
        for follower in self._followers:
            follower.offer(row, before, number)
        for follower in self._followers_of.get(row.conversation, ()):
            follower.offer(row, before, number)
        if not self._inboxes:
            return
        if row.recipient:
            self._offer_inboxes(row.recipient, row, before, number)
        else:
            for participant in self._members.get(row.conversation, ()):
                if participant != row.sender:
                    self._offer_inboxes(participant, row, before, number)

    def _offer_inboxes(self, participant: str, row: Row, before: int, number: int | None) -> None:
        if (inbox := self._inboxes.get((participant, ""))) is not None:
            inbox.offer(row, before, number)
        if (inbox := self._inboxes.get((participant, row.conversation))) is not None:
            inbox.offer(row, before, number)

    def _follow_member(self, row: Row) -> None:
        act = json.loads(row.body or b"{}").get("act")
        if act == "join":
            self._members.setdefault(row.conversation, set()).add(row.sender)
        elif act == "leave":
            members = self._members.get(row.conversation, set())
            members.discard(row.sender)
            if not members:
                self._members.pop(row.conversation, None)


def _member(act: str, participant: str, conversation: str) -> Entry:
    if not participant or not conversation or max(len(participant), len(conversation)) > MAX_WORD:
        raise InvalidArgument(f"a participant and a conversation have 1 to {MAX_WORD} characters")
    return Entry(new_id(), "member", json.dumps({"act": act}).encode(), conversation, participant)


def _check_size(message: Message, size: int) -> None:
    said = len(message.text.encode()) + len(message.data.encode())
    if said > MAX_BODY:
        raise InvalidArgument(
            f"{said} bytes of text and data; a message carries {MAX_BODY}",
            next="put what is longer into Horace and link the blob",
        )
    if size > MAX_MESSAGE:
        raise InvalidArgument(f"a message of {size} bytes; it may have {MAX_MESSAGE}", next="link fewer blobs")
