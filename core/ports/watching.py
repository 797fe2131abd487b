"""What a port refuses because it holds a secret or a decoy becomes an incident under the name of whoever tried."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.policy.capabilities import Identity
from core.ports.services import Services
from core.redaction.canaries import Who
from core.redaction.refusal import SecretSeen
from protos.errors import Denied


@contextmanager
def watching(services: Services, identity: Identity, place: str) -> Iterator[None]:
    """Tells the canaries what the body refuses. `place` is a phrase for people: "a file", "POST https://…".

    Raises:
        Denied: rule *secret*, as the body raised it; a run is not told whose value it was.
    """
    try:
        yield
    except SecretSeen as error:
        services.canaries.seen(who(identity), f"the {error.part} of {place}", error.hits)
        if not identity.run:
            raise
        raise Denied(
            "rule secret: a value that the lab keeps secret does not leave it like this.",
            next="Leave it out, or write secret://NAME into a header, where it was granted.",
        ) from None


def who(identity: Identity) -> Who:
    """An identity, as the canaries know it."""
    return Who(
        identity.participant, identity.conversation, identity.run, guest=bool(identity.run) and not identity.core
    )
