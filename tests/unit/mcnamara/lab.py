"""A small lab in memory: files by digest, a bus that remembers events, and ways to make trees and archives."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path

from protos.errors import NotFound
from protos.mad import Context, Inbox
from protos.tools import Call
from protos.tree import pack, walk
from protos.v1.message_pb2 import KIND_CALL, Blob, Message
from protos.v1.session_pb2 import Assignment


class MemoryFiles:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.named: dict[str, str] = {}

    def keep(self, content: bytes) -> str:
        digest = "sha256:" + sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        content = b"".join([each async for each in chunks])
        return Blob(digest=self.keep(content), size=len(content), name=name, media_type=media_type)

    async def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        if digest not in self.blobs:
            raise NotFound(f"no blob {digest}")
        content = self.blobs[digest][offset:]
        for start in range(0, len(content), 256 * 1024):
            yield content[start : start + 256 * 1024]

    async def find(self, name: str) -> Blob:
        if name not in self.named:
            raise NotFound(f"no file {name}")
        return Blob(digest=self.named[name], size=len(self.blobs[self.named[name]]), name=name)


class MemoryBus:
    """Remembers what is said."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.events: list[Message] = []

    async def publish(self, message: Message) -> int:
        self.messages.append(message)
        return len(self.messages)

    async def ask(self, call: Message) -> Message:
        raise NotImplementedError("nobody here answers")

    async def report(self, events: Iterable[Message]) -> None:
        self.events += events

    def subscribe(self) -> AbstractAsyncContextManager[Inbox]:
        raise NotImplementedError("nothing here reads an inbox")

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        return self.messages


def call() -> tuple[Call, MemoryFiles, MemoryBus]:
    """A call as a tool gets it, with the lab around it."""
    files, bus = MemoryFiles(), MemoryBus()
    ctx = Context(bus=bus, files=files, assignment=Assignment(participant="mcnamara", run="run-1", conversation="c"))
    return Call(Message(id="m", conversation="c", kind=KIND_CALL), ctx), files, bus


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Makes the files below `root`."""
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def packed(root: Path) -> bytes:
    """A directory as the CLI would send it."""
    return b"".join(pack(root, walk(root)))
