"""Reads git objects as data: loose ones, packs and their deltas, without git and without anything a repository names.

Git itself runs what a repository's configuration tells it to. Here nothing is read but objects and refs, from a list
of files, and every size is checked before something is kept for it: an object that claims to be a gigabyte, a chain of
deltas without end, an index that points anywhere are refused one by one.
"""

import hashlib
import mmap
import re
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["commit", "tree", "blob", "tag"]
KINDS: dict[int, Kind] = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
OFFSET_DELTA, REFERENCE_DELTA = 6, 7
OBJECT_BYTES = 16 * 2**20  # a bigger object is not read
CACHE_BYTES = 96 * 2**20
CHAIN = 512  # deltas upon deltas
LOOSE = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})$")


class Unreadable(Exception):
    """One object cannot be read, or is too big."""


class Object(NamedTuple):
    """What an object is, and its content."""

    kind: Kind
    content: bytes


class _Pack:
    """A pack and its index."""

    def __init__(self, pack: mmap.mmap, index: bytes, width: int) -> None:
        self.data = pack
        self._index = index
        self._width = width
        if not index.startswith(b"\xfftOc\x00\x00\x00\x02") or len(index) < 8 + 1024:
            raise Unreadable("an index of a version that is not read here")
        (self.count,) = struct.unpack(">I", index[8 + 255 * 4 : 8 + 256 * 4])
        if len(index) < 8 + 1024 + self.count * (width + 8):
            raise Unreadable("an index that is cut off")

    def ids(self) -> Iterator[bytes]:
        for number in range(self.count):
            at = 8 + 1024 + number * self._width
            yield self._index[at : at + self._width]

    def find(self, id: bytes) -> int | None:
        """The offset of an object."""
        if len(id) != self._width:
            return None  # a damaged object names it
        low = struct.unpack(">I", self._index[8 + (id[0] - 1) * 4 : 8 + id[0] * 4])[0] if id[0] else 0
        high = min(struct.unpack(">I", self._index[8 + id[0] * 4 : 12 + id[0] * 4])[0], self.count)
        while low < high:
            middle = (low + high) // 2
            at = 8 + 1024 + middle * self._width
            here = self._index[at : at + self._width]
            if here == id:
                return self._offset(middle)
            low, high = (middle + 1, high) if here < id else (low, middle)
        return None

    def _offset(self, number: int) -> int:
        offsets = 8 + 1024 + self.count * (self._width + 4)
        (offset,) = struct.unpack(">I", self._index[offsets + number * 4 : offsets + number * 4 + 4])
        if offset & 0x80000000:
            at = offsets + self.count * 4 + (offset & 0x7FFFFFFF) * 8
            large = self._index[at : at + 8]
            if len(large) < 8:
                raise Unreadable("an offset outside of the index")
            (offset,) = struct.unpack(">Q", large)
        return int(offset)


class Objects:
    """The objects of one repository, given as its files: name below the git directory → where the bytes lie."""

    def __init__(self, files: Mapping[str, Path], stack: ExitStack) -> None:
        self._loose = {
            bytes.fromhex("".join(match.groups())): files[name] for name in files if (match := LOOSE.match(name))
        }
        self._packs: list[_Pack] = []
        self._cache: OrderedDict[tuple[int, int], Object] = OrderedDict()
        self._cached = 0
        self.width = 32 if any(len(id) == 32 for id in self._loose) else 20
        self.broken: list[str] = []
        for name in sorted(files):
            index = files.get(name.removesuffix(".pack") + ".idx") if name.endswith(".pack") else None
            if index is None:
                continue
            if re.search(r"pack-[0-9a-f]{64}\.pack$", name):
                self.width = 32
            try:
                data = mmap.mmap(stack.enter_context(files[name].open("rb")).fileno(), 0, access=mmap.ACCESS_READ)
                self._packs.append(_Pack(stack.enter_context(data), index.read_bytes(), self.width))
            except (Unreadable, ValueError, OSError) as error:
                self.broken.append(f"{name}: {error}")

    def ids(self) -> Iterator[bytes]:
        """Every object there is, reachable or not."""
        yield from self._loose
        for pack in self._packs:
            yield from pack.ids()

    def read(self, id: bytes) -> Object:
        """One object.

        Raises:
            Unreadable: it is missing, damaged or too big.
        """
        return self._read(id, 0)

    def _read(self, id: bytes, depth: int) -> Object:
        if id in self._loose:
            return self._read_loose(self._loose[id])
        for number, pack in enumerate(self._packs):
            offset = pack.find(id)
            if offset is not None:
                return self._read_packed(number, offset, depth)
        raise Unreadable("missing")

    def _read_loose(self, place: Path) -> Object:
        with place.open("rb") as file:
            raw = _inflate(file.read(OBJECT_BYTES + 1), OBJECT_BYTES)
        head, _, content = raw.partition(b"\0")
        kind, _, size = head.partition(b" ")
        for each in KINDS.values():
            if kind == each.encode() and size == b"%d" % len(content):
                return Object(each, content)
        raise Unreadable("its header is wrong")

    def _read_packed(self, number: int, offset: int, depth: int) -> Object:
        """Follows a chain of deltas down to its base, then applies them upwards."""
        data = self._packs[number].data
        deltas: list[tuple[int, bytes]] = []
        while True:
            if (number, offset) in self._cache:
                self._cache.move_to_end((number, offset))
                found = self._cache[number, offset]
                break
            if len(deltas) + depth > CHAIN:
                raise Unreadable("a chain of deltas without end")
            kind, size, at = _entry_head(data, offset)
            if size > OBJECT_BYTES:
                raise Unreadable(f"{size:,} bytes")
            if kind in KINDS:
                found = Object(KINDS[kind], _inflate(data[at : at + size + 65536], size))
                self._keep((number, offset), found)
                break
            if kind == OFFSET_DELTA:
                back, at = _distance(data, at)
                deltas.append((offset, _inflate(data[at : at + size + 65536], size)))
                if not 0 < back < offset:
                    raise Unreadable("a delta whose base is nowhere")
                offset -= back
            elif kind == REFERENCE_DELTA:
                id = data[at : at + self.width]
                at += self.width
                deltas.append((offset, _inflate(data[at : at + size + 65536], size)))
                found = self._read(id, depth + len(deltas) + 1)
                break
            else:
                raise Unreadable(f"of kind {kind}")
        for offset, delta in reversed(deltas):
            found = Object(found.kind, _patched(found.content, delta))
            self._keep((number, offset), found)
        return found

    def _keep(self, key: tuple[int, int], found: Object) -> None:
        if key not in self._cache:
            self._cache[key] = found
            self._cached += len(found.content)
            while self._cached > CACHE_BYTES:
                _, dropped = self._cache.popitem(last=False)
                self._cached -= len(dropped.content)


