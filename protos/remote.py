"""The ports over gRPC: how a worker joins the lab, and how it outlives a restart of the core.

The worker dials, once, through the one socket it was given. `connect` keeps three things going beside the MAD's code:
the directive stream (attach, assignment, end), the heartbeat, and the count of seconds since the core last answered.

When the core goes away every call waits and is made again: publishing is idempotent by id, a subscription goes on
from what was last yielded, a download from its offset. Only an upload cannot be rewound: it fails with `Unavailable`,
and `protos.blobs.store` makes it again from its source. When nothing has answered for a whole lease the session is
over: whoever waits gets `Unavailable`, and the host ends the process, since the core has given it up by then.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from anyio import CancelScope, Event, Lock, create_task_group, current_time, move_on_after, sleep

from protos.errors import BY_CODE, Error, Exhausted, InvalidArgument, Unavailable
from protos.mad import Bus, Context, Files, Inbox, Verdict
from protos.v1 import bus_pb2, bus_pb2_grpc, files_pb2, files_pb2_grpc, session_pb2, session_pb2_grpc
from protos.v1.message_pb2 import Blob, Message
from protos.v1.session_pb2 import Assignment

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall, UnaryStreamCall

    from protos.llm import ServedModel
    from protos.v1.bus_pb2_grpc import BusAsyncStub
    from protos.v1.files_pb2_grpc import FilesAsyncStub
    from protos.v1.llm_pb2 import (
        CompleteRequest,
        CompletionEvent,
        CostsReply,
        EmbedReply,
        EmbedRequest,
        Model,
        Served,
        ToServe,
    )
    from protos.v1.llm_pb2_grpc import LlmAsyncStub, ModelHostAsyncStub
    from protos.v1.secrets_pb2 import Handle
    from protos.v1.session_pb2_grpc import SessionAsyncStub
    from protos.v1.web_pb2 import FetchEvent, FetchRequest, RequestHead
    from protos.v1.web_pb2_grpc import WebAsyncStub

logger = logging.getLogger(__name__)
Value = TypeVar("Value")

MESSAGE_BYTES = 1024 * 1024  # of one gRPC message, in either direction
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 1.0
DEFAULT_LEASE_S = 60.0
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})  # what asks for nothing to be changed
NEXT = "madlab-next-bin"  # trailing metadata: what the caller can do next
# How a stream that broke answers the next write: the last one is grpc's own slip, asyncio's error for a finished call.
STREAM_IS_OVER = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", int(FIRST_RETRY_S * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(FIRST_RETRY_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(LAST_RETRY_S * 1000)),
    ("grpc.enable_http_proxy", 0),
)


@contextmanager
def translating() -> Iterator[None]:
    """Turns a gRPC error into ours by its code alone. An unknown code is the peer's bug and stays as it is."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        kind = BY_CODE.get(error.code().name)
        if kind is None:
            raise
        trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
        next = b"".join(value for key, value in trailing if key == NEXT and isinstance(value, bytes))
        raise kind(error.details() or "", next=next.decode(errors="replace")) from None


