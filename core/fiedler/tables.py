"""Adds tables to madlab.toml or takes them out; the rest stays as the operator wrote it: comments, order, line ends.

It works on lines, and only on what it can be sure of. A table begins at its header and ends before the next one; the
comments right above a header belong to it. What is written in another way (inline, dotted) is not touched but told.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from protos.errors import Conflict, InvalidArgument

Value = str | int | float | bool | list[str]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*(\[\[(?P<array>[^\[\]]+)\]\]|\[(?P<table>[^\[\]]+)\])\s*(#.*)?")


def with_tables(text: str, tables: Mapping[tuple[str, str], Mapping[str, Value]], *, replace: bool) -> str:
    """`text` with `tables` at its end: (section, name) → fields. What is there under such a name is replaced, or else
    refused.

    Raises:
        Conflict: it is there.
        InvalidArgument: the text is no TOML, or what is to be replaced is written in another way.
    """
    found = _parsed(text)
    for section, name in tables:
        if name not in found.get(section, {}):
            continue
        if not replace:
            raise Conflict(
                f"[{section}.{name}] is in madlab.toml already.", next="Choose another name, or replace it: --replace"
            )
        text = _without(text, section, name)
    end = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    blocks = [text.rstrip("\r\n")] if text.strip() else []
    blocks += [table(section, name, fields).replace("\n", end) for (section, name), fields in tables.items()]
    made = (2 * end).join(blocks) + end
    _parsed(made)
    return made


def without_tables(text: str, tables: Iterable[tuple[str, str]]) -> str:
    """`text` without `tables`, (section, name), the tables below them, and the comments right above them.

    Raises:
        InvalidArgument: the text is no TOML, or one of them is not there or is written in another way.
    """
    end = text[len(text.rstrip("\r\n")) :]
    for section, name in tables:
        text = _without(text, section, name)
    return text.rstrip("\r\n") + end if text.strip() else ""


def table(section: str, name: str, fields: Mapping[str, Value]) -> str:
    """One table as text."""
    lines = [f"[{section}.{_key(name)}]", *(f"{key} = {_value(each)}" for key, each in fields.items())]
    return "\n".join(lines)


def read(path: Path) -> str:
    """What is in a file, with the line ends that it has; nothing where there is none."""
    return path.read_bytes().decode() if path.exists() else ""


def write(path: Path, text: str) -> None:
    """Replaces a file, whole or not at all; it stays as private as it was."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"madlab.toml: {error}.", next="Mend the file, and try again.") from None


def _without(text: str, section: str, name: str) -> str:
    """`text` without a table and those below it.

    Raises:
        InvalidArgument: it is written in a way that cannot be cut out without touching something else.
    """
    lines = text.splitlines(keepends=True)
    begins = [(index, path) for index, line in enumerate(lines) if (path := _path(line)) is not None]
    starts = [_with_comments(lines, index) for index, _ in begins] + [len(lines)]
    kept = lines[: starts[0]]
    for number, (_, path) in enumerate(begins):
        if path[:2] != [section, name]:
            kept += lines[starts[number] : starts[number + 1]]
    made = "".join(kept)
    wanted = _parsed(text)
    del wanted[section][name]
    if {key: value for key, value in _parsed(made).items() if value} != {k: v for k, v in wanted.items() if v}:
        raise InvalidArgument(
            f"{section}.{name} is not written as a table [{section}.{name}], so it cannot be taken out here.",
            next="Change madlab.toml by hand.",
        )
    return made


def _with_comments(lines: Sequence[str], index: int) -> int:
    """Where a table begins, with the comments right above its header."""
    while index and lines[index - 1].lstrip().startswith("#"):
        index -= 1
    return index


def _path(line: str) -> list[str] | None:
    """The parts of a header's name; None where the line is no header."""
    match = _HEADER.fullmatch(line.rstrip("\r\n"))
    if match is None:
        return None
    try:
        node: Any = tomllib.loads(f"[{match['table'] or match['array']}]")
    except tomllib.TOMLDecodeError:
        return None
    parts: list[str] = []
    while node:
        (part,) = node
        parts.append(part)
        node = node[part]
    return parts


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Value | Sequence[str]) -> str:
    """As TOML writes it: its strings, numbers and lists are JSON's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
