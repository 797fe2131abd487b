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

Why not `tarfile`: it takes a PAX header of any size into memory, follows chains of GNU long names, cuts a name at its
first NUL, treats unknown types as files, and its extraction filters have been bypassed more than once. What is needed
of the format fits on two screens, and here each byte of it is accounted for.

Everything blocks: call it from a thread. It uses the standard library alone, since workers carry it.
"""

import errno
import os
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from protos.errors import Conflict, InvalidArgument, NotFound, Unavailable

CHUNK = 256 * 1024  # bytes; what one message of the contract carries
BLOCK = 512
SMALL = 1024 * 1024  # a file up to this size is read before its header is written, so it cannot change in between
LINK_BYTES = 4095  # the kernel's own limit for a link's text
HEEDED = {"path", "linkpath", "size", "hdrcharset"}  # PAX records that say something here
PASSED = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}  # and those that change nothing
CHARSETS = ("BINARY", "ISO-IR 10646 2000 UTF-8")
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Kind = Literal["file", "directory", "link"]


@dataclass(frozen=True)
class Caps:
    """How big a tree may be. Directories are counted apart from files, against the same cap."""

    files: int = 50_000
    bytes: int = 2 * 1024**3
    name_bytes: int = 255  # of one part of a path
    depth: int = 64  # parts of a path


class TreeRefused(InvalidArgument):
    """A tree breaks a rule or a cap.

    `name` is the offender, escaped; `value` what was found; `cap` what is allowed; `setting` the configuration that
    changes it, empty where none does.
    """

    def __init__(self, name: str, cap: str, value: str, setting: str = "") -> None:
        self.name, self.cap, self.value, self.setting = escaped(name), cap, value, setting
        shown = f"'{self.name}'" if name else "the tree"
        super().__init__(
            f"{shown}: {value}; {cap}" + (f" (setting {setting})" if setting else ""),
            next=f"raise {setting} or leave it out" if setting else "rename it, remove it or leave it out",
        )


@dataclass(frozen=True)
class Member:
    """One entry of a packed tree. `chunks` yields a file's content and is good until the next member is asked for."""

    name: str
    kind: Kind
    size: int = 0  # bytes
    executable: bool = False
    target: str = ""  # of a link
    chunks: Iterator[bytes] = field(default=iter(()), compare=False, repr=False)


@dataclass(frozen=True)
class Unpacked:
    """What `unpack` wrote."""

    files: int
    directories: int
    links: int
    bytes: int


def escaped(name: str, limit: int = 300) -> str:
    """`name` on one line of printable characters, cut in the middle where it is longer than `limit`."""
    text = "".join(
        each if each.isprintable() and each != "\\" else _escape(each)
        for each in (name if len(name) <= limit else f"{name[: limit // 2]} … {name[-limit // 2 :]}")
    )
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def parts_of(name: str, caps: Caps) -> list[str]:
    """The parts of a relative path that keeps the rules for names.

    Raises:
        TreeRefused: it does not.
    """
    if name.startswith("/"):
        raise TreeRefused(name, "names are relative", "an absolute name")
    if name.count("/") >= caps.depth:
        raise TreeRefused(name, f"at most {caps.depth}", f"{name.count('/') + 1} levels deep", "tree.depth")
    parts = name.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise TreeRefused(name, "each part of a path is a name", f"a part that is '{part}'")
        length = len(_encode(part, name))
        if length > caps.name_bytes:
            raise TreeRefused(name, f"at most {caps.name_bytes}", f"a name of {length} bytes", "tree.name_bytes")
    if _misleads(name):
        raise TreeRefused(name, "none is allowed", "a control character or line break in the name")
    return parts


def check_target(name: str, target: str) -> None:
    """Makes sure that the link `name` stays inside the tree by its text alone.

    Raises:
        TreeRefused: it does not, or nobody can tell.
    """
    value = f"a link to '{escaped(target)}'"
    if not target or len(_encode(target, name)) > LINK_BYTES or _misleads(target):
        raise TreeRefused(name, "a link's text is short and printable", value)
    if target.startswith("/"):
        raise TreeRefused(name, "links stay inside the tree", value)
    steps = [each for each in target.split("/") if each not in ("", ".")]
    rising = 0
    while rising < len(steps) and steps[rising] == "..":
        rising += 1
    if rising > name.count("/") or ".." in steps[rising:]:
        raise TreeRefused(name, "links stay inside the tree, with '..' only at their start", value)


