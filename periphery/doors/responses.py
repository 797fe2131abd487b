"""OpenAI's responses, as far as agents need them: everything is in the request, and nothing is kept here.

So what refers to something kept (`previous_response_id`, `conversation`, `background`, a prompt by id) is refused,
and an answer cannot be looked up later. A thought goes out as a reasoning item, whose `encrypted_content` holds what
its provider needs to know it again; clients that send it back (`include: ["reasoning.encrypted_content"]`) keep a
model thinking.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from time import time
from typing import Any

from periphery.doors.blocks import Block, Blocks, Step
from periphery.doors.chat import common_sampling, effort_of, output_schema, use_of
from periphery.doors.faults import openai_fault, sentence
from periphery.doors.history import History
from periphery.doors.reading import Fields, picture_at
from periphery.doors.speech import Asked, Tongue, event
from periphery.doors.tools import Toolbox, name_of, text_of
from protos.errors import Exhausted, InvalidArgument
from protos.ids import new_id
from protos.v1 import llm_pb2 as pb

ROLES = {
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_DEVELOPER,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
KEPT = ("previous_response_id", "conversation", "prompt", "background")  # fields that need a memory
ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "temperature",
    "top_p",
    "user",
)
HOSTED = frozenset(  # records of tools that were run elsewhere
    {"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "compaction_trigger"}
)


class ResponseSpeaker:
    """Says one response."""

    def __init__(self, body: Fields, tools: Toolbox) -> None:
        self._tools = tools
        self._sealed = "reasoning.encrypted_content" in body.texts("include")
        self._items: dict[int, str] = {}  # the block's index → the id of its item
        self._number = 0
        self._output: list[Mapping[str, Any]] = []
        self._about = {
            "id": f"resp_{_hex()}",
            "object": "response",
            "created_at": int(time()),
            "model": body.text("model"),
            **{name: body.value.get(name) for name in ECHOED},
            "parallel_tool_calls": body.value.get("parallel_tool_calls") is not False,
            "reasoning": body.value.get("reasoning") or {"effort": None, "summary": None},
            "store": False,
            "text": body.value.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.value.get("tool_choice") or "auto",
            "tools": body.items("tools"),
            "truncation": body.value.get("truncation") or "disabled",
        }

    def begin(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))

    def say(self, step: Step) -> Iterator[bytes]:
        match step.block.kind:
            case "text" | "refusal":
                yield from self._say_message(step)
            case "thought" | "sealed":
                yield from self._say_thought(step)
            case "call":
                yield from self._say_call(step)

    def end(self, blocks: Blocks) -> Iterator[bytes]:
        response = self._ended(blocks)
        yield self._event(f"response.{response['status']}", response=response)

    def fail(self, problem: Exception) -> Iterator[bytes]:
        code = "server_error"
        if isinstance(problem, Exhausted):
            code = "insufficient_quota"
        elif isinstance(problem, InvalidArgument):
            code = "invalid_prompt"
        error = {"code": code, "message": sentence(problem)}
        yield self._event("response.failed", response=self._response("failed", error=error))

    def whole(self, blocks: Blocks) -> Mapping[str, Any]:
        self._output = [self._item(each, "completed") for each in blocks.all]
        return self._ended(blocks)

    # --- the blocks

    def _say_message(self, step: Step) -> Iterator[bytes]:
        block = step.block
        kind, field = ("output_text", "text") if block.kind == "text" else ("refusal", "refusal")
        place = {"item_id": self._id(block), "output_index": block.index, "content_index": 0}
        more: Mapping[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        match step.what:
            case "begins":
                yield self._added({**self._item(block, "in_progress"), "content": []}, block)
                yield self._event("response.content_part.added", **place, part=_content(block, ""))
            case "goes":
                yield self._event(f"response.{kind}.delta", **place, delta=step.piece, **more)
            case "ends":
                yield self._event(f"response.{kind}.done", **place, **{field: block.text}, **more)
                yield self._event("response.content_part.done", **place, part=_content(block, block.text))
                yield self._done(block)

    def _say_thought(self, step: Step) -> Iterator[bytes]:
        block = step.block
        place = {"item_id": self._id(block), "output_index": block.index, "summary_index": 0}
        match step.what:
            case "begins":
                yield self._added({**self._item(block, "in_progress"), "summary": []}, block)
                if block.kind == "thought":
                    part = {"type": "summary_text", "text": ""}
                    yield self._event("response.reasoning_summary_part.added", **place, part=part)
            case "goes":
                yield self._event("response.reasoning_summary_text.delta", **place, delta=step.piece)
            case "ends":
                if block.kind == "thought":
                    part = {"type": "summary_text", "text": block.text}
                    yield self._event("response.reasoning_summary_text.done", **place, text=block.text)
                    yield self._event("response.reasoning_summary_part.done", **place, part=part)
                yield self._done(block)

    def _say_call(self, step: Step) -> Iterator[bytes]:
        block = step.block
        kind = self._tools.origin(block.name).kind
        place = {"item_id": self._id(block), "output_index": block.index}
        match step.what, kind:
            case "begins", _:
                yield self._added(self._item(block, "in_progress"), block)
            case "goes", "function":
                yield self._event("response.function_call_arguments.delta", **place, delta=step.piece)
            case "ends", "function":
                arguments = block.text or "{}"
                done = {"arguments": arguments, "name": self._tools.origin(block.name).name}
                yield self._event("response.function_call_arguments.done", **place, **done)
                yield self._done(block)
            case "ends", "custom":  # its text is inside JSON, and whole when that is
                written = text_of(block.text)
                yield self._event("response.custom_tool_call_input.delta", **place, delta=written)
                yield self._event("response.custom_tool_call_input.done", **place, input=written)
                yield self._done(block)

    def _item(self, block: Block, status: str) -> Mapping[str, Any]:
        id = self._id(block)
        match block.kind:
            case "text" | "refusal":
                content = [_content(block, block.text)]
                return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}
            case "thought" | "sealed":
                summary = [{"type": "summary_text", "text": block.text}] if block.kind == "thought" else []
                item = {"id": id, "type": "reasoning", "summary": summary}
                return {**item, "encrypted_content": _seal(block)} if self._sealed else item
        return self._call_item(block, id, status)

    def _call_item(self, block: Block, id: str, status: str) -> Mapping[str, Any]:
        origin = self._tools.origin(block.name)
        about = {"id": id, "status": status, "call_id": block.id}
        named = {"name": origin.name} | ({"namespace": origin.namespace} if origin.namespace else {})
        is_whole = status == "completed"
        if origin.kind == "custom":
            written = text_of(block.text) if is_whole else ""
            return {**about, "type": "custom_tool_call", **named, "input": written}
        return {**about, "type": "function_call", **named, "arguments": (block.text or "{}") if is_whole else ""}

    def _added(self, item: Mapping[str, Any], block: Block) -> bytes:
        return self._event("response.output_item.added", output_index=block.index, item=item)

    def _done(self, block: Block) -> bytes:
        item = self._item(block, "completed")
        self._output.append(item)
        return self._event("response.output_item.done", output_index=block.index, item=item)

    def _id(self, block: Block) -> str:
        prefix = {"text": "msg", "refusal": "msg", "thought": "rs", "sealed": "rs", "call": "fc"}[block.kind]
        return self._items.setdefault(block.index, f"{prefix}_{_hex()}")

    # --- the whole

    def _ended(self, blocks: Blocks) -> dict[str, Any]:
        why = {pb.FINISH_LENGTH: "max_output_tokens", pb.FINISH_REFUSED: "content_filter"}.get(blocks.reason)
        response = self._response("incomplete" if why else "completed", usage=_usage(blocks.usage))
        response["incomplete_details"] = {"reason": why} if why else None
        return response

    def _response(
        self, status: str, *, error: Mapping[str, Any] | None = None, usage: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        state = {"status": status, "error": error, "incomplete_details": None, "output": self._output, "usage": usage}
        return self._about | state

    def _event(self, kind: str, **body: Any) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1, **body}, kind)


def read(body: Fields) -> Asked:
    """
    Raises:
        InvalidArgument: what is wrong with it.
    """
    for field in KEPT:
        if body.value.get(field):
            raise body.wrong(field, "nothing is kept here.", next="Send the whole conversation as input.")
    tools = Toolbox()
    tools.add(body)
    history = History()
    if body.text("instructions"):
        history.add(pb.ROLE_SYSTEM, [pb.Part(text=body.text("instructions"))])
    if isinstance(body.value.get("input"), str):
        history.add(pb.ROLE_USER, [pb.Part(text=body.text("input"))])
    else:
        for item in body.objects("input"):
            if item.text("type") == "additional_tools":
                tools.add(item)
            else:
                _read_item(item, history)
    request = pb.CompleteRequest(model=body.text("model"), turns=history.turns, tools=tools.offers)
    request.sampling.CopyFrom(common_sampling(body, "max_output_tokens"))
    reasoning, text = body.object("reasoning"), body.object("text")
    if reasoning is not None:
        request.sampling.reasoning_effort = effort_of(reasoning, "effort")
    if text is not None:
        _read_format(text.object("format"), request)
    _read_choice(body, request)
    request.fragments = body.flag("stream")
    return Asked(request, request.fragments, ResponseSpeaker(body, tools))


TONGUE = Tongue(read, lambda problem: openai_fault(problem, spent=429))


def _hex() -> str:
    return new_id().replace("-", "")


def _content(block: Block, said: str) -> Mapping[str, Any]:
    if block.kind == "refusal":
        return {"type": "refusal", "refusal": said}
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def _usage(used: pb.Usage) -> Mapping[str, Any]:
    return {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": used.cache_write_tokens},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.input_tokens + used.output_tokens,
    }


def _seal(block: Block) -> str | None:
    if not (block.signature or block.opaque):
        return None
    return base64.b64encode(json.dumps([block.signature, block.opaque]).encode()).decode()


def _unseal(item: Fields) -> pb.Reasoning:
    said = [each.text("text") for each in (*item.objects("summary"), *item.objects("content"))]
    thought = pb.Reasoning(text="\n".join(said))
    try:
        signature, opaque = json.loads(base64.b64decode(item.text("encrypted_content"), validate=True))
        thought.signature, thought.opaque = signature, opaque
    except (ValueError, TypeError):
        pass  # it was sealed elsewhere, and only there it can be read
    return thought


def _read_item(item: Fields, history: History) -> None:
    kind = item.text("type") or "message"
    match kind:
        case "message":
            role = item.text("role", needed=True)
            if role not in ROLES:
                raise item.wrong("role", f"is one of: {', '.join(ROLES)}.")
            history.add(ROLES[role], _parts(item, "content"))
        case "function_call":
            name = name_of(item.text("name", needed=True), item.text("namespace"))
            history.add(pb.ROLE_ASSISTANT, [_call(item, name, item.text("arguments") or "{}")])
        case "custom_tool_call":
            name = name_of(item.text("name", needed=True), item.text("namespace"))
            arguments = json.dumps({"input": item.text("input")}, ensure_ascii=False)
            history.add(pb.ROLE_ASSISTANT, [_call(item, name, arguments)])
        case "function_call_output" | "custom_tool_call_output":
            id = item.text("call_id") or item.text("id", needed=True)
            result = pb.ToolResult(call_id=id, parts=_parts(item, "output"))
            history.add(pb.ROLE_USER, [pb.Part(tool_result=result)])
        case "reasoning":
            history.add(pb.ROLE_ASSISTANT, [pb.Part(reasoning=_unseal(item))])
        case _ if kind not in HOSTED:
            raise item.wrong("type", f"{kind[:50]!r} is not offered here.", next="Send messages, calls and outputs.")


def _call(item: Fields, name: str, arguments: str) -> pb.Part:
    id = item.text("call_id") or item.text("id", needed=True)
    return pb.Part(tool_call=pb.ToolCall(id=id, name=name, arguments=arguments))


def _parts(item: Fields, field: str) -> Iterator[pb.Part]:
    content = item.value.get(field)
    if isinstance(content, str):
        yield pb.Part(text=content)
        return
    for part in item.objects(field):
        kind = part.text("type", needed=True)
        match kind:
            case "input_text" | "output_text" | "text" | "summary_text":
                yield pb.Part(text=part.text("text"))
            case "refusal":
                yield pb.Part(refusal=part.text("refusal"))
            case "input_image":
                yield picture_at(part.text("image_url"), part, detail=part.text("detail"))
            case _:
                raise part.wrong("type", f"{kind[:50]!r} is not offered here.", next="Send text and pictures.")


def _read_choice(body: Fields, request: pb.CompleteRequest) -> None:
    choice = body.value.get("tool_choice")
    if isinstance(choice, dict):
        about = Fields(choice, "tool_choice")
        match about.text("type", needed=True):
            case "function" | "custom":
                request.tool_choice.use = pb.TOOL_USE_NAMED
                request.tool_choice.name = name_of(about.text("name", needed=True))
            case "allowed_tools":
                request.tool_choice.use = use_of(about.text("mode") or "auto")
            case _:
                raise about.wrong("type", "is function, custom or allowed_tools here.")
    elif choice is not None:
        request.tool_choice.use = use_of(choice)
    if body.value.get("parallel_tool_calls") is False:
        request.tool_choice.one_at_a_time = True


def _read_format(wanted: Fields | None, request: pb.CompleteRequest) -> None:
    if wanted is None:
        return
    match wanted.text("type", needed=True):
        case "json_object":
            request.format.json_object = True
        case "json_schema":
            request.format.schema.CopyFrom(output_schema(wanted))
