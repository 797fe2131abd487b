"""One subscriber: the past from the journal, then the present from a bounded queue, without a gap or a duplicate.

A subscription is in one of two states. *Live*: what is committed is put into its queue by whoever delivers. *Behind*:
nothing is, and the subscriber reads the journal by pages. It starts behind; and it falls behind when its queue is full,
remembering the last sequence that was delivered before (`_resume`), from where it reads on once the queue is drained.

Going live is the delicate step. The queue opens *before* the last page is read: what is committed while the page is
being read lands in the queue, perhaps in the page too, and its id tells; a commit that the page saw and that is
delivered only later is told by its sequence. A full page was not the last: the queue is thrown away and the next page
read.

Events are delivered at once, with sequence 0, and committed later. Each has a number in the order of reporting. A
subscriber that went live at number n has had every event from n on, so the commit of one from before n is delivered
to it, and the commit of a later one is not. A subscriber that falls behind notes which events it has had that are not
committed yet, and skips them when the journal shows them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from core.rogers.entry import Row
from protos.v1.message_pb2 import KIND_EVENT, Message

PAGE = 128

Read = Callable[[int, int], Awaitable[list[Row]]]  # what it is to get after a sequence, oldest first, at most so many


class Subscription(AsyncIterator[Message]):
    """An open subscription. Also `protos.mad.Inbox`, where it is one of a participant."""

    def __init__(
        self,
        read: Read,
        *,
        after: int,
        queue: int,
        keep: Callable[[int], None] | None = None,
        uncommitted: dict[str, int],
        next_number: Callable[[], int],
    ) -> None:
        self._read = read
        self._limit = queue
        self._keep = keep
        self._uncommitted = uncommitted
        self._next_number = next_number
        self._queue: deque[Row] = deque()
        self._live = False  # deliver into the queue
        self._behind = True  # read the journal once the queue is drained
        self._resume = after
        self._since = 0  # went live before the event of this number was reported
        self._skip: frozenset[str] = frozenset()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Message:
        while True:
            if self._ended:
                raise StopAsyncIteration
            if self._queue:
                return to_message(self._queue.popleft())
            if self._behind:
                await self._catch_up()
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    async def acknowledge(self, sequence: int) -> None:
        """Moves the durable cursor: nothing up to `sequence` is delivered again."""
        if self._keep is not None and sequence > 0:
            self._keep(sequence)

    def end(self) -> None:
        """Whoever iterates returns; what was not delivered stays in the journal."""
        self._ended = True
        self._live = False
        self._queue.clear()
        self._wake()

    def offer(self, row: Row, before: int, number: int | None = None) -> None:
        """Delivers a row that is meant for this subscriber; `before` is the sequence delivered last to anybody.

        `number` is set of events: reported now (sequence 0) or committed now.
        """
        if not self._live or 0 < row.sequence <= self._resume or row.id in self._skip:
            return
        if number is not None and row.sequence and number >= self._since:
            return  # it has had the event when it was reported
        if len(self._queue) >= self._limit:
            self._fall_behind(before, self._next_number() if row.sequence or number is None else number)
            return
        self._queue.append(row)
        if self._waiter is not None:
            self._wake()

    def _fall_behind(self, before: int, until: int) -> None:
        self._live = False
        if self._behind:  # still catching up: the next page begins where the last one ended
            return
        self._behind = True
        self._resume = max(self._resume, before)
        had = {id for id, each in self._uncommitted.items() if self._since <= each < until}
        self._skip = frozenset(had | {id for id in self._skip if id in self._uncommitted})

    async def _catch_up(self) -> None:
        """Reads one page, and goes live if it was the last."""
        self._live = True
        self._since = self._next_number()
        try:
            page = await self._read(self._resume, PAGE)
        except BaseException:
            self._live = False
            self._queue.clear()
            raise
        if self._ended:
            return
        live, self._queue = self._queue, deque(row for row in page if row.id not in self._skip)
        if page:
            self._resume = page[-1].sequence
        if len(page) == PAGE or not self._live:
            self._live = False
            return
        self._behind = False
        read = {row.id for row in page}
        self._queue.extend(row for row in live if row.id not in read)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def to_message(row: Row) -> Message:
    """The message of a row, each time a new one: nobody can change what another one gets."""
    if row.body is None:
        return Message(
            id=row.id,
            conversation=row.conversation,
            sender=row.sender,
            recipient=row.recipient,
            kind=KIND_EVENT,
            tool="removed",
            text="the retention policy removed what was said here",
            sequence=row.sequence,
            at=row.at,
        )
    message = Message.FromString(row.body)
    message.sequence = row.sequence
    return message
