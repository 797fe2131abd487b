"""The bus through the gate."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc
from anyio import sleep

from protos.errors import Unavailable
from protos.mad import Bus, Inbox
from protos.remote.session import FIRST_RETRY_S, STREAM_IS_OVER, RemoteSession, translating
from protos.v1 import bus_pb2
from protos.v1.message_pb2 import Message


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
