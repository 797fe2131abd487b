"""Git's objects as bytes: what a blob, a tree and a commit are called, and how they are written. No git is needed."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1

NULL = "0" * 40  # the id of what is not there
FILE, EXECUTABLE, LINK, TREE, GITLINK = 0o100644, 0o100755, 0o120000, 0o040000, 0o160000


@dataclass(frozen=True)
class Entry:
    """One line of a tree."""

    mode: int
    name: bytes
    id: str


def identify(kind: str, content: bytes) -> str:
    """What git calls an object: the SHA-1 of its head and its content, in hexadecimal."""
    return sha1(_head(kind, len(content)) + content, usedforsecurity=False).hexdigest()


def identify_blob(size: int, chunks: Iterable[bytes]) -> str:
    """The same for a file of `size` bytes that is not held whole."""
    found = sha1(_head("blob", size), usedforsecurity=False)
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def loose(kind: str, content: bytes) -> bytes:
    """An object as the file that git keeps it in."""
    return zlib.compress(_head(kind, len(content)) + content, 1)


def tree(entries: Iterable[Entry]) -> bytes:
    """The content of a tree. Git sorts a directory as if its name ended with a slash."""
    ordered = sorted(entries, key=lambda each: each.name + b"/" if each.mode == TREE else each.name)
    return b"".join(b"%o %s\0%s" % (each.mode, each.name, bytes.fromhex(each.id)) for each in ordered)


def parse_tree(content: bytes) -> list[Entry]:
    """The lines of a tree.

    Raises:
        ValueError: it is none.
    """
    found, at = [], 0
    while at < len(content):
        space, end = content.index(b" ", at), content.index(b"\0", at)
        found.append(Entry(int(content[at:space], 8), content[space + 1 : end], content[end + 1 : end + 21].hex()))
        at = end + 21
    return found


def commit(tree: str, parent: str, who: str, at: int, message: str) -> bytes:
    """The content of a commit by `who` ("name <mail>") at a moment in whole seconds since the epoch."""
    lines = [f"tree {tree}", f"parent {parent}", f"author {who} {at} +0000", f"committer {who} {at} +0000"]
    return ("\n".join(lines) + "\n\n" + message.rstrip("\n") + "\n").encode()


def _head(kind: str, size: int) -> bytes:
    return b"%s %d\0" % (kind.encode(), size)
