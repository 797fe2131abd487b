"""A directory tree as one blob: packed, listed and unpacked as a stream, by rules that a hostile tree cannot bend.

Rules of the file
  1. The format is POSIX tar (ustar with PAX headers), written by `pack` without times and owners, so that the same
     tree is the same blob. Reading is narrower than the standard: regular files, directories and symbolic links.
     Hard links, devices, FIFOs, sparse files and GNU's own headers are refused.
  2. A name is refused, never repaired. No empty part, `.` or `..`, nothing absolute, no control character or line
     separator, no name twice, nothing below a file or a link. Upper and lower case are two names, as the kernel has
     it. Bytes that are not UTF-8 are kept (PAX calls them BINARY); `escaped` makes any name fit to be shown.
  3. A link stays inside by its text alone: `..` may only come first, and no more often than the link is deep. A
     `..` after a name would be counted from wherever that name, itself perhaps a link, leads to: `a -> .` and
     `b -> a/..` leave the tree although each looks harmless. Nothing is ever read or written through a link.
  4. Every size is checked before anything is kept for it, so memory is bounded by the caps and not by the stream.
  5. What is refused leaves nothing behind: `unpack` fills a hidden directory beside the wanted one and renames it.

The rules for names, links and caps are in `protos.treerules`, the format in `protos.tar`; use both from here.
Everything blocks: call it from a thread. It uses the standard library alone, since workers carry it.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from protos import tar
from protos.errors import Conflict, InvalidArgument, NotFound, Unavailable
from protos.tar import CHUNK, Member
from protos.treerules import Caps, Census, Kind, TreeRefused, check_target, escaped, parts_of

__all__ = [
    "CHUNK",
    "Caps",
    "Census",
    "Descent",
    "Kind",
    "Member",
    "TreeRefused",
    "Unpacked",
    "entries",
    "escaped",
    "members",
    "open_root",
    "pack",
    "parts_of",
    "unpack",
    "walk",
]

SMALL = 1024 * 1024  # a file up to this size is read before its header is written, so it cannot change in between
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True)
class Unpacked:
    """What `unpack` wrote."""

    files: int
    directories: int
    links: int
    bytes: int


class Descent:
    """The open directories on the way to one path, so that each is opened once and never through a link."""

    def __init__(self, root: int, *, make: bool = False) -> None:
        self._make = make
        self._names: list[str] = []
        self._open = [root]

    def to(self, parts: list[str]) -> int:
        """The descriptor of a directory below the root; good until the next call."""
        shared = 0
        while shared < min(len(parts), len(self._names)) and parts[shared] == self._names[shared]:
            shared += 1
        self._close_to(shared)
        for part in parts[shared:]:
            if self._make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=self._open[-1])
            self._open.append(os.open(part, FLAGS | os.O_DIRECTORY, dir_fd=self._open[-1]))
            self._names.append(part)
        return self._open[-1]

    def _close_to(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._open.pop())

    def close(self) -> None:
        """Closes every directory, the root too."""
        self._close_to(0)
        os.close(self._open.pop())


def walk(root: Path, caps: Caps | None = None) -> Iterator[str]:
    """The names of everything below `root`, parents first, links not followed: what `pack` takes for a whole tree.

    Raises:
        NotFound: there is no such directory.
        TreeRefused: the tree is over a cap or holds a name that breaks the rules.
        InvalidArgument: a directory cannot be read.
    """
    caps = caps or Caps()
    census = Census(caps)
    descent = Descent(open_root(root))
    with closing(descent):
        waiting: list[list[str]] = [[]]
        while waiting:
            above = waiting.pop()
            below = []
            for entry, status in entries(descent, above, caps):
                parts = [*above, entry]
                name = "/".join(parts)
                if stat.S_ISDIR(status.st_mode):
                    census.enter(name, "directory")
                    below.append(parts)
                else:
                    census.enter(name, "file", status.st_size if stat.S_ISREG(status.st_mode) else 0)
                yield name
            waiting.extend(reversed(below))


def entries(descent: Descent, parts: list[str], caps: Caps) -> list[tuple[str, os.stat_result]]:
    """What one directory holds, sorted, with its status, links not followed; empty if it vanished meanwhile.

    Raises:
        TreeRefused: it holds more than any tree may, or is no directory any more.
        InvalidArgument: it cannot be read.
    """
    name = "/".join(parts)
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(descent.to(parts)) as listed:
            for each in listed:
                with suppress(FileNotFoundError):
                    found.append((each.name, each.stat(follow_symlinks=False)))
                if len(found) > 2 * caps.files:  # files and directories
                    raise TreeRefused(name, f"at most {caps.files:,}", f"over {len(found) - 1:,} entries", "tree.files")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise swapped(name, error) from error
    return sorted(found, key=lambda each: each[0])


def pack(
    root: Path, names: Iterable[str], caps: Caps | None = None, *, note: Callable[[str], None] = lambda sentence: None
) -> Iterator[bytes]:
    """Packs the files, links and directories called `names` below `root`; yields chunks of about 256 KiB.

    The same content gives the same bytes: names are sorted, times and owners left out, modes reduced to "executable or
    not". A directory's name stands for itself, not for what is below it. `note` is told in one sentence of a file that
    vanished meanwhile (left out) or grew while being read (packed to the size it had).

    Raises:
        NotFound: there is no such directory.
        TreeRefused: a cap or a rule is broken; also for a file that was swapped for something else meanwhile.
        InvalidArgument: a file cannot be read.
        Unavailable: a large file shrank while being read; packing again may succeed.
    """
    caps = caps or Caps()
    census = Census(caps)
    ordered = _in_order(names, caps)
    descent = Descent(open_root(root))
    buffer = bytearray()
    with closing(descent):
        for name in ordered:
            for piece in _entry(descent, name, census, note):
                buffer += piece
                while len(buffer) >= CHUNK:
                    yield bytes(buffer[:CHUNK])
                    del buffer[:CHUNK]
    buffer += bytes(2 * tar.BLOCK)
    for start in range(0, len(buffer), CHUNK):
        yield bytes(buffer[start : start + CHUNK])


def _in_order(names: Iterable[str], caps: Caps) -> list[str]:
    taken: set[str] = set()
    for name in names:
        taken.add(name)
        if len(taken) > 2 * caps.files:  # files and directories
            raise TreeRefused(name, f"at most {caps.files:,}", f"name {len(taken):,}", "tree.files")
    return sorted(taken, key=lambda name: name.split("/"))


def _entry(descent: Descent, name: str, census: Census, note: Callable[[str], None]) -> Iterator[bytes]:
    parts = parts_of(name, census.caps)
    try:
        above = descent.to(parts[:-1])
        status = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(parts[-1], dir_fd=above)
            check_target(name, target)
            census.enter(name, "link")
            yield tar.header(name, b"2", 0o777, target=target)
            return
        if stat.S_ISDIR(status.st_mode):
            census.enter(name, "directory")
            yield tar.header(name, b"5", 0o755)
            return
        if not stat.S_ISREG(status.st_mode):
            raise TreeRefused(name, "only files, directories and links travel", f"a {_what(status.st_mode)}")
        opened = os.open(parts[-1], FLAGS, dir_fd=above)
    except FileNotFoundError:
        note(f"'{escaped(name)}' vanished before it was packed and is left out")
        return
    except OSError as error:
        raise swapped(name, error) from error
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise TreeRefused(name, "only files, directories and links travel", f"became a {_what(status.st_mode)}")
        pack_file = _small_file if status.st_size <= SMALL else _large_file
        yield from pack_file(name, opened, status, census, note)
    except OSError as error:
        raise unreadable(name, error) from error
    finally:
        os.close(opened)


def _small_file(
    name: str, opened: int, status: os.stat_result, census: Census, note: Callable[[str], None]
) -> Iterator[bytes]:
    content = os.read(opened, status.st_size + 1)
    while len(content) < status.st_size and (more := os.read(opened, status.st_size + 1 - len(content))):
        content += more
    if len(content) > status.st_size:
        content = content[: status.st_size]
        note(_grew(name, len(content)))
    census.enter(name, "file", len(content))
    yield tar.header(name, b"0", _mode(status), len(content))
    yield content
    yield bytes(-len(content) % tar.BLOCK)


def _large_file(
    name: str, opened: int, status: os.stat_result, census: Census, note: Callable[[str], None]
) -> Iterator[bytes]:
    left = size = status.st_size
    census.enter(name, "file", size)
    yield tar.header(name, b"0", _mode(status), size)
    while left:
        chunk = os.read(opened, min(left, CHUNK))
        if not chunk:
            raise Unavailable(
                f"'{escaped(name)}' shrank from {size:,} to {size - left:,} bytes while it was being packed",
                next="try again when nothing writes there",
            )
        left -= len(chunk)
        yield chunk
    yield bytes(-size % tar.BLOCK)
    if os.read(opened, 1):
        note(_grew(name, size))


def _mode(status: os.stat_result) -> int:
    return 0o755 if status.st_mode & 0o100 else 0o644


def _grew(name: str, size: int) -> str:
    return f"'{escaped(name)}' grew while it was being packed; the first {size:,} bytes are in"


def open_root(root: Path) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no '{escaped(str(root))}'", next="check the path") from None
    except NotADirectoryError:
        raise InvalidArgument(f"'{escaped(str(root))}' is not a directory", next="name a directory") from None
    except OSError as error:
        raise unreadable(str(root), error) from error


def unreadable(name: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(
        f"'{escaped(name)}' cannot be read: {error.strerror}",
        next="make it readable for the user who runs this, or leave it out",
    )


def swapped(name: str, error: OSError) -> InvalidArgument:
    """Between listing and opening, something on the way became a link or no directory."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        return TreeRefused(name, "the tree must hold still", "it was swapped for something else while being packed")
    return unreadable(name, error)


