"""The ports a MAD of this process holds, and the same objects behind the gate: here every permission is checked.

One identity, one set of ports. Nothing below this file asks who is calling; nothing above it may call the services
directly on behalf of a MAD. The order is house.md's: capability and policy, then journal *started*, act, *outcome*.
"""

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from core.fiedler.fiedler import Fiedler
from core.fiedler.ledger import Caller
from core.fiedler.money import picodollars
from core.horace.store import Horace
from core.policy import Identity, may_enter, may_publish, may_use
from core.registry import Registry
from core.rogers.bus import MAX_MESSAGE, Rogers
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, Denied, Error, Exhausted, InvalidArgument, NotFound
from protos.ids import new_id
from protos.llm import Llm
from protos.mad import Bus, Context, Files, Inbox
from protos.serve import answer_id
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, CostsReply, EmbedReply, EmbedRequest, Model
from protos.v1.message_pb2 import (
    KIND_CALL,
    KIND_EVENT,
    KIND_FAULT,
    KIND_REPLY,
    TAINT_UNSPECIFIED,
    TAINT_WORKER,
    Blob,
    Message,
    Taint,
)
from protos.v1.session_pb2 import Assignment

REMEMBERED = 4096  # deliveries a session remembers; older ones are looked up
PAGE = 100  # messages of one history of a run: so much is in memory at once, for each of its calls
LLM_BYTES = 4096  # about what one request to a model takes in the journal beside its answer
ACT_BYTES = 512  # about what an act takes in the journal; a run pays it from what it may say
UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TAINTS = frozenset(Taint.values()) - {TAINT_UNSPECIFIED}


