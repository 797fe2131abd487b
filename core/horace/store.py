"""Horace: the lab's files. Content by digest on disk, and names for some of it in the journal.

Which principal may read which blob is the gate's question: whoever holds a Horace may read and write everything.
"""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from anyio import AsyncContextManagerMixin, Lock

from core.horace.blobs import IDLE_S, Blobs, missing, open_blobs
from core.rogers.entry import Entry
from protos.errors import InvalidArgument, NotFound
from protos.tree import Caps, Unpacked, escaped
from protos.v1.message_pb2 import Blob

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
VERSIONS = 3  # of a named file that a sweep leaves alone


class Ledger(Protocol):
    """What Horace needs of the journal."""

    async def append(self, *entries: Entry) -> list[int]: ...

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True)
class Version:
    """One version of a named file. Its blob may be gone if newer versions have taken its place."""

    version: int
    blob: Blob
    at: float  # seconds since the epoch


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    blobs: int
    bytes: int


@dataclass(frozen=True)
class Usage:
    """What the lab's files take."""

    blobs: int
    bytes: int
    quota_bytes: int


class Horace(AsyncContextManagerMixin):
    """The lab's files, open within `async with`. The journal must carry the view `core.horace.names.Names`."""

    _blobs: Blobs

    def __init__(
        self,
        directory: Path,
        journal: Ledger,
        *,
        quota_bytes: int,
        inspect: Callable[[AsyncIterable[bytes]], AsyncIterable[bytes]] | None = None,  # raises at what is not stored
    ) -> None:
        self._directory = directory
        self._inspect = inspect
        self._journal = journal
        self._quota_bytes = quota_bytes
        self._naming = Lock()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["Horace"]:
        async with open_blobs(self._directory, self._quota_bytes) as self._blobs:
            yield self

    async def put(
        self,
        chunks: AsyncIterable[bytes],
        *,
        name: str = "",
        media_type: str = "",
        limit_bytes: int | None = None,
    ) -> Blob:
        """Stores a stream; `name` and `media_type` are carried in the answer and not kept.

        Raises:
            Denied: rule *secret*: it holds the value of a secret; nothing of it has reached the disk.
            Exhausted: over `limit_bytes` or the lab's quota, or the disk is full; nothing is left behind.
        """
        if self._inspect is not None:
            chunks = self._inspect(chunks)
        digest, size = await self._blobs.put(chunks, limit_bytes)
        return Blob(digest=digest, size=size, name=name, media_type=media_type)

    def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """Streams a blob from `offset` in chunks of at most 256 KiB.

        Raises:
            InvalidArgument: this is no digest, or the offset lies outside the blob.
            NotFound: there is no such blob.
            Conflict: the blob is damaged on disk.
        """
        return self._blobs.get(digest, offset)

    async def stat(self, digest: str) -> Blob:
        """Digest and size of a blob.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
        """
        return Blob(digest=digest, size=await self._blobs.size(digest))

    def missing(self, digest: str) -> NotFound:
        """What who asks for a blob that is not there hears, to be raised."""
        return missing(digest)

    async def verify(self, digest: str) -> bool:
        """Reads a blob again; whether its content still has that digest.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
        """
        return await self._blobs.verify(digest)

    async def unpack(self, digest: str, directory: Path, caps: Caps | None = None) -> Unpacked:
        """Takes out a packed tree, all of it or nothing, to `directory`, which must be missing or empty.

        Raises:
            InvalidArgument: this is no digest.
            NotFound: there is no such blob.
            TreeRefused: the blob is no packed tree, or the tree breaks a rule or a cap.
            Conflict: the blob is damaged, or there is something in `directory`.
            Exhausted: the disk is full.
        """
        return await self._blobs.unpack(digest, directory, caps)

    async def digests(self) -> list[str]:
        """Every blob there is, sorted."""
        return await self._blobs.digests()

    async def held(self, digests: Collection[str]) -> int:
        """How many bytes these blobs take together; one that is gone takes none."""
        return await self._blobs.held(digests)

    async def set_name(self, name: str, digest: str, *, media_type: str = "", sender: str = "") -> Version:
        """Makes a blob the newest version of a named file; naming what already is the newest changes nothing.

        Raises:
            InvalidArgument: this is no name or no digest.
            NotFound: there is no such blob.
            Unavailable: the journal is sealed.
        """
        if not NAME.fullmatch(name):
            raise InvalidArgument(
                f"'{escaped(name, 120)}' is no name of a file",
                next="use up to 100 small letters, digits, dots, dashes and underscores, and no dash or dot first",
            )
        size = await self._blobs.size(digest)
        async with self._naming:
            before = await self.versions(name, limit=1)
            if before and before[0].blob.digest == digest:
                return before[0]
            version = before[0].version + 1 if before else 1
            fields = {"name": name, "version": version, "digest": digest, "size": size, "media_type": media_type}
            entry = Entry(id=f"file:{name}:{version}", kind="file", body=json.dumps(fields).encode(), sender=sender)
            await self._journal.append(entry)
            return (await self.versions(name, limit=1))[0]

    async def find(self, name: str) -> Blob:
        """The newest version of a named file.

        Raises:
            NotFound: nothing was ever stored under that name.
        """
        found = await self.versions(name, limit=1)
        if not found:
            raise NotFound(f"there is no file named '{escaped(name, 120)}'", next="store one under that name first")
        return found[0].blob

    async def versions(self, name: str, *, limit: int = 100) -> list[Version]:
        """The versions of a named file, newest first; empty where there is none."""
        rows = await self._journal.query(
            "SELECT version, digest, size, media_type, at FROM names WHERE name = ? ORDER BY version DESC LIMIT ?",
            (name, limit),
        )
        return [
            Version(version, Blob(digest=digest, size=size, media_type=media_type, name=name), at)
            for version, digest, size, media_type, at in rows
        ]

    async def sweep(self, referenced: Collection[str], *, idle_s: float = IDLE_S) -> Swept:
        """Removes the blobs that nobody refers to: not in `referenced`, not one of the three newest versions of a
        named file, and not put again within the last `idle_s` seconds.
        """
        named = await self._named()
        return Swept(*await self._blobs.sweep(named.union(referenced), idle_s))

    async def remove(self, digests: Mapping[str, float]) -> Swept:
        """Removes just these blobs, which the caller knows that nobody refers to any more, each with the moment since
        which nobody does, in seconds since the epoch.

        One of the three newest versions of a named file stays; so does what was put again since that moment and within
        the last hour, as somebody may be about to refer to it: that is left to `sweep`.

        Raises:
            InvalidArgument: one of them is no digest.
        """
        named = await self._named()
        return Swept(*await self._blobs.remove({each: at for each, at in digests.items() if each not in named}))

    async def _named(self) -> set[str]:
        rows = await self._journal.query(
            "SELECT digest FROM names AS each WHERE version >"
            " (SELECT max(version) FROM names WHERE names.name = each.name) - ?",
            (VERSIONS,),
        )
        return {digest for (digest,) in rows}

    def usage(self) -> Usage:
        """What is stored now, and being stored."""
        return Usage(self._blobs.count, self._blobs.used_bytes, self._blobs.quota_bytes)
