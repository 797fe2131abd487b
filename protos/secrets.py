"""The port `ctx.secrets` as a Protocol: which secrets the caller may use, and where. Values never pass it."""

from collections.abc import Sequence
from typing import Protocol

from protos.v1.secrets_pb2 import Handle


class Secrets(Protocol):
    """Turing, as one caller sees it."""

    async def list(self) -> Sequence[Handle]:
        """What was granted to the caller and still holds. Use one by writing `secret://NAME` into a header.

        Raises:
            Denied: the manifest does not ask for secrets.
        """
        ...


class NoSecrets(Secrets):
    """The port of a host that has no secrets."""

    async def list(self) -> Sequence[Handle]:
        return ()
