"""Rogers: who gets what, in which order, and that it is never lost, doubled or shared."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import fail_after

from core.rogers.bus import MAX_BODY, Limits, Rogers
from core.rogers.journal import Journal
from core.rogers.subscription import PAGE, Subscription
from core.rogers.views import VIEWS
from protos.errors import Conflict, InvalidArgument
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, Blob, Kind, Message
from tests.sizes import full


def said(text: str, *, to: str = "", kind: Kind.ValueType = KIND_PROSE, conversation: str = "c") -> Message:
    return Message(id=new_id(), conversation=conversation, recipient=to, kind=kind, text=text)


@asynccontextmanager
async def lab(path: Path, limits: Limits = Limits()) -> AsyncIterator[Rogers]:  # noqa: B008  frozen
    async with Journal(path, VIEWS) as journal, Rogers(journal, limits) as rogers:
        yield rogers


@pytest.fixture
async def rogers(tmp_path: Path) -> AsyncIterator[Rogers]:
    with fail_after(60):
        async with lab(tmp_path / "journal.db") as rogers:
            yield rogers


async def take(subscription: Subscription, count: int) -> list[Message]:
    with fail_after(60):
        return [await anext(subscription) for _ in range(count)]


async def nothing_more(subscription: Subscription) -> bool:
    with anyio.move_on_after(0.08):  # longer than the 50 ms that events may wait for a commit
        await anext(subscription)
        return False
    return True


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


async def test_a_message_reaches_its_recipient_and_nobody_else(rogers: Rogers) -> None:
    async with rogers.open_inbox("marco") as marco, rogers.open_inbox("hopper") as hopper:
        await rogers.publish(said("for marco", to="marco"), sender="operator")
        await rogers.publish(said("for hopper", to="hopper"), sender="operator")
        assert texts(await take(marco, 1)) == ["for marco"]
        assert texts(await take(hopper, 1)) == ["for hopper"]
        assert await nothing_more(marco)


async def test_a_message_to_nobody_in_particular_reaches_all_members_but_its_sender(rogers: Rogers) -> None:
    for name in ("marco", "hopper"):
        await rogers.join(name, "c")
    async with (
        rogers.open_inbox("marco") as marco,
        rogers.open_inbox("hopper") as hopper,
        rogers.open_inbox("turing") as stranger,
    ):
        await rogers.publish(said("hello"), sender="hopper")
        assert texts(await take(marco, 1)) == ["hello"]
        assert await nothing_more(hopper)
        assert await nothing_more(stranger)


async def test_an_inbox_gives_the_past_first_and_then_the_present(rogers: Rogers) -> None:
    for at in range(PAGE + 10):
        await rogers.publish(said(f"{at}", to="marco"), sender="operator")
    async with rogers.open_inbox("marco") as inbox:
        before = await take(inbox, PAGE + 10)
        await rogers.publish(said("now", to="marco"), sender="operator")
        assert texts(before) == [str(at) for at in range(PAGE + 10)]
        assert texts(await take(inbox, 1)) == ["now"]


async def test_what_was_acknowledged_is_not_delivered_again_even_after_a_restart(tmp_path: Path) -> None:
    async with lab(tmp_path / "journal.db") as rogers:
        for at in range(6):
            await rogers.publish(said(f"{at}", to="marco"), sender="operator")
        async with rogers.open_inbox("marco") as inbox:
            messages = await take(inbox, 6)
            await inbox.acknowledge(messages[2].sequence)
        async with rogers.open_inbox("marco") as inbox:
            assert texts(await take(inbox, 1)) == ["3"], "even before the cursor is on the disk"
    async with lab(tmp_path / "journal.db") as rogers, rogers.open_inbox("marco") as inbox:
        assert texts(await take(inbox, 3)) == ["3", "4", "5"]
        await inbox.acknowledge(10**9)
        await rogers.publish(said("6", to="marco"), sender="operator")
        assert texts(await take(inbox, 1)) == ["6"]


async def test_a_cursor_cannot_pass_what_was_delivered_to_anybody(rogers: Rogers) -> None:
    async with rogers.open_inbox("marco") as inbox:
        await inbox.acknowledge(10**9)
        await rogers.publish(said("later", to="marco"), sender="operator")
    async with rogers.open_inbox("marco") as inbox:
        assert texts(await take(inbox, 1)) == ["later"]


async def test_an_inbox_of_one_conversation_hears_of_no_other(rogers: Rogers) -> None:
    await rogers.join("mcnamara", "a")
    await rogers.publish(said("past", to="mcnamara", conversation="a"), sender="operator")
    await rogers.publish(said("not this", to="mcnamara", conversation="b"), sender="operator")
    async with rogers.open_inbox("mcnamara", "a") as inbox:
        assert texts(await take(inbox, 1)) == ["past"]
        await rogers.publish(said("nor this", to="mcnamara", conversation="b"), sender="operator")
        await rogers.publish(said("to all", conversation="a"), sender="operator")
        assert texts(await take(inbox, 1)) == ["to all"]
        assert await nothing_more(inbox)


async def test_members_hear_what_is_said_between_joining_and_leaving(rogers: Rogers) -> None:
    async def speak(text: str) -> None:
        await rogers.publish(said(text), sender="operator")

    await speak("before")
    await rogers.join("marco", "c")
    await rogers.join("marco", "c")
    assert rogers.members("c") == {"marco"}
    await speak("within")
    await rogers.leave("marco", "c")
    await rogers.leave("marco", "c")
    await speak("between")
    await rogers.join("marco", "c")
    await speak("again")
    await rogers.leave("marco", "c")
    assert rogers.members("c") == frozenset()
    await speak("after")
    async with rogers.open_inbox("marco") as inbox:
        assert texts(await take(inbox, 2)) == ["within", "again"]
        assert await nothing_more(inbox)
    async with rogers.open_inbox("marco", "c") as inbox:
        assert texts(await take(inbox, 2)) == ["within", "again"]
        assert await nothing_more(inbox)


async def test_members_are_remembered_after_a_restart(tmp_path: Path) -> None:
    async with lab(tmp_path / "journal.db") as rogers:
        await rogers.join("marco", "c")
        await rogers.join("hopper", "c")
        await rogers.leave("hopper", "c")
    async with lab(tmp_path / "journal.db") as rogers:
        assert rogers.members("c") == {"marco"}


async def test_publishing_twice_is_one_message(rogers: Rogers) -> None:
    message = said("once", to="marco")
    async with rogers.open_inbox("marco") as inbox:
        first = await rogers.publish(message, sender="operator")
        assert await rogers.publish(message, sender="operator") == first
        assert [each.sequence for each in await take(inbox, 1)] == [first]
        assert await nothing_more(inbox)


async def test_nobody_can_take_the_id_of_anothers_message(rogers: Rogers) -> None:
    message = said("mine", to="marco")
    await rogers.publish(message, sender="hopper")
    with pytest.raises(Conflict):
        await rogers.publish(message, sender="mallory")


async def test_the_sender_the_sequence_and_the_time_are_the_cores_word(rogers: Rogers) -> None:
    message = said("hello", to="marco")
    message.sender, message.sequence, message.at = "operator", 99, 5.0
    async with rogers.open_inbox("marco") as inbox:
        sequence = await rogers.publish(message, sender="mallory")
        (got,) = await take(inbox, 1)
    assert (got.sender, got.sequence) == ("mallory", sequence)
    assert got.at > 1e9
    assert message.sender == "operator", "what was handed in is left alone"


async def test_no_subscriber_can_change_what_another_one_gets(rogers: Rogers) -> None:
    message = said("as it was", to="marco")
    async with rogers.open_inbox("marco") as inbox, rogers.follow(conversation="c") as follower:
        await take_ready(inbox, follower)
        await rogers.publish(message, sender="operator")
        message.text = "changed by the sender"
        (got,) = await take(inbox, 1)
        got.text = "changed by a subscriber"
        assert texts(await take(follower, 1)) == ["as it was"]
    assert texts(list(await rogers.history("c"))) == ["as it was"]


async def take_ready(*subscriptions: Subscription) -> None:
    """Has each of `subscriptions` read its past, so that it is live."""
    for each in subscriptions:
        assert await nothing_more(each)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Message(conversation="c", kind=KIND_PROSE), "an id and a conversation"),
        (Message(id="1", kind=KIND_PROSE), "an id and a conversation"),
        (Message(id="1", conversation="c"), "not 0"),
        (Message(id="1", conversation="c", kind=77), "not 77"),  # type: ignore[arg-type]
        (Message(id="1", conversation="c", kind=KIND_PROSE, hops=33), "33 messages led to this one, 32 may"),
        (Message(id="1", conversation="c", kind=KIND_PROSE, text="x" * (MAX_BODY + 1)), "16385 bytes of text and data"),
        (Message(id="1", conversation="c", kind=KIND_PROSE, text="ä" * 9000, data="{}"), "18002 bytes"),
        (Message(id="1", conversation="c" * 256, kind=KIND_PROSE), "at most 255 characters"),
        (Message(id="1", conversation="c", kind=KIND_PROSE, blobs=[Blob(name="x" * 70_000)]), "a message of 70"),
    ],
)
async def test_what_does_not_fit_is_refused_with_the_number(rogers: Rogers, message: Message, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        await rogers.publish(message, sender="operator")


async def test_a_message_of_exactly_16_kib_goes(rogers: Rogers) -> None:
    assert await rogers.publish(said("x" * MAX_BODY), sender="operator") == 1


async def test_followers_see_everything_whoever_it_is_for(rogers: Rogers) -> None:
    await rogers.publish(said("past", to="marco", conversation="a"), sender="operator")
    async with rogers.follow() as everything, rogers.follow(conversation="b") as one:
        await rogers.publish(said("b", to="hopper", conversation="b"), sender="operator")
        await rogers.publish(said("a", conversation="a"), sender="operator")
        assert texts(await take(everything, 3)) == ["past", "b", "a"]
        assert texts(await take(one, 1)) == ["b"]
        assert await nothing_more(one)


async def test_who_follows_messages_is_not_woken_by_events_past_or_live(rogers: Rogers) -> None:
    def line() -> Message:
        return said("a line of a log", kind=KIND_EVENT)

    await rogers.report([line()], sender="marco")
    await rogers.publish(said("past", to="marco"), sender="operator")
    async with rogers.follow_messages() as messages:
        assert texts(await take(messages, 1)) == ["past"]
        await rogers.report([line(), line()], sender="marco")
        assert await nothing_more(messages)
    async with rogers.follow_messages(after=2) as messages:
        for at in range(2 * PAGE):
            await rogers.report([line()], sender="marco")
            await rogers.publish(said(str(at), to="marco"), sender="operator")
        assert texts(await take(messages, 2 * PAGE)) == [str(at) for at in range(2 * PAGE)]


async def test_a_follower_can_begin_behind_a_sequence_or_now(rogers: Rogers) -> None:
    for at in range(5):
        await rogers.publish(said(f"{at}"), sender="operator")
    async with rogers.follow(conversation="c", after=3) as behind, rogers.follow(after=None) as now:
        await rogers.publish(said("5"), sender="operator")
        assert texts(await take(behind, 3)) == ["3", "4", "5"]
        assert texts(await take(now, 1)) == ["5"]


async def test_opening_an_inbox_again_ends_the_one_before(rogers: Rogers) -> None:
    async with rogers.open_inbox("marco") as old, rogers.open_inbox("marco") as new:
        with pytest.raises(StopAsyncIteration):
            await anext(old)
        await rogers.publish(said("hello", to="marco"), sender="operator")
        assert texts(await take(new, 1)) == ["hello"]


async def test_an_inbox_ended_from_the_cores_side_returns_and_loses_nothing(rogers: Rogers) -> None:
    got: list[str] = []

    async def listen() -> None:
        async with rogers.open_inbox("marco") as inbox:
            async for message in inbox:
                got.append(message.text)
                await inbox.acknowledge(message.sequence)

    with fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await rogers.publish(said("one", to="marco"), sender="operator")
            while not got:
                await anyio.sleep(0.01)
            rogers.end_inbox("marco")
    await rogers.publish(said("two", to="marco"), sender="operator")
    async with rogers.open_inbox("marco") as inbox:
        assert texts(await take(inbox, 1)) == ["two"]


async def test_events_are_delivered_at_once_and_become_durable(rogers: Rogers) -> None:
    async with rogers.follow(conversation="c") as follower:
        await take_ready(follower)
        events = [said(f"{at} %", kind=KIND_EVENT) for at in range(3)]
        assert await rogers.report(events, sender="mcnamara") == 3
        got = await take(follower, 3)
        assert texts(got) == ["0 %", "1 %", "2 %"]
        assert [event.sequence for event in got] == [0, 0, 0]
        await rogers.publish(said("done"), sender="mcnamara")
        assert texts(await take(follower, 1)) == ["done"]
        assert await nothing_more(follower), "what was given at once is not given again when it commits"
    history = await rogers.history("c")
    assert [(message.text, message.sequence) for message in history] == [
        ("0 %", 1),
        ("1 %", 2),
        ("2 %", 3),
        ("done", 4),
    ]


async def test_events_over_the_rate_are_dropped_and_counted(tmp_path: Path) -> None:
    limits = Limits(events_per_s=50, event_bytes_per_s=1 << 20)
    async with lab(tmp_path / "journal.db", limits) as rogers:
        events = [said("x", kind=KIND_EVENT) for _ in range(200)]
        accepted = await rogers.report(events, sender="mcnamara")
        assert 50 <= accepted <= 60
        assert rogers.dropped == 200 - accepted
        assert await rogers.report([said("y", kind=KIND_EVENT)], sender="hopper") == 1, "one's flood is its own"


async def test_only_events_are_reported(rogers: Rogers) -> None:
    with pytest.raises(InvalidArgument, match="only events"):
        await rogers.report([said("durable, please", kind=KIND_CALL)], sender="mcnamara")


async def test_dead_letters_are_rows_and_are_listed(rogers: Rogers) -> None:
    message = said("anybody?", to="nobody")
    message.sequence = await rogers.publish(message, sender="operator")
    message.sender = "operator"
    await rogers.dead_letter(message, "no MAD is called nobody")
    await rogers.dead_letter(message, "no MAD is called nobody")
    (letter,) = await rogers.dead_letters()
    assert (letter.id, letter.message, letter.recipient) == (message.id, message.sequence, "nobody")
    assert (letter.conversation, letter.sender, letter.reason) == ("c", "operator", "no MAD is called nobody")


async def test_history_is_a_range_of_one_conversation(rogers: Rogers) -> None:
    for at in range(10):
        await rogers.publish(said(f"{at}", conversation="a" if at % 2 else "b"), sender="operator")
    assert texts(list(await rogers.history("a", after=4, limit=2))) == ["5", "7"]
    assert await rogers.history("none") == []


async def test_a_message_is_found_by_its_id(rogers: Rogers) -> None:
    message = said("here")
    await rogers.publish(message, sender="operator")
    found = await rogers.find(message.id)
    assert found is not None
    assert found.text == "here"
    assert await rogers.find("absent") is None


async def test_conversations_are_listed_last_spoken_in_first(rogers: Rogers) -> None:
    for name in ("b", "a", "c", "b"):
        await rogers.publish(said("x", conversation=name), sender="operator")
    listed = await rogers.conversations()
    assert [(each.id, each.first, each.last) for each in listed] == [("b", 1, 4), ("c", 3, 3), ("a", 2, 2)]
    assert [each.id for each in await rogers.conversations(limit=1, before=4)] == ["c"]


async def test_the_queries_of_the_bus_walk_an_index(rogers: Rogers) -> None:
    from core.rogers import bus

    given = {"participant": "marco", "conversation": "c", "after": 0, "limit": 10, "before": 10}
    for query in (bus._INBOX_ALL, bus._INBOX_ONE, bus._FOLLOW_ONE, bus._CONVERSATIONS):
        plan = [row[3] for row in await rogers._journal.query(f"EXPLAIN QUERY PLAN {query}", given)]
        scans = [step for step in plan if step.startswith("SCAN") and step.split()[1] in ("j", "journal", "b")]
        assert not scans, plan


@pytest.mark.parametrize("seed", range(20 if full() else 3))
async def test_slow_subscribers_get_everything_once_and_in_order(tmp_path: Path, seed: int) -> None:
    """Queues of four, publishers in bursts, readers that dawdle: they fall behind and catch up again and again."""
    chance = random.Random(seed)
    path = tmp_path / "journal.db"
    with fail_after(60):
        async with lab(path, Limits(queue=4)) as rogers:
            await rogers.join("slow", "c")
            seen: dict[str, list[Message]] = {"inbox": [], "one": [], "all": []}

            async def listen(name: str, subscription: Subscription, dawdle: float) -> None:
                async for message in subscription:
                    seen[name].append(message)
                    if message.text == "end":
                        return
                    if chance.random() < 0.3:
                        await anyio.sleep(chance.random() * dawdle)

            async def speak(name: str) -> None:
                for at in range(60):
                    if chance.random() < 0.5:
                        count = chance.randrange(1, 8)
                        events = [said(f"{name} {at}.{each}", kind=KIND_EVENT) for each in range(count)]
                        assert await rogers.report(events, sender=name) == count
                    else:
                        await rogers.publish(said(f"{name} {at}"), sender=name)
                    if chance.random() < 0.3:
                        await anyio.sleep(chance.random() * 0.01)

            async with (
                rogers.open_inbox("slow") as inbox,
                rogers.follow(conversation="c") as one,
                rogers.follow() as everything,
                anyio.create_task_group() as listeners,
            ):
                listeners.start_soon(listen, "inbox", inbox, 0.01)
                listeners.start_soon(listen, "one", one, 0.004)
                listeners.start_soon(listen, "all", everything, 0.0)
                async with anyio.create_task_group() as speakers:
                    for name in ("marco", "hopper", "turing"):
                        speakers.start_soon(speak, name)
                await anyio.sleep(0.1)
                await rogers.publish(said("end"), sender="marco")
            rows = await rogers._journal.query("SELECT id FROM journal WHERE kind <> 'member' ORDER BY sequence")
    expected = [id for (id,) in rows]
    for name, messages in seen.items():
        got = [message.id for message in messages]
        assert len(got) == len(set(got)), f"{name} got something twice"
        assert set(got) == set(expected), f"{name} lacks {len(set(expected) - set(got))}"
        durable = [message.sequence for message in messages if message.kind != KIND_EVENT]
        assert durable == sorted(durable), f"{name} got messages out of order"