def _inflate(data: bytes, limit: int) -> bytes:
    inner = zlib.decompressobj()
    try:
        found = inner.decompress(data, limit + 64 if limit else 64)
    except zlib.error as error:
        raise Unreadable(str(error)) from error
    if len(found) > limit:
        raise Unreadable("it unpacks to more than it declares")
    return found


def _byte(data: mmap.mmap | bytes, at: int) -> int:
    if not 0 <= at < len(data):
        raise Unreadable("it points outside of its file")
    return data[at]


def _entry_head(data: mmap.mmap, at: int) -> tuple[int, int, int]:
    byte = _byte(data, at)
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        at += 1
        byte = _byte(data, at)
        size |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise Unreadable("a size without end")
    return kind, size, at + 1


def _distance(data: mmap.mmap, at: int) -> tuple[int, int]:
    byte = _byte(data, at)
    distance, count = byte & 0x7F, 0
    while byte & 0x80:
        at, count = at + 1, count + 1
        byte = _byte(data, at)
        distance = (distance + 1) << 7 | byte & 0x7F
        if count > 9:
            raise Unreadable("a distance without end")
    return distance, at + 1


def _length(delta: bytes, at: int) -> tuple[int, int]:
    size = shift = 0
    while True:
        byte = _byte(delta, at)
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return size, at
        if shift > 63:
            raise Unreadable("a size without end")


def _patched(base: bytes, delta: bytes) -> bytes:
    expected, at = _length(delta, 0)
    size, at = _length(delta, at)
    if expected != len(base) or size > OBJECT_BYTES:
        raise Unreadable("a delta for another base, or too big")
    made = bytearray()
    while at < len(delta):
        order = delta[at]
        at += 1
        if order & 0x80:
            offset = length = 0
            for bit in range(4):
                if order & 1 << bit:
                    offset |= _byte(delta, at) << 8 * bit
                    at += 1
            for bit in range(3):
                if order & 0x10 << bit:
                    length |= _byte(delta, at) << 8 * bit
                    at += 1
            length = length or 0x10000
            if offset + length > len(base):
                raise Unreadable("a delta that copies from nowhere")
            made += base[offset : offset + length]
        elif order:
            made += delta[at : at + order]
            at += order
        else:
            raise Unreadable("a delta with an unknown order")
        if len(made) > size:
            raise Unreadable("a delta that makes more than it declares")
    if len(made) != size:
        raise Unreadable("a delta that makes less than it declares")
    return bytes(made)


def tips(files: Mapping[str, Path]) -> set[bytes]:
    """The objects that refs name; symbolic ones lead to others of the list."""
    found: set[bytes] = set()
    names = [name for name in files if name.startswith("refs/") or name in ("HEAD", "ORIG_HEAD", "FETCH_HEAD")]
    for name in [*names, *(each for each in ("packed-refs",) if each in files)]:
        with files[name].open("rb") as file:
            text = file.read(32 * 2**20 if name == "packed-refs" else 1024)
        for match in re.finditer(rb"(?m)^\^?([0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])", text):
            found.add(bytes.fromhex(match.group(1).decode()))
    return found


def grafted(files: Mapping[str, Path]) -> set[bytes]:
    """The commits at which a shallow clone ends."""
    if "shallow" not in files:
        return set()
    with files["shallow"].open("rb") as file:
        return {
            bytes.fromhex(each.decode()) for each in re.findall(rb"(?m)^([0-9a-f]{64}|[0-9a-f]{40})$", file.read(2**20))
        }


def entries(tree: bytes, width: int) -> Iterator[tuple[int, str, bytes]]:
    """Mode, name and object of each line of a tree; what is malformed ends it."""
    at = 0
    with suppress(ValueError):
        while at < len(tree):
            space = tree.index(b" ", at, at + 8)
            nul = tree.index(b"\0", space)
            yield (
                int(tree[at:space], 8),
                tree[space + 1 : nul].decode("utf-8", "replace"),
                tree[nul + 1 : nul + 1 + width],
            )
            at = nul + 1 + width


def blob_id(content: bytes, width: int) -> bytes:
    """The id that git gives a file with this content."""
    make = hashlib.sha256 if width == 32 else hashlib.sha1  # git's own name for it, no protection
    return make(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()
