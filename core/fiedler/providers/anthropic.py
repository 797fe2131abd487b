"""Messages as Anthropic speaks them.

A system turn after the first user's turn has no place in that protocol: all system turns are joined, in their order,
before the conversation. Consecutive turns of one role are one message. Structured output uses the protocol's own
output format, or, where a server has none (`structured = "tool"`), a tool that the model is made to call and whose
arguments are then the text.
"""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
from anyio import AsyncContextManagerMixin

from core.fiedler.keys import Key
from core.fiedler.provider import Ask, Embeddings, Kind, Reported, Trouble
from core.fiedler.providers.shapes import count, next_of, parsed
from core.fiedler.providers.troubles import check_error, translating
from core.fiedler.wire import lending, open_client
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent

REASONS = {
    "end_turn": pb.FINISH_STOP,
    "pause_turn": pb.FINISH_STOP,
    "max_tokens": pb.FINISH_LENGTH,
    "model_context_window_exceeded": pb.FINISH_LENGTH,
    "stop_sequence": pb.FINISH_STOP_SEQUENCE,
    "tool_use": pb.FINISH_TOOL_CALLS,
    "refusal": pb.FINISH_REFUSED,
}
LEAST_THOUGHT = 1024  # tokens; the protocol takes no smaller budget
EFFORTS = {"minimal": "low"}  # where the words differ


class AnthropicProvider(AsyncContextManagerMixin):
    """Any server with `/v1/messages` below `base_url`."""

    def __init__(
        self, base_url: str, *, structured: str = "native", transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._base_url = base_url
        self._structured = structured
        self._transport = transport

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["AnthropicProvider"]:
        async with open_client("x-api-key", self._transport) as http:
            self._sdk = anthropic.AsyncAnthropic(
                api_key="put on by the wire",
                base_url=self._base_url,
                max_retries=0,
                timeout=http.timeout,
                http_client=http,
                open_telemetry=False,
            )
            yield self

    async def complete(self, ask: Ask) -> AsyncIterator[CompletionEvent | Reported]:
        reader = _Reader(self._answer_tool(ask.request))
        stream = not ask.request.whole
        with lending(ask) as lent, translating(lent):
            answer: Any = await self._sdk.messages.create(**self._body(ask), stream=stream)
        if not stream:
            with translating(lent):
                events = list(reader.whole(answer))
            for each in events:
                yield each
            return
        raw = aiter(answer)
        try:
            with translating(lent):
                while (event := await next_of(raw, ended=reader.reason is not None)) is not None:
                    for each in reader.take(event):
                        yield each
        finally:
            await answer.close()
        if reader.reason is None:
            raise Trouble(Kind.CUT, "The stream ended without a reason.")
        yield reader.finished()

    async def embed(self, ask: Ask, inputs: Sequence[str], dimensions: int) -> Embeddings:
        raise Trouble(Kind.REQUEST, "This provider makes no embeddings.")

    async def models(self, key: Key | None) -> Sequence[str]:
        with lending(Ask(pb.CompleteRequest(), "", 0, key)) as lent, translating(lent):
            page = await self._sdk.models.list()
            return [str(each.id) for each in page.data]

    def _answer_tool(self, request: pb.CompleteRequest) -> str:
        """The name of the tool whose arguments are the answer, if there is to be one."""
        by_tool = self._structured == "tool" and request.format.WhichOneof("kind") is not None
        return (request.format.schema.name or "answer") if by_tool else ""

    def _body(self, ask: Ask) -> dict[str, Any]:
        request, sampling = ask.request, ask.request.sampling
        system, messages = _conversation(request)
        body: dict[str, Any] = {"model": ask.model, "messages": messages, "max_tokens": ask.max_tokens}
        if system:
            body["system"] = system
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop)
        tools = [_tool(each) for each in request.tools]
        if request.tools:
            body["tool_choice"] = _choice(request.tool_choice)
        answer = self._answer_tool(request)
        if answer:
            schema = parsed(request.format.schema.schema)
            tools.append({"name": answer, "description": "Gives the answer.", "input_schema": schema})
            body["tool_choice"] = {"type": "tool", "name": answer, "disable_parallel_tool_use": True}
        elif request.format.WhichOneof("kind") == "schema":
            schema = parsed(request.format.schema.schema)
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if tools:
            body["tools"] = tools
        thinking = _thinking(sampling)
        if thinking:
            body["thinking"] = thinking
        if thinking == {"type": "adaptive"}:
            effort = EFFORTS.get(sampling.reasoning_effort, sampling.reasoning_effort)
            body["output_config"] = body.get("output_config", {}) | {"effort": effort}
        # The SDK has no arguments for these any more: newer models refuse them, older ones and other servers take them.
        extra = dict(ask.extra)
        for name in ("temperature", "top_p", "top_k"):
            if sampling.HasField(name):
                extra[name] = getattr(sampling, name)
        if extra:
            body["extra_body"] = extra
        return body


