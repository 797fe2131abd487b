"""Makes of a provider's pieces what is handed on: secrets taken out, tool calls only whole, and at the end a verdict.

Text and reasoning are handed on as they come. A tool call is handed on when the answer has ended and the call is
complete: a tool that was offered, arguments that are JSON and fit its schema. Anything else that was meant as a call is
told as broken, with a sentence that a model can learn from. Nothing is mended: a call that was guessed at may do harm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from core.fiedler.provider import Kind, Trouble
from core.fiedler.schemas import Check, check_of, is_object
from core.redaction.redactor import Redactor
from core.redaction.strainer import TextStrainer
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent

MAX_CALLS = 128  # in one answer
ARGUMENTS = 128 * 1024  # characters of one call
MAX_OUTPUT = 32 << 20  # characters of one answer


@dataclass(frozen=True)
class Wanted:
    """What a request allows an answer to be."""

    tools: Mapping[str, Check]
    output: Check | None
    fragments: bool

    @classmethod
    def by(cls, request: pb.CompleteRequest) -> "Wanted":
        """
        Raises:
            InvalidArgument: a schema is none.
        """
        tools = {each.name: check_of(each.input_schema, what=f"the tool {each.name!r}") for each in request.tools}
        output: Check | None = None
        match request.format.WhichOneof("kind"):
            case "schema":
                output = check_of(request.format.schema.schema, what="the output")
            case "json_object":
                output = is_object
        return cls(tools, output, request.fragments)


@dataclass
class _Call:
    strainer: TextStrainer  # of the fragments
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Assembly:
    """One answer in the making."""

    def __init__(self, wanted: Wanted, redactor: Redactor) -> None:
        self._wanted, self._redactor = wanted, redactor
        self._text, self._thought = TextStrainer(redactor), TextStrainer(redactor)
        self._calls: dict[int, _Call] = {}
        self._said: list[str] = []
        self.shown = 0  # characters of output so far

    def take(self, event: CompletionEvent) -> Iterator[CompletionEvent]:
        """What is handed on because of a piece.

        Raises:
            Trouble: the answer has no end, or is no answer.
        """
        match event.WhichOneof("kind"):
            case "text":
                self._count(event.text)
                yield from self._tell(self._text.feed(event.text))
            case "reasoning":
                self._count(event.reasoning.text)
                thought = event.reasoning
                text = self._thought.feed(thought.text)
                if thought.signature or thought.opaque:
                    text += self._thought.flush()
                if text or thought.signature or thought.opaque:
                    piece = pb.Reasoning(text=text, signature=thought.signature, opaque=thought.opaque)
                    yield CompletionEvent(reasoning=piece)
            case "refusal":
                self._count(event.refusal)
                yield CompletionEvent(refusal=self._clean(event.refusal))
            case "tool_call_fragment":
                yield from self._gather(event.tool_call_fragment)
            case "finished":
                yield from self._end(event.finished)

    def _clean(self, text: str) -> str:
        return self._redactor.redact_text(text)

    def _count(self, text: str) -> None:
        self.shown += len(text)
        if self.shown > MAX_OUTPUT:
            raise Trouble(Kind.NONSENSE, f"The answer is over {MAX_OUTPUT} characters.")

    def _tell(self, text: str) -> Iterator[CompletionEvent]:
        if text:
            if self._wanted.output is not None:
                self._said.append(text)
            yield CompletionEvent(text=text)

    def _gather(self, fragment: pb.ToolCallFragment) -> Iterator[CompletionEvent]:
        self._count(fragment.name + fragment.arguments)
        if fragment.index not in self._calls and len(self._calls) >= MAX_CALLS:
            raise Trouble(Kind.NONSENSE, f"The answer has over {MAX_CALLS} tool calls.")
        call = self._calls.setdefault(fragment.index, _Call(TextStrainer(self._redactor)))
        call.id = call.id or fragment.id
        call.name = call.name or fragment.name
        call.arguments.append(fragment.arguments)
        if self._wanted.fragments:
            shown = call.strainer.feed(fragment.arguments)
            name, id = self._clean(fragment.name), self._clean(fragment.id)
            piece = pb.ToolCallFragment(index=fragment.index, id=id, name=name, arguments=shown)
            yield CompletionEvent(tool_call_fragment=piece)

    def _end(self, finished: pb.Finished) -> Iterator[CompletionEvent]:
        rest = self._thought.flush()
        if rest:
            yield CompletionEvent(reasoning=pb.Reasoning(text=rest))
        yield from self._tell(self._text.flush())
        broken = ""
        for index, call in sorted(self._calls.items()):
            arguments = self._clean("".join(call.arguments)) or "{}"
            name, id = self._clean(call.name), self._clean(call.id) or f"call_{index}"
            made = pb.ToolCall(id=id, name=name, arguments=arguments)
            if self._wanted.fragments and (held := call.strainer.flush()):
                piece = pb.ToolCallFragment(index=index, arguments=held)
                yield CompletionEvent(tool_call_fragment=piece)
            problem = self._problem(made, finished.reason)
            if problem:
                broken = broken or f"{name or 'a call without a name'}: {problem}"
                yield CompletionEvent(broken_tool_call=pb.BrokenToolCall(call=made, problem=problem))
            else:
                yield CompletionEvent(tool_call=made)
        yield CompletionEvent(finished=self._verdict(finished, broken))

    def _problem(self, call: pb.ToolCall, reason: pb.FinishReason.ValueType) -> str:
        check = self._wanted.tools.get(call.name)
        if check is None:
            known = ", ".join(sorted(self._wanted.tools)) or "none"
            return f"There is no tool {call.name[:100]!r}; there are: {known}."
        if len(call.arguments) > ARGUMENTS:
            call.arguments = call.arguments[: ARGUMENTS // 8]
            return f"The arguments are over {ARGUMENTS} characters: do it in smaller steps."
        wrong = is_object(call.arguments) or check(call.arguments)
        if not wrong:
            return ""
        cut = " (the answer reached its most tokens)" if reason == pb.FINISH_LENGTH else ""
        return f"The arguments cannot be used: {wrong}{cut}."

    def _verdict(self, finished: pb.Finished, broken: str) -> pb.Finished:
        if broken:
            return pb.Finished(reason=pb.FINISH_INVALID_TOOL_CALL, detail=broken[:500])
        complete = finished.reason in (pb.FINISH_STOP, pb.FINISH_STOP_SEQUENCE) and not self._calls
        if self._wanted.output is not None and complete:
            wrong = self._wanted.output("".join(self._said))
            if wrong:
                return pb.Finished(reason=pb.FINISH_INVALID_OUTPUT, detail=f"The output cannot be used: {wrong}"[:500])
        if self._calls and finished.reason == pb.FINISH_STOP:  # some servers say so in spite of calls
            return pb.Finished(reason=pb.FINISH_TOOL_CALLS)
        return finished
