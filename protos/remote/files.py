"""Horace through the gate."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from protos.errors import Unavailable
from protos.mad import Files
from protos.remote.session import RemoteSession, translating
from protos.v1 import files_pb2, files_pb2_grpc
from protos.v1.message_pb2 import Blob

if TYPE_CHECKING:
    from protos.v1.files_pb2_grpc import FilesAsyncStub


class RemoteFiles(Files):
    """Horace through the gate."""

    def __init__(self, session: RemoteSession) -> None:
        self._session = session
        self._stub: FilesAsyncStub = files_pb2_grpc.FilesStub(session.channel)

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        async def requests() -> AsyncIterator[files_pb2.PutRequest]:
            yield files_pb2.PutRequest(about=Blob(name=name, media_type=media_type), more=True)
            try:
                async for chunk in chunks:
                    yield files_pb2.PutRequest(bytes=chunk, more=True)
            except Exception as error:
                broken.append(error)
                raise
            yield files_pb2.PutRequest(bytes=b"")

        broken: list[Exception] = []
        try:
            with translating():
                return await self._stub.Put(requests(), metadata=self._session.metadata)
        except asyncio.CancelledError:
            if broken:  # the library cancels a call whose bytes could not be read, and does not say so
                raise broken[0] from None
            raise

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
