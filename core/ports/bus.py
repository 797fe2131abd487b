"""The bus port: Rogers with one caller's permissions."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import CancelScope
from google.protobuf.json_format import MessageToDict

from core.policy.acts import Act
from core.policy.capabilities import Identity, may_ask, may_enter, may_publish, may_use
from core.policy.taint import labels_of, marked
from core.policy.targets import meet
from core.ports.acting import Permit, denying, under_policy
from core.ports.links import may_read
from core.ports.services import Allowance, Services
from core.rogers.bus import MAX_MESSAGE
from core.rogers.entry import Entry
from core.router import Ephemeral
from protos.errors import Conflict, Exhausted, InvalidArgument
from protos.ids import is_uuid
from protos.mad import Bus, Inbox
from protos.serve import answer_id
from protos.v1.message_pb2 import (
    KIND_CALL,
    KIND_EVENT,
    KIND_FAULT,
    KIND_PROSE,
    KIND_REPLY,
    Message,
)

REMEMBERED = 4096  # deliveries a session remembers; older ones are looked up
PAGE = 100  # messages of one history of a run: so much is in memory at once, for each of its calls


@dataclass
class LocalBus(Bus):
    """The bus with one caller's permissions."""

    services: Services
    identity: Identity
    allowance: Allowance
    trigger: str = ""  # the message that a run is for
    apart: bool = False  # each message of its inbox is handled by a bus of its own, which is told what it is given
    _asked: Message | None = None  # that message, once it was looked up
    _delivered: dict[str, str] = field(default_factory=dict)  # id → sender, of what this session was given
    _pending: dict[int, Message] = field(default_factory=dict)  # by sequence: given and not acknowledged

    @property
    def in_hand(self) -> Message | None:
        """What the caller is handling: the oldest message it was given and has not acknowledged."""
        return next(iter(self._pending.values()), None)

    async def publish(self, message: Message) -> int:
        if message.ByteSize() > MAX_MESSAGE:  # before anything is done that takes longer for a longer message
            raise InvalidArgument(f"A message has at most {MAX_MESSAGE} bytes.", next="Store the rest as a blob.")
        said = Message()
        said.CopyFrom(message)
        asker = await self._asked_by(said) if said.in_reply_to else ""
        answers = not said.in_reply_to or (asker != "" and asker == said.recipient)
        knows = bool(said.in_reply_to and answers) or await self._knows(said)
        may_publish(self.identity, said, answers=answers, knows_recipient=knows)
        self._check_id(said)
        if said.kind == KIND_CALL:
            self.services.registry.check_call(said.recipient, said.tool, arguments_of(said))
        await self._mark(said)
        if self.identity.run:
            for digest in {each.digest for each in said.blobs}:
                await may_read(self.services, self.identity, digest)
            if (act := _act(self.services, self.identity, said)) is not None:
                self.allowance.take_act(act)  # its form is as long as the message, and is what a denial writes down
            elif said.kind not in (KIND_REPLY, KIND_FAULT) and not self.allowance.take_said(said.ByteSize()):
                limit = self.allowance.bytes_said
                raise Exhausted(f"The run has said its {limit} bytes.", next="Raise budget.bytes_said.")
            if await self._starts_a_run(said):
                return await self._say_as_parent(said)
        return await say(self.services, self.identity, said)

    async def _starts_a_run(self, said: Message) -> bool:
        """Whether it is for an eMAD, and new: saying it again is saying it once."""
        is_for_one = isinstance(self.services.registry.destination(said.recipient), Ephemeral)
        return is_for_one and said.kind in (KIND_CALL, KIND_PROSE) and not await self.services.rogers.find(said.id)

    async def _say_as_parent(self, said: Message) -> int:
        """Says what starts a child of the run, if it may have one more."""
        children = self.services.children
        children.open(self.identity.run, said.id)
        try:
            sequence = await say(self.services, self.identity, said)
        except BaseException:
            children.close(self.identity.run, said.id)
            raise
        children.said(self.identity.run, sequence)
        return sequence

    async def ask(self, call: Message) -> Message:
        if call.kind != KIND_CALL:
            raise InvalidArgument("Only a call has an answer to wait for.", next="Publish the rest.")
        await self.publish(call)
        answer = await self.services.rogers.answer_to(call.id)
        if answer.conversation != call.conversation or answer.sender not in (call.recipient, "core"):
            raise Conflict("The answer was given by somebody who was not asked.", next="Ask again with a new id.")
        await self.services.taints.add(self.identity, labels_of(answer))
        return answer

    async def report(self, events: Iterable[Message]) -> None:
        may_use(self.identity, "bus")
        checked = []
        for each in events:
            may_enter(self.identity, each.conversation)
            if each.kind != KIND_EVENT or each.recipient or each.blobs:
                raise InvalidArgument("Only events without recipient and blobs are reported.", next="Publish the rest.")
            event = Message()
            event.CopyFrom(each)
            self._check_id(event)
            await self._mark(event)
            if self.allowance.take_said(event.ByteSize()):
                checked.append(event)
            else:
                self.allowance.dropped += 1
        await self.services.rogers.report(checked, sender=self.identity.participant)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Inbox]:
        may_use(self.identity, "bus")
        async with self.services.rogers.open_inbox(
            self.identity.participant, self.identity.conversation or None
        ) as inbox:
            self._pending.clear()
            yield inbox if self.apart else _RememberingInbox(inbox, self)

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        may_use(self.identity, "bus")
        may_enter(self.identity, conversation)
        most = PAGE if self.identity.run else 1000
        page = await self.services.rogers.history(conversation, after=after, limit=min(limit or 100, most))
        await self.services.taints.add(self.identity, frozenset[str]().union(*(labels_of(each) for each in page)))
        return page

    async def given(self, message: Message) -> None:
        """Notes who asked what (an answer is checked without a query), what is in hand, and where it has been."""
        self._delivered[message.id] = message.sender
        while len(self._delivered) > REMEMBERED:
            self._delivered.pop(next(iter(self._delivered)))
        if message.sequence:
            self._pending[message.sequence] = message
        if message.taint:
            await self.services.taints.add(self.identity, labels_of(message))

    def done_with(self, sequence: int) -> None:
        """Nothing up to `sequence` is in hand any more."""
        for each in [each for each in self._pending if each <= sequence]:
            del self._pending[each]
        if not self._pending:
            self.services.taints.put_down(self.identity)

    async def _trigger(self) -> Message | None:
        """The message that the run is for."""
        if self._asked is None and self.trigger:
            self._asked = await self.services.rogers.find(self.trigger)
        return self._asked

    async def _mark(self, said: Message) -> None:
        """Adds what a caller cannot be trusted to say: where it comes from, how many messages led to it, and how far
        the one who asked for a run lets it, and those it asks in turn, reach."""
        marked(said, await self.services.taints.of(self.identity))
        said.ClearField("run")
        if self.identity.hand and self.in_hand is not None and not said.causation:
            said.causation = self.in_hand.id  # with several in hand nobody could find out later
        if not self.identity.run:
            return
        if said.kind in (KIND_CALL, KIND_PROSE):
            said.run = self.identity.run
        if self.identity.web is not None and said.kind in (KIND_CALL, KIND_PROSE):
            said.terms.web[:] = meet(said.terms.web or None, self.identity.web) or ()
        asked = await self._trigger()
        if asked is not None:
            said.hops = max(said.hops, asked.hops + 1)

    async def _asked_by(self, said: Message) -> str:
        """Who sent the message that `said` answers, if it was addressed to the caller; else nobody."""
        if said.in_reply_to in self._delivered:
            return self._delivered[said.in_reply_to]
        if self.identity.hand:  # what it was told of another message, it would say without that one's labels
            return ""
        asked = await self.services.rogers.find(said.in_reply_to)
        mine = asked is not None and (asked.conversation, asked.recipient) == (
            said.conversation,
            self.identity.participant,
        )
        return asked.sender if asked is not None and mine else ""

    async def _knows(self, said: Message) -> bool:
        """Whether the recipient has written to the run, which a restart must not make forget."""
        if not said.recipient or not self.identity.run or said.recipient in self._delivered.values():
            return True
        asked = await self._trigger()
        if asked is None or asked.sender == said.recipient:
            return asked is not None
        return bool(
            await self.services.journal.query(
                "SELECT 1 FROM journal WHERE kind IN ('message', 'event') AND recipient <> '' AND recipient = ?"
                " AND sequence > ? AND conversation = ? AND sender = ? LIMIT 1",
                (self.identity.participant, asked.sequence, self.identity.conversation, said.recipient),
            )
        )

    def _check_id(self, said: Message) -> None:
        """An answer has the id that its question gives it, and nothing else has: no one can take an answer's place."""
        if said.kind in (KIND_REPLY, KIND_FAULT):
            if not said.in_reply_to:
                raise InvalidArgument("A reply or a fault answers a message.", next="Fill in_reply_to.")
            if said.id != answer_id(Message(id=said.in_reply_to)):
                raise InvalidArgument("The id of an answer is its question's id with .reply behind it.")
        elif not is_uuid(said.id):
            raise InvalidArgument("A message's id is a UUIDv7 in lower case.", next="Choose it once, when it is made.")


