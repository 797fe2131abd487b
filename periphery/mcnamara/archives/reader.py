"""Which kind of archive a file is, by its first bytes, and the streams that decompress it in bounded steps."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from periphery.mcnamara.archives.names import Damaged, Names, NotAnArchive
from periphery.mcnamara.archives.tar import looks_like_tar, read_tar
from periphery.mcnamara.archives.zip import end_of_directory, read_zip
from periphery.mcnamara.stage import Full, Stage

CHUNK = 256 * 1024
RATIO = 200  # an honest stream seldom shrinks to less than this fraction
FREE_BYTES = 16 * 2**20  # below this much output no ratio is looked at
LZMA_MEMORY = 128 * 2**20
_TARRED = re.compile(r"(?i)(\.tar\.\w+|\.tgz|\.tbz2|\.txz|\.crate)$")  # one without members has no header

Reader = Callable[[BinaryIO, Stage, Names], None]


class _Decompressor(Protocol):
    """What the three decompressors have in common."""

    def feed(self, data: bytes, limit: int) -> bytes: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def rest(self) -> bytes: ...


def reader_for(file: BinaryIO, name: str) -> Reader:
    """How to read `file`.

    Raises:
        NotAnArchive: it is of no kind that is opened here.
    """
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return _compressed(_Gzip, name)
    if head.startswith(b"BZh"):
        return _compressed(_Bzip2, name)
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return _compressed(_Xz, name)
    if looks_like_tar(head):
        return read_tar
    if head.startswith(b"PK") or end_of_directory(file) is not None:
        return read_zip
    raise NotAnArchive("it is no zip, wheel, tar, gzip, bzip2 or xz file")


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(47)

    def feed(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, limit)

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Bzip2:
    def __init__(self) -> None:
        self._inner: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()

    def feed(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(data, limit)

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Xz(_Bzip2):
    def __init__(self) -> None:
        self._inner = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)


class _Inflating:
    """A decompressed stream; streams that follow each other are one, as the tools have it."""

    def __init__(self, file: BinaryIO, make: Callable[[], _Decompressor]) -> None:
        self._file, self._make, self._decompressor = file, make, make()
        self._in = self._out = 0
        self._head = b""

    def read(self, size: int) -> bytes:
        taken, self._head = self._head[:size], self._head[size:]
        parts = [taken]
        size -= len(taken)
        while size:
            got = self._some(min(size, CHUNK))
            if not got:
                break
            parts.append(got)
            size -= len(got)
        return b"".join(parts)

    def peek(self) -> bytes:
        """The first block, which the next read returns again."""
        self._head = self.read(512)
        return self._head

    def _some(self, limit: int) -> bytes:
        while True:
            data = b""
            if self._decompressor.ended:
                data = self._decompressor.rest or self._take()
                if not data.strip(b"\0"):
                    return b""
                self._decompressor = self._make()
            elif self._decompressor.hungry:
                data = self._take()
                if not data:
                    raise Damaged("the compressed stream breaks off")
            try:
                got = self._decompressor.feed(data, limit)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise Damaged(f"the compressed stream is damaged ({error})") from error
            self._out += len(got)
            if self._out > FREE_BYTES and self._out > RATIO * max(self._in, 1):
                raise Full(f"more than {RATIO} times its size")
            if got:
                return got

    def _take(self) -> bytes:
        data = self._file.read(CHUNK)
        self._in += len(data)
        return data


def _compressed(make: Callable[[], _Decompressor], name: str) -> Reader:
    def read(file: BinaryIO, stage: Stage, names: Names) -> None:
        stream = _Inflating(file, make)
        head = stream.peek()
        if looks_like_tar(head) or (head and not head.strip(b"\0") and _TARRED.search(name)):
            read_tar(stream, stage, names)
        else:
            pure = PurePosixPath(name)
            single = pure.stem if pure.suffix in (".gz", ".bz2", ".xz", ".lzma") else "content"
            names.enter(single)
            stage.add(names.shown(single), iter(lambda: stream.read(CHUNK), b""))

    return read
