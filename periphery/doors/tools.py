"""The tools of a request to `/v1/responses`, which has more kinds of them than a model knows.

A model is offered functions. What else a client runs itself is made one, and the model's call is made back into what
the client offered: a *custom* tool takes free text (the grammar of it, if any, is told in words), a *namespace* is
put in front of the name. Tools that OpenAI's own servers run (web search and the like) are left out: clients offer
them without asking, and a model that is not offered one does not call it.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from periphery.doors.chat import offer
from periphery.doors.reading import Fields
from protos.v1.llm_pb2 import ToolOffer

NAME_CHARACTERS = 64
INPUT = json.dumps(
    {
        "type": "object",
        "properties": {"input": {"type": "string", "description": "All of the input, as it is."}},
        "required": ["input"],
        "additionalProperties": False,
    }
)
Kind = Literal["function", "custom"]


@dataclass(frozen=True)
class Origin:
    """What a client calls a tool that a model knows by another name."""

    kind: Kind
    name: str
    namespace: str = ""


class Toolbox:
    """The tools that were offered."""

    def __init__(self) -> None:
        self.offers: list[ToolOffer] = []
        self._origins: dict[str, Origin] = {}

    def add(self, about: Fields) -> None:
        """Adds the `tools` of a request, or of an item that brings more."""
        for tool in about.objects("tools"):
            if tool.text("type") == "namespace":
                for inner in tool.objects("tools"):
                    self._add(inner, namespace=tool.text("name", needed=True))
            else:
                self._add(tool)

    def origin(self, name: str) -> Origin:
        """What the client called the tool that the model calls `name`."""
        return self._origins.get(name, Origin("function", name))

    def _add(self, tool: Fields, namespace: str = "") -> None:
        made = _offer(tool)
        if made is None:
            return
        kind: Kind = "function" if tool.text("type") == "function" else "custom"
        origin = Origin(kind, made.name, namespace)
        made.name = name_of(made.name, namespace)
        if made.name not in self._origins:
            self.offers.append(made)
        self._origins[made.name] = origin


def name_of(name: str, namespace: str = "") -> str:
    """The name that a model knows a tool by."""
    whole = f"{namespace}__{name}" if namespace else name
    if len(whole) <= NAME_CHARACTERS:
        return whole
    return f"{whole[: NAME_CHARACTERS - 9]}_{sha256(whole.encode()).hexdigest()[:8]}"


def text_of(arguments: str) -> str:
    """What a model wrote for a custom tool; all of it where it kept to no form."""
    try:
        made = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(made, dict) and isinstance(made.get("input"), str):
        return str(made["input"])
    return arguments


def _offer(tool: Fields) -> ToolOffer | None:
    match tool.text("type", needed=True):
        case "function":
            return offer(tool)
        case "custom":
            words = [tool.text("description")]
            form = tool.object("format")
            if form is not None and form.text("type") == "grammar":
                words.append(f"The input keeps to this {form.text('syntax')} grammar:\n{form.text('definition')}")
            description = "\n\n".join(each for each in words if each)
            return ToolOffer(name=tool.text("name", needed=True), description=description, input_schema=INPUT)
    return None
