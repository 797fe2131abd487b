"""Tools for a model that has none: it is shown them in words, and held to one small JSON object that chooses.

    {"tool": "read", "arguments": {"path": "a.txt"}}            use a tool
    {"tool": "answer", "arguments": {"text": "It is empty."}}   or say something

Left to itself a small model writes its calls as text, or not at all. Under a grammar it cannot; the fields come in the
order in which they are to be decided, and there is one choice at a time. Words are a tool like any other, the last:
offered beside the tools they were chosen in four of ten cases where a tool was right, and in none this way. After a
result it is told when to use words, since it would go on and on with tools.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protos.v1 import llm_pb2 as pb

LEFT_OUT = ("$defs", "definitions", "$schema", "$id")
SHAPE_CHARACTERS = 400  # of the arguments of one tool, as they are shown


@dataclass(frozen=True)
class Choice:
    """What the model may do."""

    tools: Mapping[str, tuple[str, dict[str, Any]]]  # name: description, schema of the arguments
    may_say: bool = True
    said: dict[str, Any] | None = None  # the schema of what it says, if not plain text

    @classmethod
    def of(cls, request: pb.CompleteRequest) -> "Choice | None":
        """The choice of a request; None where no tool may be used."""
        use = request.tool_choice.use
        if not request.tools or use == pb.TOOL_USE_NONE:
            return None
        tools = {
            each.name: (each.description, json.loads(each.input_schema or '{"type": "object"}'))
            for each in request.tools
            if use != pb.TOOL_USE_NAMED or each.name == request.tool_choice.name
        }
        return cls(tools, use == pb.TOOL_USE_AUTO, schema_of(request.format))

    @property
    def words(self) -> str:
        """What the tool is called that says something."""
        return next(each for each in ("answer", "answer_in_words", "just_say") if each not in self.tools)

    def schema(self, *, loose: bool = False) -> dict[str, Any]:
        """What its answer is held to. Definitions of the tools' own schemas are gathered at the top."""
        definitions: dict[str, Any] = {}
        options = []
        for index, (name, (_, schema)) in enumerate(self.tools.items()):
            arguments = {"type": "object"} if loose else _lifted(schema, f"t{index}_", definitions)
            options.append(_object(tool={"const": name}, arguments=arguments))
        if self.may_say:
            said = {"type": "string"} if self.said is None else _lifted(self.said, "said_", definitions)
            options.append(_object(tool={"const": self.words}, arguments=_object(text=said)))
        whole: dict[str, Any] = {"anyOf": options} if len(options) > 1 else options[0]
        return whole | ({"$defs": definitions} if definitions else {})

    def instructions(self) -> str:
        """What the model is told about it."""
        lines = ["You cannot see or do anything yourself. You act only through these tools, one at a time:"]
        for name, (description, schema) in self.tools.items():
            words = " ".join(description.split())
            lines.append(f"- {name} {_shape(schema)[:SHAPE_CHARACTERS]}{': ' if words else ''}{words}")
        if self.may_say:
            text = "string" if self.said is None else _shape(self.said)[:SHAPE_CHARACTERS]
            lines.append(
                f'- {self.words} {{"text": {text}}}: Tells the user something.'
                " Only when no other tool fits, or their results suffice."
            )
        lines.append('Answer with one JSON object and nothing else: {"tool": NAME, "arguments": {...}}')
        return "\n".join(lines)

    def reminder(self) -> str:
        """What the model is told after a result."""
        if not self.may_say:
            return ""
        return f"If this is what the user wants to know, tell it: {self.words}. Else use the next tool."


def schema_of(format: pb.OutputFormat) -> dict[str, Any] | None:
    """The schema of the text, where there is to be one."""
    match format.WhichOneof("kind"):
        case "schema":
            made: dict[str, Any] = json.loads(format.schema.schema or '{"type": "object"}')
            return made
        case "json_object":
            return {"type": "object"}
    return None


def as_call(call: pb.ToolCall) -> str:
    """A call of an earlier turn, as the model would have written it."""
    return json.dumps({"tool": call.name, "arguments": json.loads(call.arguments or "{}")}, ensure_ascii=False)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _lifted(schema: dict[str, Any], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema to stand inside of another: what it defines goes to `definitions`, under names of its own."""

    def moved(node: Any) -> Any:
        if isinstance(node, list):
            return [moved(each) for each in node]
        if not isinstance(node, dict):
            return node
        made = {key: moved(value) for key, value in node.items() if key not in LEFT_OUT}
        if isinstance(node.get("properties"), dict):  # whose names mean nothing
            made["properties"] = {name: moved(value) for name, value in node["properties"].items()}
        target = made.get("$ref")
        if isinstance(target, str):
            for head in ("#/$defs/", "#/definitions/"):
                if target.startswith(head):
                    made["$ref"] = f"#/$defs/{prefix}{target.removeprefix(head)}"
        return made

    for key in ("$defs", "definitions"):
        found = schema.get(key)
        if isinstance(found, dict):
            definitions |= {f"{prefix}{name}": moved(each) for name, each in found.items()}
    lifted: dict[str, Any] = moved(schema)
    return lifted


def _shape(schema: Any) -> str:
    """A schema as a person would note it down."""
    if not isinstance(schema, dict):
        return "any"
    if "enum" in schema:
        return " or ".join(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    kind = schema.get("type")
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        required = schema.get("required") or ()
        fields = [
            f'"{name}"{"" if name in required else "?"}: {_shape(each)}' for name, each in (properties or {}).items()
        ]
        return "{" + ", ".join(fields) + "}"
    if kind == "array":
        return f"[{_shape(schema.get('items'))}, ...]"
    return str(kind) if isinstance(kind, str) else "any"
