"""What shall be scanned, made ready to be sent: a directory as one packed tree, an archive as the bytes it is."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.config import load
from core.grace.cli.files import check_regular
from core.home import Home
from core.horace.snapshot import take
from protos.errors import InvalidArgument, NotFound
from protos.tree import Caps

CHUNK = 256 * 1024
BLOCK = 512  # of a tar
END_BYTES = 22 + 65535  # of a zip: its last record, with the longest comment
MAGIC = ((0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"\x1f\x8b"), (0, b"BZh"), (0, b"\xfd7zXZ\0"), (257, b"ustar"))


@dataclass(frozen=True)
class Source:
    """One thing to scan. `chunks` yields it from the start each time it is called."""

    kind: str  # "tree" or "archive"
    name: str
    size: int  # bytes, about
    what: str  # for people
    chunks: Callable[[], Iterable[bytes]]


def open_source(path: Path, home: Home, *, history: bool, note: Callable[[str], None]) -> Source:
    """Looks at `path` without opening an archive. `note` hears what a person should know about the choice.

    Raises:
        NotFound: there is no such path.
        InvalidArgument: it is neither a directory with files nor an archive, or it cannot be read.
        TreeRefused: the directory breaks a rule or a cap.
    """
    if path.is_dir():
        return _directory(path, home, history, note)
    try:
        check_regular(path)
        with path.open("rb") as file:
            is_archive, size = _is_archive(file), path.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", next="name a directory, a git repository or an archive") from None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", next="mend its permissions") from None
    if not is_archive:
        raise InvalidArgument(
            f"{path} is no archive that can be scanned", next="name a directory, a wheel, or a zip or tar file"
        )
    return Source("archive", path.name, size, "one archive, opened in the sandbox only", lambda: read(path))


def _is_archive(file: BinaryIO) -> bool:
    """By what ordinary tools go by: the beginning, a tar header's checksum, or the record at a zip's end."""
    head = file.read(BLOCK)
    if any(head.startswith(magic, at) for at, magic in MAGIC):
        return True
    digits = head[148:156].strip(b"\0 ")
    if len(head) == BLOCK and head[0] and digits and not digits.strip(b"01234567"):
        return int(digits, 8) == sum(head) - sum(head[148:156]) + 8 * 0x20  # the field itself counts as blanks
    file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
    tail = file.read()
    return 0 <= tail.rfind(b"PK\x05\x06") <= len(tail) - 22


def read(path: Path) -> Iterator[bytes]:
    """A file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _directory(path: Path, home: Home, history: bool, note: Callable[[str], None]) -> Source:
    caps = Caps(**load(home).tree.model_dump())
    snapshot = take(path, caps, history=history)
    for each in snapshot.notes:
        note(each)
    what = f"{snapshot.files:,} files of a {'git repository' if snapshot.kind == 'git' else 'directory'}"
    what += " with its history" if snapshot.history else ""
    name = path.resolve().name or "root"
    return Source("tree", name, snapshot.size, what, lambda: snapshot.pack(caps, note=note))
