"""Which MADs there are, which tools they have, and whether a call fits its schema."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jsonschema import Draft202012Validator

from core.manifest import Manifest
from core.router import Destination, Ephemeral, Nobody, Resident
from protos.errors import InvalidArgument, NotFound
from protos.schema import ToolSchema


@dataclass(frozen=True)
class RegisteredTool:
    """A tool with the validator of its arguments."""

    mad: str
    schema: ToolSchema

    @cached_property
    def validator(self) -> Draft202012Validator:
        """Compiled once, when the tool is first called."""
        return Draft202012Validator(self.schema.input_schema)


@dataclass(frozen=True)
class RegisteredMad:
    """A MAD as the lab knows it."""

    name: str
    kind: Literal["resident", "emad", "core"]  # "core": started for a message like an eMAD, and one of our own
    summary: str
    version: str
    tools: Mapping[str, RegisteredTool]
    manifest: Manifest | None = None  # of an eMAD


class Registry:
    """All MADs by name."""

    def __init__(self, mads: Iterable[RegisteredMad]) -> None:
        self.mads: dict[str, RegisteredMad] = {}
        for each in mads:
            if each.name in self.mads:
                raise InvalidArgument(
                    f"Two MADs are called {each.name!r}.", next="Rename one in `emads` or `residents` of madlab.toml."
                )
            self.mads[each.name] = each

    def destination(self, recipient: str) -> Destination:
        """Who listens under that name."""
        mad = self.mads.get(recipient)
        if mad is None:
            return Nobody()
        return Resident(recipient) if mad.kind == "resident" else Ephemeral(recipient)

    def mad(self, name: str) -> RegisteredMad:
        """
        Raises:
            NotFound: no MAD has that name; the message lists those there are.
        """
        if name not in self.mads:
            raise NotFound(
                f"There is no MAD called {name[:64]!r}.",
                next=f"Choose one of: {', '.join(sorted(self.mads)) or 'none'}.",
            )
        return self.mads[name]

    def tools(self, mad: str | None = None) -> list[RegisteredTool]:
        """Every tool, or those of one MAD.

        Raises:
            NotFound: no MAD has that name.
        """
        chosen = [self.mad(mad)] if mad is not None else self.mads.values()
        return [tool for each in chosen for tool in each.tools.values()]

    def check_call(self, mad: str, tool: str, arguments: object) -> None:
        """Whether the call names a tool that exists, with arguments that fit.

        Raises:
            NotFound: no such MAD or tool.
            InvalidArgument: the arguments fail the schema; the message names the first place that does.
        """
        tools = self.mad(mad).tools
        if tool not in tools:
            raise NotFound(
                f"{mad} has no tool {tool[:64]!r}.", next=f"Choose one of: {', '.join(sorted(tools)) or 'none'}."
            )
        for error in tools[tool].validator.iter_errors(arguments):
            place = "/".join(str(each) for each in error.absolute_path)
            raise InvalidArgument(
                f"{mad}.{tool}: {place + ': ' if place else ''}{error.message[:500]}",
                next=f"See the schema: madlab tools {mad}",
            )


def emad(manifest: Manifest) -> RegisteredMad:
    """An eMAD from its manifest."""
    return _registered(
        manifest.name,
        "emad",
        manifest.summary,
        manifest.version,
        (ToolSchema(**each.model_dump()) for each in manifest.tools),
        manifest,
    )


def of_class(
    name: str, kind: Literal["resident", "core"], mad: Any, tools: Iterable[ToolSchema], version: str
) -> RegisteredMad:
    """A MAD of the core from its class."""
    summary = (mad.__doc__ or "").strip().partition("\n")[0]
    return _registered(name, kind, summary, version, tools, None)


def _registered(
    name: str,
    kind: Literal["resident", "emad", "core"],
    summary: str,
    version: str,
    tools: Iterable[ToolSchema],
    manifest: Manifest | None,
) -> RegisteredMad:
    return RegisteredMad(
        name, kind, summary, version, {each.name: RegisteredTool(name, each) for each in tools}, manifest
    )
