"""Anthropic's messages.

The tokens of the prompt are known when the answer has ended, so `message_start` says 0 and `message_delta` says them
all, as that protocol allows. A thought of a provider of another kind has an empty signature. Tools that Anthropic's
own servers run are refused, since the answer without them would be made up; a client's own are offered as they are.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from periphery.doors.blocks import Block, Blocks, Step
from periphery.doors.faults import anthropic_fault
from periphery.doors.history import History
from periphery.doors.reading import Fields, picture, picture_at
from periphery.doors.speech import Asked, Tongue, event
from protos.ids import new_id
from protos.v1 import llm_pb2 as pb

REASONS = {
    pb.FINISH_LENGTH: "max_tokens",
    pb.FINISH_TOOL_CALLS: "tool_use",
    pb.FINISH_INVALID_TOOL_CALL: "tool_use",
    pb.FINISH_STOP_SEQUENCE: "stop_sequence",
    pb.FINISH_REFUSED: "refusal",
}
USES = {
    "auto": pb.TOOL_USE_AUTO,
    "any": pb.TOOL_USE_ANY,
    "tool": pb.TOOL_USE_NAMED,
    "none": pb.TOOL_USE_NONE,
}
ROLES = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT, "system": pb.ROLE_SYSTEM}
DELTAS = {"text": "text", "refusal": "text", "thought": "thinking"}
EFFORTS = {"xhigh": "high", "max": "high"}
BYTES_PER_TOKEN, PICTURE_TOKENS = 3.5, 1600  # an estimate: rather too many than too few


class MessageSpeaker:
    """Says one message."""

    def __init__(self, model: str) -> None:
        id = f"msg_{new_id().replace('-', '')}"
        self._about = {"id": id, "type": "message", "role": "assistant", "model": model}

    def begin(self) -> Iterator[bytes]:
        empty: dict[str, Any] = {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(pb.Usage(output_tokens=1)),
        }
        yield _event("message_start", message=self._about | empty)
        yield _event("ping")

    def say(self, step: Step) -> Iterator[bytes]:
        block, index = step.block, step.block.index
        match step.what:
            case "begins":
                yield _event("content_block_start", index=index, content_block=_beginning(block))
            case "goes" if block.kind == "call":
                delta = {"type": "input_json_delta", "partial_json": step.piece}
                yield _event("content_block_delta", index=index, delta=delta)
            case "goes":
                word = DELTAS[block.kind]
                yield _event("content_block_delta", index=index, delta={"type": f"{word}_delta", word: step.piece})
            case "ends":
                if block.kind == "thought":
                    signed = {"type": "signature_delta", "signature": block.signature}
                    yield _event("content_block_delta", index=index, delta=signed)
                yield _event("content_block_stop", index=index)

    def end(self, blocks: Blocks) -> Iterator[bytes]:
        yield _event("message_delta", delta=_stopped(blocks), usage=_usage(blocks.usage))
        yield _event("message_stop")

    def fail(self, problem: Exception) -> Iterator[bytes]:
        yield event(anthropic_fault(problem).body, "error")

    def whole(self, blocks: Blocks) -> Mapping[str, Any]:
        content = [_whole(each) for each in blocks.all]
        return self._about | {"content": content, **_stopped(blocks), "usage": _usage(blocks.usage)}


def read(body: Fields) -> Asked:
    """
    Raises:
        InvalidArgument: what is wrong with it.
    """
    if not body.has("max_tokens"):
        raise body.wrong("max_tokens", "is required.")
    request = read_prompt(body)
    sampling = request.sampling
    sampling.max_tokens = body.integer("max_tokens", least=1) or 1
    for name in ("temperature", "top_p"):
        value = body.number(name)
        if value is not None:
            setattr(sampling, name, value)
    top_k = body.integer("top_k")
    if top_k is not None:
        sampling.top_k = top_k
    sampling.stop.extend(body.texts("stop_sequences"))
    output = body.object("output_config")
    _read_thinking(body.object("thinking"), output, sampling)
    wanted = (output and output.object("format")) or body.object("output_format")
    if wanted:
        request.format.schema.schema = wanted.json("schema") or "{}"
    request.fragments = body.flag("stream")
    return Asked(request, request.fragments, MessageSpeaker(request.model))


TONGUE = Tongue(read, anthropic_fault)


def read_prompt(body: Fields) -> pb.CompleteRequest:
    """What of a request is counted as input.

    Raises:
        InvalidArgument: what is wrong with it.
    """
    history = History()
    history.add(pb.ROLE_SYSTEM, _parts(body, "system"))
    for message in body.objects("messages"):
        role = message.text("role", needed=True)
        if role not in ROLES:
            raise message.wrong("role", f"is one of: {', '.join(ROLES)}.")
        history.add(ROLES[role], _parts(message, "content"))
    if not any(each.role != pb.ROLE_SYSTEM for each in history.turns):
        raise body.wrong("messages", "at least one message is required.")
    request = pb.CompleteRequest(model=body.text("model", needed=True), turns=history.turns)
    for tool in body.objects("tools"):
        request.tools.append(_tool(tool))
    _read_choice(body.object("tool_choice"), request)
    return request


def estimated_tokens(request: pb.CompleteRequest) -> int:
    """About how many tokens a prompt has: nobody here has the model's own measure."""
    total = sum(len(each.name) + len(each.description) + len(each.input_schema) for each in request.tools)
    pictures = 0
    for turn in request.turns:
        for part in turn.parts:
            for each in (part, *part.tool_result.parts):
                pictures += each.HasField("image")
                total += each.ByteSize() - each.image.ByteSize()
    return int(total / BYTES_PER_TOKEN) + pictures * PICTURE_TOKENS + 1


