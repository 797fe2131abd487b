"""The port `ctx.llm` as a Protocol, and what every caller of it needs: a whole answer out of a stream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from protos.ids import new_id
from protos.v1.llm_pb2 import (
    ROLE_SYSTEM,
    ROLE_USER,
    BrokenToolCall,
    CompleteRequest,
    CompletionEvent,
    EmbedReply,
    EmbedRequest,
    Finished,
    Model,
    Part,
    Reasoning,
    Started,
    ToolCall,
    Turn,
    Usage,
)


class Llm(Protocol):
    """Fiedler, as one caller sees it."""

    def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        """Streams one completion: started, output, usage, finished. Closing the iterator cancels the call.

        A request is paid for once: the same id again brings the same answer. When the stream breaks after the first
        output nothing is asked again: whoever wants to goes on with a new id and what has come so far.

        Raises:
            InvalidArgument: no turns, an unknown alias, a schema that is none, an image the model does not take.
            Denied: the provider refused the lab's key.
            Exhausted: the budget does not cover the worst case of the call, or the provider's own limit is spent.
            Conflict: the id belongs to another request, to one being answered, or to one whose answer is lost.
            Unavailable: no provider answered in time, or the stream broke.
        """
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """One vector for each input.

        Raises:
            as `complete`.
        """
        ...

    async def models(self) -> Sequence[Model]:
        """The aliases there are, with their prices and how they fare."""
        ...


@dataclass
class Completion:
    """A whole answer."""

    started: Started = field(default_factory=Started)
    text: str = ""
    reasoning: list[Reasoning] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    broken_tool_calls: list[BrokenToolCall] = field(default_factory=list)
    refusal: str = ""
    usage: Usage = field(default_factory=Usage)
    finished: Finished = field(default_factory=Finished)

    def take(self, event: CompletionEvent) -> None:
        """Adds what an event brings."""
        match event.WhichOneof("kind"):
            case "started":
                self.started = event.started
            case "text":
                self.text += event.text
            case "reasoning":
                self._think(event.reasoning)
            case "tool_call":
                self.tool_calls.append(event.tool_call)
            case "broken_tool_call":
                self.broken_tool_calls.append(event.broken_tool_call)
            case "refusal":
                self.refusal += event.refusal
            case "usage":
                self.usage = event.usage
            case "finished":
                self.finished = event.finished

    def _think(self, piece: Reasoning) -> None:
        if not self.reasoning or self.reasoning[-1].signature or self.reasoning[-1].opaque:
            self.reasoning.append(Reasoning())
        self.reasoning[-1].text += piece.text
        self.reasoning[-1].signature += piece.signature
        self.reasoning[-1].opaque += piece.opaque


async def complete(llm: Llm, request: CompleteRequest) -> Completion:
    """The whole answer to `request`.

    Raises:
        as `Llm.complete`.
    """
    completion = Completion()
    async with aclosing(llm.complete(request)) as events:  # type: ignore[type-var]
        async for each in events:
            completion.take(each)
    return completion


def prompt(text: str, *, system: str = "", model: str = "") -> CompleteRequest:
    """A request with a new id that asks one thing."""
    turns = [Turn(role=ROLE_SYSTEM, parts=[Part(text=system)])] if system else []
    return CompleteRequest(id=new_id(), model=model, turns=[*turns, Turn(role=ROLE_USER, parts=[Part(text=text)])])