def _misleads(text: str) -> bool:
    """Whether it holds characters that break a line or drive a terminal."""
    if text.isascii():
        return not text.isprintable()
    return any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in text)


def _encode(text: str, name: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise TreeRefused(name, "names are UTF-8, or bytes from a file system", "a character that is neither") from None


class Census:
    """Counts a tree against its caps, and knows which names are taken, in a bounded number of bytes per name."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.files = self.directories = self.links = self.bytes = 0
        self._taken: dict[bytes, bool] = {}  # digest of a path: was it named itself, or follows it from one below?
        self._solid: set[bytes] = set()  # files and links, below which there is nothing
        self._parent: list[str] = []

    def enter(self, name: str, kind: Kind, size: int = 0) -> list[str]:
        """Takes one entry in and returns the parts of its name."""
        parts = parts_of(name, self.caps)
        if parts[:-1] != self._parent:
            self._parent = parts[:-1]
            for depth in range(1, len(parts)):
                self._imply(name, "/".join(parts[:depth]))
        key = _key(name)
        if self._taken.get(key) or (key in self._taken and kind != "directory"):
            raise TreeRefused(name, "each name is there once", "the name comes twice")
        if kind == "directory":
            if key not in self._taken:
                self._count_directory(name)
        else:
            self._solid.add(key)
            self.files += kind == "file"
            self.links += kind == "link"
            if self.files + self.links > self.caps.files:
                raise TreeRefused(name, f"at most {self.caps.files:,}", f"file {self.caps.files + 1:,}", "tree.files")
        self._taken[key] = True
        self.bytes += size
        if self.bytes > self.caps.bytes:
            raise TreeRefused(name, f"at most {self.caps.bytes:,}", f"{self.bytes:,} bytes up to here", "tree.bytes")
        return parts

    def _imply(self, name: str, parent: str) -> None:
        key = _key(parent)
        if key in self._solid:
            raise TreeRefused(name, "only a directory has names below it", f"'{escaped(parent)}' is a file or a link")
        if key not in self._taken:
            self._taken[key] = False
            self._count_directory(name)

    def _count_directory(self, name: str) -> None:
        self.directories += 1
        if self.directories > self.caps.files:
            raise TreeRefused(name, f"at most {self.caps.files:,}", f"directory {self.caps.files + 1:,}", "tree.files")


def _key(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()


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


# ── packing ──────────────────────────────────────────────────────────────────────────────────────────────────────


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
    buffer += bytes(2 * BLOCK)
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
            yield _header(name, b"2", 0o777, target=target)
            return
        if stat.S_ISDIR(status.st_mode):
            census.enter(name, "directory")
            yield _header(name, b"5", 0o755)
            return
        if not stat.S_ISREG(status.st_mode):
            raise TreeRefused(name, "only files, directories and links travel", f"a {_what(status.st_mode)}")
        opened = os.open(parts[-1], FLAGS, dir_fd=above)
    except FileNotFoundError:
        note(f"'{escaped(name)}' vanished before it was packed and is left out")
        return
    except OSError as error:
        raise swapped(name, error) from error
    with os.fdopen(opened, "rb", buffering=0) as file:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise TreeRefused(name, "only files, directories and links travel", f"became a {_what(status.st_mode)}")
        yield from _file(name, file.read, status, census, note)


def _file(
    name: str, read: Callable[[int], bytes], status: os.stat_result, census: Census, note: Callable[[str], None]
) -> Iterator[bytes]:
    size = status.st_size
    mode = 0o755 if status.st_mode & 0o100 else 0o644
    if size <= SMALL:
        content = b"".join(_read(name, read, size + 1))
        grown, content = len(content) > size, content[:size]
        size = len(content)
        census.enter(name, "file", size)
        yield _header(name, b"0", mode, size)
        yield content
    else:
        census.enter(name, "file", size)
        yield _header(name, b"0", mode, size)
        got = 0
        for chunk in _read(name, read, size):
            got += len(chunk)
            yield chunk
        if got < size:
            raise Unavailable(
                f"'{escaped(name)}' shrank from {size:,} to {got:,} bytes while it was being packed",
                next="try again when nothing writes there",
            )
        grown = bool(_read_once(name, read, 1))
    yield bytes(-size % BLOCK)
    if grown:
        note(f"'{escaped(name)}' grew while it was being packed; the first {size:,} bytes are in")


def _read(name: str, read: Callable[[int], bytes], limit: int) -> Iterator[bytes]:
    while limit and (chunk := _read_once(name, read, min(limit, CHUNK))):
        limit -= len(chunk)
        yield chunk


def _read_once(name: str, read: Callable[[int], bytes], limit: int) -> bytes:
    try:
        return read(limit)
    except OSError as error:
        raise unreadable(name, error) from error


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


def _header(name: str, kind: bytes, mode: int, size: int = 0, target: str = "") -> bytes:
    path = name + "/" if kind == b"5" else name
    raw_path, raw_target = _encode(path, name), _encode(target, name)
    records: dict[str, bytes] = {}
    if len(raw_path) > 100 or not raw_path.isascii():
        records["path"] = raw_path
    if len(raw_target) > 100 or not raw_target.isascii():
        records["linkpath"] = raw_target
    if size >= 8**11:
        records["size"] = b"%d" % size
    if any(_is_binary(value) for value in records.values()):
        records = {"hdrcharset": b"BINARY", **records}
    head = b""
    if records:
        body = b"".join(_record(key, value) for key, value in records.items())
        head = _block(b"pax", b"x", 0o644, len(body), b"") + body + bytes(-len(body) % BLOCK)
    return head + _block(
        b"pax" if "path" in records else raw_path,
        kind,
        mode,
        0 if "size" in records else size,
        b"" if "linkpath" in records else raw_target,
    )


def _is_binary(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode("ascii") + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode("ascii") + rest


def _block(name: bytes, kind: bytes, mode: int, size: int, target: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Source:
    """Exact reads from a stream of chunks."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._chunks = iter(stream)
        self._rest = memoryview(b"")

    def some(self, limit: int) -> bytes:
        """Between one and `limit` bytes; none at the end of the stream."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        return bytes(taken)

    def exactly(self, size: int, name: str = "") -> bytes:
        """`size` bytes; the caller has checked that so many may be kept."""
        return b"".join(self.chunks(size, name))

    def chunks(self, size: int, name: str) -> Iterator[bytes]:
        while size:
            taken = self.some(min(size, CHUNK))
            if not taken:
                raise TreeRefused(name, "a packed tree is complete", f"the stream ends {size:,} bytes early")
            size -= len(taken)
            yield taken


def members(stream: Iterable[bytes], caps: Caps | None = None) -> Iterator[Member]:
    """Lists a packed tree, checking every rule on the way; content that is not taken is skipped.

    Raises:
        TreeRefused: the stream is no packed tree, or the tree breaks a rule or a cap.
    """
    yield from _members(stream, Census(caps or Caps()))


def _members(stream: Iterable[bytes], census: Census) -> Iterator[Member]:
    caps = census.caps
    source = _Source(stream)
    longest = caps.depth * (caps.name_bytes + 1) + LINK_BYTES + 4096  # of a PAX header that is worth reading
    extended: dict[str, str] = {}
    while True:
        block = source.exactly(BLOCK)
        if not any(block):
            _check_end(source, extended)
            return
        kind, size = _checked(block)
        if kind in (b"x", b"g"):
            if extended or size > longest:
                raise TreeRefused("", "one of bounded size before each entry", "a PAX header too many or too big")
            records = _records(source.exactly(size))
            source.exactly(-size % BLOCK)
            if kind == b"x":
                extended = records
            elif records.keys() - {"comment"}:
                raise TreeRefused("", "a global PAX header holds a comment only", "one that changes entries")
            continue
        name = extended.get("path") or _name(block)
        if "size" in extended:
            size = _decimal(extended["size"], name)
        target = extended.get("linkpath") or _text(block[157:257])
        extended = {}
        member = _member(source, name, kind, size, target, block)
        census.enter(member.name, member.kind, member.size)
        yield member
        for _ in member.chunks:
            pass
        source.exactly(-size % BLOCK, name)


def _member(source: _Source, name: str, kind: bytes, size: int, target: str, block: bytes) -> Member:
    if kind == b"0" or kind == b"\0":
        executable = bool(_octal(block[100:108], "mode") & 0o100)
        return Member(name, "file", size, executable, chunks=source.chunks(size, name))
    if kind not in (b"2", b"5"):
        what = {b"1": "hard link", b"3": "device", b"4": "device", b"6": "FIFO", b"S": "sparse file"}.get(kind)
        raise TreeRefused(
            name, "only files, directories and links travel", f"a {what}" if what else f"an entry of type {kind!r}"
        )
    if size:
        raise TreeRefused(name, "only files have content", f"{size:,} bytes of it")
    if kind == b"5":
        return Member(name.removesuffix("/"), "directory")
    check_target(name, target)
    return Member(name, "link", target=target)


def _checked(block: bytes) -> tuple[bytes, int]:
    """Type and size of a header, once its magic and its checksum are right."""
    if block[257:265] != b"ustar\x0000":
        raise TreeRefused("", "a packed tree is POSIX tar", "a header of another format")
    if _octal(block[148:156], "checksum") != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise TreeRefused("", "headers carry their checksum", "a header whose checksum is wrong")
    return block[156:157], _octal(block[124:136], "size")


def _name(block: bytes) -> str:
    name, prefix = _text(block[0:100]), _text(block[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(value: bytes) -> str:
    text, _, rest = value.partition(b"\0")
    if any(rest):
        raise TreeRefused(text.decode("utf-8", "surrogateescape"), "nothing follows it", "a NUL within a name")
    return text.decode("utf-8", "surrogateescape")


def _octal(value: bytes, what: str) -> int:
    digits = value.rstrip(b"\0 ").lstrip(b" ")
    if not digits.isdigit() or any(each not in b"01234567" for each in digits):
        raise TreeRefused("", "numbers in a header are octal", f"a {what} of {value!r}")
    return int(digits, 8)


def _decimal(value: str, name: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise TreeRefused(name, "a size is a decimal number", f"'{escaped(value, 40)}'")
    return int(value)


def _records(body: bytes) -> dict[str, str]:
    """The records of a PAX header, each `LENGTH KEY=VALUE\\n`."""
    found: dict[str, str] = {}
    while body:
        length, space, _ = body[:12].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 4 <= int(length) <= len(body):
            raise TreeRefused("", "records say their length", "a PAX header that cannot be read")
        record, body = body[len(length) + 1 : int(length)], body[int(length) :]
        key, equals, value = record[:-1].decode("utf-8", "surrogateescape").partition("=")
        if not equals or record[-1:] != b"\n" or key in found:
            raise TreeRefused("", "a record is KEY=VALUE, once", "a PAX header that cannot be read")
        if key not in HEEDED | PASSED or (key == "hdrcharset" and value not in CHARSETS):
            raise TreeRefused("", "it would change what is read", f"the PAX record '{escaped(f'{key}={value}', 80)}'")
        found[key] = value
    return found


def _check_end(source: _Source, extended: dict[str, str]) -> None:
    """Two empty blocks end a tree; writers fill up to a record of 10 KiB, and nothing else may follow."""
    if extended or any(source.exactly(BLOCK)):
        raise TreeRefused("", "a tree ends with two empty blocks", "one that breaks off")
    trailing = 0
    while rest := source.some(CHUNK):
        trailing += len(rest)
        if any(rest) or trailing > 1024 * 1024:
            raise TreeRefused("", "nothing follows the end of a tree", "data after the end")


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
