"""From the commit to the subscriber: how long it takes, and how many a second when eight listen."""

import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import anyio
import anyio.lowlevel

from core.app import settle_memory
from core.rogers.bus import Limits, Rogers
from core.rogers.journal import Journal
from core.rogers.subscription import Subscription
from core.rogers.views import VIEWS
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Kind, Message
from tests.bench.figure import Figure, in_turns
from tests.bench.journal import DISK

SUBSCRIBERS = 8
PUBLISHERS = 64
TEXT = "x" * 1000
SETTLED_S = 1.0  # after the crowds of the round before, whose syncs may have sent commits to the thread for a while


class StampedJournal(Journal):
    """Tells when a commit came back from the disk, where it did."""

    @property
    def committed(self) -> float:
        return self._writer.committed_at


def said(recipient: str, kind: Kind.ValueType = KIND_PROSE) -> Message:
    return Message(id=new_id(), conversation="c", recipient=recipient, kind=kind, text=TEXT)


async def run() -> list[Figure]:
    settle_memory()  # as the core does when it is ready
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DISK, prefix="bench-")))
        journal = await stack.enter_async_context(StampedJournal(directory / "journal.db", VIEWS))
        limits = Limits(events_per_s=1e9, event_bytes_per_s=1e12)
        rogers = await stack.enter_async_context(Rogers(journal, limits))

        async def delay() -> float:
            """Seconds from the commit to a waiting subscriber, the median of 100 messages."""
            taken: list[float] = []
            await anyio.sleep(SETTLED_S)

            async def listen(inbox: Subscription) -> None:
                async for message in inbox:
                    taken.append(time.perf_counter() - journal.committed)
                    await inbox.acknowledge(message.sequence)

            async with rogers.open_inbox("marco") as inbox, anyio.create_task_group() as tasks:
                tasks.start_soon(listen, inbox)
                for _ in range(110):
                    await rogers.publish(said("marco"), sender="hopper")
                await anyio.sleep(0.01)
                inbox.end()
            return median(taken[-100:])

        async def fan_out(publishers: int, batches: int, speak: Callable[[], Awaitable[int]]) -> float:
            """Deliveries a second to eight followers, from the first word until each has the last."""
            said_in_all = 0
            counts = [0] * SUBSCRIBERS

            async def listen(at: int, follower: Subscription) -> None:
                async for _ in follower:
                    counts[at] += 1

            async def publish() -> None:
                nonlocal said_in_all
                for _ in range(batches):
                    count = await speak()
                    said_in_all += count

            async with AsyncExitStack() as followers, anyio.create_task_group() as tasks:
                for at in range(SUBSCRIBERS):
                    follower = await followers.enter_async_context(rogers.follow(conversation="c", after=None))
                    tasks.start_soon(listen, at, follower)
                await anyio.sleep(0.02)  # each reads the past, of which there is none, and is live
                began = time.perf_counter()
                async with anyio.create_task_group() as speakers:
                    for _ in range(publishers):
                        speakers.start_soon(publish)
                while min(counts) < said_in_all:
                    await anyio.sleep(0.001)
                seconds = time.perf_counter() - began
                tasks.cancel_scope.cancel()
            return SUBSCRIBERS * said_in_all / seconds

        async def publish_one() -> int:
            await rogers.publish(said("playfair"), sender="hopper")  # a waiting subscriber has no past to read
            return 1

        async def report_some() -> int:
            await anyio.lowlevel.checkpoint()
            return await rogers.report([said("playfair", KIND_EVENT) for _ in range(32)], sender="hopper")

        async def durable() -> float:
            return await fan_out(PUBLISHERS, 50, publish_one)

        async def events() -> float:
            return await fan_out(1, 100, report_some)

        found = await in_turns({"delay": delay, "durable": durable, "events": events})
    return [
        Figure("committed to the waiting subscriber, p50", found["delay"] * 1e6, "µs", "limit", 60, 1),
        Figure("durable messages to 8 subscribers", found["durable"], "deliveries/s", "limit", 100_000, 1, True),
        Figure("events to 8 subscribers", found["events"], "deliveries/s", "limit", 100_000, 1, True),
    ]