class _Reader:
    """Makes events of what comes, streamed or whole."""

    def __init__(self, answer_tool: str) -> None:
        self.reason: str | None = None
        self._sequence = ""
        self._answer_tool = answer_tool
        self._calls: dict[int, int] = {}  # index of the block → index of the call
        self._as_text: set[int] = set()  # blocks whose arguments are the answer
        self._usage: dict[str, int | None] = {}

    def finished(self) -> CompletionEvent:
        reason = REASONS.get(self.reason or "", pb.FINISH_STOP)
        if self._as_text and reason == pb.FINISH_TOOL_CALLS:
            reason = pb.FINISH_STOP
        return CompletionEvent(finished=pb.Finished(reason=reason, detail=self._sequence))

    def whole(self, message: Any) -> list[CompletionEvent | Reported]:
        check_error(message)
        events: list[CompletionEvent | Reported] = []
        for index, block in enumerate(message.content):
            events += self._begin(index, block)
            if block.type == "tool_use":
                events.append(self._arguments(index, json.dumps(block.input, ensure_ascii=False)))
        self.reason, self._sequence = message.stop_reason, message.stop_sequence or ""
        if self.reason is None:
            raise Trouble(Kind.CUT, "The answer ended without a reason.")
        return [*events, self._reported(message.usage), self.finished()]

    def take(self, event: Any) -> list[CompletionEvent | Reported]:
        match event.type:
            case "message_start":
                return [self._reported(event.message.usage)]
            case "content_block_start":
                return list(self._begin(event.index, event.content_block))
            case "content_block_delta":
                return self._go_on(event.index, event.delta)
            case "message_delta":
                self.reason = event.delta.stop_reason or self.reason
                self._sequence = event.delta.stop_sequence or self._sequence
                return [self._reported(event.usage)] if event.usage is not None else []
        return []

    def _begin(self, index: int, block: Any) -> list[CompletionEvent]:
        match block.type:
            case "text":
                return [CompletionEvent(text=block.text)] if block.text else []
            case "thinking":
                piece = pb.Reasoning(text=block.thinking, signature=getattr(block, "signature", None) or "")
                return [CompletionEvent(reasoning=piece)] if piece.text or piece.signature else []
            case "redacted_thinking":
                return [CompletionEvent(reasoning=pb.Reasoning(opaque=block.data))]
            case "tool_use" if block.name == self._answer_tool:
                self._as_text.add(index)
            case "tool_use":
                self._calls[index] = len(self._calls)
                fragment = pb.ToolCallFragment(index=self._calls[index], id=block.id, name=block.name)
                return [CompletionEvent(tool_call_fragment=fragment)]
        return []

    def _go_on(self, index: int, delta: Any) -> list[CompletionEvent | Reported]:
        match delta.type:
            case "text_delta":
                return [CompletionEvent(text=delta.text)]
            case "thinking_delta":
                return [CompletionEvent(reasoning=pb.Reasoning(text=delta.thinking))]
            case "signature_delta":
                return [CompletionEvent(reasoning=pb.Reasoning(signature=delta.signature))]
            case "input_json_delta":
                return [self._arguments(index, delta.partial_json)]
        return []

    def _arguments(self, index: int, piece: str) -> CompletionEvent:
        if index in self._as_text:
            return CompletionEvent(text=piece)
        return CompletionEvent(tool_call_fragment=pb.ToolCallFragment(index=self._calls[index], arguments=piece))

    def _reported(self, usage: Any) -> Reported:
        """What is known by now. Input that was read from a cache or written to one is counted beside the rest."""
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
            value = getattr(usage, name, None)
            if value is not None:
                self._usage[name] = count(value)
        rest = self._usage.get("input_tokens")
        read = self._usage.get("cache_read_input_tokens") or 0
        written = self._usage.get("cache_creation_input_tokens") or 0
        details = getattr(usage, "output_tokens_details", None)
        return Reported(
            input_tokens=None if rest is None else rest + read + written,
            cached_tokens=read,
            cache_write_tokens=written,
            # What a stream tells at its start is not what was written in the end.
            output_tokens=self._usage.get("output_tokens") if self.reason is not None else None,
            reasoning_tokens=count(getattr(details, "reasoning_tokens", None)) or 0,
        )


