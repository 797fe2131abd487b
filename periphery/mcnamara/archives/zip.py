"""Reads zip by its central directory, checks each member's own header against it, and looks for what it leaves out."""

import bz2
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, NamedTuple, Protocol

from periphery.mcnamara.archives.names import Damaged, Names, NotAnArchive, Opened, escaped
from periphery.mcnamara.stage import Full, Stage

CHUNK = 256 * 1024
DIRECTORY_BYTES = 32 * 2**20
TARGET_BYTES = 4096  # of a link's text
RATIO = 200  # an honest member seldom shrinks to less than this fraction
FREE_BYTES = 16 * 2**20  # below this much output no ratio is looked at
STORED, DEFLATED, BZIP2 = 0, 8, 12
BEFORE = "(before the archive)"
RAISED = 0o6000  # set-user-id, set-group-id
LINK, REGULAR, DIRECTORY = 0o120000, 0o100000, 0o040000


_Span = tuple[int, int, str]  # first byte, the one behind the last, name


class _Bomb(Exception):
    """One member unpacks to more than it may."""


class Directory(NamedTuple):
    """What the end of a zip file says of its central directory."""

    members: int
    size: int
    offset: int
    end: int  # where the record that says so lies


@dataclass(frozen=True)
class _Entry:
    """One line of the central directory."""

    raw: bytes
    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int  # Unix mode, 0 where the maker gave none


def end_of_directory(file: BinaryIO) -> Directory | None:
    """Where the central directory is; None for what is no zip file."""
    file.seek(0, 2)
    length = file.tell()
    tail_at = max(0, length - 22 - 65535)
    file.seek(tail_at)
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return None
    count, size, offset = struct.unpack("<HII", tail[at + 10 : at + 20])
    locator = tail.rfind(b"PK\x06\x07", 0, at)
    if (0xFFFFFFFF in (size, offset) or count == 0xFFFF) and locator >= 0 and at - locator >= 20:
        where = min(int.from_bytes(tail[locator + 8 : locator + 16], "little"), length)
        file.seek(where)
        record = file.read(56)
        file.seek(0)
        if len(record) == 56 and record.startswith(b"PK\x06\x06"):
            count, size, offset = struct.unpack("<QQQ", record[32:56])
            return Directory(count, size, offset, where)
    return Directory(count, size, offset, tail_at + at)


def read_zip(file: BinaryIO, stage: Stage, names: Names) -> None:
    """Puts every regular file of a zip on the stage.

    Raises:
        NotAnArchive: it has no central directory.
        Full: the stage is, or would be.
    """
    directory = end_of_directory(file)
    if directory is None:
        raise NotAnArchive("a zip file without a directory at its end")
    count, size, offset, end = directory
    if size > DIRECTORY_BYTES or count > 4 * stage.max_files:
        raise Full(f"a directory of {count:,} members and {size:,} bytes")
    shift = max(0, end - size - offset)  # bytes before the archive that its offsets do not count
    file.seek(min(offset + shift, end))
    entries = list(_entries(file.read(size), names))
    if before := min([offset, *(each.offset for each in entries)]) + shift:
        names.report("prefix", "", f"{before:,} bytes")
        stage.add(names.shown(BEFORE), _stretch(file, before))
    if len(entries) != count:
        names.report("count-lie", "", f"{count:,} promised, {len(entries):,} listed")
    spans: list[_Span] = []
    for number, entry in enumerate(entries):
        try:
            _member(file, entry, shift, stage, names, spans)
        except Full as full:
            raise Full(f"{full}, with {len(entries) - number:,} more members") from full
        except _Bomb as bomb:
            names.report("bomb", entry.name, str(bomb))
            names.leave(entry.name, str(bomb))
        except Damaged as damaged:
            names.report("damaged", entry.name, str(damaged))
            names.leave(entry.name, str(damaged))
    _look_between(file, sorted(spans), shift, offset + shift, names)


