"""The secrets port: what was granted to one caller, as handles. Values never pass it."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.policy.capabilities import Identity, may_use
from core.ports.services import Services
from core.turing.headers import adding_of
from protos.secrets import Secrets
from protos.v1.secrets_pb2 import Handle


@dataclass
class LocalSecrets(Secrets):
    """Turing with one caller's name."""

    services: Services
    identity: Identity

    async def list(self) -> Sequence[Handle]:
        may_use(self.identity, "secrets")
        turing = self.services.turing
        if turing is None:
            return ()
        return [
            Handle(
                name=each.name,
                host=each.place.authority,
                path=each.place.path,
                methods=sorted(each.methods),
                use=str(adding_of(each.use) or ""),
                expires=each.expires,
                uses_left=each.uses_left,
            )
            for each in turing.handles(self.identity.principals)
        ]