def _what(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device" if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else "directory or link"


def members(stream: Iterable[bytes], caps: Caps | None = None) -> Iterator[Member]:
    """Lists a packed tree, checking every rule on the way; content that is not taken is skipped.

    Raises:
        TreeRefused: the stream is no packed tree, or the tree breaks a rule or a cap.
    """
    yield from _members(stream, Census(caps or Caps()))


def _members(stream: Iterable[bytes], census: Census) -> Iterator[Member]:
    for member in tar.read(stream, census.caps):
        census.enter(member.name, member.kind, member.size)
        yield member


def unpack(stream: Iterable[bytes], directory: Path, caps: Caps | None = None) -> Unpacked:
    """Unpacks a tree into `directory`, which must be missing or empty; its parent must exist.

    Files get mode 0600, or 0700 if they were executable; directories 0700. Whatever goes wrong, `directory` is as it
    was before.

    Raises:
        TreeRefused: the stream is no packed tree, or the tree breaks a rule or a cap.
        Conflict: there is something in `directory`.
        OSError: the disk is full (ENOSPC), or the place cannot be written.
    """
    census = Census(caps or Caps())
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise Conflict(f"there is something at '{escaped(str(directory))}'", next="unpack to a new directory")
    hidden = directory.parent / f".{directory.name[:200]}.{secrets.token_hex(8)}"
    os.mkdir(hidden, 0o700)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, hidden)
        with closing(Descent(os.open(hidden, FLAGS | os.O_DIRECTORY), make=True)) as descent:
            for member in _members(stream, census):
                _write(descent, member)
        os.rename(hidden, directory)
        undo.pop_all()
    return Unpacked(census.files, census.directories, census.links, census.bytes)


def _write(descent: Descent, member: Member) -> None:
    parts = member.name.split("/")
    if member.kind == "directory":
        descent.to(parts)
        return
    above = descent.to(parts[:-1])
    if member.kind == "link":
        os.symlink(member.target, parts[-1], dir_fd=above)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(parts[-1], flags, 0o700 if member.executable else 0o600, dir_fd=above)
    with os.fdopen(opened, "wb", buffering=0) as file:
        for chunk in member.chunks:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
