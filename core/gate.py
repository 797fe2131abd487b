"""The gate: where a worker comes in. gRPC is spoken here and in `protos.remote`, and nowhere else.

Each worker has its own gRPC server on its own socket: the listener is the identity, and one worker's flood is its own.
A servicer does four things and owns nothing: prove the session, call a port, translate the answer, return. What a
session is, and when it ends, is decided by who opened it (`core.workers`); the servicers hear of it through `Session`.

How a session is proved. The worker gets a one-use token on its standard input and trades it, once, for a credential;
the core keeps the hashes of both. A token is dead as soon as it was traded, with one exception: when the core died
between trading and the worker's first call, nobody can know whether the credential arrived. So a session that was
restored from the journal takes its token once more, until the credential has been seen in use (`confirmed`).
"""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from anyio import CancelScope, Event, current_time, move_on_after
from anyio.lowlevel import checkpoint

from core.fiedler.line import Line
from core.redaction.redactor import Redactor
from core.strict import strict_json
from core.waiting import first_of
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unauthenticated, Unavailable
from protos.llm import event_pieces, joined, vector_pieces
from protos.mad import Context, Inbox
from protos.remote.session import MESSAGE_BYTES, NEXT
from protos.v1 import (
    bus_pb2,
    bus_pb2_grpc,
    files_pb2,
    files_pb2_grpc,
    llm_pb2,
    llm_pb2_grpc,
    secrets_pb2,
    secrets_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    web_pb2,
    web_pb2_grpc,
)
from protos.v1.message_pb2 import Blob
from protos.v1.session_pb2 import Attached, Directive, End, FinishRequest, Outcome

logger = structlog.get_logger()
Value = TypeVar("Value")
Part = TypeVar("Part", files_pb2.PutRequest, web_pb2.FetchRequest)  # of a stream of bytes with a head
Servicing = grpc.aio.ServicerContext[Any, Any]

CALLS_AT_ONCE = 64  # of one worker; one more is refused
CONNECTIONS = 16  # of one worker: each is a descriptor of the core, of which all workers together can take too many
EVENTS_AT_ONCE = 100  # of one worker, before others have their turn
EVIDENCE_BYTES = 256 * 1024
GATHERED_BYTES = 32 << 20  # of one worker's requests to models
HEARD_OUT_BYTES, HEARD_OUT_S = 1 << 20, 0.2  # of a request that is refused already
REASON_CHARACTERS = 2000
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 2 * CALLS_AT_ONCE),  # of one connection
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 10_000),  # who connects and says nothing is hung up on
    ("grpc.so_reuseport", 0),
)


class Complaints(logging.Filter):
    """What the gRPC library says of calls that are none, which a worker can make without end: a few a minute.

    Each is one line, and the first of the next minute says how many were kept back.
    """

    def __init__(self, most: int = 10, *, per_s: float = 60.0) -> None:
        super().__init__()
        self._most, self._per_s = most, per_s
        self._since, self._count = 0.0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let it through."""
        if record.created - self._since >= self._per_s:
            if self._count > self._most:
                record.msg = f"{record.getMessage()} (and {self._count - self._most} before it, not logged)"
                record.args = None
            self._since, self._count = record.created, 0
        self._count += 1
        record.exc_info = record.exc_text = None
        return self._count <= self._most


logging.getLogger("grpc._cython.cygrpc").addFilter(Complaints())


def hash_of(secret: str) -> str:
    """What is kept of a token or credential."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass
