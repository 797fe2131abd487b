"""OpenAI's chat completions.

A thought travels as `reasoning_content`, as most servers of this protocol and litellm have it. What the protocol has
and the lab has not is refused where an answer without it would be another one (`n`, `audio`, the old `functions`),
and else left alone (`logprobs`, `user`, `metadata`, `service_tier` and whatever comes next).
"""

from collections.abc import Iterator, Mapping
from time import time
from typing import Any

from periphery.doors.blocks import Block, Blocks, Step
from periphery.doors.faults import openai_fault
from periphery.doors.history import History
from periphery.doors.reading import Fields, WrongField, picture_at
from periphery.doors.speech import Asked, Tongue, event
from protos.ids import new_id
from protos.v1 import llm_pb2 as pb

ROLES = {
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_DEVELOPER,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_USER,
}
REASONS = {
    pb.FINISH_LENGTH: "length",
    pb.FINISH_TOOL_CALLS: "tool_calls",
    pb.FINISH_INVALID_TOOL_CALL: "tool_calls",
    pb.FINISH_REFUSED: "content_filter",
}
USES = {"auto": pb.TOOL_USE_AUTO, "none": pb.TOOL_USE_NONE, "required": pb.TOOL_USE_ANY}
SEED = 2**63 - 1
EFFORTS = {"xhigh": "high", "max": "high"}  # more than anybody else has


