"""Handles several messages of one inbox side by side: bounded, in order within a conversation, and lost to no crash.

    inbox ──▶ a lane for each conversation ──▶ a place, of `many` ──▶ handle ──▶ the cursor

*Order.* Messages of one conversation are handled one after the other, as they came: what is said there may build on
what was said before. Between conversations there is no order to rely on: whoever needs one awaits the answer.

*Bound.* At most `many` messages are handled at once that may do something, and as many that only read: so what takes
long keeps nobody waiting who looks something up. Who waits for a turn is in memory, so at most `READ_AHEAD` do; then
the inbox is not read on.

*Cursor.* It stands before the oldest message that is not done. So a crash loses nothing, and has some given again that
were done.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from anyio import Semaphore, create_task_group

from protos.mad import Inbox
from protos.v1.message_pb2 import Message

READ_AHEAD = 256  # messages that wait for their turn, of at most 64 KiB each

Handle = Callable[[Message], Awaitable[None]]


async def side_by_side(inbox: Inbox, handle: Handle, *, many: int, only_reads: Callable[[Message], bool]) -> None:
    """Handles what comes into `inbox`, until it ends and what was begun is done.

    Raises:
        ExceptionGroup: what `handle` raises; everything else that was begun is cancelled.
    """
    await _Lanes(inbox, handle, many, only_reads).run()


class _Lanes:
    """What was read of an inbox and is not done."""

    def __init__(self, inbox: Inbox, handle: Handle, many: int, only_reads: Callable[[Message], bool]) -> None:
        self._inbox, self._handle, self._only_reads = inbox, handle, only_reads
        self._places = {True: Semaphore(many), False: Semaphore(many)}  # for those that only read, and the others
        self._ahead = Semaphore(READ_AHEAD)
        self._lanes: dict[str, deque[Message]] = {}  # by conversation: the first is in hand, or next
        self._open: dict[int, None] = {}  # sequences of what is not done, the oldest first
        self._read = 0  # sequence of what was read last
        self._is_over = False

    async def run(self) -> None:
        async with create_task_group() as tasks:
            async for message in self._inbox:
                await self._ahead.acquire()
                if message.sequence:  # an event may be given before it has one, and is not given again
                    self._open[message.sequence] = None
                    self._read = message.sequence
                if (lane := self._lanes.get(message.conversation)) is not None:
                    lane.append(message)
                else:
                    self._lanes[message.conversation] = deque([message])
                    tasks.start_soon(self._follow, message.conversation)
            self._is_over = True

    async def _follow(self, conversation: str) -> None:
        """One lane, from its first message until nobody is in it."""
        lane = self._lanes[conversation]
        while lane:
            message = lane[0]
            async with self._places[self._only_reads(message)]:
                self._ahead.release()
                if self._is_over:  # whoever reads the inbox next is given what only waited
                    return
                await self._handle(message)
            await self._done(message)
            lane.popleft()
        del self._lanes[conversation]

    async def _done(self, message: Message) -> None:
        """Moves the cursor, where this was the oldest."""
        before = next(iter(self._open), 0)
        self._open.pop(message.sequence, None)
        oldest = next(iter(self._open), self._read + 1)
        if oldest != before:
            await self._inbox.acknowledge(oldest - 1)