class RemoteSession:
    """One worker's session with the core."""

    def __init__(self, channel: grpc.aio.Channel, token: str, host: str, tools: Sequence[str]) -> None:
        self.stub: SessionAsyncStub = session_pb2_grpc.SessionStub(channel)
        self.bus: BusAsyncStub = bus_pb2_grpc.BusStub(channel)
        self.channel = channel
        self.lease_s = DEFAULT_LEASE_S
        self.ended: session_pb2.End | None = None
        self._over = CancelScope()
        self._finished = Event()
        self._token, self._host, self._tools = token, host, tools
        self._credential = ""
        self._assignment: Assignment | None = None
        self._assigned = Event()
        self._early: grpc.aio.UnaryStreamCall[bus_pb2.SubscribeRequest, bus_pb2.Delivery] | None = None
        self._renewed = Event()
        self._heard = current_time()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What proves the session with every call."""
        return (("authorization", f"Bearer {self._credential}"),)

    async def assigned(self) -> Assignment:
        """Waits for work."""
        await self._assigned.wait()
        assert self._assignment is not None
        return self._assignment

    def context(self, assignment: Assignment) -> Context:
        """The ports of this session."""
        return Context(
            RemoteBus(self),
            RemoteFiles(self),
            assignment,
            llm=RemoteLlm(self),
            web=RemoteWeb(self),
            secrets=RemoteSecrets(self),
        )

    def deliveries(self) -> "grpc.aio.UnaryStreamCall[bus_pb2.SubscribeRequest, bus_pb2.Delivery]":
        """The inbox as a stream: the one that was asked for ahead of the assignment, or else a new one."""
        early, self._early = self._early, None
        return early or self.bus.Subscribe(bus_pb2.SubscribeRequest(), metadata=self.metadata)

    async def finish(self, verdict: Verdict, evidence: str) -> None:
        """Reports how the run ended."""
        request = session_pb2.FinishRequest(
            outcome=verdict.outcome, reason=verdict.reason, evidence=evidence, artifacts=verdict.artifacts
        )
        self._finished.set()  # whatever the core says from here on, the work is done
        await self.call(lambda: self.stub.Finish(request, metadata=self.metadata))

    async def call(self, make: Callable[[], Awaitable[Value]]) -> Value:
        """Makes a call, again and again while the core is away, for one lease at most.

        Raises:
            Unavailable: the core did not come back.
            Error: what the core answered.
        """
        async for _ in self.attempts():
            try:
                with translating():
                    answer = await make()
                self._heard = current_time()
                return answer
            except Unavailable:
                continue
        raise Unavailable("The core did not come back within the lease.")

    async def attempts(self) -> AsyncIterator[None]:
        """Yields at once, then with growing pauses, until the core has not been heard of for a lease."""
        began, pause = current_time(), FIRST_RETRY_S
        while True:
            yield
            if current_time() - max(began, self._heard) > self.lease_s:
                return
            await sleep(pause)
            pause = min(pause * 2, LAST_RETRY_S)

    async def listen(self, on_end: Callable[[], None]) -> None:
        """Follows the core's directives, attaching again whenever the stream breaks."""
        pause = FIRST_RETRY_S
        while not self._finished.is_set():
            proof = {"credential": self._credential} if self._credential else {"token": self._token}
            request = session_pb2.AttachRequest(host=self._host, tools=self._tools, **proof)
            try:
                with translating():
                    async for directive in self.stub.Attach(request):
                        pause = FIRST_RETRY_S
                        self._obey(directive)
                        if self.ended is not None:
                            on_end()
                            return
            except Unavailable:
                pass
            await sleep(pause)
            pause = min(pause * 2, LAST_RETRY_S)

    def _obey(self, directive: session_pb2.Directive) -> None:
        self._heard = current_time()
        match directive.WhichOneof("kind"):
            case "attached":
                self._credential = directive.attached.credential or self._credential
                self.lease_s = directive.attached.lease_s or self.lease_s
                self._renewed.set()
                if self._early is None and not self._assigned.is_set():
                    self._early = self.deliveries()  # so that the first message comes along with the assignment
            case "assignment":
                self._assignment = directive.assignment
                self._assigned.set()
            case "end":
                self.ended = directive.end

    async def beat(self, on_lapse: Callable[[], None]) -> None:
        """Keeps the lease; calls `on_lapse` when nothing has answered for the whole of it."""
        while True:
            with move_on_after(self.lease_s / 4):
                await self._renewed.wait()  # a lease that was just told counts at once
            self._renewed = Event()
            if self._credential:
                with move_on_after(self.lease_s / 4):
                    try:
                        await self.stub.Heartbeat(session_pb2.HeartbeatRequest(), metadata=self.metadata)
                        self._heard = current_time()
                    except grpc.aio.AioRpcError:
                        pass  # counted as silence
            if current_time() - self._heard > self.lease_s:
                on_lapse()
                return


class RemoteInbox:
    """An inbox that goes on where it was when the core comes back."""

    def __init__(self, session: RemoteSession) -> None:
        self._session, self._last = session, 0

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            try:
                with translating():
                    async for delivery in self._session.deliveries():
                        for message in delivery.messages:
                            if message.sequence > self._last or not message.sequence:
                                self._last = max(self._last, message.sequence)
                                yield message
                return
            except Unavailable:
                await sleep(FIRST_RETRY_S)

    async def acknowledge(self, sequence: int) -> None:
        request = bus_pb2.AcknowledgeRequest(sequence=sequence)
        await self._session.call(lambda: self._session.bus.Acknowledge(request, metadata=self._session.metadata))


