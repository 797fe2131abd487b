"""Who may do what: plain code, on an identity that comes from the channel. What no rule allows is denied.

Every rule has a name, and a denial says it, what would be needed, and nothing about things the caller may not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.policy.targets import NOWHERE, address_of, within
from protos.errors import Denied
from protos.v1.message_pb2 import KIND_CALL, Message


@dataclass(frozen=True)
class Purse:
    """What a run may spend on models: caps of its own, below those of the account it draws from."""

    usd: float | None = None
    tokens: int | None = None
    under: str = ""  # the account of the run that asked for it; empty: the day's


@dataclass(frozen=True)
class Identity:
    """Whom a session proves. A resident has no run and speaks in any conversation; a run in its own only."""

    participant: str
    ports: frozenset[str]
    run: str = ""
    conversation: str = ""
    core: bool = False  # a run of one of the core's own MADs: it may speak and read within its conversation, too
    purse: Purse = Purse()  # of a run: what its models may cost
    web: tuple[str, ...] | None = None  # hosts that whoever asked for the run lets it reach; None: as the manifest says
    outside: bool = False  # a person or a client at a door: "operator", "client:NAME"
    hand: int = 0  # of a resident with several messages in hand: for which it acts; no number is used twice

    @property
    def principal(self) -> str:
        """The name under which acts are journalled."""
        return self.run or self.participant

    @property
    def principals(self) -> tuple[str, ...]:
        """Every name that rules and grants may know it by, the narrowest first."""
        if self.outside:
            return (self.participant,)
        return (f"run:{self.run}", f"mad:{self.participant}") if self.run else (f"mad:{self.participant}",)


CORE_PORTS = frozenset({"bus", "files", "files:*", "call:*", "llm"})  # of a run of one of the core's own MADs
RESIDENT_PORTS = frozenset({"bus", "files", "files:*", "call:*", "llm"})


def may_use(identity: Identity, port: str) -> None:
    """
    Raises:
        Denied: rule *port*: the manifest does not ask for it.
    """
    family, _, name = port.partition(":")
    if port not in identity.ports and not (name and f"{family}:*" in identity.ports):
        raise Denied(
            f"rule port: {identity.participant} may not use {port}.",
            next=f'List "{port}" in the ports of its manifest.',
        )


def may_reach(identity: Identity, url: str) -> None:
    """Whether the manifest asks for that host ("web", "web:*.example.org"), and whoever asked for the run lets it.

    Raises:
        Denied: rule *port*, *terms* or *address*.
    """
    address = address_of(url)
    if address is None:
        raise Denied("rule address: this is no address in the one form.", next="Write it as RFC 3986 does.")
    asked = [each.partition(":")[2] for each in identity.ports if each.startswith("web:")]
    if "web" not in identity.ports and not within(address, asked):
        may_use(identity, f"web:{address.host}")
    if identity.web is not None and not within(address, identity.web):
        raise Denied(
            f"rule terms: whoever asked for this run lets it reach {_hosts(identity.web)}.",
            next="Ask again with terms that name this host.",
        )


def _hosts(patterns: Sequence[str]) -> str:
    return "nothing" if NOWHERE in patterns else f"{', '.join(patterns)[:300]} only"


def may_enter(identity: Identity, conversation: str) -> None:
    """
    Raises:
        Denied: rule *conversation*: a run speaks and reads in its own only.
    """
    within = identity.core and conversation.startswith(f"{identity.conversation}/")
    if identity.conversation and conversation != identity.conversation and not within:
        raise Denied("rule conversation: a run may use its own conversation only.", next="Speak where you were asked.")


def may_publish(identity: Identity, message: Message, *, answers: bool, knows_recipient: bool) -> None:
    """Whether `message` may be said.

    `answers`: it replies to a message that was addressed to the caller, by that message's own sender.
    `knows_recipient`: the recipient has written to the caller in this conversation.

    Raises:
        Denied: rules *port*, *conversation*, *answer*, *recipient*.
    """
    may_use(identity, "bus")
    may_enter(identity, message.conversation)
    if message.terms.image and identity.run and not identity.core:
        raise Denied("rule terms: which image a run has is the operator's to say.", next="Leave it out.")
    if message.in_reply_to and not answers:
        raise Denied("rule answer: only a message that was addressed to you can be answered, to its sender.")
    if message.kind == KIND_CALL:
        may_use(identity, f"call:{message.recipient}")
    elif identity.run and message.recipient and not knows_recipient:
        raise Denied("rule recipient: a run may address those who have written to it, or the whole conversation.")


def may_ask(identity: Identity, message: Message) -> None:
    """Whether somebody at a door may say `message` to a MAD: the operator everything, a client what was named.

    Raises:
        Denied: rule *port* or *terms*.
    """
    if message.terms.image and "call:*" not in identity.ports:
        raise Denied("rule terms: which image a run has is the operator's to say.", next="Leave it out.")
    calls = {"call:*", f"call:{message.recipient}"}
    if message.kind == KIND_CALL:
        calls.add(f"call:{message.recipient}.{message.tool}")
    if identity.ports.isdisjoint(calls):
        what = f"{message.recipient}.{message.tool}" if message.kind == KIND_CALL else message.recipient
        raise Denied(
            f"rule port: {identity.participant} may not call {what}.",
            next=f"The operator names it: madlab client add NAME --may {what}",
        )
