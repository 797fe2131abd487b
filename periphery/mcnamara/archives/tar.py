"""Reads tar as it comes: POSIX, PAX and GNU headers, each of bounded size; what contradicts itself is reported."""

from collections.abc import Iterator
from typing import Protocol

from periphery.mcnamara.archives.names import Damaged, Names
from periphery.mcnamara.stage import Full, Stage

CHUNK = 256 * 1024
BLOCK = 512
HEADER_BYTES = 64 * 1024  # of one extended header
PADDING_BYTES = 16 * 2**20  # of zeros after the end
RAISED = 0o6000  # set-user-id, set-group-id
REGULAR = (b"0", b"\0", b"7")
EXTENDED = (b"x", b"g", b"L", b"K")


class Stream(Protocol):
    """Anything that is read in order."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer at the end only."""
        ...


def looks_like_tar(head: bytes) -> bool:
    """Whether a file begins with a tar header."""
    return len(head) == BLOCK and (head[257:262] == b"ustar" or _checksum_right(head))


def read_tar(stream: Stream, stage: Stage, names: Names) -> None:
    """Puts every regular file of a tar stream on the stage.

    Raises:
        Damaged: it cannot be read to its end.
        Full: the stage is.
    """
    extended: dict[str, bytes] = {}
    while True:
        block = stream.read(BLOCK)
        if not block.strip(b"\0"):
            _after_end(stream, names)
            return
        if len(block) < BLOCK or not _checksum_right(block):
            raise Damaged("a header whose checksum is wrong" if len(block) == BLOCK else "it breaks off in a header")
        kind, size = block[156:157], _number(block[124:136])
        if kind in EXTENDED:
            extended.update(_extended(stream, kind, size, names))
            continue
        raw = extended.get("path") or _name(block, names)
        name = _decode(raw)
        if b"\0" in raw:
            names.report("nul-name", name)
        target = _decode(extended.get("linkpath") or block[157:257].split(b"\0")[0])
        declared = extended.get("size", b"")
        if declared.isdigit() and len(declared) < 20 and int(declared) != size:
            if size and size != 8**11 - 1:  # writers put zero or the greatest number where the field is too small
                names.report("size-lie", name)
            size = int(declared)
        extended = {}
        _member(stream, stage, names, kind, name, size, target, _mode(block))


def _member(
    stream: Stream, stage: Stage, names: Names, kind: bytes, name: str, size: int, target: str, mode: int
) -> None:
    if kind in REGULAR and (size or not name.endswith("/")):
        names.enter(name)
        if mode & RAISED:
            names.report("setuid", name, f"mode {mode & 0o7777:o}")
        stage.add(names.shown(name), _chunks(stream, size))
        _exactly(stream, -size % BLOCK)
        return
    if kind in REGULAR or kind == b"5":
        names.enter(name if name.endswith("/") else name + "/")
    elif kind == b"2":
        names.enter(name, link=target)
    elif kind == b"1":  # a hard link's target is counted from the archive's root
        names.enter(name, link="../" * name.removesuffix("/").count("/") + target)
    else:
        names.enter(name)
        if kind in (b"3", b"4", b"6"):
            names.report("device", name)
            names.skip(name, "a FIFO" if kind == b"6" else "a device")
        else:
            names.report("unknown-kind", name, f"kind {kind!r}")
            names.leave(name, f"a member of kind {kind!r}")
    for _ in _chunks(stream, size):
        pass
    _exactly(stream, -size % BLOCK)


def _extended(stream: Stream, kind: bytes, size: int, names: Names) -> dict[str, bytes]:
    """What an extended header says of the member that follows it."""
    if size > HEADER_BYTES:
        names.report("header-bomb", "", f"{size:,} bytes")
        raise Damaged("an extended header of unreasonable size")
    body = _exactly(stream, size)
    _exactly(stream, -size % BLOCK)
    if kind == b"L":
        return {"path": body.rstrip(b"\0")}
    if kind == b"K":
        return {"linkpath": body.rstrip(b"\0")}
    return _records(body) if kind == b"x" else {}


def _records(body: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    while body:
        length, space, _ = body[:12].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 4 <= int(length) <= len(body):
            raise Damaged("a PAX header that cannot be read")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value
        body = body[int(length) :]
    return found


def _after_end(stream: Stream, names: Names) -> None:
    """Two empty blocks end an archive; some tools read on."""
    padding = 0
    while block := stream.read(BLOCK * 20):
        padding += len(block)
        if block.strip(b"\0"):
            names.report("after-end", "")
            return
        if padding > PADDING_BYTES:
            raise Full(f"more than {PADDING_BYTES:,} empty bytes at its end")


def _name(block: bytes, names: Names) -> bytes:
    raw, _, behind = block[0:100].partition(b"\0")
    if behind.strip(b"\0"):
        names.report("nul-name", _decode(raw))
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + raw if prefix else raw


def _mode(block: bytes) -> int:
    """Its Unix mode; what is none gives no rights."""
    try:
        return _number(block[100:108])
    except Damaged:
        return 0


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256 one."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if any(each not in b"01234567" for each in digits):
        raise Damaged("a size that is no number")
    return int(digits or b"0", 8)


def _checksum_right(block: bytes) -> bool:
    digits = block[148:156].strip(b"\0 ")
    if not digits or any(each not in b"01234567" for each in digits) or not any(block[:100]):
        return False
    return int(digits, 8) == sum(block) - sum(block[148:156]) + 8 * 0x20


def _exactly(stream: Stream, size: int) -> bytes:
    return b"".join(_chunks(stream, size))


def _chunks(stream: Stream, size: int) -> Iterator[bytes]:
    while size:
        got = stream.read(min(size, CHUNK))
        if not got:
            raise Damaged(f"it breaks off {size:,} bytes early")
        size -= len(got)
        yield got


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
