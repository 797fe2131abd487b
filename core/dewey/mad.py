"""Dewey as a MAD: searching, reading, archiving and restoring as tools. What it hands out keeps the labels of what it
found, and nobody finds by it what they could not read themselves.
"""

from typing import Literal

from typing_extensions import TypedDict

from core.dewey.archives import Archives
from core.dewey.index import root
from core.dewey.library import Library
from core.dewey.query import key
from core.policy.capabilities import RESIDENT_PORTS, Identity
from core.policy.taint import labels_of
from core.ports.services import Services
from protos.errors import Denied, NotFound
from protos.tools import Call, tool
from protos.v1.message_pb2 import Kind, Message

OPERATOR = "operator"
CLIENT = "client:"
READ = 100  # messages of one answer
DAY_S = 86_400.0


class Piece(TypedDict):
    """Some of a text."""

    text: str
    highlighted: bool


class Hit(TypedDict):
    """One thing that was found."""

    kind: str
    id: str
    conversation: str
    run: str
    sender: str
    at: float
    title: str
    snippet: list[Piece]
    taint: list[str]


class Hits(TypedDict):
    """What was found, the best first."""

    hits: list[Hit]
    more: str


class Line(TypedDict):
    """One message of a conversation."""

    sequence: int
    id: str
    at: float
    sender: str
    recipient: str
    kind: str
    tool: str
    text: str
    data: str
    taint: list[str]


class Lines(TypedDict):
    """A range of a conversation, the oldest first; `next` is where to go on after, 0 at the end."""

    messages: list[Line]
    next: int


class Archived(TypedDict):
    """Conversations that went into the archive, and how much."""

    conversations: list[str]
    messages: int
    bytes: int


class Restored(TypedDict):
    """A conversation that is back."""

    conversation: str
    messages: int


class Fares(TypedDict):
    """How index and archive fare."""

    documents: int
    lag: int
    error: str
    archived: int


class Dewey:
    """Finds what was said and done, reads it out, and keeps the archive."""

    def __init__(self, services: Services, library: Library, archives: Archives) -> None:
        self._services = services
        self._library = library
        self._archives = archives

    @tool(effects="read", idempotent=True)
    async def search(
        self,
        call: Call,
        *,
        query: str,
        kind: Literal["", "message", "run", "finding", "act"] = "",
        limit: int = 20,
        more: str = "",
    ) -> Hits:
        """Finds messages, runs, findings and acts: words, "phrases", begin*, -not, this OR that, and fields such as
        from:hopper, tag:release, before:2026-11-22."""
        found = await self._library.search(
            query, fields={"kind": [kind]} if kind else None, limit=limit, more=more, sees=_sees(call.message)
        )
        await self._carry(frozenset(label for each in found.hits for label in each.taint))
        return {"hits": [
            {
                "kind": each.kind,
                "id": each.id,
                "conversation": each.conversation,
                "run": each.run,
                "sender": each.sender,
                "at": each.at,
                "title": each.title,
                "snippet": [{"text": text, "highlighted": marked} for text, marked in each.snippet],
                "taint": list(each.taint),
            }
            for each in found.hits
        ], "more": found.more}  # fmt: skip

    @tool(effects="read", idempotent=True)
    async def read(self, call: Call, *, conversation: str, after: int = 0, limit: int = 20) -> Lines:
        """Reads out a range of a conversation, archived or not."""
        await self._may_read(call.message, conversation)
        page = await call.ctx.bus.history(conversation, after=after, limit=max(1, min(limit, READ)))
        if not page and not after:
            raise NotFound(f"There is no conversation {conversation[:64]!r}.", next="Find one with dewey.search.")
        full = len(page) == max(1, min(limit, READ))
        return {"messages": [_line(each) for each in page], "next": int(page[-1].sequence) if full else 0}

    @tool(effects="write", idempotent=True)
    async def archive(self, call: Call, *, conversation: str = "", idle_days: float = 30.0) -> Archived:
        """Puts one conversation into the archive, or all in which nothing was said for some days."""
        _only_the_operator(call.message)
        made = await self._archives.create([conversation] if conversation else None, idle_s=idle_days * DAY_S)
        return {
            "conversations": [each.conversation for each in made],
            "messages": sum(each.count for each in made),
            "bytes": sum(each.bytes for each in made),
        }

    @tool(effects="write", idempotent=True)
    async def restore(self, call: Call, *, conversation: str) -> Restored:
        """Brings a conversation back from the archive, bit for bit."""
        _only_the_operator(call.message)
        return {"conversation": conversation, "messages": await self._archives.restore(conversation)}

    @tool(effects="read", idempotent=True)
    async def status(self, call: Call) -> Fares:
        """Says how the index and the archive fare."""
        _only_the_operator(call.message)
        found = await self._library.status()
        archived = len(await self._archives.listed())
        return {"documents": found.documents, "lag": found.lag, "error": found.error, "archived": archived}

    async def _may_read(self, asked: Message, conversation: str) -> None:
        """
        Raises:
            NotFound: there is no such conversation, or it is not the caller's: the two look the same.
        """
        mine = asked.run and root(asked.conversation) == root(conversation)
        if asked.sender.startswith(CLIENT):
            mine = await self._library.owner_of(conversation) == asked.sender
        elif not asked.run:
            mine = True
        if not mine:
            raise NotFound(f"There is no conversation {conversation[:64]!r}.", next="Find one with dewey.search.")

    async def _carry(self, labels: frozenset[str]) -> None:
        """What was found comes along with where it has been."""
        await self._services.taints.add(Identity("dewey", RESIDENT_PORTS), labels)


def _sees(asked: Message) -> list[str] | None:
    """A run finds what was said in its own conversation, a client what was said in its own; the rest everything."""
    if asked.run:
        return [key("conversation", root(asked.conversation))]
    return [key("owner", asked.sender)] if asked.sender.startswith(CLIENT) else None


def _only_the_operator(asked: Message) -> None:
    """
    Raises:
        Denied: somebody else asked.
    """
    if asked.sender != OPERATOR:
        raise Denied("rule operator: index and archive are the operator's.", next="Ask the operator of the lab.")


def _line(message: Message) -> Line:
    return {
        "sequence": message.sequence,
        "id": message.id,
        "at": message.at,
        "sender": message.sender,
        "recipient": message.recipient,
        "kind": Kind.Name(message.kind).removeprefix("KIND_").lower(),
        "tool": message.tool,
        "text": message.text,
        "data": message.data,
        "taint": sorted(labels_of(message)),
    }
