"""Blobs on disk, by the SHA-256 of their content.

::

    DIRECTORY/incoming/RANDOM        a put under way; what a crash leaves here is removed at the next start
    DIRECTORY/blobs/ab/cdef…         the blob sha256:abcdef…, mode 0600, never written again

A name in `blobs` is a promise: the file behind it was synced before the name appeared, and its directory before the
put is answered. So a put either is there after a power cut or was never acknowledged. A put of what is there already
costs its transfer and no space.

Files are read and written in threads, a megabyte at a time: one hand-over to a thread costs about as much as writing
100 KiB, and a few megabytes per transfer is all the memory there is to it.
"""

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import structlog
from anyio import CancelScope, CapacityLimiter, to_thread

from protos.errors import Conflict, Exhausted, InvalidArgument, NotFound
from protos.tree import Caps, Unpacked, escaped, unpack

logger = structlog.get_logger()

CHUNK = 256 * 1024  # bytes; the most that one chunk of a `get` carries
STEP = 1024 * 1024  # bytes; what goes to or from the disk at a time
IDLE_S = 3600.0  # between a put and the message that refers to it
TRANSFERS = 8  # threads that read or write at once
DIGEST = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62})")

Result = TypeVar("Result")


class Blobs:
    """The blobs below one directory, which belongs to one process. Open it with `open_blobs`."""

    def __init__(self, directory: Path, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.used_bytes = 0  # stored, and being stored
        self.count = 0
        self._incoming = directory / "incoming"
        self._blobs = directory / "blobs"
        self._limiter = CapacityLimiter(TRANSFERS)
        self._naming = threading.Lock()  # a name appears, is renewed or goes: one at a time

    async def put(self, chunks: AsyncIterable[bytes], limit_bytes: int | None = None) -> tuple[str, int]:
        """Stores a stream and returns its digest and its size in bytes. Whatever goes wrong, nothing stays behind.

        Raises:
            Exhausted: over `limit_bytes` or the lab's quota, or the disk is full. The source is not read any further.
        """
        path = self._incoming / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = await self._in_thread(lambda: os.open(path, flags, 0o600))
        size = 0
        stored = False
        try:
            hasher = hashlib.sha256()
            waiting: list[bytes] = []
            held = 0
            async for chunk in chunks:
                self._reserve(len(chunk), size + len(chunk), limit_bytes)
                size += len(chunk)
                held += len(chunk)
                waiting.append(chunk)
                if held >= STEP:
                    await self._in_thread(_write, file, hasher, waiting)
                    waiting, held = [], 0
            await self._in_thread(_write, file, hasher, waiting)
            digest = f"sha256:{hasher.hexdigest()}"
            with CancelScope(shield=True):  # the name and the books change together
                stored = await self._in_thread(self._name, file, path, digest)
                self.count += stored
        except OSError as error:
            _check_disk(error, f"{size:,} bytes did not fit into {self._blobs.parent}")
            raise
        finally:
            if not stored:
                self.used_bytes -= size
            with CancelScope(shield=True):
                await self._in_thread(_discard, file, path)
        return digest, size

    async def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Streams a blob from `offset` in chunks of at most 256 KiB.

        From the start, the content is checked against its digest on the way: a damaged blob ends in an error.

        Raises:
            InvalidArgument: this is no digest, or the offset lies outside the blob.
            NotFound: there is no such blob.
            Conflict: the blob is damaged.
        """
        path = self._path(digest)
        file = await self._open(path, digest)
        try:
            size = os.fstat(file).st_size
            if not 0 <= offset <= size:
                raise InvalidArgument(f"offset {offset:,} in a blob of {size:,} bytes", next="stay within the blob")
            hasher = None if offset else hashlib.sha256()
            while offset < size:
                step = await self._in_thread(_read, file, offset, hasher)
                if not step:
                    break
                offset += len(step)
                for start in range(0, len(step), CHUNK):
                    yield step[start : start + CHUNK]
            if offset != size or (hasher and digest != f"sha256:{hasher.hexdigest()}"):
                raise _damaged(digest)
        finally:
            os.close(file)

    async def size(self, digest: str) -> int:
        """The size of a blob in bytes.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
        """
        path = self._path(digest)
        try:
            return (await self._in_thread(path.stat)).st_size
        except FileNotFoundError:
            raise missing(digest) from None

    async def verify(self, digest: str) -> bool:
        """Reads a blob again; whether its content still has that digest.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
        """
        file = await self._open(self._path(digest), digest)
        hasher = hashlib.sha256()
        try:
            offset = 0
            while step := await self._in_thread(_read, file, offset, hasher):
                offset += len(step)
        finally:
            os.close(file)
        return digest == f"sha256:{hasher.hexdigest()}"

    async def unpack(self, digest: str, directory: Path, caps: Caps | None = None) -> Unpacked:
        """Unpacks a tree that is a blob, as `protos.tree.unpack` does; a damaged blob leaves nothing either.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
            TreeRefused: the blob is no packed tree, or the tree breaks a rule or a cap.
            Conflict: the blob is damaged, or there is something in `directory`.
            Exhausted: the disk is full.
        """
        file = await self._open(self._path(digest), digest)
        try:
            return await self._in_thread(unpack, _checked(file, digest), directory, caps)
        except OSError as error:
            _check_disk(error, f"the tree did not fit into {directory}")
            raise
        finally:
            os.close(file)

    async def digests(self) -> list[str]:
        """Every blob there is, sorted."""
        return sorted(await self._in_thread(lambda: [digest for digest, _ in self._scan()]))

    async def held(self, digests: Collection[str]) -> int:
        """How many bytes these take together; what is not there takes none."""

        def add_up() -> int:
            total = 0
            for each in digests:
                with suppress(FileNotFoundError):
                    total += self._path(each).stat().st_size
            return total

        return await self._in_thread(add_up)

    async def sweep(self, referenced: Collection[str], idle_s: float) -> tuple[int, int]:
        """Removes blobs that are not `referenced` and were not put for `idle_s` seconds; returns count and bytes.

        The pause lets a blob be put before the message that refers to it is written.
        """
        kept = frozenset(referenced)
        removed, freed = await self._in_thread(self._sweep, kept, time.time() - idle_s)
        self.count -= removed
        self.used_bytes -= freed
        return removed, freed

    async def remove(self, digests: Mapping[str, float]) -> tuple[int, int]:
        """Removes just these, but none that was put again after the moment it comes with and within the last `IDLE_S`;
        returns count and bytes."""
        removed, freed = await self._in_thread(self._remove, digests, time.time() - IDLE_S)
        self.count -= removed
        self.used_bytes -= freed
        return removed, freed

    def _reserve(self, more: int, size: int, limit_bytes: int | None) -> None:
        if limit_bytes is not None and size > limit_bytes:
            raise Exhausted(
                f"over {limit_bytes:,} bytes, which is all that may still be stored here", next="store less"
            )
        if self.used_bytes + more > self.quota_bytes:
            raise Exhausted(
                f"the lab's files are full: {self.used_bytes:,} of {self.quota_bytes:,} bytes are taken",
                next="remove what is no longer needed, or raise files.quota_gb",
            )
        self.used_bytes += more

    def _path(self, digest: str) -> Path:
        found = DIGEST.fullmatch(digest)
        if found is None:
            raise InvalidArgument(
                f"'{escaped(digest, 80)}' is no digest", next="a digest is 'sha256:' and 64 hexadecimal digits"
            )
        return self._blobs / found[1] / found[2]

    async def _open(self, path: Path, digest: str) -> int:
        try:
            return await self._in_thread(lambda: os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            raise missing(digest) from None

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)

    def _name(self, file: int, path: Path, digest: str) -> bool:
        """Gives a finished file its name; whether the blob is new."""
        final = self._path(digest)
        os.fsync(file)
        now = time.time_ns()  # the kernel's own is some milliseconds behind, and messages are compared with it
        os.utime(file, ns=(now, now))  # a sweep must leave alone what is as good as new
        with self._naming:
            new = not final.exists()
            if new:
                self._make_directory(final.parent)
                path.rename(final)
            else:
                os.utime(final, ns=(now, now))
        try:
            _sync_directory(final.parent)
        except OSError:
            if new:
                final.unlink()
            raise
        return new

    def _make_directory(self, directory: Path) -> None:
        """One of the 256, when the first blob comes to it; as durable as the blob will be."""
        if directory.exists():
            return
        directory.mkdir(mode=0o700)
        try:
            _sync_directory(self._blobs)
        except OSError:
            directory.rmdir()
            raise

    def _sweep(self, kept: Collection[str], before: float) -> tuple[int, int]:
        removed = freed = 0
        for digest, path in self._scan():
            if digest in kept:
                continue
            size = self._unlink(path, before)
            removed += size is not None
            freed += size or 0
        return removed, freed

    def _remove(self, digests: Mapping[str, float], before: float) -> tuple[int, int]:
        removed = freed = 0
        for digest, moment in digests.items():
            size = self._unlink(self._path(digest), max(moment, before))
            removed += size is not None
            freed += size or 0
        return removed, freed

    def _unlink(self, path: Path, before: float) -> int | None:
        """Removes what was last put before that moment; returns how large it was, None where it stays or is not."""
        with self._naming:
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            if status.st_mtime >= before:
                return None
            path.unlink()
            return status.st_size

    def _scan(self) -> list[tuple[str, Path]]:
        found = []
        for shard in self._blobs.iterdir():
            for path in shard.iterdir():
                digest = f"sha256:{shard.name}{path.name}"
                if DIGEST.fullmatch(digest):
                    found.append((digest, path))
        return found

    def _prepare(self) -> None:
        for directory in (self._incoming, self._blobs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(self._blobs)
        left = list(self._incoming.iterdir())
        for path in left:
            path.unlink()
        sizes = [path.stat().st_size for _, path in self._scan()]
        self.count, self.used_bytes = len(sizes), sum(sizes)
        if left:
            logger.info("removed what an earlier process left half stored", count=len(left))


@asynccontextmanager
async def open_blobs(directory: Path, quota_bytes: int) -> AsyncIterator[Blobs]:
    """Opens the blobs below `directory`, which is made where it is missing."""
    blobs = Blobs(directory, quota_bytes)
    await blobs._in_thread(blobs._prepare)
    yield blobs


def _write(file: int, hasher: "hashlib._Hash", chunks: list[bytes]) -> None:
    for chunk in chunks:
        hasher.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(file, view) :]


def _read(file: int, offset: int, hasher: "hashlib._Hash | None") -> bytes:
    step = os.pread(file, STEP, offset)
    if hasher:
        hasher.update(step)
    return step


def _checked(file: int, digest: str) -> Iterator[bytes]:
    """A blob's content, for a thread; ends in an error where it is damaged."""
    hasher = hashlib.sha256()
    offset = 0
    while step := _read(file, offset, hasher):
        offset += len(step)
        yield step
    if digest != f"sha256:{hasher.hexdigest()}":
        raise _damaged(digest)


def _check_disk(error: OSError, sentence: str) -> None:
    """
    Raises:
        Exhausted: the error says that the disk is full.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise Exhausted(f"the disk is full: {sentence}", next="free space there") from error


def _discard(file: int, path: Path) -> None:
    os.close(file)
    with suppress(FileNotFoundError):  # it has its name by now
        path.unlink()


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def missing(digest: str) -> NotFound:
    """What who asks for a blob that is not there hears."""
    return NotFound(f"there is no blob {digest}", next="check the digest; unused blobs are removed after a while")


def _damaged(digest: str) -> Conflict:
    return Conflict(f"the blob {digest} is damaged on disk", next="put it again, and check the disk")
