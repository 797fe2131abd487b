"""Chat completions and embeddings as OpenAI speaks them, and with it Ollama, vLLM, llama.cpp, OpenRouter and others.

What other servers add is understood where it is common (`reasoning_content`, `reasoning`), what they leave out is not
missed (usage, indices, `[DONE]`). What is not of the right type is nonsense, told and never guessed at.
"""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
from anyio import AsyncContextManagerMixin

from core.fiedler.keys import Key
from core.fiedler.provider import Ask, Embeddings, Kind, Reported, Trouble
from core.fiedler.providers.shapes import count, joined_text, next_of, parsed
from core.fiedler.providers.troubles import check_error, translating
from core.fiedler.wire import lending, open_client
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent

ROLES = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_DEVELOPER: "developer",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
}
REASONS = {
    "stop": pb.FINISH_STOP,
    "length": pb.FINISH_LENGTH,
    "tool_calls": pb.FINISH_TOOL_CALLS,
    "function_call": pb.FINISH_TOOL_CALLS,
    "content_filter": pb.FINISH_REFUSED,
}


class OpenAIProvider(AsyncContextManagerMixin):
    """Any server with `/chat/completions` below `base_url`."""

    def __init__(
        self,
        base_url: str,
        *,
        max_tokens_field: str = "max_tokens",
        stream_usage: bool = True,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._max_tokens_field = max_tokens_field
        self._stream_usage = stream_usage
        self._transport = transport

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["OpenAIProvider"]:
        async with open_client("bearer", self._transport) as http:
            self._sdk = openai.AsyncOpenAI(
                api_key="put on by the wire",
                organization="",
                project="",
                base_url=self._base_url,
                max_retries=0,
                timeout=http.timeout,
                http_client=http,
            )
            yield self

    async def complete(self, ask: Ask) -> AsyncIterator[CompletionEvent | Reported]:
        stream = not ask.request.whole
        with lending(ask) as lent, translating(lent):
            # The SDK's own typed chunks are made of what comes, unchecked, and take most of the time of a stream.
            answer: Any = await self._sdk.post(
                "/chat/completions",
                cast_to=object,
                body={**self._body(ask), "stream": stream},
                stream=stream,
                stream_cls=openai.AsyncStream[object],
            )
        if not stream:
            with translating(lent):
                events = _whole(answer)
            for each in events:
                yield each
            return
        chunks, reason = aiter(answer), None
        try:
            with translating(lent):
                while (chunk := await next_of(chunks, ended=reason is not None)) is not None:
                    events, ended = _pieces(chunk)
                    reason = ended or reason
                    for each in events:
                        yield each
        finally:
            await answer.close()
        if reason is None:
            raise Trouble(Kind.CUT, "The stream ended without a reason.")
        yield _finished(reason)

    async def embed(self, ask: Ask, inputs: Sequence[str], dimensions: int) -> Embeddings:
        with lending(ask) as lent, translating(lent):
            answer = await self._sdk.embeddings.create(
                model=ask.model,
                input=list(inputs),
                encoding_format="float",
                dimensions=dimensions or openai.omit,
                extra_body=dict(ask.extra) or None,
            )
            vectors = [each.embedding for each in sorted(answer.data, key=lambda each: each.index)]
            if len(vectors) != len(inputs) or not all(isinstance(x, float | int) for each in vectors for x in each):
                raise Trouble(Kind.NONSENSE, f"{len(vectors)} vectors for {len(inputs)} inputs.")
            return Embeddings(vectors, Reported(count(getattr(answer.usage, "prompt_tokens", None)), output_tokens=0))

    async def models(self, key: Key | None) -> Sequence[str]:
        with lending(Ask(pb.CompleteRequest(), "", 0, key)) as lent, translating(lent):
            page = await self._sdk.models.list()
            return [str(each.id) for each in page.data]

    def _body(self, ask: Ask) -> dict[str, Any]:
        request, sampling = ask.request, ask.request.sampling
        body: dict[str, Any] = {"model": ask.model, "messages": _messages(request)}
        body[self._max_tokens_field] = ask.max_tokens
        for name in ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"):
            if sampling.HasField(name):
                body[name] = getattr(sampling, name)
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.reasoning_effort:
            body["reasoning_effort"] = sampling.reasoning_effort
        if request.tools:
            body["tools"] = [_tool(each) for each in request.tools]
            if request.HasField("tool_choice"):
                body["tool_choice"] = _choice(request.tool_choice)
                if request.tool_choice.one_at_a_time:
                    body["parallel_tool_calls"] = False
        match request.format.WhichOneof("kind"):
            case "schema":
                wanted = request.format.schema
                schema = {"name": wanted.name or "answer", "schema": parsed(wanted.schema), "strict": wanted.strict}
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            case "json_object":
                body["response_format"] = {"type": "json_object"}
        if not request.whole and self._stream_usage:
            body["stream_options"] = {"include_usage": True}
        if sampling.HasField("top_k"):
            body["top_k"] = sampling.top_k
        return body | dict(ask.extra)


def _pieces(chunk: Any) -> tuple[list[CompletionEvent | Reported], str | None]:
    events: list[CompletionEvent | Reported] = []
    reason = None
    if chunk.get("usage") is not None:
        events.append(_reported(chunk["usage"]))
    for choice in chunk.get("choices") or ():
        if choice.get("index") not in (0, None):
            continue
        delta = choice.get("delta")
        if delta is not None:
            events += _said(delta)
            for place, call in enumerate(delta.get("tool_calls") or ()):
                index = call.get("index")
                events.append(_fragment(place if index is None else index, call))
        reason = choice.get("finish_reason") or reason
    return events, reason


def _whole(answer: Any) -> list[CompletionEvent | Reported]:
    check_error(answer)
    if not answer.get("choices"):
        raise Trouble(Kind.NONSENSE, "The answer has no choices.")
    choice = answer["choices"][0]
    message = choice["message"]
    events: list[CompletionEvent | Reported] = list(_said(message))
    events += [_fragment(index, call) for index, call in enumerate(message.get("tool_calls") or ())]
    if answer.get("usage") is not None:
        events.append(_reported(answer["usage"]))
    if not choice.get("finish_reason"):
        raise Trouble(Kind.CUT, "The answer ended without a reason.")
    return [*events, _finished(choice["finish_reason"])]


def _fragment(index: int, call: Any) -> CompletionEvent:
    function = call.get("function") or {}
    return CompletionEvent(
        tool_call_fragment=pb.ToolCallFragment(
            index=index,
            id=call.get("id") or "",
            name=function.get("name") or "",
            arguments=function.get("arguments") or "",
        )
    )


def _said(message: Any) -> list[CompletionEvent]:
    """Reasoning, text and refusal of a message or of a piece of one."""
    events = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        events.append(CompletionEvent(reasoning=pb.Reasoning(text=thought)))
    if message.get("content"):
        events.append(CompletionEvent(text=message["content"]))
    if message.get("refusal"):
        events.append(CompletionEvent(refusal=message["refusal"]))
    return events


def _reported(usage: Any) -> Reported:
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return Reported(
        input_tokens=count(usage.get("prompt_tokens")),
        cached_tokens=count(prompt.get("cached_tokens")) or 0,
        cache_write_tokens=count(prompt.get("cache_write_tokens")) or 0,
        output_tokens=count(usage.get("completion_tokens")),
        reasoning_tokens=count(completion.get("reasoning_tokens")) or 0,
    )


def _finished(reason: str) -> CompletionEvent:
    return CompletionEvent(finished=pb.Finished(reason=REASONS.get(reason, pb.FINISH_STOP)))


def _messages(request: pb.CompleteRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in request.turns:
        kinds = [each.WhichOneof("kind") for each in turn.parts]
        messages += [_result(each.tool_result) for each in turn.parts if each.WhichOneof("kind") == "tool_result"]
        if turn.role == pb.ROLE_ASSISTANT:
            messages.append(_assistant(turn))
        elif set(kinds) - {"tool_result"}:
            messages.append({"role": ROLES[turn.role], "content": _content(turn.parts)})
    return messages


def _assistant(turn: pb.Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    text = joined_text(turn.parts)
    calls = [each.tool_call for each in turn.parts if each.WhichOneof("kind") == "tool_call"]
    refusal = "".join(each.refusal for each in turn.parts)
    if text or not (calls or refusal):
        message["content"] = text
    if refusal:
        message["refusal"] = refusal
    if calls:
        message["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in calls
        ]
    return message


def _result(result: pb.ToolResult) -> dict[str, Any]:
    # The protocol has no field for a failed call: it is said in the text, as every client of it does.
    text = joined_text(result.parts)
    content = _content(result.parts) if any(each.HasField("image") for each in result.parts) else text
    if result.failed and isinstance(content, str):
        content = f"Error: {content}"
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _content(parts: Sequence[pb.Part]) -> str | list[Mapping[str, Any]]:
    if not any(each.HasField("image") for each in parts):
        return joined_text(parts)
    content: list[Mapping[str, Any]] = []
    for each in parts:
        match each.WhichOneof("kind"):
            case "text":
                content.append({"type": "text", "text": each.text})
            case "image":
                data = base64.b64encode(each.image.data).decode()
                image = {"url": f"data:{each.image.media_type};base64,{data}"}
                if each.image.detail:
                    image["detail"] = each.image.detail
                content.append({"type": "image_url", "image_url": image})
    return content


def _tool(offer: pb.ToolOffer) -> dict[str, Any]:
    function: dict[str, Any] = {"name": offer.name, "parameters": parsed(offer.input_schema)}
    if offer.description:
        function["description"] = offer.description
    if offer.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: pb.ToolChoice) -> str | dict[str, Any]:
    if choice.use == pb.TOOL_USE_NAMED:
        return {"type": "function", "function": {"name": choice.name}}
    return {pb.TOOL_USE_NONE: "none", pb.TOOL_USE_ANY: "required"}.get(choice.use, "auto")