class ChatSpeaker:
    """Says one chat completion."""

    def __init__(self, model: str, *, usage: bool) -> None:
        self._about = {"id": f"chatcmpl-{new_id().replace('-', '')}", "created": int(time()), "model": model}
        self._usage = usage

    def begin(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def say(self, step: Step) -> Iterator[bytes]:
        block = step.block
        match step.what, block.kind:
            case "goes", "text":
                yield self._chunk({"content": step.piece})
            case "goes", "thought":
                yield self._chunk({"reasoning_content": step.piece})
            case "goes", "refusal":
                yield self._chunk({"refusal": step.piece})
            case "begins", "call":
                function = {"name": block.name, "arguments": ""}
                call = {"index": block.number, "id": block.id, "type": "function", "function": function}
                yield self._chunk({"tool_calls": [call]})
            case "goes", "call":
                call = {"index": block.number, "function": {"arguments": step.piece}}
                yield self._chunk({"tool_calls": [call]})

    def end(self, blocks: Blocks) -> Iterator[bytes]:
        yield self._chunk({}, reason=REASONS.get(blocks.reason, "stop"))
        if self._usage:
            yield event(self._about | {"object": "chat.completion.chunk", "choices": [], "usage": usage(blocks.usage)})
        yield b"data: [DONE]\n\n"

    def fail(self, problem: Exception) -> Iterator[bytes]:
        yield event(openai_fault(problem).body)

    def whole(self, blocks: Blocks) -> Mapping[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        for kind, name in (("text", "content"), ("refusal", "refusal"), ("thought", "reasoning_content")):
            said = "".join(each.text for each in blocks.all if each.kind == kind)
            if said:
                message[name] = said
        calls = [_call(each) for each in blocks.all if each.kind == "call"]
        if calls:
            message["tool_calls"] = calls
        reason = REASONS.get(blocks.reason, "stop")
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return self._about | {"object": "chat.completion", "choices": [choice], "usage": usage(blocks.usage)}

    def _chunk(self, delta: Mapping[str, Any], *, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = self._about | {"object": "chat.completion.chunk", "choices": [choice]}
        return event(chunk | {"usage": None} if self._usage else chunk)


def read(body: Fields) -> Asked:
    """
    Raises:
        InvalidArgument: what is wrong with it.
    """
    for field in ("functions", "function_call", "audio", "modalities"):
        if body.has(field) and body.value[field] != ["text"]:
            raise body.wrong(field, "is not offered here.", next="Use text and tools.")
    if (body.integer("n") or 1) != 1:
        raise body.wrong("n", "is 1 here.", next="Ask as often as you want answers.")
    history = History()
    for message in body.objects("messages"):
        _read_message(message, history)
    if not history.turns:
        raise body.wrong("messages", "is required.")
    request = pb.CompleteRequest(model=body.text("model"), turns=history.turns)
    request.sampling.CopyFrom(_sampling(body))
    for tool in body.objects("tools"):
        request.tools.append(_tool(tool))
    _read_choice(body, request)
    _read_format(body.object("response_format"), request)
    request.fragments = body.flag("stream")
    options = body.object("stream_options")
    with_usage = options is not None and options.flag("include_usage")
    return Asked(request, request.fragments, ChatSpeaker(request.model, usage=with_usage))


TONGUE = Tongue(read, openai_fault)


def usage(used: pb.Usage) -> Mapping[str, Any]:
    """What was used, in the words of chat completions."""
    return {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def common_sampling(body: Fields, most: str) -> pb.Sampling:
    """What both protocols of OpenAI's call the same; `most` is the name of the most tokens."""
    made = pb.Sampling()
    for name in ("temperature", "top_p"):
        value = body.number(name)
        if value is not None:
            setattr(made, name, value)
    tokens = body.integer(most, least=1)
    if tokens is not None:
        made.max_tokens = tokens
    return made


def effort_of(body: Fields, field: str) -> str:
    """How hard to think, in words that all providers have."""
    effort = body.text(field)
    return EFFORTS.get(effort, effort)


def _call(block: Block) -> Mapping[str, Any]:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.text}}


def _sampling(body: Fields) -> pb.Sampling:
    made = common_sampling(body, "max_completion_tokens" if body.has("max_completion_tokens") else "max_tokens")
    for name in ("frequency_penalty", "presence_penalty"):
        value = body.number(name)
        if value is not None:
            setattr(made, name, value)
    seed = body.integer("seed", least=-SEED, most=SEED)
    if seed is not None:
        made.seed = abs(seed)
    top_k = body.integer("top_k")
    if top_k is not None:
        made.top_k = top_k
    made.stop.extend(body.texts("stop"))
    made.reasoning_effort = effort_of(body, "reasoning_effort")
    return made


def _read_message(message: Fields, history: History) -> None:
    role = message.text("role", needed=True)
    if role not in ROLES:
        raise message.wrong("role", f"is one of: {', '.join(ROLES)}.")
    parts = list(_parts(message))
    if role == "tool":
        result = pb.ToolResult(call_id=message.text("tool_call_id", needed=True), parts=parts)
        history.add(pb.ROLE_USER, [pb.Part(tool_result=result)])
        return
    if role == "assistant":
        thought = message.text("reasoning_content")
        if thought:
            parts.insert(0, pb.Part(reasoning=pb.Reasoning(text=thought)))
        if message.has("refusal"):
            parts.append(pb.Part(refusal=message.text("refusal")))
        for call in message.objects("tool_calls"):
            function = call.object("function")
            if function is None:
                raise call.wrong("function", "is required: other calls are not offered here.")
            made = pb.ToolCall(
                id=call.text("id", needed=True),
                name=function.text("name", needed=True),
                arguments=function.text("arguments") or "{}",
            )
            parts.append(pb.Part(tool_call=made))
    history.add(ROLES[role], parts)


def _parts(message: Fields) -> Iterator[pb.Part]:
    content = message.value.get("content")
    if content is None:
        return
    if isinstance(content, str):
        yield pb.Part(text=content)
        return
    for part in message.objects("content"):
        kind = part.text("type", needed=True)
        match kind:
            case "text":
                made = pb.Part(text=part.text("text"))
            case "refusal":
                made = pb.Part(refusal=part.text("refusal"))
            case "image_url":
                where = part.object("image_url")
                if where is None:
                    raise part.wrong("image_url", "is required.")
                made = picture_at(where.text("url", needed=True), part, detail=where.text("detail"))
            case _:
                raise part.wrong("type", f"{kind[:50]!r} is not offered here.", next="Send text and pictures.")
        made.cache = part.has("cache_control")
        yield made


def _tool(tool: Fields) -> pb.ToolOffer:
    function = tool.object("function")
    if tool.text("type") not in ("", "function") or function is None:
        raise tool.wrong("type", "tools are functions here.", next="Offer it as a function.")
    return offer(function)


def offer(function: Fields) -> pb.ToolOffer:
    """A function that a model may call."""
    return pb.ToolOffer(
        name=function.text("name", needed=True),
        description=function.text("description"),
        input_schema=function.json("parameters"),
        strict=function.flag("strict"),
    )


def _read_choice(body: Fields, request: pb.CompleteRequest) -> None:
    choice = body.value.get("tool_choice")
    if isinstance(choice, dict):
        function = Fields(choice, "tool_choice").object("function")
        if function is None:
            raise body.wrong("tool_choice", "is auto, none, required or one function.")
        request.tool_choice.use = pb.TOOL_USE_NAMED
        request.tool_choice.name = function.text("name", needed=True)
    elif choice is not None:
        request.tool_choice.use = use_of(choice)
    if body.value.get("parallel_tool_calls") is False:
        request.tool_choice.one_at_a_time = True


def use_of(word: object) -> pb.ToolUse.ValueType:
    """
    Raises:
        WrongField: there is no such choice.
    """
    if not isinstance(word, str) or word not in USES:
        raise WrongField(f"tool_choice: is one of: {', '.join(USES)}, or one function.", param="tool_choice")
    return USES[word]


def _read_format(wanted: Fields | None, request: pb.CompleteRequest) -> None:
    if wanted is None:
        return
    match wanted.text("type", needed=True):
        case "json_object":
            request.format.json_object = True
        case "json_schema":
            schema = wanted.object("json_schema")
            if schema is None:
                raise wanted.wrong("json_schema", "is required.")
            request.format.schema.CopyFrom(output_schema(schema))
        case "text":
            pass
        case _:
            raise wanted.wrong("type", "is one of: text, json_object, json_schema.")


def output_schema(schema: Fields) -> pb.OutputSchema:
    """What an answer shall look like."""
    return pb.OutputSchema(name=schema.text("name"), schema=schema.json("schema") or "{}", strict=schema.flag("strict"))
