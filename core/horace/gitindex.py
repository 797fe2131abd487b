"""Which files a git repository tracks: its index, read without git.

Versions 2, 3 and 4, SHA-1 and SHA-256. A split index and whatever else the file marks as required reading is not
understood, and said so. The content is data from a repository that may be hostile: bounded, and never more than a
list of names, which count only where a file of that name is found. Version 4 shares the beginnings of names, so a
small file can stand for very much text: what the names come to is bounded too.
"""

from bisect import bisect_left
from collections.abc import Iterable

from protos.tree import Caps

INDEX_BYTES = 64 * 1024 * 1024
NAMES_BYTES = 64 * 1024 * 1024
NAMED = 4  # entries per file allowed in a tree: deleted ones and those in a conflict are listed too
GITLINK = 0o160000
TREE = 0o040000
FIXED = 40  # bytes of an entry before the object's name


class IndexUnreadable(ValueError):
    """This index cannot be used; the message says why."""


class Tracked:
    """The paths in an index, submodules among them."""

    def __init__(self, paths: Iterable[bytes] = ()) -> None:
        self._paths = sorted(paths)

    def __contains__(self, path: bytes) -> bool:
        place = bisect_left(self._paths, path)
        return place < len(self._paths) and self._paths[place] == path

    def below(self, directory: bytes) -> bool:
        """Whether a path in it lies below `directory`."""
        place = bisect_left(self._paths, directory + b"/")
        return place < len(self._paths) and self._paths[place].startswith(directory + b"/")


def parse_index(content: bytes, caps: Caps) -> Tracked:
    """What an index says.

    Raises:
        IndexUnreadable: it is damaged, too big, or of a kind that is not understood.
    """
    try:
        return Tracked(_read(content, 20, caps))
    except IndexUnreadable as error:
        try:
            return Tracked(_read(content, 32, caps))
        except IndexUnreadable:
            raise error from None


def _read(content: bytes, hash_bytes: int, caps: Caps) -> set[bytes]:
    if len(content) < 12 + hash_bytes or content[:4] != b"DIRC":
        raise IndexUnreadable("it is no index")
    version, count = int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big")
    if version not in (2, 3, 4):
        raise IndexUnreadable(f"its version is {version}")
    if count > NAMED * caps.files:
        raise IndexUnreadable(f"it lists {count:,} files")
    longest = caps.depth * (caps.name_bytes + 1)
    names: set[bytes] = set()
    end = len(content) - hash_bytes
    position, name, size = 12, b"", 0
    for _ in range(count):
        start = position
        if position + FIXED + hash_bytes + 2 > end:
            raise IndexUnreadable("it breaks off")
        mode = int.from_bytes(content[start + 24 : start + 28], "big")
        position += FIXED + hash_bytes
        extended = version >= 3 and content[position] & 0x40
        position += 4 if extended else 2
        shared = b""
        if version == 4:
            dropped, position = _offset(content, position, end)
            if dropped > len(name):
                raise IndexUnreadable("a name in it cannot be built")
            shared = name[: len(name) - dropped]
        stop = content.find(b"\0", position, min(end, position + longest + 1))
        if stop < 0:
            raise IndexUnreadable("a name in it does not end")
        name = shared + content[position:stop]
        size += len(name)
        if len(name) > longest or size > NAMES_BYTES:
            raise IndexUnreadable("its names are too long")
        position = stop + 1 if version == 4 else start + (stop - start + 8) // 8 * 8
        if mode & 0o170000 != TREE:  # a directory that a sparse checkout leaves out
            names.add(name)
    _check_extensions(content[position:end])
    return names


def _offset(content: bytes, position: int, end: int) -> tuple[int, int]:
    """A number in git's offset encoding, and where it ends."""
    value = content[position] & 0x7F
    while content[position] & 0x80:
        position += 1
        if position >= end or value > 1 << 24:
            raise IndexUnreadable("a number in it is too big")
        value = ((value + 1) << 7) | (content[position] & 0x7F)
    return value, position + 1


def _check_extensions(rest: bytes) -> None:
    while rest:
        name, size = rest[:4], int.from_bytes(rest[4:8], "big")
        if len(rest) < 8 + size:
            raise IndexUnreadable("an extension in it breaks off")
        if not 0x41 <= name[0] <= 0x5A and name != b"sdir":
            raise IndexUnreadable(f"it needs the extension {name!r}, which is not supported here")
        rest = rest[8 + size :]
