"""A worker in a process of its own that makes the requests it is told to: one line of JSON in, one out."""

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
from anyio import create_task_group, to_thread

from protos.errors import Error
from protos.mad import Context
from protos.remote import connect, ports_of
from protos.v1.web_pb2 import Header, RequestHead


async def main(address: str, token: str) -> None:
    async with connect(address, token, on_end=lambda: None) as session:
        ctx = ports_of(session, await session.assigned())
        while line := await to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await made(ctx, json.loads(line))), flush=True)


async def made(ctx: Context, asked: dict[str, Any]) -> object:
    """What came of it; `times` at once gives as many."""
    answers: list[object] = []

    async def one() -> None:
        answers.append(await fetched(ctx, asked))

    async with create_task_group() as tasks:
        for _ in range(asked.get("times", 1)):
            tasks.start_soon(one)
    return answers


async def fetched(ctx: Context, asked: dict[str, Any]) -> object:
    head = RequestHead(method=asked.get("method", "GET"), url=asked["url"], seconds=asked.get("seconds", 0))
    head.headers.extend(Header(name=name, value=value.encode()) for name, value in asked.get("headers", {}).items())
    status, size, digest, end = 0, 0, hashlib.sha256(), None
    size_up = asked.get("upload", 0)
    try:
        async with aclosing(ctx.web.fetch(head, zeros(size_up) if size_up else None)) as events:  # type: ignore[type-var]
            async for event in events:
                match event.WhichOneof("kind"):
                    case "head":
                        status = event.head.status
                        if asked.get("leave"):
                            break
                    case "bytes":
                        size += len(event.bytes)
                        digest.update(event.bytes)
                    case "end":
                        end = event.end
    except Error as error:
        return {"code": error.code, "message": error.message, "next": error.next, "status": status}
    told = end is not None and end.digest == f"sha256:{digest.hexdigest()}" and end.bytes_received == size
    return {"status": status, "size": size, "told": told, "sent": end.bytes_sent if end is not None else None}


async def zeros(size: int) -> AsyncIterator[bytes]:
    while size > 0:
        yield bytes(min(size, 200_000))
        size -= 200_000


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
