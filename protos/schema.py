"""Derives the JSON Schemas of a MAD's tools from their types: `python -m protos.schema MANIFEST…` rewrites manifests.

Runs in the core's environment, never in a worker: the core validates arguments before a worker sees them.
"""

import inspect
import json
import re
import sys
import tomllib
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, create_model

from protos.tools import tools_of

MARK = "# Generated from the types by `./test.sh fix`; do not edit below."
NAMES = ("properties", "$defs")  # keywords whose keys are names, not keywords


@dataclass(frozen=True)
class ToolSchema:
    """One tool as a manifest, the CLI and other programs see it."""

    name: str
    description: str
    effects: str
    idempotent: bool
    steerable: bool
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


def describe(mad: object) -> list[ToolSchema]:
    """The tools of a MAD's class, by name.

    Raises:
        TypeError: a tool without a return type, or with an argument that has no type.
    """
    return [_describe(mad, name) for name in sorted(tools_of(mad))]


def _describe(mad: object, name: str) -> ToolSchema:
    method = getattr(mad, name)
    tool = method.__madlab_tool__
    hints = get_type_hints(method, include_extras=True)
    if "return" not in hints:
        raise TypeError(f"tool {name} has no return type")
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
    arguments = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
    return ToolSchema(
        name=name,
        description=inspect.getdoc(method) or "",
        effects=tool.effects,
        idempotent=tool.idempotent,
        steerable=tool.steerable,
        input_schema=_plain(arguments.model_json_schema()),
        output_schema=_plain(TypeAdapter(hints["return"]).json_schema()),
    )


def _plain(schema: Any) -> Any:
    """Without the titles pydantic adds: they repeat the names."""
    if isinstance(schema, dict):
        return {
            key: {name: _plain(each) for name, each in value.items()}
            if key in ("properties", "$defs")
            else _plain(value)
            for key, value in schema.items()
            if key != "title"
        }
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def rewrite(manifest: Path) -> str:
    """The text of `manifest` with its tools as the types say now; the part above the mark is kept as it is.

    Raises:
        ImportError: the manifest's entry cannot be imported.
    """
    text = manifest.read_text()
    entry = tomllib.loads(text)["entry"]
    if not isinstance(entry, str):
        return text  # a program in another language, whose schemas are written by hand
    module, _, attribute = entry.partition(":")
    mad = getattr(import_module(module), attribute)
    tables = "\n".join(_toml(each) for each in describe(mad))
    head = re.split(rf"^{re.escape(MARK)}$|^\[\[tools\]\]$", text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    return f"{head}\n\n{MARK}\n{tables}"


def _toml(tool: ToolSchema) -> str:
    lines = ["", "[[tools]]"]
    for key, value in asdict(tool).items():
        if isinstance(value, dict):
            # JSON in a literal string: a schema is quoted as it will be compared.
            lines.append(f"{key} = '''\n{json.dumps(value, indent=2, sort_keys=True)}'''")
        else:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        path = Path(each)
        path.write_text(rewrite(path))