def _event(kind: str, **body: Any) -> bytes:
    return event({"type": kind, **body}, kind)


def _beginning(block: Block) -> Mapping[str, Any]:
    match block.kind:
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
        case "thought":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "sealed":
            return {"type": "redacted_thinking", "data": block.opaque}
    return {"type": "text", "text": ""}


def _whole(block: Block) -> Mapping[str, Any]:
    begun = _beginning(block)
    match block.kind:
        case "call":
            try:
                return {**begun, "input": json.loads(block.text or "{}")}
            except (ValueError, RecursionError):
                return {**begun, "input": block.text}  # the protocol has no word for it, and to mend it would be worse
        case "thought":
            return {**begun, "thinking": block.text, "signature": block.signature}
        case "sealed":
            return begun
    return {**begun, "text": block.text}


def _stopped(blocks: Blocks) -> Mapping[str, Any]:
    reason = REASONS.get(blocks.reason, "end_turn")
    sequence = blocks.finished.detail if reason == "stop_sequence" else ""
    return {"stop_reason": reason, "stop_sequence": sequence or None}


def _usage(used: pb.Usage) -> Mapping[str, Any]:
    return {
        "input_tokens": max(used.input_tokens - used.cached_tokens - used.cache_write_tokens, 0),
        "cache_creation_input_tokens": used.cache_write_tokens,
        "cache_read_input_tokens": used.cached_tokens,
        "output_tokens": used.output_tokens,
    }


def _read_thinking(thinking: Fields | None, output: Fields | None, sampling: pb.Sampling) -> None:
    if thinking is None:
        return
    match thinking.text("type", needed=True):
        case "enabled":
            sampling.reasoning_tokens = thinking.integer("budget_tokens", least=1) or 1
        case "disabled":
            sampling.reasoning_tokens = 0
        case "adaptive":
            effort = (output.text("effort") if output else "") or "high"
            sampling.reasoning_effort = EFFORTS.get(effort, effort)
        case _:
            raise thinking.wrong("type", "is one of: enabled, disabled, adaptive.")


def _parts(message: Fields, field: str) -> Iterator[pb.Part]:
    content = message.value.get(field)
    if isinstance(content, str):
        yield pb.Part(text=content)
        return
    for block in message.objects(field):
        made = _part(block)
        made.cache = block.has("cache_control")
        yield made


def _part(block: Fields) -> pb.Part:
    kind = block.text("type", needed=True)
    match kind:
        case "text":
            return pb.Part(text=block.text("text"))
        case "image":
            return _picture(block)
        case "tool_use":
            call = pb.ToolCall(id=block.text("id", needed=True), name=block.text("name", needed=True))
            call.arguments = json.dumps(block.value.get("input") or {}, ensure_ascii=False)
            return pb.Part(tool_call=call)
        case "tool_result":
            result = pb.ToolResult(call_id=block.text("tool_use_id", needed=True), failed=block.flag("is_error"))
            result.parts.extend(_parts(block, "content"))
            return pb.Part(tool_result=result)
        case "thinking":
            thought = pb.Reasoning(text=block.text("thinking"), signature=block.text("signature"))
            return pb.Part(reasoning=thought)
        case "redacted_thinking":
            return pb.Part(reasoning=pb.Reasoning(opaque=block.text("data")))
        case "document":
            source = block.object("source")
            if source is not None and source.text("type") == "text":
                return pb.Part(text=source.text("data"))
    raise block.wrong("type", f"{kind[:50]!r} is not offered here.", next="Send text, pictures, tools and thoughts.")


def _picture(block: Fields) -> pb.Part:
    source = block.object("source")
    if source is None:
        raise block.wrong("source", "is required.")
    if source.text("type") == "base64":
        return picture(source.text("data", needed=True), source.text("media_type", needed=True), source)
    return picture_at(source.text("url"), block)


def _tool(tool: Fields) -> pb.ToolOffer:
    kind = tool.text("type")
    if kind not in ("", "custom"):
        raise tool.wrong("type", f"{kind[:50]!r} is not offered here.", next="Offer it with a schema of its own.")
    return pb.ToolOffer(
        name=tool.text("name", needed=True),
        description=tool.text("description"),
        input_schema=tool.json("input_schema"),
        strict=tool.flag("strict"),
    )


def _read_choice(choice: Fields | None, request: pb.CompleteRequest) -> None:
    if choice is None:
        return
    kind = choice.text("type", needed=True)
    if kind not in USES:
        raise choice.wrong("type", f"is one of: {', '.join(USES)}.")
    request.tool_choice.use = USES[kind]
    if USES[kind] == pb.TOOL_USE_NAMED:
        request.tool_choice.name = choice.text("name", needed=True)
    request.tool_choice.one_at_a_time = choice.flag("disable_parallel_tool_use")
