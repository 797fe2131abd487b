"""Small trees as dictionaries: path to content, for the tests of patches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from core.coding.changes import packed
from core.coding.objects import EXECUTABLE, FILE, LINK

Tree = Mapping[str, "bytes | Link | Script"]


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Script:
    """An executable file."""

    content: bytes


def tar_of(tree: Tree) -> Iterator[bytes]:
    """The tree, packed."""
    for path, content in tree.items():
        assert not isinstance(content, str), path
    return packed((path, *_mode_and_content(tree[path])) for path in sorted(tree, key=lambda each: each.split("/")))


def changed(old: Tree, new: Tree) -> tuple[Iterator[bytes], list[str]]:
    """What a worker hands back that made the one tree into the other."""
    return tar_of({path: content for path, content in new.items() if old.get(path) != content}), sorted(
        old.keys() - new.keys()
    )


def _mode_and_content(content: "bytes | Link | Script") -> tuple[int, bytes]:
    if isinstance(content, Link):
        return LINK, content.target.encode("utf-8", "surrogateescape")
    return (EXECUTABLE, content.content) if isinstance(content, Script) else (FILE, content)