class RemoteBus(Bus):
    """The bus through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session
        self._stub = session.bus
        self._reports: grpc.aio.StreamUnaryCall[bus_pb2.ReportRequest, bus_pb2.ReportReply] | None = None

    async def publish(self, message: Message) -> int:
        await self._settle_reports()
        request = bus_pb2.PublishRequest(message=message)
        reply = await self._session.call(lambda: self._stub.Publish(request, metadata=self._session.metadata))
        return reply.sequence

    async def ask(self, call: Message) -> Message:
        await self._settle_reports()
        request = bus_pb2.PublishRequest(message=call)
        reply = await self._session.call(lambda: self._stub.Ask(request, metadata=self._session.metadata))
        return reply.answer

    async def report(self, events: Iterable[Message]) -> None:
        if self._reports is None:
            self._reports = self._stub.Report(metadata=self._session.metadata)  # type: ignore[call-arg]  # written by hand
        try:
            await self._reports.write(bus_pb2.ReportRequest(events=events))
        except STREAM_IS_OVER:
            self._reports = None  # events may be lost while the core is away; what is said or called is not

    async def _settle_reports(self) -> None:
        """So that what was reported before a message is seen before it."""
        stream, self._reports = self._reports, None
        if stream is not None:
            try:
                await stream.done_writing()
                await stream
            except STREAM_IS_OVER:
                pass

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Inbox]:
        yield RemoteInbox(self._session)

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        request = bus_pb2.HistoryRequest(conversation=conversation, after=after, limit=limit)
        reply = await self._session.call(lambda: self._stub.History(request, metadata=self._session.metadata))
        return reply.messages


class RemoteLlm:
    """Fiedler through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session

    @cached_property
    def _stub(self) -> "LlmAsyncStub":
        from protos.v1 import llm_pb2_grpc  # only who uses models pays for their messages

        return llm_pb2_grpc.LlmStub(self._session.channel)

    async def complete(self, request: "CompleteRequest") -> "AsyncIterator[CompletionEvent]":
        from protos.llm import pieces

        async for _ in self._session.attempts():
            is_begun = False
            call = self._stub.Complete(_each(pieces(request)), metadata=self._session.metadata)
            try:
                with translating():
                    async for event in call:
                        is_begun = True
                        yield event
                return
            except Unavailable as error:
                if is_begun or error.next:
                    raise  # only a core that was away is asked again; what it says itself comes with what to do
            finally:
                call.cancel()
        raise Unavailable("The core did not come back within the lease.")

    async def embed(self, request: "EmbedRequest") -> "EmbedReply":
        from protos.llm import embed_pieces
        from protos.v1.llm_pb2 import EmbedReply

        async def make() -> "EmbedReply":
            whole = EmbedReply()
            async for each in self._stub.Embed(_each(embed_pieces(request)), metadata=self._session.metadata):
                whole.MergeFrom(each)
            return whole

        with translating():
            return await make()

    async def models(self) -> "Sequence[Model]":
        from protos.v1.llm_pb2 import ModelsRequest

        reply = await self._session.call(lambda: self._stub.Models(ModelsRequest(), metadata=self._session.metadata))
        return reply.models

    async def costs(self, by: str = "model", *, since: float = 0.0) -> "CostsReply":
        from protos.v1.llm_pb2 import CostsRequest

        request = CostsRequest(by=by, since=since)
        return await self._session.call(lambda: self._stub.Costs(request, metadata=self._session.metadata))


class RemoteWeb:
    """The egress broker through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session

    @cached_property
    def _stub(self) -> "WebAsyncStub":
        from protos.v1 import web_pb2_grpc  # only who uses the web pays for its messages

        return web_pb2_grpc.WebStub(self._session.channel)

    async def fetch(
        self, head: "RequestHead", body: "AsyncIterable[bytes] | None" = None
    ) -> "AsyncIterator[FetchEvent]":
        from protos.v1.web_pb2 import FetchRequest

        broken: list[Exception] = []

        async def parts(body: "AsyncIterable[bytes]") -> "AsyncIterator[FetchRequest]":
            yield FetchRequest(head=head)
            try:
                async for chunk in body:
                    yield FetchRequest(bytes=chunk)
            except Exception as error:
                broken.append(error)
                raise

        is_harmless = body is None and head.method in REPEATABLE
        async for _ in self._session.attempts():
            is_begun = False
            metadata = self._session.metadata
            call: UnaryStreamCall[RequestHead, FetchEvent] | StreamStreamCall[FetchRequest, FetchEvent]
            if body is None:
                call = self._stub.FetchBare(head, metadata=metadata)
            else:
                call = self._stub.Fetch(parts(body), metadata=metadata)
            try:
                with translating():
                    async for said in call:
                        is_begun = True
                        for event in (said, *said.then):
                            yield event
                        if event.HasField("end"):
                            break  # what follows tells nothing, and would be waited for
                return
            except asyncio.CancelledError:
                if broken:  # the library cancels a call whose body could not be read, and does not say so
                    raise broken[0] from None
                raise
            except Unavailable as error:
                if is_begun or error.next or not is_harmless:
                    raise  # what may have changed something in the world is not done twice
            finally:
                call.cancel()
        raise Unavailable("The core did not come back within the lease.")


class RemoteSecrets:
    """Turing through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session

    async def list(self) -> "Sequence[Handle]":
        from protos.v1.secrets_pb2 import ListSecretsRequest
        from protos.v1.secrets_pb2_grpc import SecretsStub

        stub = SecretsStub(self._session.channel)
        reply = await self._session.call(lambda: stub.List(ListSecretsRequest(), metadata=self._session.metadata))
        return reply.handles