def _thinking(sampling: pb.Sampling) -> dict[str, Any] | None:
    """How it shall think; None leaves that to the model. A number of tokens is asked for only where one is given."""
    if sampling.HasField("reasoning_tokens"):
        if not sampling.reasoning_tokens:
            return {"type": "disabled"}
        return {"type": "enabled", "budget_tokens": max(sampling.reasoning_tokens, LEAST_THOUGHT)}
    if sampling.reasoning_effort:
        return {"type": "disabled" if sampling.reasoning_effort == "none" else "adaptive"}
    return None


def _conversation(request: pb.CompleteRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for turn in request.turns:
        blocks = [block for part in turn.parts if (block := _block(part)) is not None]
        if turn.role in (pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER):
            system += blocks
            continue
        role = "assistant" if turn.role == pb.ROLE_ASSISTANT else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    return system, messages


def _block(part: pb.Part) -> dict[str, Any] | None:
    block: dict[str, Any]
    match part.WhichOneof("kind"):
        case "text" if part.text:
            block = {"type": "text", "text": part.text}
        case "refusal":
            block = {"type": "text", "text": part.refusal}
        case "image":
            data = base64.b64encode(part.image.data).decode()
            block = {"type": "image", "source": {"type": "base64", "media_type": part.image.media_type, "data": data}}
        case "tool_call":
            call = part.tool_call
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
        case "tool_result":
            result = part.tool_result
            content = [inner for each in result.parts if (inner := _block(each)) is not None]
            block = {"type": "tool_result", "tool_use_id": result.call_id, "content": content}
            if result.failed:
                block["is_error"] = True
        case "reasoning" if part.reasoning.opaque:
            block = {"type": "redacted_thinking", "data": part.reasoning.opaque}
        case "reasoning" if part.reasoning.signature:
            thought = part.reasoning
            block = {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
        case _:  # a thought without a signature is another provider's, and this one would not take it
            return None
    if part.cache:
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _tool(offer: pb.ToolOffer) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": offer.name, "input_schema": parsed(offer.input_schema)}
    if offer.description:
        tool["description"] = offer.description
    if offer.strict:
        tool["strict"] = True
    return tool


def _choice(choice: pb.ToolChoice) -> dict[str, Any]:
    made: dict[str, Any] = {
        pb.TOOL_USE_NONE: {"type": "none"},
        pb.TOOL_USE_ANY: {"type": "any"},
        pb.TOOL_USE_NAMED: {"type": "tool", "name": choice.name},
    }.get(choice.use, {"type": "auto"})
    if choice.one_at_a_time and choice.use != pb.TOOL_USE_NONE:
        made["disable_parallel_tool_use"] = True
    return made
