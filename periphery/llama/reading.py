"""Makes events of what the model writes: text as it comes, and of a choice what was chosen, as it comes too."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from periphery.llama.choosing import Choice
from protos.errors import Error, InvalidArgument, Unavailable
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent

_TEXT = re.compile(r'\{\s*"text"\s*:\s*(?=\S)')
_CALL = re.compile(r'\s*\{\s*"tool"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)')
_TAIL = re.compile(r"[\s}]*\Z")
_TOKEN = re.compile(r'[^"\\]+|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]')
_INSIDE = re.compile(f"(?:{_TOKEN.pattern})*")
_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
_REASONS = {"stop": pb.FINISH_STOP, "length": pb.FINISH_LENGTH}


class Reading:
    """One answer, from the library's pieces to ours."""

    def __init__(self, choice: Choice | None) -> None:
        self._choice = choice
        self._mode = "text" if choice is None else "head"
        self._held = ""  # what cannot be handed on yet
        self._reason = pb.FINISH_UNSPECIFIED
        self._usage = pb.Usage()
        self.trouble: Error | None = None

    def take(self, piece: Mapping[str, Any]) -> Iterator[CompletionEvent]:
        """What comes of a piece."""
        if "error" in piece:
            self.trouble = _trouble(piece["error"])
            return
        usage = piece.get("usage")
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self._usage = pb.Usage(
                input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"], cached_tokens=cached
            )
        for each in piece.get("choices", ()):
            yield from self._read(each["delta"].get("content") or "")
            if each.get("finish_reason"):
                self._reason = _REASONS.get(each["finish_reason"], pb.FINISH_STOP)

    def end(self) -> Iterator[CompletionEvent]:
        """What is left, usage and the end."""
        match self._mode:
            case "head" if self._held:  # it did not get far enough to choose
                yield CompletionEvent(text=self._held)
            case "raw" | "call":
                around = 2 if self._mode == "raw" else 1  # objects that stand around what was chosen
                for _ in range(around):
                    self._held = self._held.rstrip().removesuffix("}")
                yield from self._raw(self._held.rstrip())
        called = self._mode == "call" and self._reason == pb.FINISH_STOP
        yield CompletionEvent(usage=self._usage)
        yield CompletionEvent(finished=pb.Finished(reason=pb.FINISH_TOOL_CALLS if called else self._reason))

    def _read(self, text: str) -> Iterator[CompletionEvent]:
        if not text:
            return
        if self._mode == "text":
            yield CompletionEvent(text=text)
            return
        text, self._held = self._held + text, ""
        match self._mode:
            case "head":
                yield from self._begin(text)
            case "string":
                yield from self._string(text)
            case "raw" | "call":
                tail = _TAIL.search(text)
                at = tail.start() if tail else len(text)
                self._held = text[at:]
                yield from self._raw(text[:at])

    def _begin(self, text: str) -> Iterator[CompletionEvent]:
        """Looks what was chosen."""
        call = _CALL.match(text)
        if call is None:
            self._held = text
            return
        name, rest = json.loads(call[1]), text[call.end() :]
        if self._choice is None or name != self._choice.words:
            self._mode = "call"
            yield CompletionEvent(tool_call_fragment=pb.ToolCallFragment(index=0, id="call_0", name=name))
            yield from self._read(rest)
        elif said := _TEXT.match(rest):
            is_string = self._choice.said is None
            self._mode = "string" if is_string else "raw"
            rest = rest[said.end() :]
            yield from self._read(rest.removeprefix('"') if is_string else rest)
        else:
            self._held = text

    def _string(self, text: str) -> Iterator[CompletionEvent]:
        """The part of a JSON string that is whole, as the text it means."""
        inside = _INSIDE.match(text)
        tokens = _TOKEN.findall(inside[0]) if inside else []
        rest = text[len("".join(tokens)) :]
        if rest.startswith('"'):
            self._mode = "over"
        else:
            if tokens and _HALF.fullmatch(tokens[-1]):  # of a character
                rest = tokens.pop() + rest
            self._held = rest
        if tokens:
            yield CompletionEvent(text=_meant("".join(tokens)))

    def _raw(self, text: str) -> Iterator[CompletionEvent]:
        if not text:
            return
        if self._mode == "call":
            yield CompletionEvent(tool_call_fragment=pb.ToolCallFragment(index=0, arguments=text))
        else:
            yield CompletionEvent(text=text)


def _meant(inside: str) -> str:
    """What the inside of a JSON string means; half a character is shown as lost."""
    text: str = json.loads(f'"{inside}"', strict=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _trouble(error: Mapping[str, Any]) -> Error:
    """What the library complains of."""
    said = str(error.get("message", ""))[:300]
    if error.get("type") == "exceed_context_size_error":
        return InvalidArgument(f"The conversation is too long for this model: {said}")
    if 400 <= int(error.get("code", 500)) < 500:
        return InvalidArgument(said)
    return Unavailable(said)
