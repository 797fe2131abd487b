"""The port `ctx.llm` as a Protocol, and what every caller of it needs: whole answers, and requests of any size."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from protos.errors import Denied
from protos.ids import new_id
from protos.v1.llm_pb2 import (
    ROLE_SYSTEM,
    ROLE_USER,
    BrokenToolCall,
    CompleteRequest,
    CompletionEvent,
    CostsReply,
    EmbedReply,
    EmbedRequest,
    Finished,
    Image,
    Model,
    Part,
    Reasoning,
    Serving,
    Started,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

PIECE_BYTES = 256 * 1024


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
        """The aliases there are, with their prices and how they fare.

        Raises:
            Denied: the manifest asks for no models.
        """
        ...

    async def costs(self, by: str = "model", *, since: float = 0.0) -> CostsReply:
        """What was spent, by run, mad, model or day, since a moment in seconds since the epoch.

        Raises:
            Denied: the manifest asks for no models.
            InvalidArgument: `by` is none of these.
        """
        ...


class NoLlm(Llm):
    """The port of a host that has no models."""

    async def complete(self, request: CompleteRequest) -> AsyncIterator[CompletionEvent]:
        raise Denied("There are no models here.", next="Serve the MAD in a lab that has some.")
        yield

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        raise Denied("There are no models here.", next="Serve the MAD in a lab that has some.")

    async def models(self) -> Sequence[Model]:
        return ()

    async def costs(self, by: str = "model", *, since: float = 0.0) -> CostsReply:
        return CostsReply()


class ServedModel(Protocol):
    """A model that a worker serves to the lab: the other side of `ModelHost.Serve`. `protos.host` serves one."""

    is_model: bool  # true: how the host knows one

    async def load(self) -> Serving:
        """Makes it ready, and says what it is. Called once, first."""
        ...

    async def answer(self, request: CompleteRequest, say: "Say") -> None:
        """Answers one request, side by side with others: text, reasoning and tool call fragments as they come, usage,
        and `finished` as the last. Cancelled when nobody waits for the answer any more.

        Raises:
            InvalidArgument: it will never take this request.
            Exhausted: not now.
        """
        ...


class Say(Protocol):
    """Where a served model puts its answer."""

    async def __call__(self, event: CompletionEvent) -> None: ...


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


def pieces(request: CompleteRequest) -> Iterator[CompleteRequest]:
    """`request` in messages that each fit into one of gRPC; `joined` is the way back."""
    if request.ByteSize() <= PIECE_BYTES:
        yield request
        return
    rest = CompleteRequest()
    rest.CopyFrom(request)
    rest.ClearField("turns")
    rest.ClearField("tools")
    yield rest
    for tool in request.tools:
        yield CompleteRequest(tools=[tool])
    for turn in request.turns:
        if turn.ByteSize() <= PIECE_BYTES:
            yield CompleteRequest(turns=[turn])
            continue
        continued = turn.continued
        for part in turn.parts:
            for piece in _shreds(part):
                yield CompleteRequest(turns=[Turn(role=turn.role, parts=[piece], continued=continued)])
                continued = True


def embed_pieces(request: EmbedRequest) -> Iterator[EmbedRequest]:
    """`request` in messages that each fit into one of gRPC; merging is the way back."""
    yield EmbedRequest(id=request.id, model=request.model, dimensions=request.dimensions)
    for each in request.inputs:
        yield EmbedRequest(inputs=[each])


def vector_pieces(reply: EmbedReply) -> Iterator[EmbedReply]:
    """`reply` in messages that each fit into one of gRPC; merging is the way back."""
    yield EmbedReply(started=reply.started, usage=reply.usage)
    for each in reply.vectors:
        yield EmbedReply(vectors=[each])


def event_pieces(event: CompletionEvent) -> Iterator[CompletionEvent]:
    """`event`, its text in pieces that each fit into one message of gRPC."""
    if event.ByteSize() <= PIECE_BYTES:
        yield event
        return
    match event.WhichOneof("kind"):
        case "text":
            yield from (CompletionEvent(text=each) for each in _cut(event.text))
        case "reasoning" if event.reasoning.text:
            yield from (CompletionEvent(reasoning=Reasoning(text=each)) for each in _cut(event.reasoning.text))
            rest = Reasoning(signature=event.reasoning.signature, opaque=event.reasoning.opaque)
            if rest.ByteSize():
                yield CompletionEvent(reasoning=rest)
        case "refusal":
            yield from (CompletionEvent(refusal=each) for each in _cut(event.refusal))
        case _:
            yield event


def joined(request: CompleteRequest) -> CompleteRequest:
    """`request` with the turns and parts whole that came in pieces."""
    if not any(turn.continued or any(part.continued for part in turn.parts) for turn in request.turns):
        return request
    whole = CompleteRequest()
    whole.CopyFrom(request)
    whole.ClearField("turns")
    for turn in request.turns:
        if not (turn.continued and whole.turns):
            whole.turns.add(role=turn.role)
        _join(whole.turns[-1].parts, turn.parts)
    return whole


def _join(parts: "RepeatedCompositeFieldContainer[Part]", more: Iterable[Part]) -> None:
    for part in more:
        last = parts[-1] if parts else None
        kind = part.WhichOneof("kind")
        if not part.continued or last is None or kind != last.WhichOneof("kind"):
            made = parts.add()
            made.CopyFrom(part)
            made.continued = False
            continue
        last.cache = last.cache or part.cache
        match kind:
            case "text":
                last.text += part.text
            case "refusal":
                last.refusal += part.refusal
            case "image":
                last.image.data += part.image.data
            case "tool_call":
                last.tool_call.arguments += part.tool_call.arguments
            case "tool_result":
                _join(last.tool_result.parts, part.tool_result.parts)
            case "reasoning":
                last.reasoning.text += part.reasoning.text
                last.reasoning.signature += part.reasoning.signature
                last.reasoning.opaque += part.reasoning.opaque


def _shreds(part: Part) -> Iterator[Part]:
    """A part as it is, or in pieces of which all but the first go on with it."""
    if part.ByteSize() <= PIECE_BYTES:
        yield part
        return
    match part.WhichOneof("kind"):
        case "text":
            made = [Part(text=each) for each in _cut(part.text)]
        case "refusal":
            made = [Part(refusal=each) for each in _cut(part.refusal)]
        case "image":
            about = part.image
            data = [about.data[at : at + PIECE_BYTES] for at in range(0, len(about.data), PIECE_BYTES)]
            made = [Part(image=Image(data=each, media_type=about.media_type, detail=about.detail)) for each in data]
        case "tool_call":
            call = part.tool_call
            made = [
                Part(tool_call=ToolCall(id=call.id, name=call.name, arguments=each)) for each in _cut(call.arguments)
            ]
        case "tool_result":
            result = part.tool_result
            made = [
                Part(tool_result=ToolResult(call_id=result.call_id, failed=result.failed, parts=[piece]))
                for inner in result.parts
                for piece in _shreds(inner)
            ]
        case _:
            thought = part.reasoning
            made = [Part(reasoning=Reasoning(text=each)) for each in _cut(thought.text)]
            made += [Part(reasoning=Reasoning(signature=each)) for each in _cut(thought.signature)]
            made += [Part(reasoning=Reasoning(opaque=each)) for each in _cut(thought.opaque)]
    for index, each in enumerate(made):
        each.continued = index > 0 or part.continued
        each.cache = part.cache
        yield each


def _cut(text: str) -> Iterator[str]:
    size = PIECE_BYTES // 4  # a character has at most four bytes
    for at in range(0, len(text), size):
        yield text[at : at + size]