@dataclass
class _RememberingInbox(Inbox):
    """An inbox that tells its bus what was given and what is done with."""

    inner: Inbox
    bus: LocalBus

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in self.inner:
            await self.bus.given(message)
            yield message

    async def acknowledge(self, sequence: int) -> None:
        self.bus.done_with(sequence)
        await self.inner.acknowledge(sequence)


async def say(services: Services, identity: Identity, said: Message, *, also: Sequence[Entry] = ()) -> int:
    """Publishes a message, once policy allows the call, or the start of a run, that it may be; returns its sequence.

    `also` are entries that become durable with it, or not at all.

    Raises:
        as `Bus.publish`; Denied and Exhausted as `acting`.
    """

    async def publish(permit: Permit | None = None) -> int:
        uses = permit.uses if permit is not None else ()
        with CancelScope(shield=True):  # whoever hears an exception knows that it was not said
            sequence = await services.rogers.publish(said, sender=identity.participant, also=(*uses, *also))
        return sequence

    act = _act(services, identity, said)
    if identity.outside:
        await may_say(services, identity, said, act)
    if act is None:
        return await publish()
    if services.policy.decide(act).verdict != "allow" and await services.rogers.find(said.id):
        return await publish()  # it was said before, and was allowed then: saying it again is saying it once
    return await under_policy(services, identity, act, publish)


