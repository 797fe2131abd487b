"""Where files lie while they are scanned: a directory of our own making, filled so that no name can leave it.

A name from a hostile archive is kept where it is harmless and rewritten where it is not; what people see is the
original, escaped. The stage holds regular files and directories only, so nothing in it can lead anywhere else. Caps
are counted over everything that is unpacked into it, however deeply archives are nested.
"""

import os
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from periphery.mcnamara.inventory import HEAD_BYTES, File, kind_of

NAME_BYTES = 200  # of one part of a staged name; leaves room for a suffix
DEPTH = 64
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Full(Exception):
    """A cap of the stage is reached: nothing more is taken in."""


@dataclass
class Stage:
    """The files of one scan."""

    root: Path
    max_files: int = 50_000
    max_bytes: int = 2 * 1024**3
    total: int = 0  # bytes
    _files: dict[Path, File] = field(default_factory=dict)  # by place: a tree may hold as many archives as files
    _taken: dict[str, int] = field(default_factory=dict)  # how often each name was asked for

    def __post_init__(self) -> None:
        self.root.mkdir(mode=0o700)

    @property
    def files(self) -> Collection[File]:
        """Those that are in it, in the order in which they came."""
        return self._files.values()

    def newest(self, count: int) -> list[File]:
        """The last so many of them, oldest first."""
        return [*islice(reversed(self._files.values()), count)][::-1]

    def add(self, shown: str, chunks: Iterable[bytes]) -> File:
        """Writes one file under a harmless name; `shown` is its name for people, escaped already.

        What was written is removed again if `chunks` raises.

        Raises:
            Full: one file or byte too many.
        """
        if len(self._files) >= self.max_files:
            raise Full(f"more than {self.max_files:,} files")
        parts = self._place(shown)
        size, head = 0, b""
        descriptor = self._open(parts)
        place = self.root.joinpath(*parts)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if self.total + size > self.max_bytes:
                        raise Full(f"more than {self.max_bytes:,} bytes")
                    if len(head) < HEAD_BYTES:
                        head += chunk[: HEAD_BYTES - len(head)]
                    file.write(chunk)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
        self.total += size
        added = File(shown, place, size, kind_of(shown, head))
        self._files[place] = added
        return added

    def drop(self, file: File) -> None:
        """Takes a file out again: an archive whose members are there now."""
        del self._files[file.place]
        file.place.unlink()
        self.total -= file.size

    def _place(self, shown: str) -> list[str]:
        parts = [harmless(each) for each in shown.split("/") if each not in ("", ".")][-DEPTH:] or ["unnamed"]
        key = first = "/".join(parts)
        while key.casefold() in self._taken:
            self._taken[first.casefold()] += 1
            key = "/".join([*parts[:-1], f"~{self._taken[first.casefold()]}", parts[-1]])
        # A file's name may be another's directory; both are kept.
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if (self.root.joinpath(*parts[:depth])).is_file():
                parts[depth - 1] += "~"
        self._taken.setdefault("/".join(parts).casefold(), 1)
        return parts

    def _open(self, parts: list[str]) -> int:
        above = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                if not _exists(part, above):
                    os.mkdir(part, 0o700, dir_fd=above)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                os.close(above)
                above = below
            return os.open(parts[-1], FLAGS, 0o600, dir_fd=above)
        finally:
            os.close(above)


def _exists(name: str, above: int) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def harmless(part: str) -> str:
    """One part of a name that no tool can mistake for an option, another directory or a terminal code."""
    if part == "..":
        return "%2e%2e"
    safe = "".join(each if _plain(each) else f"%{ord(each):x}" for each in part)
    if safe.startswith("-"):
        safe = f"%2d{safe[1:]}"
    raw = safe.encode("utf-8", "surrogatepass")
    if len(raw) > NAME_BYTES:
        suffix = os.path.splitext(safe)[1].encode("utf-8", "surrogatepass")[:16]
        safe = (raw[: NAME_BYTES - len(suffix)] + suffix).decode("utf-8", "ignore")
    return safe


def _plain(character: str) -> bool:
    return character.isprintable() and character not in '\\:*?"<>|%' and unicodedata.category(character) != "Cs"
