"""One worker's session with the core: its proof, its work, its lease, and calls that outlast a core that is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from anyio import CancelScope, Event, current_time, move_on_after, sleep

from protos.errors import BY_CODE, Unavailable
from protos.mad import Verdict
from protos.v1 import bus_pb2, bus_pb2_grpc, session_pb2, session_pb2_grpc
from protos.v1.session_pb2 import Assignment

if TYPE_CHECKING:
    from protos.v1.bus_pb2_grpc import BusAsyncStub
    from protos.v1.session_pb2_grpc import SessionAsyncStub

Value = TypeVar("Value")

MESSAGE_BYTES = 1024 * 1024  # of one gRPC message, in either direction
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 1.0
DEFAULT_LEASE_S = 60.0
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
