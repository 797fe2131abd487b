"""One tree at work: the files, the shell that runs in them, the repository over them, and the way in and out."""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from anyio import from_thread, to_thread

from periphery.hopper.repository import Repository
from periphery.hopper.shell import Shell, Tell, told_nobody
from periphery.hopper.workspace import Changes, Workspace
from protos.blobs import store
from protos.errors import InvalidArgument
from protos.mad import Files
from protos.tree import escaped
from protos.v1.message_pb2 import Blob

DELETED_BYTES = 32 * 2**20
IN_MEMORY_BYTES = 4 * 2**20  # changes as small as that are packed there: a full disk has no room even for them
NO_CHANGES = b""
Filled = TypeVar("Filled")


class Tree:
    """The tree of one call, below `place`."""

    def __init__(self, files: Files, source: str, place: Path, tell: Tell = told_nobody) -> None:
        self._files = files
        self._source = source
        self._place = place
        self.full = False  # not all could be handed over
        self.workspace = Workspace(place / "repo")
        self.shell = Shell(self.workspace.root, place / "home", tell)
        self.repository = Repository(self.shell, lambda: files.get(source))

    async def fill(self) -> int:
        """Brings the source in, over whatever an earlier call left; returns how many files it has.

        Raises:
            NotFound: there is no such blob.
            TreeRefused: it is no packed tree.
        """
        if self.workspace.root.exists():
            await to_thread.run_sync(shutil.rmtree, self.workspace.root)
        return await self._streamed(self._source, self.workspace.fill)

    def beside(self) -> "Tree":
        """Another tree of the same source, of which people hear nothing."""
        return Tree(self._files, self._source, self._place / "beside")

    async def begin_from(self, changes: str, deleted: str) -> None:
        """Puts earlier changes on top: the digest of a packed tree, and of a JSON list of paths that are gone, or that
        list itself; empty: none.

        Raises:
            NotFound: there is no such blob.
            InvalidArgument: it is no packed tree, or no list.
        """
        if deleted:
            names = await self._names(deleted)
            await to_thread.run_sync(self.workspace.remove, names)
        if changes:
            await self._streamed(changes, self.workspace.lay)

    async def changes(self) -> Changes:
        """What differs from the source."""
        found = await to_thread.run_sync(self.workspace.changes)
        if not found.added:
            return found
        ignored = await self.repository.ignored(found.added)
        if ignored:
            found.left_out["ignored by .gitignore"] += len(ignored)
        return Changes(
            found.modified, [each for each in found.added if each not in ignored], found.deleted, found.left_out
        )

    async def changed_names(self) -> list[str]:
        """The names that differ."""
        found = await self.changes()
        return sorted({*found.written, *found.deleted})

    async def stamp(self) -> bytes:
        """The digest of all that differs from the source: the same for the same changes."""
        found = await self.changes()
        if not found:
            return NO_CHANGES
        return await to_thread.run_sync(self.workspace.stamp, found)

    async def hand_over(self, changes: Changes) -> tuple[list[Blob], list[str]]:
        """Stores `changes.tar` and `deleted.json`; returns them, and notes of what could not go along. Where there is
        no room to pack it all, the largest files stay behind.

        Raises:
            Exhausted: the quota is full.
            InvalidArgument: something is still writing there.
        """
        notes: list[str] = []
        packed = self.workspace.root.parent / "changes.tar"

        def pack() -> bytes | Path:
            room = max(shutil.disk_usage(packed.parent).free - IN_MEMORY_BYTES, IN_MEMORY_BYTES)
            fitting, left_out, size = self.workspace.fitting(changes.written, room)
            notes.extend(f"'{escaped(each)}' stays behind: the workspace has no room to pack it" for each in left_out)
            self.full = bool(left_out)
            chunks = self.workspace.packed(fitting, notes.append)
            if size <= IN_MEMORY_BYTES:
                return b"".join(chunks)
            with packed.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            return packed

        content = await to_thread.run_sync(pack)
        names = json.dumps(changes.deleted, ensure_ascii=True).encode()
        blobs = [
            await store(self._files, content, name="changes.tar", media_type="application/x-tar"),
            await store(self._files, names, name="deleted.json", media_type="application/json"),
        ]
        packed.unlink(missing_ok=True)
        return blobs, notes

    async def _streamed(self, digest: str, consume: "Callable[[Iterator[bytes]], Filled]") -> Filled:
        """What a blocking consumer makes of a blob, as it arrives."""
        async with aclosing(self._files.get(digest)) as stream:  # type: ignore[type-var]

            def chunks() -> Iterator[bytes]:
                while (chunk := from_thread.run(_next, stream)) is not None:
                    yield chunk

            return await to_thread.run_sync(lambda: consume(chunks()))

    async def _names(self, deleted: str) -> list[str]:
        text = deleted
        if deleted.startswith("sha256:"):
            content = bytearray()
            async with aclosing(self._files.get(deleted)) as stream:  # type: ignore[type-var]
                async for chunk in stream:
                    content += chunk
                    if len(content) > DELETED_BYTES:
                        raise InvalidArgument(f"A list of deleted paths has at most {DELETED_BYTES} bytes.")
            text = content.decode("utf-8", "replace")
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise InvalidArgument("`deleted` is no JSON list of paths.", next="Give the digest of a deleted.json.")
        return names


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    return await anext(stream, None)
