"""Who asks, and what of the lab it may see. Every request has exactly one caller, made from the channel it came by and
from nothing that it says.

Whoever can open the lab's own socket (mode 0600) is the operator. Over TCP a token says who it is: the operator's
session, or a client. Where no door has set a caller, there is none: nothing falls back to the operator.

A client sees the conversations that it began, the runs in them (with those that work for them), and the blobs that it
stored or that are linked there. Everything else looks like what is not there. One that was added with `--sees all`
reads all of them, and still acts on its own only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from anyio import CancelScope
from starlette.requests import Request

from core.grace.door.belongings import WITHIN, owns_blob, owns_conversation
from core.grace.door.tokens import Token
from core.lab import Lab
from core.policy.capabilities import Identity
from core.run import Run
from protos.errors import Denied, NotFound, Unauthenticated
from protos.ids import is_uuid
from protos.v1.message_pb2 import Blob

OPERATOR = "operator"
CALLER = "madlab.caller"  # where a door puts it into the scope of a request
ANY_CALL = frozenset({"call:*"})


@dataclass(frozen=True)
class Caller:
    """Somebody at the door."""

    identity: Identity
    local: bool = False  # it came over the lab's own socket
    sees_all: bool = False  # what others did and said, too
    token: Token | None = None  # what it showed; None over the lab's own socket
    alive: CancelScope | None = None  # what ends this request when the token does

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
        asked = {"call:*", f"call:{mad}"} | ({f"call:{mad}.{tool}"} if tool else set())
        return not self.identity.ports.isdisjoint(asked)


THE_OPERATOR = Caller(Identity(OPERATOR, ANY_CALL, outside=True), local=True, sees_all=True)


def caller_with(token: Token) -> Caller:
    """Who shows a token that is good."""
    if not token.is_client:
        return Caller(THE_OPERATOR.identity, sees_all=True, token=token)
    ports = frozenset(f"call:{each}" for each in token.may)
    return Caller(Identity(token.id, ports, outside=True), sees_all=token.sees == "all", token=token)


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
    if caller.token is not None and not request.app.state.tokens.knows(caller.token):
        raise Unauthenticated("This token has ended.", next="See: madlab open, madlab client add")
    if not clients and not caller.is_operator:
        raise Denied("rule operator: this is the operator's to do.", next="Ask the operator of the lab.")
    if local and not caller.local:
        raise Denied(
            "rule local: this is done over the lab's own socket only.", next="Use the command on the lab's machine."
        )


# --- what it may see


async def may_see_conversation(lab: Lab, caller: Caller, conversation: str) -> bool:
    """Whether it may read what is said there."""
    return caller.sees_all or await owns_conversation(lab.journal, caller.name, conversation)


async def may_see_run(lab: Lab, caller: Caller, run: Run) -> bool:
    """Whether it may know of a run."""
    return await may_see_conversation(lab, caller, run.conversation)


async def may_see_blob(lab: Lab, caller: Caller, digest: str) -> bool:
    """Whether it may read a blob, or link it in what it says."""
    return caller.sees_all or await owns_blob(lab.journal, caller.name, digest)


def seen_by(caller: Caller, column: str) -> tuple[str, Sequence[str]]:
    """A condition of SQL on a column that holds conversations, with its parameters: for lists."""
    return ("1", ()) if caller.sees_all else (WITHIN.format(column), (caller.name,))


async def seen_run(lab: Lab, caller: Caller, id: str) -> Run:
    """A run that the caller may know of.

    Raises:
        NotFound: there is none, or none that it may see: the two look the same.
    """
    run = await lab.runs.get(id)
    if not await may_see_run(lab, caller, run):
        raise NotFound(f"There is no run {id[:64]!r}.", next="See: madlab runs")
    return run


async def seen_blob(lab: Lab, caller: Caller, digest: str) -> Blob:
    """A blob that the caller may read.

    Raises:
        InvalidArgument: this is no digest.
        NotFound: there is none, or none that it may see: the two look the same.
    """
    blob = await lab.horace.stat(digest)
    if not await may_see_blob(lab, caller, digest):
        raise lab.horace.missing(digest)
    return blob


async def own_run(lab: Lab, caller: Caller, id: str) -> Run:
    """A run that the caller may act on: cancel it, say something to it.

    Raises:
        NotFound: there is none, or none that it may see.
        Denied: rule *own*: it sees it, and it is another's.
    """
    run = await seen_run(lab, caller, id)
    if not caller.is_operator and not await owns_conversation(lab.journal, caller.name, run.conversation):
        raise Denied("rule own: this run was started by somebody else.", next="Ask the operator of the lab.")
    return run


async def may_speak_in(lab: Lab, caller: Caller, conversation: str) -> None:
    """Whether it may say something there: a client in conversations of its own, and in new ones.

    A new one has an id that nobody can guess, or whoever tries names could learn which conversations there are.

    Raises:
        NotFound: it is another's, or has no such id.
    """
    if caller.is_operator or await owns_conversation(lab.journal, caller.name, conversation):
        return
    if not is_uuid(conversation) or await lab.rogers.history(conversation, limit=1):
        raise NotFound(
            f"There is no conversation {conversation[:64]!r} of yours.",
            next="Leave it out and one is made; a new one has a UUIDv7 in lower case.",
        )