def _stretch(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first bytes of the file: what runs where the archive extracts itself."""
    file.seek(0)
    while size and (got := file.read(min(size, CHUNK))):
        size -= len(got)
        yield got


def documents(file: BinaryIO, suffix: str, limit: int) -> Iterator[bytes | None]:
    """The content of each member whose name ends in `suffix`; None for one that is damaged or longer than `limit`.

    Raises:
        NotAnArchive: it is no zip file.
    """
    directory = end_of_directory(file)
    if directory is None:
        raise NotAnArchive("a zip file without a directory at its end")
    shift = max(0, directory.end - directory.size - directory.offset)
    file.seek(min(directory.offset + shift, directory.end))
    for entry in _entries(file.read(directory.size), Names("", Opened())):
        if entry.name.endswith(suffix):
            try:
                yield b"".join(_inflate(file, entry, _begin(file, entry, shift))) if entry.size <= limit else None
            except (_Bomb, Damaged):
                yield None


def _begin(file: BinaryIO, entry: _Entry, shift: int) -> int:
    """Where a member's content begins."""
    file.seek(entry.offset + shift)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise Damaged("its place in the file holds no member")
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    return entry.offset + shift + 30 + int(name_size) + int(extra_size)


def _entries(directory: bytes, names: Names) -> Iterator[_Entry]:
    at = 0
    while at + 46 <= len(directory) and directory.startswith(b"PK\x01\x02", at):
        maker, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, _, _, outside, offset = (
            struct.unpack("<HHHHHHIIIHHHHHII", directory[at + 4 : at + 46])
        )
        raw = directory[at + 46 : at + 46 + name_size]
        extra = directory[at + 46 + name_size : at + 46 + name_size + extra_size]
        size, packed, offset = _zip64(extra, size, packed, offset)
        at += 46 + name_size + extra_size + comment_size
        name = _name(raw, flags)
        if "\0" in name:
            names.report("nul-name", name)
        yield _Entry(raw, name, method, flags, crc, packed, size, offset, outside >> 16 if maker >> 8 == 3 else 0)


def _zip64(extra: bytes, *values: int) -> list[int]:
    """`values` (size, packed size, offset), each that did not fit into 32 bits taken from the extra field."""
    given = list(values)
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack("<HH", extra[at : at + 4])
        if tag == 1:
            longer = [extra[i : i + 8] for i in range(at + 4, min(at + 4 + length, len(extra)) - 7, 8)]
            for number, value in enumerate(given):
                if value == 0xFFFFFFFF and longer:
                    given[number] = int.from_bytes(longer.pop(0), "little")
        at += 4 + length
    return given


def _name(raw: bytes, flags: int) -> str:
    """Marked UTF-8, plain ASCII, unmarked UTF-8 as many tools write it, or the IBM code page of old."""
    if flags & 0x800:
        return raw.decode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _member(file: BinaryIO, entry: _Entry, shift: int, stage: Stage, names: Names, spans: list[_Span]) -> None:
    """Takes one member in, and notes which bytes of the file it covers."""
    start = entry.offset + shift
    file.seek(start)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise Damaged("its place in the file holds no member")
    _, flags, method, _, _, crc, packed, size, name_size, extra_size = struct.unpack("<HHHHHIIIHH", header[4:30])
    raw, extra = file.read(name_size), file.read(extra_size)
    size, packed = _zip64(extra, size, packed)
    here = _Entry(raw, entry.name, method, flags, crc, packed, size, entry.offset, entry.mode)
    if wrong := _differences(here, entry):
        names.report("header-mismatch", entry.name, wrong)
    begin = start + 30 + name_size + extra_size
    spans.append((start, begin + entry.packed, entry.name))
    kind = entry.mode & 0o170000
    if kind == LINK and not entry.name.endswith("/"):
        target = b"".join(_inflate(file, entry, begin)) if entry.size <= TARGET_BYTES else b"(too long)"
        names.enter(entry.name, link=target.decode("utf-8", "surrogateescape"))
    elif kind not in (0, REGULAR, DIRECTORY):
        names.enter(entry.name)
        names.report("device", entry.name)
        names.skip(entry.name, "a device")
    else:
        names.enter(entry.name)
        if entry.mode & RAISED and kind != DIRECTORY:
            names.report("setuid", entry.name, f"mode {entry.mode & 0o7777:o}")
        if entry.name.endswith("/"):
            if entry.size:
                names.report("size-lie", entry.name, "a directory with content")
        elif entry.flags & 1:
            names.report("encrypted", entry.name)
            names.leave(entry.name, "encrypted")
        else:
            stage.add(names.shown(entry.name), _inflate(file, entry, begin))


def _differences(here: _Entry, there: _Entry) -> str:
    """What a member's own header says otherwise than the directory: programs differ in which one they believe."""
    wrong = [f"its name (there it is '{escaped(_name(here.raw, here.flags))}')"] if here.raw != there.raw else []
    wrong += ["its method"] if here.method != there.method else []
    wrong += ["its encryption"] if (here.flags ^ there.flags) & 1 else []
    if not here.flags & 8:  # else checksum and sizes follow the data
        wrong += ["its checksum"] if here.crc != there.crc else []
        wrong += ["its size"] if (here.packed, here.size) != (there.packed, there.size) else []
    return ", ".join(wrong)


class _Decompressor(Protocol):
    def step(self, data: bytes) -> tuple[bytes, bytes]:
        """Some output, and the input that is still to be given."""
        ...


class _Stored:
    def step(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


class _Deflated:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(-15)

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        return self._inner.decompress(data, CHUNK), self._inner.unconsumed_tail


class _Bzip2:
    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        if self._inner.eof:
            return b"", b""
        hungry = self._inner.needs_input
        return self._inner.decompress(data if hungry else b"", CHUNK), b"" if hungry else data


METHODS: dict[int, type[_Stored] | type[_Deflated] | type[_Bzip2]] = {
    STORED: _Stored,
    DEFLATED: _Deflated,
    BZIP2: _Bzip2,
}


def _inflate(file: BinaryIO, entry: _Entry, begin: int) -> Iterator[bytes]:
    """The content of one member, as long as it is what the directory promised."""
    if entry.method not in METHODS:
        raise Damaged(f"compressed by method {entry.method}, which is not read here")
    inner: _Decompressor = METHODS[entry.method]()
    left, out, crc, pending = entry.packed, 0, 0, b""
    while True:
        if not pending and left:
            file.seek(begin + entry.packed - left)
            pending = file.read(min(left, CHUNK))
            left -= len(pending)
            if not pending:
                raise Damaged("it breaks off")
        last = not pending and not left
        try:
            chunk, pending = inner.step(pending)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            raise Damaged(f"its compression is damaged ({error})") from error
        out += len(chunk)
        crc = zlib.crc32(chunk, crc)
        if out > entry.size:
            raise _Bomb(f"more than the {entry.size:,} bytes it declares")
        if out > FREE_BYTES and out > RATIO * max(entry.packed, 1):
            raise _Bomb(f"more than {RATIO} times its size")
        if chunk:
            yield chunk
        elif last:
            break
    if out != entry.size:
        raise Damaged(f"holds {out:,} bytes where {entry.size:,} are declared")
    if crc != entry.crc:
        raise Damaged("its checksum is wrong")


def _look_between(file: BinaryIO, spans: list[_Span], first: int, last: int, names: Names) -> None:
    """Members that share bytes bomb; members between those the directory lists hide."""
    for (_, stop, _), (start, _, name) in pairwise(spans):
        if start < stop:
            names.report("overlap", name)
            return
    edges = [(0, first, ""), *spans, (last, last, "")]
    for (_, stop, _), (start, _, _) in pairwise(edges):
        if start - stop >= 30:
            file.seek(stop)
            if b"PK\x03\x04" in file.read(min(start - stop, FREE_BYTES)):
                names.report("hidden-member", "")
                return