class Session:
    """One worker's session, from the token to the end."""

    lease_s: float
    token: str = ""  # SHA-256 of the one-use token
    credential: str = ""  # SHA-256; empty until the token is traded
    confirmed: bool = False
    restored: bool = False  # brought back from the journal by a later core
    left: bool = False  # handed over: its sandbox and its directory outlive this core
    context: Context | None = None  # the ports, once there is an assignment
    end: End | None = None
    finished: FinishRequest | None = None
    heard: float = field(default_factory=current_time)
    attached: Event = field(default_factory=Event)
    assigned: Event = field(default_factory=Event)
    ending: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)
    recorded: Event = field(default_factory=Event)  # the verdict is durable: only now may the worker forget it
    on_credential: Callable[[str], Awaitable[None]] | None = None  # makes a renewed credential's hash durable first
    on_confirmed: Callable[[], None] | None = None
    line: Line | None = None  # where it was started to serve a model
    redactor: Redactor = field(default_factory=Redactor)  # of what goes out to the worker as an error
    _streams: int = 0

    async def attach(self, request: session_pb2.AttachRequest) -> str:
        """Proves a worker; returns a new credential for a token, nothing for a credential.

        Raises:
            Unauthenticated: the proof is wrong, or the token was used before.
        """
        if request.credential:
            self.check(request.credential)
            return ""
        fresh = not self.credential or (self.restored and not self.confirmed and self._streams == 0)
        if not self.token or not fresh or not hmac.compare_digest(hash_of(request.token), self.token):
            raise Unauthenticated("The token is not valid for this door, or was used before.")
        credential = secrets.token_urlsafe(32)
        self.credential = hash_of(credential)
        if self.on_credential is not None:
            await self.on_credential(self.credential)
        return credential

    def check(self, credential: str) -> None:
        """
        Raises:
            Unauthenticated: it is not this session's credential.
        """
        if not self.credential or not hmac.compare_digest(hash_of(credential), self.credential):
            raise Unauthenticated("The credential is not valid for this door.", next="Attach first.")
        self.heard = current_time()
        if not self.confirmed:
            self.confirmed = True
            if self.on_confirmed is not None:
                self.on_confirmed()

    def assign(self, context: Context) -> None:
        """Gives the worker its work and its ports."""
        self.context = context
        self.assigned.set()

    def tell_end(self, reason: str, grace_s: float) -> None:
        """Asks the worker to end. Who does not is destroyed after the grace."""
        self.end = self.end or End(reason=reason[:REASON_CHARACTERS], grace_s=grace_s)
        self.ending.set()

    @contextmanager
    def streaming(self) -> Any:
        """Counts the directive streams that are open."""
        self._streams += 1
        self.attached.set()
        try:
            yield
        finally:
            self._streams -= 1


