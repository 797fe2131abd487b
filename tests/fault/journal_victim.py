"""A process that publishes and tells what was acknowledged, made to be killed or to have its disk taken away.

`python -m tests.fault.journal_victim PATH OPTIONS` with the options as JSON. Each line of the answer is one write(2):
`ack PUBLISHER NUMBER SEQUENCE`, at the end `done`, or `sealed REASON` after which it reads once more: `read COUNT`.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.rogers.pace import STALL_S
from protos.errors import Unavailable


@dataclass(frozen=True)
class Orders:
    """What a victim does."""

    publishers: int = 8
    messages: int = 1_000_000  # each publisher's
    size: int = 300  # bytes of a body
    synchronous: str = "FULL"
    checkpoint_bytes: int = 256 << 10
    stall_s: float = STALL_S  # 0: commits are made on the thread; very much: in the loop
    starts: list[int] = field(default_factory=list)  # each publisher's first number; one earlier is said again


def say(out: int, *words: object) -> None:
    os.write(out, (" ".join(map(str, words)) + "\n").encode())


def entry(publisher: int, number: int, size: int) -> Entry:
    body = f"{publisher}:{number}:".encode().ljust(size, b"x")
    return Entry(f"{publisher}:{number}", "message", body, f"c{publisher}", f"p{publisher}", "marco")


async def publish_until_the_end(path: Path, orders: Orders, out: int) -> None:
    async with Journal(
        path, synchronous=orders.synchronous, checkpoint_bytes=orders.checkpoint_bytes, stall_s=orders.stall_s
    ) as journal:

        async def publish(publisher: int) -> None:
            first = orders.starts[publisher] if orders.starts else 0
            for number in range(max(0, first - 1), first + orders.messages):
                try:
                    (sequence,) = await journal.append(entry(publisher, number, orders.size))
                except Unavailable:
                    return
                say(out, "ack", publisher, number, sequence)
                journal.keep_cursor(f"p{publisher}", "", sequence)  # so that there is something to write at the end

        async with anyio.create_task_group() as tasks:
            for publisher in range(orders.publishers):
                tasks.start_soon(publish, publisher)
        if journal.sealed is not None:
            say(out, "sealed", journal.sealed)
            ((count,),) = await journal.query("SELECT count(*) FROM journal")
            say(out, "read", count)
        else:
            say(out, "done")


if __name__ == "__main__":
    anyio.run(publish_until_the_end, Path(sys.argv[1]), Orders(**json.loads(sys.argv[2])), 1)
