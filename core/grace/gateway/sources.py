"""The files that a tool shall look at: a folder of this machine, a blob that is in the lab, or a few files said inline.

Over stdio the gateway runs beside the client, and reads the folder that the client names, below the folders that it was
started for; it is packed by the code of `madlab scan`, which the command brings along (`Folders`): a gateway within the
core has none, and reads nothing of its host. Over HTTP a client stores a packed tree or an archive first, or says the
files.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from anyio import to_thread

from core.grace.gateway.door import Door
from protos import tar
from protos.errors import InvalidArgument
from protos.treerules import Caps, TreeRefused, parts_of

INLINE_BYTES = 1024 * 1024
INLINE_FILES = 1_000
CAPS = Caps(files=INLINE_FILES, bytes=INLINE_BYTES)
TAR = "application/x-tar"

BLOB = {
    "type": "string",
    "pattern": "^sha256:[0-9a-f]{64}$",
    "description": "The digest of a packed tree (a tar of files and folders) or an archive that is in the lab already: "
    'curl -H "Authorization: Bearer TOKEN" --data-binary @FILE "URL/api/v1/blobs?name=FILE" answers it. '
    "Say in `kind` which of the two it is.",
}
KIND = {"type": "string", "enum": ["tree", "archive"], "default": "tree", "description": "What `blob` is."}
FILES = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "maxProperties": INLINE_FILES,
    "description": "A small tree said inline: contents by relative path, at most 1 MiB in all.",
}
PATH = {
    "type": "string",
    "minLength": 1,
    "description": "A folder, a git repository or an archive on this machine; it is packed and sent, never changed. "
    "Of a repository what git tracks or does not ignore is taken.",
}


class Packed(Protocol):
    """Something made ready to be sent."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def chunks(self) -> Callable[[], Iterable[bytes]]: ...


Folders = Callable[[str, bool], Packed]  # opens a path, with its git history or without; blocks; raises Error


@dataclass(frozen=True)
class Source:
    """What a tool shall look at: a blob in the lab."""

    digest: str
    kind: str  # "tree" or "archive"
    name: str
    what: str  # for people


def properties(folders: Folders | None) -> dict[str, Any]:
    """The arguments that say where the files are; a path only where there is somebody to read it."""
    return ({"path": PATH} if folders is not None else {}) | {"blob": BLOB, "kind": KIND, "files": FILES}


async def stored(door: Door, arguments: Mapping[str, Any], folders: Folders | None, *, history: bool) -> Source:
    """Brings what the arguments name into the lab.

    Raises:
        InvalidArgument: they name nothing, or two things, or the files cannot be taken.
        Error: the lab refuses them.
    """
    ways = [each for each in ("path", "blob", "files") if arguments.get(each)]
    offered = ", ".join(each for each in ("path", "blob", "files") if each != "path" or folders is not None)
    if len(ways) != 1:
        raise InvalidArgument("say where the files are, in one way", next=f"give one of: {offered}")
    if "blob" in ways:
        kind = str(arguments.get("kind") or "tree")
        return Source(str(arguments["blob"]), kind, str(arguments.get("name") or ""), f"the {kind} that is in the lab")
    if "files" in ways:
        content, name = packed(arguments["files"]), str(arguments.get("name") or "files")
        blob = await door.upload(lambda: _once(content), name=name, media_type=TAR)
        return Source(blob["digest"], "tree", name, f"{len(arguments['files']):,} files")
    if folders is None:
        raise InvalidArgument("the lab does not read its host: a path says nothing", next=f"give one of: {offered}")
    opened = await to_thread.run_sync(folders, str(arguments["path"]), history)
    blob = await door.upload(lambda: _pieces(opened.chunks()), name=opened.name, media_type=TAR)
    return Source(blob["digest"], opened.kind, opened.name, opened.what)


def packed(files: Mapping[str, str]) -> bytes:
    """A packed tree of some texts.

    Raises:
        TreeRefused: a name breaks a rule, or there is too much.
    """
    if len(files) > INLINE_FILES:
        raise TreeRefused("", f"at most {INLINE_FILES:,} inline", f"{len(files):,} files")
    made, size, folders = bytearray(), 0, set[str]()
    for name in sorted(files, key=lambda each: each.split("/")):
        parts, content = parts_of(name, CAPS), files[name].encode("utf-8", "surrogatepass")
        size += len(content)
        if size > INLINE_BYTES:
            raise TreeRefused(name, f"at most {INLINE_BYTES:,} bytes inline", "more than that")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in files:
                raise TreeRefused(name, "nothing lies below a file", f"'{folder}' is one")
            if folder not in folders:
                folders.add(folder)
                made += tar.header(folder, b"5", 0o755)
        made += tar.header(name, b"0", 0o644, len(content)) + content + bytes(-len(content) % tar.BLOCK)
    return bytes(made) + bytes(2 * tar.BLOCK)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _pieces(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """What blocks, read in a thread."""
    left = iter(chunks)
    while (piece := await to_thread.run_sync(next, left, None)) is not None:
        yield piece
