"""What a request becomes before the model: messages in words, settings, and the one schema its answer is held to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from periphery.llama.choosing import Choice, as_call, schema_of
from protos.errors import InvalidArgument
from protos.v1 import llm_pb2 as pb

SETTINGS = frozenset({"max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty"})
SYSTEM = frozenset({pb.ROLE_SYSTEM, pb.ROLE_DEVELOPER})


@dataclass(frozen=True)
class Asking:
    """A request as the library takes it."""

    body: Mapping[str, Any]
    choice: Choice | None = None  # between words and tools, where tools are offered

    @classmethod
    def of(cls, request: pb.CompleteRequest) -> "Asking":
        """
        Raises:
            InvalidArgument: the model takes no such request.
        """
        choice = Choice.of(request)
        body: dict[str, Any] = {
            "messages": list(_messages(request, choice)),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # so that it can be stopped while it reads the prompt
            "cache_prompt": True,
            **_sampling(request.sampling),
        }
        schema = choice.schema() if choice is not None else schema_of(request.format)
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        return cls(body, choice)

    @property
    def loosened(self) -> "Asking | None":
        """The same, the arguments of tools held to no schema but that they are an object; None without tools."""
        if self.choice is None:
            return None
        held = {"type": "json_schema", "json_schema": {"schema": self.choice.schema(loose=True)}}
        return replace(self, body={**self.body, "response_format": held})


def _messages(request: pb.CompleteRequest, choice: Choice | None) -> Iterator[dict[str, str]]:
    """One system message, then user and assistant in turns: what small models have learnt."""
    told = [part.text for turn in request.turns if turn.role in SYSTEM for part in turn.parts]
    if choice is not None:
        told.append(choice.instructions())
    if told:
        yield {"role": "system", "content": "\n\n".join(told)}
    names = {
        part.tool_call.id: part.tool_call.name
        for turn in request.turns
        for part in turn.parts
        if part.HasField("tool_call")
    }
    role, said = "", ""
    for turn in request.turns:
        if turn.role in SYSTEM:
            continue
        speaks = "assistant" if turn.role == pb.ROLE_ASSISTANT else "user"
        text = "\n".join(filter(None, (_in_words(part, names) for part in turn.parts)))
        if speaks == role:
            said = f"{said}\n{text}"
            continue
        if role:
            yield {"role": role, "content": said}
        role, said = speaks, text
    last = request.turns[-1].parts[-1:] if request.turns else []
    if choice is not None and role == "user" and any(part.HasField("tool_result") for part in last):
        said = f"{said}\n\n{choice.reminder()}".rstrip()
    yield {"role": role, "content": said}
    if role == "assistant":
        yield {"role": "user", "content": "Go on."}


def _in_words(part: pb.Part, names: Mapping[str, str]) -> str:
    """
    Raises:
        InvalidArgument: it is a picture.
    """
    match part.WhichOneof("kind"):
        case "text":
            return part.text
        case "tool_call":
            return as_call(part.tool_call)
        case "tool_result":
            result = part.tool_result
            text = "\n".join(_in_words(each, names) for each in result.parts)
            how = "failed" if result.failed else "says"
            return f"{names.get(result.call_id, 'The tool')} {how}:\n{text}"
        case "image":
            raise InvalidArgument("This model takes no pictures.")
        case "refusal":
            return part.refusal
    return ""  # a thought of another model


def _sampling(sampling: pb.Sampling) -> dict[str, Any]:
    """The settings under the library's names."""
    told: dict[str, Any] = {field.name: value for field, value in sampling.ListFields() if field.name in SETTINGS}
    if sampling.stop:
        told["stop"] = list(sampling.stop)
    return told
