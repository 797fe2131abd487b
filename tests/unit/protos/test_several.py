"""Several messages of one inbox at once: in order where it counts, bounded, and no cursor passes one by."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked

from protos.mad import Inbox
from protos.several import READ_AHEAD, side_by_side
from protos.v1.message_pb2 import Message

LIMIT_S = 10


@dataclass
class ListInbox(Inbox):
    """An inbox of what is known beforehand. It stays open until it is told to end."""

    messages: Sequence[Message]
    read: int = 0
    acknowledged: list[int] = field(default_factory=list)
    end: Event = field(default_factory=Event)

    async def __aiter__(self) -> AsyncIterator[Message]:
        for each in self.messages:
            self.read += 1
            yield each
        await self.end.wait()

    async def acknowledge(self, sequence: int) -> None:
        self.acknowledged.append(sequence)


@dataclass
class Desk:
    """Who handles: keeps each message until it is told to be done with it."""

    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    most: int = 0
    _done: dict[int, Event] = field(default_factory=dict)

    async def handle(self, message: Message) -> None:
        self.begun.append(message.sequence)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        await self._done.setdefault(message.sequence, Event()).wait()
        self.ended.append(message.sequence)

    async def finish(self, *sequences: int) -> None:
        """Lets them be done, and waits until nothing more follows from it."""
        for each in sequences:
            self._done.setdefault(each, Event()).set()
            await wait_all_tasks_blocked()


def said(*conversations: str) -> list[Message]:
    """One message in each conversation; those in capitals only read."""
    return [Message(sequence=number, conversation=each) for number, each in enumerate(conversations, 1)]


def only_reads(message: Message) -> bool:
    return message.conversation.isupper()


async def test_what_is_said_in_one_conversation_waits_for_its_turn_and_nobody_else_does() -> None:
    inbox, desk = ListInbox(said("a", "a", "b", "a")), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=4, only_reads=only_reads))
            await wait_all_tasks_blocked()
            assert desk.begun == [1, 3]
            await desk.finish(1)
            assert desk.begun == [1, 3, 2]
            await desk.finish(2)
            assert desk.begun == [1, 3, 2, 4]
            await desk.finish(3, 4)
            inbox.end.set()


async def test_the_cursor_stands_before_the_oldest_that_is_not_done() -> None:
    inbox, desk = ListInbox(said("a", "b", "c", "d")), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=4, only_reads=only_reads))
            await wait_all_tasks_blocked()
            await desk.finish(3, 2)
            assert inbox.acknowledged == []
            await desk.finish(1)
            assert inbox.acknowledged == [3]
            await desk.finish(4)
            assert inbox.acknowledged == [3, 4]
            inbox.end.set()


async def test_no_more_are_in_hand_than_there_are_places_and_who_only_reads_has_places_of_its_own() -> None:
    inbox, desk = ListInbox(said("a", "b", "c", "A", "B", "C")), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=2, only_reads=only_reads))
            await wait_all_tasks_blocked()
            assert sorted(desk.begun) == [1, 2, 4, 5]
            await desk.finish(4, 5, 6)
            assert sorted(desk.begun) == [1, 2, 4, 5, 6]
            await desk.finish(1, 2, 3)
            assert desk.most == 4
            assert inbox.acknowledged[-1] == 6
            inbox.end.set()


async def test_an_inbox_is_read_ahead_only_so_far() -> None:
    inbox, desk = ListInbox(said(*["a"] * (2 * READ_AHEAD))), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=4, only_reads=only_reads))
            await wait_all_tasks_blocked()
            assert inbox.read == 1 + READ_AHEAD + 1  # in hand, waiting, and the one that finds no room
            tasks.cancel_scope.cancel()


async def test_at_its_end_what_was_begun_is_done_and_what_waited_is_left() -> None:
    inbox, desk = ListInbox(said("a", "a", "b", "c")), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=2, only_reads=only_reads))
            await wait_all_tasks_blocked()
            inbox.end.set()
            await wait_all_tasks_blocked()
            await desk.finish(3, 1)
    assert desk.begun == [1, 3]
    assert inbox.acknowledged == [1]  # 2 waited, so 3 is given again with it


async def test_an_event_that_has_no_sequence_yet_moves_the_cursor_past_nothing() -> None:
    inbox, desk = ListInbox([Message(sequence=7, conversation="a"), Message(conversation="b")]), Desk()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            tasks.start_soon(lambda: side_by_side(inbox, desk.handle, many=2, only_reads=only_reads))
            await wait_all_tasks_blocked()
            await desk.finish(0)
            assert inbox.acknowledged == []
            await desk.finish(7)
            assert inbox.acknowledged == [7]
            inbox.end.set()


async def test_what_cannot_be_handled_ends_it_and_is_not_passed_by() -> None:
    inbox = ListInbox(said("a", "b", "c"))
    held = Event()

    async def handle(message: Message) -> None:
        if message.conversation == "a":
            await held.wait()
        if message.conversation == "b":
            raise RuntimeError("on request")

    with fail_after(LIMIT_S), pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="on request")):
        await side_by_side(inbox, handle, many=4, only_reads=only_reads)
    assert inbox.acknowledged == []
