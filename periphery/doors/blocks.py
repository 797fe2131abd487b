"""An answer as a sequence of blocks, of which one is open at a time: text, a thought, a refusal, a tool call.

That is how all three protocols tell an answer, each in its own words. Fiedler's events come nearly so; what may differ
is a provider that writes two tool calls at once. Then the second is held back until the first is complete, which shows
by its JSON, or until the answer has ended.

Tool calls are passed on as they are written, the broken ones too: so does a direct connection, and the client decides.
It runs nothing before the answer has ended well, and an answer that broke off does not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from protos.errors import Unavailable
from protos.ids import new_id
from protos.v1 import llm_pb2 as pb

Kind = Literal["text", "thought", "sealed", "refusal", "call"]


@dataclass
class Block:
    """One piece of an answer."""

    kind: Kind
    index: int  # among all blocks
    number: int = 0  # among the calls
    id: str = ""  # of a call
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    signature: str = ""  # of a thought
    opaque: str = ""  # a sealed thought

    @property
    def text(self) -> str:
        """All that was said: text, thought, refusal or arguments."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Step:
    """A block begins, goes on by a piece, or ends."""

    what: Literal["begins", "goes", "ends"]
    block: Block
    piece: str = ""


class Blocks:
    """One answer, as it comes. `most` is how many tokens it may have; 0: unknown."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self.usage = pb.Usage()
        self.finished = pb.Finished()
        self.most = 0
        self._open: Block | None = None
        self._calls: dict[int, Block] = {}  # the provider's index → what was begun
        self._held: dict[int, list[pb.ToolCallFragment]] = {}
        self._ended_calls = 0

    @property
    def reason(self) -> pb.FinishReason.ValueType:
        """Why it ended. A call that broke because the answer was at its most tokens was cut by that."""
        reason = self.finished.reason
        cut = self.most and not self.usage.assumed and self.usage.output_tokens >= self.most
        return pb.FINISH_LENGTH if cut and reason == pb.FINISH_INVALID_TOOL_CALL else reason

    def take(self, event: pb.CompletionEvent) -> Iterator[Step]:
        """What happens because of an event.

        Raises:
            Unavailable: the calls cannot be told apart.
        """
        match event.WhichOneof("kind"):
            case "text":
                yield from self._say("text", event.text)
            case "refusal":
                yield from self._say("refusal", event.refusal)
            case "reasoning":
                yield from self._think(event.reasoning)
            case "tool_call_fragment":
                yield from self._write(event.tool_call_fragment)
            case "tool_call":
                yield from self._call(event.tool_call)
            case "broken_tool_call":
                yield from self._call(event.broken_tool_call.call)
            case "usage":
                self.usage = event.usage
            case "finished":
                yield from self._close()
                self.finished = event.finished

    def check_end(self) -> None:
        """
        Raises:
            Unavailable: the answer has not come to its end.
        """
        if not self.finished.reason:
            raise Unavailable("The answer broke off.", next="Ask again.")

    def _begin(self, kind: Kind) -> Iterator[Step]:
        yield from self._close()
        self._open = Block(kind, len(self.all))
        self.all.append(self._open)
        if kind not in ("call", "sealed"):  # whoever begins these says first what is in them
            yield Step("begins", self._open)

    def _go(self, piece: str) -> Iterator[Step]:
        if self._open is not None and piece:
            self._open.pieces.append(piece)
            yield Step("goes", self._open, piece)

    def _close(self) -> Iterator[Step]:
        if self._open is not None:
            block, self._open = self._open, None
            yield Step("ends", block)

    def _say(self, kind: Kind, piece: str) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        yield from self._go(piece)

    def _think(self, thought: pb.Reasoning) -> Iterator[Step]:
        if thought.text or thought.signature:
            yield from self._say("thought", thought.text)
        if thought.signature and self._open is not None:
            self._open.signature = thought.signature
            yield from self._close()
        if thought.opaque:
            yield from self._begin("sealed")
            self.all[-1].opaque = thought.opaque
            yield Step("begins", self.all[-1])
            yield from self._close()

    def _write(self, fragment: pb.ToolCallFragment) -> Iterator[Step]:
        known = self._calls.get(fragment.index)
        if known is not None:
            if known is self._open:
                yield from self._go(fragment.arguments)
                if self._held and _is_whole(known.text):
                    yield from self._release()
            elif fragment.arguments.strip():
                raise Unavailable("The provider mixed two tool calls up.", next="Ask again.")
        elif self._held or (self._open is not None and self._open.kind == "call" and not _is_whole(self._open.text)):
            self._held.setdefault(fragment.index, []).append(fragment)
        else:
            yield from self._begin_call(fragment.index, fragment.id, fragment.name)
            yield from self._go(fragment.arguments)

    def _begin_call(self, index: int, id: str, name: str) -> Iterator[Step]:
        yield from self._begin("call")
        block = self.all[-1]
        block.number = len(self._calls)
        block.id, block.name = id or f"call_{new_id().replace('-', '')}", name
        self._calls[index] = block
        yield Step("begins", block)

    def _release(self) -> Iterator[Step]:
        """The next of the calls that were held back; those after it too, as far as they are whole."""
        while self._held:
            index = next(iter(self._held))
            fragments = self._held.pop(index)
            yield from self._begin_call(index, fragments[0].id, fragments[0].name)
            for each in fragments:
                yield from self._go(each.arguments)
            if not _is_whole(self._calls[index].text):
                return

    def _call(self, call: pb.ToolCall) -> Iterator[Step]:
        """A call at its end; where there were no fragments of it, all of it."""
        while self._held:
            yield from self._release()
        number, self._ended_calls = self._ended_calls, self._ended_calls + 1
        if number >= len(self._calls):
            yield from self._begin_call(-1 - number, call.id, call.name)
            yield from self._go(call.arguments)


def _is_whole(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True