class RemoteModelHost:
    """Serves a model through the gate: what the core asks is answered side by side, in any order."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session
        self._alone = Lock()  # a stream takes one write at a time

    async def serve(self, model: "ServedModel") -> None:
        """Loads `model` and serves it until the core ends the stream. Requests do not outlive a core that is away.

        Raises:
            Unavailable: the core went away.
            Denied: this worker is not there to serve a model.
        """
        from protos.v1.llm_pb2 import CompleteRequest, Served, ServedFault
        from protos.v1.llm_pb2_grpc import ModelHostStub

        serving = await model.load()
        stub: ModelHostAsyncStub = ModelHostStub(self._session.channel)
        stream = stub.Serve(metadata=self._session.metadata)  # type: ignore[call-arg]  # written by hand

        async def send(served: "Served") -> None:
            async with self._alone:
                try:
                    await stream.write(served)
                except STREAM_IS_OVER:
                    return  # whoever reads it is told, and ends

        await send(Served(serving=serving))
        gathering: dict[str, CompleteRequest] = {}
        answering: dict[str, CancelScope] = {}

        async def answer(id: str, request: CompleteRequest) -> None:
            with CancelScope() as answering[id]:
                await _answer(model, id, request, send)
            del answering[id]

        with translating():
            async with create_task_group() as tasks:
                async for told in cast("AsyncIterable[ToServe]", stream):
                    match told.WhichOneof("kind"):
                        case "complete":
                            gathering.setdefault(told.id, CompleteRequest()).MergeFrom(told.complete)
                        case "whole" if told.id in gathering:
                            tasks.start_soon(answer, told.id, gathering.pop(told.id))
                        case "cancel":
                            gathering.pop(told.id, None)
                            if told.id in answering:
                                answering[told.id].cancel()
                        case "embed":  # may come in pieces; each after the first is told the same, and not waited for
                            fault = ServedFault(code="request", text="This model makes no embeddings.")
                            await send(Served(id=told.id, fault=fault))
                tasks.cancel_scope.cancel()


async def _answer(
    model: "ServedModel", id: str, request: "CompleteRequest", send: "Callable[[Served], Awaitable[None]]"
) -> None:
    """One answer, or the fault in its place."""
    from protos.llm import event_pieces, joined
    from protos.v1.llm_pb2 import Served, ServedFault

    async def say(event: "CompletionEvent") -> None:
        for piece in event_pieces(event):
            await send(Served(id=id, event=piece))

    try:
        await model.answer(joined(request), say)
    except Error as error:
        code = {InvalidArgument.code: "request", Exhausted.code: "overloaded"}.get(error.code, "broken")
        await send(Served(id=id, fault=ServedFault(code=code, text=error.message)))
    except Exception as error:
        logger.warning("an answer failed", exc_info=error)
        await send(Served(id=id, fault=ServedFault(code="broken", text=f"{type(error).__name__}: {error}"[:500])))


async def _each(messages: Iterable[Value]) -> AsyncIterator[Value]:
    for each in messages:
        yield each


class RemoteFiles(Files):
    """Horace through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session
        self._stub: FilesAsyncStub = files_pb2_grpc.FilesStub(session.channel)

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        async def requests() -> AsyncIterator[files_pb2.PutRequest]:
            yield files_pb2.PutRequest(about=Blob(name=name, media_type=media_type))
            async for chunk in chunks:
                yield files_pb2.PutRequest(bytes=chunk)

        with translating():
            return await self._stub.Put(requests(), metadata=self._session.metadata)

    async def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        async for _ in self._session.attempts():
            request = files_pb2.GetRequest(digest=digest, offset=offset)
            try:
                with translating():
                    async for chunk in self._stub.Get(request, metadata=self._session.metadata):
                        offset += len(chunk.bytes)
                        yield chunk.bytes
                return
            except Unavailable:
                continue
        raise Unavailable("The core did not come back within the lease.")

    async def find(self, name: str) -> Blob:
        request = files_pb2.FindRequest(name=name)
        return await self._session.call(lambda: self._stub.Find(request, metadata=self._session.metadata))


@asynccontextmanager
async def connect(
    address: str, token: str, *, host: str = "", tools: Sequence[str] = (), on_end: Callable[[], None]
) -> AsyncIterator[RemoteSession]:
    """Dials `address`, attaches with the one-use `token` and keeps the session until the body ends.

    `on_end` is called, once, when the core says that the work must end or has not answered for a lease.

    Raises:
        Unauthenticated: the token was used before, or the session is over.
    """
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        session = RemoteSession(channel, token, host, tools)
        async with create_task_group() as tasks:
            tasks.start_soon(session.listen, on_end)
            tasks.start_soon(session.beat, on_end)
            yield session
            tasks.cancel_scope.cancel()
