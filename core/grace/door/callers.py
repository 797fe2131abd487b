"""Who asks: every request has exactly one caller, made from the channel it came by and from nothing that it says.

Whoever can open the lab's own socket (mode 0600) is the operator.
"""

from dataclasses import dataclass

from starlette.requests import Request

from core.policy.capabilities import Identity

OPERATOR = "operator"


@dataclass(frozen=True)
class Caller:
    """Somebody at the door."""

    identity: Identity

    @property
    def name(self) -> str:
        """ "operator" or "client:NAME": the sender of what it says, the principal of what it does."""
        return self.identity.participant

    @property
    def is_operator(self) -> bool:
        """Whether it may do what only a person at the lab may."""
        return self.name == OPERATOR


THE_OPERATOR = Caller(Identity(OPERATOR, frozenset(), outside=True))


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope.get("madlab.caller", THE_OPERATOR)
    return caller