class _Servicer:
    """What the three services share: whom they serve, and how errors go out."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _check(self, servicing: Servicing) -> None:
        """
        Raises:
            Unauthenticated: no credential, or a wrong one.
        """
        for key, value in servicing.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str) and value.startswith("Bearer "):
                self._session.check(value.removeprefix("Bearer "))
                return
        raise Unauthenticated("The call carries no credential.", next="Attach first.")

    def _context(self, servicing: Servicing) -> Context:
        """The ports of the caller.

        Raises:
            Unauthenticated: no credential, a wrong one, or no assignment yet.
        """
        self._check(servicing)
        if self._session.context is None:
            raise Unauthenticated("There is no assignment yet.", next="Wait for it on the Attach stream.")
        return self._session.context


@asynccontextmanager
async def answering(servicing: Servicing, redactor: Redactor) -> AsyncIterator[None]:
    """Lets our errors out as codes, without secrets; of anything else the worker learns only that it was not its
    fault."""
    try:
        yield
    except Error as error:
        refused: Error | None = error
    except (grpc.aio.AbortError, grpc.aio.UsageError):
        raise
    except Exception:
        logger.exception("a call through the gate failed")
        refused = None
    else:
        return
    await _abort(servicing, refused, redactor)


async def _abort(servicing: Servicing, error: Error | None, redactor: Redactor) -> NoReturn:
    if error is None:
        await servicing.abort(grpc.StatusCode.INTERNAL, "The core failed; it has logged why.")
    message, next = redactor.redact_text(error.message), redactor.redact_text(error.next)  # before they are cut
    trailing = ((NEXT, next.encode()[:1024]),) if next else ()
    await servicing.abort(grpc.StatusCode[error.code], message[:1024], trailing)


class SessionServicer(_Servicer, session_pb2_grpc.SessionServicer):
    """Attach, heartbeat, finish."""

    async def Attach(self, request: session_pb2.AttachRequest, servicing: Servicing) -> AsyncIterator[Directive]:
        session = self._session
        async with answering(servicing, self._session.redactor):
            credential = await session.attach(request)
            with session.streaming():
                yield Directive(attached=Attached(credential=credential, lease_s=session.lease_s))
                await first_of(session.assigned.wait, session.ending.wait)
                if session.context is not None:
                    yield Directive(assignment=session.context.assignment)
                await session.ending.wait()
                yield Directive(end=session.end)

    async def Heartbeat(
        self, request: session_pb2.HeartbeatRequest, servicing: Servicing
    ) -> session_pb2.HeartbeatReply:
        async with answering(servicing, self._session.redactor):
            self._check(servicing)
        return session_pb2.HeartbeatReply(lease_s=self._session.lease_s)

    async def Finish(self, request: FinishRequest, servicing: Servicing) -> session_pb2.FinishReply:
        async with answering(servicing, self._session.redactor):
            self._context(servicing)
            check_evidence(request.evidence)
            if request.outcome not in Outcome.values():
                raise InvalidArgument(f"There is no outcome {request.outcome}.", next="See session.proto.")
            if self._session.finished is None:
                self._session.finished = FinishRequest()
                self._session.finished.CopyFrom(request)
                reason = self._session.redactor.redact_text(request.reason)  # before it is cut
                self._session.finished.reason = reason[:REASON_CHARACTERS]
            self._session.done.set()
            await self._session.recorded.wait()
        return session_pb2.FinishReply()


class BusServicer(_Servicer, bus_pb2_grpc.BusServicer):
    """The bus port."""

    _inbox: Inbox | None = None

    async def Publish(self, request: bus_pb2.PublishRequest, servicing: Servicing) -> bus_pb2.PublishReply:
        async with answering(servicing, self._session.redactor):
            sequence = await self._context(servicing).bus.publish(request.message)
        return bus_pb2.PublishReply(sequence=sequence)

    async def Ask(self, request: bus_pb2.PublishRequest, servicing: Servicing) -> bus_pb2.Answered:
        async with answering(servicing, self._session.redactor):
            return bus_pb2.Answered(answer=await self._context(servicing).bus.ask(request.message))
        raise AssertionError("answering aborts")

    async def Report(self, requests: AsyncIterator[bus_pb2.ReportRequest], servicing: Servicing) -> bus_pb2.ReportReply:
        count = 0
        async with answering(servicing, self._session.redactor):
            bus = self._context(servicing).bus
            async for request in requests:
                for start in range(0, len(request.events), EVENTS_AT_ONCE):
                    await bus.report(request.events[start : start + EVENTS_AT_ONCE])
                    await checkpoint()
                count += len(request.events)
        return bus_pb2.ReportReply(accepted=count)

    async def Subscribe(
        self, request: bus_pb2.SubscribeRequest, servicing: Servicing
    ) -> AsyncIterator[bus_pb2.Delivery]:
        async with answering(servicing, self._session.redactor):
            self._check(servicing)
            if self._session.context is None:  # a warm worker asks ahead, and has its message with its assignment
                await first_of(self._session.assigned.wait, self._session.ending.wait)
            async with self._context(servicing).bus.subscribe() as inbox:
                self._inbox = inbox
                async for message in inbox:
                    yield bus_pb2.Delivery(messages=[message])

    async def Acknowledge(self, request: bus_pb2.AcknowledgeRequest, servicing: Servicing) -> bus_pb2.AcknowledgeReply:
        async with answering(servicing, self._session.redactor):
            bus = self._context(servicing).bus
            if self._inbox is not None:
                await self._inbox.acknowledge(request.sequence)
            else:  # an earlier core gave it the message that it is done with
                async with bus.subscribe() as inbox:
                    await inbox.acknowledge(request.sequence)
        return bus_pb2.AcknowledgeReply()

    async def History(self, request: bus_pb2.HistoryRequest, servicing: Servicing) -> bus_pb2.HistoryReply:
        async with answering(servicing, self._session.redactor):
            bus = self._context(servicing).bus
            found = await bus.history(request.conversation, after=request.after, limit=request.limit)
        reply, size = bus_pb2.HistoryReply(), 0
        for each in found:
            size += each.ByteSize() + 8
            if size > MESSAGE_BYTES // 2 and reply.messages:
                break  # the caller goes on from the last sequence it got
            reply.messages.append(each)
        return reply


class FilesServicer(_Servicer, files_pb2_grpc.FilesServicer):
    """The files port."""

    async def Put(self, requests: AsyncIterator[files_pb2.PutRequest], servicing: Servicing) -> Blob:
        async with answering(servicing, self._session.redactor):
            files = self._context(servicing).files
            about = Blob()
            first = await anext(aiter(requests), None)
            if first is None or first.WhichOneof("part") != "about":
                raise InvalidArgument("The first part of a put says what it is about.")
            about.CopyFrom(first.about)
            async with _hearing_out(requests):
                return await files.put(_whole_of(first, requests), name=about.name, media_type=about.media_type)
        raise AssertionError("answering aborts")

    async def Get(self, request: files_pb2.GetRequest, servicing: Servicing) -> AsyncIterator[files_pb2.Chunk]:
        async with answering(servicing, self._session.redactor):
            stream = self._context(servicing).files.get(request.digest, offset=request.offset)
            async with aclosing(stream):  # type: ignore[type-var]
                async for chunk in stream:
                    yield files_pb2.Chunk(bytes=chunk)

    async def Find(self, request: files_pb2.FindRequest, servicing: Servicing) -> Blob:
        async with answering(servicing, self._session.redactor):
            return await self._context(servicing).files.find(request.name)
        raise AssertionError("answering aborts")


class LlmServicer(_Servicer, llm_pb2_grpc.LlmServicer):
    """The llm port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._gathered = 0  # bytes of requests that are being gathered or answered

    async def Complete(
        self, requests: AsyncIterator[llm_pb2.CompleteRequest], servicing: Servicing
    ) -> AsyncIterator[llm_pb2.CompletionEvent]:
        async with answering(servicing, self._session.redactor):
            llm = self._context(servicing).llm
            request = llm_pb2.CompleteRequest()
            with self._gathering() as gather:
                async for each in requests:
                    gather(each.ByteSize())
                    request.MergeFrom(each)
                async with aclosing(llm.complete(joined(request))) as events:  # type: ignore[type-var]
                    async for event in events:
                        for piece in event_pieces(event):
                            yield piece

    async def Embed(
        self, requests: AsyncIterator[llm_pb2.EmbedRequest], servicing: Servicing
    ) -> AsyncIterator[llm_pb2.EmbedReply]:
        async with answering(servicing, self._session.redactor):
            llm = self._context(servicing).llm
            request = llm_pb2.EmbedRequest()
            with self._gathering() as gather:
                async for each in requests:
                    gather(each.ByteSize())
                    request.MergeFrom(each)
                for piece in vector_pieces(await llm.embed(request)):
                    yield piece

    async def Models(self, request: llm_pb2.ModelsRequest, servicing: Servicing) -> llm_pb2.ModelsReply:
        async with answering(servicing, self._session.redactor):
            return llm_pb2.ModelsReply(models=await self._context(servicing).llm.models())
        raise AssertionError("answering aborts")

    async def Costs(self, request: llm_pb2.CostsRequest, servicing: Servicing) -> llm_pb2.CostsReply:
        async with answering(servicing, self._session.redactor):
            return await self._context(servicing).llm.costs(request.by or "model", since=request.since)
        raise AssertionError("answering aborts")

    @contextmanager
    def _gathering(self) -> Iterator[Callable[[int], None]]:
        """Counts what one worker makes the core keep at once."""
        mine = 0

        def gather(size: int) -> None:
            nonlocal mine
            mine += size
            self._gathered += size
            if self._gathered > GATHERED_BYTES:
                raise Exhausted(
                    f"One worker's requests to models have at most {GATHERED_BYTES} bytes at once.",
                    next="Wait for the answers to earlier ones, or leave something out.",
                )

        try:
            yield gather
        finally:
            self._gathered -= mine


