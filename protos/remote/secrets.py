"""Turing through the gate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protos.remote.session import RemoteSession

if TYPE_CHECKING:
    from protos.v1.secrets_pb2 import Handle


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
