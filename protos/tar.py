"""POSIX tar, as much of it as a packed tree needs: ustar headers with PAX records, written one way, read narrowly.

Why not `tarfile`: it takes a PAX header of any size into memory, follows chains of GNU long names, cuts a name at its
first NUL, treats unknown types as files, and its extraction filters have been bypassed more than once. What is needed
of the format fits on two screens, and here each byte of it is accounted for: whatever is not understood is refused,
and nothing is kept before its size was looked at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from protos.treerules import LINK_BYTES, Caps, Kind, TreeRefused, check_target, encode, escaped

CHUNK = 256 * 1024  # bytes; what one message of the contract carries
BLOCK = 512
HEEDED = {"path", "linkpath", "size", "hdrcharset"}  # PAX records that say something here
PASSED = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}  # and those that change nothing
CHARSETS = ("BINARY", "ISO-IR 10646 2000 UTF-8")


@dataclass(frozen=True)
class Member:
    """One entry of a packed tree. `chunks` yields a file's content and is good until the next member is asked for."""

    name: str
    kind: Kind
    size: int = 0  # bytes
    executable: bool = False
    target: str = ""  # of a link
    chunks: Iterator[bytes] = field(default=iter(()), compare=False, repr=False)


def header(name: str, kind: bytes, mode: int, size: int = 0, target: str = "") -> bytes:
    """What stands before an entry's content: a header block, with a PAX header in front of it where it is needed.

    `kind` is tar's own type: `0` a file, `2` a link, `5` a directory.
    """
    path = name + "/" if kind == b"5" else name
    raw_path, raw_target = encode(path, name), encode(target, name)
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
        if size <= len(self._rest):  # nearly always
            taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
            return taken
        return b"".join(self.chunks(size, name))

    def chunks(self, size: int, name: str) -> Iterator[bytes]:
        while size:
            taken = self.some(min(size, CHUNK))
            if not taken:
                raise TreeRefused(name, "a packed tree is complete", f"the stream ends {size:,} bytes early")
            size -= len(taken)
            yield taken


def read(stream: Iterable[bytes], caps: Caps) -> Iterator[Member]:
    """The entries of a packed tree. Links stay inside; names and sizes are the caller's to check before it goes on.

    Raises:
        TreeRefused: the stream is no packed tree, or holds what none may hold.
    """
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
    if rest.strip(b"\0"):
        raise TreeRefused(text.decode("utf-8", "surrogateescape"), "nothing follows it", "a NUL within a name")
    return text.decode("utf-8", "surrogateescape")


def _octal(value: bytes, what: str) -> int:
    digits = value.rstrip(b"\0 ").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
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