class WebServicer(_Servicer, web_pb2_grpc.WebServicer):
    """The web port."""

    async def Fetch(
        self, requests: AsyncIterator[web_pb2.FetchRequest], servicing: Servicing
    ) -> AsyncIterator[web_pb2.FetchEvent]:
        async with answering(servicing, self._session.redactor):
            web = self._context(servicing).web
            first = await anext(aiter(requests), None)
            if first is None or first.WhichOneof("part") != "head":
                raise InvalidArgument("The first part of a request is its head.")
            async with (
                _hearing_out(requests),
                aclosing(web.fetch(first.head, _whole_of(first, requests))) as events,  # type: ignore[type-var]
            ):
                async for event in events:
                    yield event

    async def FetchBare(self, request: web_pb2.RequestHead, servicing: Servicing) -> AsyncIterator[web_pb2.FetchEvent]:
        async with answering(servicing, self._session.redactor):
            request.together = True
            async with aclosing(self._context(servicing).web.fetch(request)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event


class SecretsServicer(_Servicer, secrets_pb2_grpc.SecretsServicer):
    """The secrets port."""

    async def List(self, request: secrets_pb2.ListSecretsRequest, servicing: Servicing) -> secrets_pb2.ListSecretsReply:
        async with answering(servicing, self._session.redactor):
            return secrets_pb2.ListSecretsReply(handles=await self._context(servicing).secrets.list())
        raise AssertionError("answering aborts")


class ModelHostServicer(_Servicer, llm_pb2_grpc.ModelHostServicer):
    """The way back: a worker that serves a model to the lab, if that is what it was started for."""

    async def Serve(  # type: ignore[override]  # it reads and writes at once, so it is no generator
        self, requests: AsyncIterator[llm_pb2.Served], servicing: Servicing
    ) -> None:
        async with answering(servicing, self._session.redactor):
            self._check(servicing)
            line = self._session.line
            if line is None:
                raise Denied("This worker is not there to serve a model.", next="Serve what you were assigned.")

            async def tell() -> None:
                async for each in line.outgoing():
                    await servicing.write(each)

            async def listen() -> None:
                async for each in requests:
                    line.hear(each)

            line.take()
            try:
                await first_of(tell, listen)
            finally:
                line.close("The worker that served the model ended its stream.")


@asynccontextmanager
async def _hearing_out(requests: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Reads what is left of a request that is refused, as far as it comes at once.

    A client of grpc.aio that is still writing when the refusal comes takes that for a fault of its own, and never
    learns why it was refused.
    """
    try:
        yield
    except Error:
        left = HEARD_OUT_BYTES
        with move_on_after(HEARD_OUT_S):
            async for each in requests:
                left -= each.ByteSize()
                if left < 0:
                    break
        raise


async def _whole_of(first: Part, requests: AsyncIterator[Part]) -> AsyncIterator[bytes]:
    """The bytes that follow a stream's first part. A call that is cancelled looks like one that has ended, so its parts
    say which is the last.

    Raises:
        InvalidArgument: there is something else among them.
        Unavailable: they broke off.
    """
    more = first.more
    async for request in requests:
        if request.WhichOneof("part") != "bytes":
            raise InvalidArgument("After the first part come bytes.")
        more = request.more
        yield request.bytes
    if more:
        raise Unavailable("The bytes broke off before their last part.", next="Send all of them.")


def check_evidence(text: str) -> Mapping[str, Any]:
    """The evidence of a run.

    Raises:
        InvalidArgument: it is no JSON object of at most 256 KiB.
        Exhausted: it is larger.
    """
    if len(text.encode()) > EVIDENCE_BYTES:
        raise Exhausted(f"Evidence is at most {EVIDENCE_BYTES} bytes.", next="Store the rest as an artifact.")
    evidence = strict_json(text or "{}")
    if not isinstance(evidence, dict):
        raise InvalidArgument("Evidence is a JSON object.", next="No NaN, no half characters, at most 64 levels deep.")
    return evidence


@asynccontextmanager
async def open_door(directory: Path, session: Session) -> AsyncIterator[None]:
    """Listens for one worker on `directory/gate.sock` until the body ends; replaces the socket of an earlier core."""
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS_AT_ONCE)
    session_pb2_grpc.add_SessionServicer_to_server(SessionServicer(session), server)
    bus_pb2_grpc.add_BusServicer_to_server(BusServicer(session), server)
    files_pb2_grpc.add_FilesServicer_to_server(FilesServicer(session), server)
    llm_pb2_grpc.add_LlmServicer_to_server(LlmServicer(session), server)
    web_pb2_grpc.add_WebServicer_to_server(WebServicer(session), server)
    secrets_pb2_grpc.add_SecretsServicer_to_server(SecretsServicer(session), server)
    llm_pb2_grpc.add_ModelHostServicer_to_server(ModelHostServicer(session), server)
    path = directory / "gate.sock"
    server.add_insecure_port(f"unix:{path}")
    with CancelScope(shield=True):  # a start or stop that is cancelled half-way fails in the library, somewhere else
        await server.start()
    try:
        os.chmod(path, 0o666)  # the worker is another user; the directory above lets nobody else near
        yield
    finally:
        with CancelScope(shield=True):
            await server.stop(grace=0.1)
