"""Models through the gate, both ways: asking Fiedler for one, and serving one to the lab."""

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

from anyio import CancelScope, Lock, create_task_group

from protos.errors import Error, Exhausted, InvalidArgument, Unavailable
from protos.remote.session import STREAM_IS_OVER, RemoteSession, translating

if TYPE_CHECKING:
    from protos.llm import ServedModel
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

logger = logging.getLogger(__name__)
Value = TypeVar("Value")


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
