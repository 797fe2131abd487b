"""The egress broker through the gate."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING

from protos.errors import Unavailable
from protos.remote.session import RemoteSession, translating

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall, UnaryStreamCall

    from protos.v1.web_pb2 import FetchEvent, FetchRequest, RequestHead
    from protos.v1.web_pb2_grpc import WebAsyncStub

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})  # what asks for nothing to be changed


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
            yield FetchRequest(head=head, more=True)
            try:
                async for chunk in body:
                    yield FetchRequest(bytes=chunk, more=True)
            except Exception as error:
                broken.append(error)
                raise
            yield FetchRequest(bytes=b"")

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
