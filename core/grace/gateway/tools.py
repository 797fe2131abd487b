"""The tools of every MAD, as MCP tools: read from `/tools` each time, so they are the caller's and they are today's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from anyio.abc import TaskGroup
from mcp_types import CallToolResult, Tool, ToolAnnotations

from core.grace.gateway.calls import Progress, ask
from core.grace.gateway.door import Door
from core.grace.gateway.names import LONGEST, name_of, title_of
from core.grace.gateway.plain import plain
from core.grace.gateway.results import answered, object_schema

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DESCRIPTION_CHARACTERS = 4_000
BLOBS = 64  # that one message may carry
ATTACHED = (
    "Where an argument is the digest of a file (sha256:…), that file is sent along; lab_scan and lab_code send folders."
)


@dataclass(frozen=True)
class MadTool:
    """One tool of a MAD, as the door describes it."""

    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What MCP clients call it."""
        return name_of(self.about["mad"], self.about["tool"])

    def described(self) -> Tool:
        """The tool with its schemas; a description that came from a manifest is data."""
        title = title_of(self.about["mad"], self.about["tool"])
        description = plain(self.about["description"], DESCRIPTION_CHARACTERS)
        if _takes_files(self.about["input_schema"]):
            description += f"\n\n{ATTACHED}"
        return Tool(
            name=self.name,
            title=title,
            description=description,
            input_schema=dict(self.about["input_schema"]),
            output_schema=object_schema(self.about["output_schema"]),
            annotations=annotations(self.about["effects"], title, idempotent=self.about["idempotent"]),
        )

    async def call(
        self, door: Door, arguments: Mapping[str, Any], tasks: TaskGroup, progress: Progress
    ) -> CallToolResult:
        """Calls it and waits for what comes of it.

        Raises:
            Error: the lab refuses the call.
        """
        attached = list(dict.fromkeys(_digests(arguments)))[:BLOBS]
        message = {
            "recipient": self.about["mad"],
            "kind": "call",
            "tool": self.about["tool"],
            "arguments": arguments,
            "blobs": [{"digest": each} for each in attached],
        }
        ended = await ask(tasks, door, message, progress)
        return await answered(door, ended, self.about["name"], self.about["output_schema"])


async def all_tools(door: Door) -> list[MadTool]:
    """Every tool that the caller may use."""
    return [MadTool(each) for each in (await door.get("/tools"))["tools"]]


async def find(door: Door, name: str) -> MadTool | None:
    """The tool of that name. Only a name that had to be shortened needs the whole list."""
    mad, _, _ = name.partition("_")
    query = {} if len(name) >= LONGEST or name.startswith("mad-lab_") else {"mad": mad}
    found = (await door.get("/tools", **query))["tools"] if re.fullmatch("[a-z0-9-]{1,64}", mad) else []
    return next((tool for tool in map(MadTool, found) if tool.name == name), None)


def annotations(effects: str, title: str, *, idempotent: bool) -> ToolAnnotations:
    """What a client may tell its person before it calls: "read" changes nothing, "write" only what the lab keeps (where
    files have versions and nothing said is unsaid), "outward" the world beyond it."""
    return ToolAnnotations(
        title=title,
        read_only_hint=effects == "read",
        destructive_hint=effects == "outward",
        idempotent_hint=idempotent,
        open_world_hint=effects == "outward",
    )


def _takes_files(schema: Mapping[str, Any]) -> bool:
    return "source" in schema.get("properties", {})


def _digests(value: Any) -> Iterator[str]:
    """Every digest among the arguments."""
    if isinstance(value, str):
        if DIGEST.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _digests(each)
    elif isinstance(value, list):
        for each in value:
            yield from _digests(each)