async def may_say(services: Services, identity: Identity, said: Message, act: Act | None = None) -> None:
    """Whether somebody at a door has the right to say it; looks at nothing that could tell what there is in the lab.

    Raises:
        Denied: rule *port* or *terms*. Journalled.
    """
    what = f"{said.recipient}.{said.tool}" if said.kind == KIND_CALL else said.recipient
    async with denying(services, identity, act or Act("bus.call", identity.principals, what)):
        may_ask(identity, said)


def _act(services: Services, identity: Identity, said: Message) -> Act | None:
    """What saying it does besides being said."""
    if said.kind not in (KIND_CALL, KIND_PROSE):
        return None
    details = _besides(said)
    if said.kind == KIND_CALL:
        effects = services.registry.mad(said.recipient).tools[said.tool].schema.effects
        details |= {"effects": effects, "arguments": said.data}
        return Act("bus.call", identity.principals, f"{said.recipient}.{said.tool}", details, labels_of(said))
    if not isinstance(services.registry.destination(said.recipient), Ephemeral):
        return None
    if said.data:
        details["data"] = said.data
    return Act("run.start", identity.principals, said.recipient, details, labels_of(said))


def _besides(said: Message) -> dict[str, str | int]:
    """What a message asks for beside its arguments: who approves the one approves the other."""
    details: dict[str, str | int] = {}
    if said.text:
        details["text"] = said.text
    if said.HasField("terms"):
        details["terms"] = json.dumps(MessageToDict(said.terms, preserving_proto_field_name=True), sort_keys=True)
    if said.deadline:
        details["deadline"] = str(said.deadline)
    if said.blobs:
        details["blobs"] = json.dumps([[each.digest, each.name, each.media_type] for each in said.blobs])
    return details


def arguments_of(call: Message) -> object:
    """The arguments of a call.

    Raises:
        InvalidArgument: they are no JSON.
    """
    try:
        return json.loads(call.data or "{}")
    except (ValueError, RecursionError):
        raise InvalidArgument("The arguments of a call are a JSON object.") from None
