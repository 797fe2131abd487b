"""Who asks: every request has exactly one caller, made from the channel it came by and from nothing that it says.

Whoever can open the lab's own socket (mode 0600) is the operator. Over TCP a token says who it is: the operator's
session, or a client. Where no door has set a caller, there is none: nothing falls back to the operator.
"""

from dataclasses import dataclass

from starlette.requests import Request

from core.policy.capabilities import Identity
from protos.errors import Denied, Unauthenticated

OPERATOR = "operator"
CALLER = "madlab.caller"  # where a door puts it into the scope of a request
ANY_CALL = frozenset({"call:*"})


@dataclass(frozen=True)
class Caller:
    """Somebody at the door."""

    identity: Identity
    local: bool = False  # it came over the lab's own socket
    sees_all: bool = False  # what others did and said, too
    token: str = ""  # whose life its requests share: "session:ID", "client:NAME"; empty over the lab's own socket

    @property
    def name(self) -> str:
        """ "operator" or "client:NAME": the sender of what it says, the principal of what it does."""
        return self.identity.participant

    @property
    def is_operator(self) -> bool:
        """Whether it may do what only a person at the lab may."""
        return self.name == OPERATOR

    def may_call(self, mad: str, tool: str = "") -> bool:
        """Whether it may call that tool; without a tool, say anything to that MAD."""
        return not self.identity.ports.isdisjoint({"call:*", f"call:{mad}", f"call:{mad}.{tool}"})


THE_OPERATOR = Caller(Identity(OPERATOR, ANY_CALL, outside=True), local=True, sees_all=True)


def caller_of(request: Request) -> Caller:
    """Who asks.

    Raises:
        Unauthenticated: nobody that is known.
    """
    caller: Caller | None = request.scope.get(CALLER)
    if caller is None:
        raise Unauthenticated(
            "This needs a token.", next="Send Authorization: Bearer TOKEN; see: madlab open, madlab client add"
        )
    return caller


def admit(request: Request, *, clients: bool, local: bool) -> None:
    """Whether whoever asks may use a route at all: the one place where that is decided.

    Raises:
        Unauthenticated: it is nobody that is known.
        Denied: rule *operator* or *local*.
    """
    caller = caller_of(request)
    if local and not caller.local:
        raise Denied(
            "rule local: this is done over the lab's own socket only.",
            next="Use the command line on the lab's machine.",
        )
    if not clients and not caller.is_operator:
        raise Denied("rule operator: this is the operator's to do.", next="Ask the operator of the lab.")