class LinksView:
    """Which conversation knows which blob, and since when last: linked by a message there, or stored by a run there."""

    name = "links"
    kinds = frozenset({"message", "act"})
    tables = ("links",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS links (
            conversation TEXT, digest TEXT, at REAL, PRIMARY KEY (conversation, digest)) WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Adds what the entry links."""
        if row.kind == "message":
            digests = [each.digest for each in Message.FromString(row.body or b"").blobs]
        else:
            act = json.loads(row.body or b"{}")
            digests = [act["digest"]] if act.get("act") == "files.put" and act.get("digest") else []
        for each in digests:
            db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (row.conversation, each, row.at))


async def linked_since(journal: Journal, moment: float) -> set[str]:
    """The digests that something linked after `moment`, in seconds since the epoch."""
    return {str(row[0]) for row in await journal.query("SELECT DISTINCT digest FROM links WHERE at >= ?", (moment,))}


@dataclass
class Services:
    """What the ports stand on."""

    journal: Journal
    rogers: Rogers
    horace: Horace
    registry: Registry
    fiedler: Fiedler | None = None


@dataclass
class Allowance:
    """What one run may still move, in bytes, and what it has moved."""

    bytes_in: int
    bytes_out: int
    bytes_said: int
    used_in: int = 0
    used_out: int = 0
    used_said: int = 0
    dropped: int = 0  # events over the allowance

    def take_in(self, size: int) -> None:
        """
        Raises:
            Exhausted: the run has read its share.
        """
        self.used_in += size
        if self.used_in > self.bytes_in:
            raise Exhausted(f"The run has read its {self.bytes_in} bytes.", next="Raise budget.bytes_in.")

    def take_out(self, size: int) -> None:
        """
        Raises:
            Exhausted: the run has stored its share, in one stream or in many.
        """
        self.used_out += size
        if self.used_out > self.bytes_out:
            raise Exhausted(f"The run has stored its {self.bytes_out} bytes.", next="Raise budget.bytes_out.")

    def take_act(self) -> None:
        """
        Raises:
            Exhausted: the run has done as many acts as the journal will hold of it.
        """
        if not self.take_said(ACT_BYTES):
            raise Exhausted(f"The run has said its {self.bytes_said} bytes.", next="Raise budget.bytes_said.")

    def take_said(self, size: int) -> bool:
        """Whether so much more may be said."""
        if self.used_said + size > self.bytes_said:
            return False
        self.used_said += size
        return True


def unlimited() -> Allowance:
    """For residents."""
    return Allowance(bytes_in=2**62, bytes_out=2**62, bytes_said=2**62)


@dataclass
class LocalBus(Bus):
    """The bus with one caller's permissions."""

    services: Services
    identity: Identity
    allowance: Allowance
    trigger: str = ""  # the message that a run is for
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
        if self.identity.run:
            await self._mark(said)
            for digest in {each.digest for each in said.blobs}:
                await may_read(self.services, self.identity, digest)
            if said.kind not in (KIND_REPLY, KIND_FAULT) and not self.allowance.take_said(said.ByteSize()):
                limit = self.allowance.bytes_said
                raise Exhausted(f"The run has said its {limit} bytes.", next="Raise budget.bytes_said.")
        return await self.services.rogers.publish(said, sender=self.identity.participant)

    async def ask(self, call: Message) -> Message:
        if call.kind != KIND_CALL:
            raise InvalidArgument("Only a call has an answer to wait for.", next="Publish the rest.")
        await self.publish(call)
        answer = await self.services.rogers.answer_to(call.id)
        if answer.conversation != call.conversation or answer.sender not in (call.recipient, "core"):
            raise Conflict("The answer was given by somebody who was not asked.", next="Ask again with a new id.")
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
            if self.identity.run:
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
            yield _RememberingInbox(inbox, self._delivered, self._pending)

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        may_use(self.identity, "bus")
        may_enter(self.identity, conversation)
        most = PAGE if self.identity.run else 1000
        return await self.services.rogers.history(conversation, after=after, limit=min(limit or 100, most))

    async def _trigger(self) -> Message | None:
        """The message that the run is for."""
        if self._asked is None and self.trigger:
            self._asked = await self.services.rogers.find(self.trigger)
        return self._asked

    async def _mark(self, said: Message) -> None:
        """Adds what a run cannot be trusted to say: that it said it, and how many messages led to it."""
        if not self.identity.core:
            said.taint[:] = sorted({*TAINTS.intersection(said.taint), TAINT_WORKER})
        asked = await self._trigger()
        if asked is not None:
            said.hops = max(said.hops, asked.hops + 1)

    async def _asked_by(self, said: Message) -> str:
        """Who sent the message that `said` answers, if it was addressed to the caller; else nobody."""
        if said.in_reply_to in self._delivered:
            return self._delivered[said.in_reply_to]
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
    """An inbox that notes who asked what, so that an answer can be checked without a query, and what is in hand."""

    inner: Inbox
    delivered: dict[str, str]
    pending: dict[int, Message]

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for message in self.inner:
            self.delivered[message.id] = message.sender
            while len(self.delivered) > REMEMBERED:
                self.delivered.pop(next(iter(self.delivered)))
            if message.sequence:
                self.pending[message.sequence] = message
            yield message

    async def acknowledge(self, sequence: int) -> None:
        for each in [each for each in self.pending if each <= sequence]:
            del self.pending[each]
        await self.inner.acknowledge(sequence)


@dataclass
class LocalFiles(Files):
    """Horace with one caller's permissions and allowance."""

    services: Services
    identity: Identity
    allowance: Allowance

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        may_use(self.identity, "files")
        self.allowance.take_act()
        name, media_type = name[:255], media_type[:255]
        async with acting(self.services.journal, self.identity, "files.put", name=name) as act:
            blob = await self.services.horace.put(self._paid(chunks), name=name, media_type=media_type)
            act |= {"digest": blob.digest, "size": blob.size}
        return blob

    async def _paid(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Counts as it goes: many streams at once share what one could store."""
        async for chunk in chunks:
            self.allowance.take_out(len(chunk))
            yield chunk

    async def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        may_use(self.identity, "files")
        self.allowance.take_act()
        await may_read(self.services, self.identity, digest)
        before = self.allowance.used_in
        async with (
            acting(self.services.journal, self.identity, "files.get", digest=digest, offset=offset) as act,
            aclosing(self.services.horace.get(digest, offset=offset)) as stream,  # type: ignore[type-var]
        ):
            async for chunk in stream:
                self.allowance.take_in(len(chunk))
                act["size"] = self.allowance.used_in - before
                yield chunk

    async def find(self, name: str) -> Blob:
        may_use(self.identity, f"files:{name[:64]}")
        return await self.services.horace.find(name)


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


@asynccontextmanager
async def acting(journal: Journal, identity: Identity, act: str, **fields: object) -> AsyncIterator[dict[str, object]]:
    """Journals an act: *started* is durable before the body, *outcome* after it. What the body adds is written too."""
    id = new_id()
    added: dict[str, object] = {}

    def entry(step: str, **more: object) -> Entry:
        body = {"act": act, "step": step, **fields, **added, **more}
        return Entry(
            id=f"act:{id}:{step}",
            kind="act",
            body=json.dumps(body, ensure_ascii=False).encode(),
            conversation=identity.conversation,
            sender=identity.principal,
            at=time.time(),
        )

    await journal.append(entry("started"))
    try:
        yield added
    except BaseException as error:
        added.pop("digest", None)
        journal.append_soon(entry("outcome", failed=error.code if isinstance(error, Error) else type(error).__name__))
        raise
    await journal.append(entry("outcome"))


@dataclass
class LocalLlm(Llm):
    """Fiedler with one caller's permissions and budget."""

    services: Services
    identity: Identity
    allowance: Allowance

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        fiedler = self._fiedler(request.model)
        caller = await self._caller(fiedler)
        async with aclosing(fiedler.complete(request, caller)) as events:  # type: ignore[type-var]
            async for each in events:
                yield each

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        fiedler = self._fiedler(request.model)
        return await fiedler.embed(request, await self._caller(fiedler))

    async def models(self) -> Sequence[Model]:
        ports = self.identity.ports
        everything = "llm" in ports or "llm:*" in ports
        return [each for each in self._any().models() if everything or f"llm:{each.alias}" in ports]

    async def costs(self, by: str = "model", *, since: float = 0.0) -> CostsReply:
        fiedler = self._any()
        caller = await self._caller(fiedler)
        return await fiedler.ledger.report(by, caller, since=since)

    def _any(self) -> Fiedler:
        """
        Raises:
            Denied: the manifest asks for no model at all.
        """
        if not any(each.partition(":")[0] == "llm" for each in self.identity.ports):
            may_use(self.identity, "llm")
        if self.services.fiedler is None:
            raise Denied("There are no models here.", next="Serve the MAD in a lab that has some.")
        return self.services.fiedler

    def _fiedler(self, alias: str) -> Fiedler:
        """
        Raises:
            Denied: the manifest does not ask for this model.
            Exhausted: the run has said so much that no more acts of it are journalled.
        """
        fiedler = self._any()
        if "llm" not in self.identity.ports:
            may_use(self.identity, f"llm:{(alias or fiedler.repertoire.default)[:64]}")
        if not self.allowance.take_said(LLM_BYTES):
            raise Exhausted("The run has said all it may, and calls of models count.", next="Raise budget.bytes_said.")
        return fiedler

    async def _caller(self, fiedler: Fiedler) -> Caller:
        """Who asks. A run has an account of its own, whose caps its manifest names; a resident draws from the day."""
        me = self.identity
        if not me.run:
            return Caller(me.principal, me.participant, me.conversation)
        account = f"run:{me.run}"
        await open_purse(self.services, me)
        return Caller(me.principal, me.participant, me.conversation, me.run, account)


async def open_purse(services: Services, identity: Identity) -> None:
    """Opens the account of a run, once; what its children spend is spent from it, too."""
    if services.fiedler is None:
        return
    purse = identity.purse
    await services.fiedler.ledger.open_once(
        f"run:{identity.run}",
        parent=purse.under,
        cap_usd=None if purse.usd is None else picodollars(purse.usd),
        cap_tokens=purse.tokens,
    )


def context_for(services: Services, identity: Identity, assignment: Assignment, allowance: Allowance) -> Context:
    """Everything one MAD may reach."""
    return Context(
        bus=LocalBus(services, identity, allowance, assignment.trigger),
        files=LocalFiles(services, identity, allowance),
        assignment=assignment,
        llm=LocalLlm(services, identity, allowance),
    )


def arguments_of(call: Message) -> object:
    """The arguments of a call.

    Raises:
        InvalidArgument: they are no JSON.
    """
    try:
        return json.loads(call.data or "{}")
    except (ValueError, RecursionError):
        raise InvalidArgument("The arguments of a call are a JSON object.") from None


def is_uuid(id: str) -> bool:
    """Whether `id` is a UUIDv7 as `protos.ids` writes it."""
    return UUID7.fullmatch(id) is not None


def hash_of(secret: str) -> str:
    """What is kept of a token or credential."""
    return hashlib.sha256(secret.encode()).hexdigest()
