"""Blobs from and to where a worker has its bytes: memory, or a file of its workspace."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from anyio import open_file, sleep

from protos.errors import InvalidArgument, Unavailable
from protos.mad import Files
from protos.v1.message_pb2 import Blob

CHUNK_BYTES = 256 * 1024
ATTEMPTS = 60  # one a second: about a lease


async def chunks(source: bytes | Path) -> AsyncIterator[bytes]:
    """The bytes of `source` in chunks."""
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK_BYTES):
            yield source[start : start + CHUNK_BYTES]
    else:
        async with await open_file(source, "rb") as file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk


async def store(files: Files, source: bytes | Path, *, name: str = "", media_type: str = "") -> Blob:
    """Puts `source`, from its start again if the core goes away in the middle.

    Raises:
        Exhausted: the quota is full.
        Unavailable: the core did not come back.
    """
    for _ in range(ATTEMPTS):
        try:
            return await files.put(chunks(source), name=name, media_type=media_type)
        except Unavailable:
            await sleep(1)
    raise Unavailable("The core did not come back.")


async def read(files: Files, blob: Blob, most: int) -> bytes:
    """A small blob whole, whatever its size was said to be.

    Raises:
        InvalidArgument: it has more than `most` bytes.
        NotFound: as `fetch`.
    """
    content = bytearray()
    async with aclosing(files.get(blob.digest)) as stream:  # type: ignore[type-var]
        async for chunk in stream:
            content += chunk
            if len(content) > most:
                raise InvalidArgument(f"{blob.name} has over {most:,} bytes.", next="Send less.")
    return bytes(content)


async def fetch(files: Files, digest: str, target: Path) -> int:
    """Writes a blob to `target` and returns its size in bytes.

    Raises:
        NotFound: there is no such blob, or none that the caller may read.
    """
    size = 0
    async with await open_file(target, "wb") as file, aclosing(files.get(digest)) as stream:  # type: ignore[type-var]
        async for chunk in stream:
            size += await file.write(chunk)
    return size
