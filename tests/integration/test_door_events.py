"""The page's one stream: live, without a gap or a duplicate, whoever else is slow."""

import json
import re
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from anyio import Event, create_task_group, fail_after, sleep_forever
from anyio.lowlevel import checkpoint
from typing_extensions import TypedDict

from core.grace.door import feed
from core.grace.door.feed import Feed
from core.lab import Lab
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, Message
from sandbox.engine import Exit, Meter, Usage
from tests.labs import a_home, opened
from tests.looking import Looker, looking

LIMIT_S = 60


class Said(TypedDict):
    """What was said."""

    text: str


@dataclass
class Gates:
    """What the MADs of the test wait for."""

    inner: Event
    outer: Event


gates = Gates(Event(), Event())


class Sandboxed:
    """A sandbox that uses half a core."""

    name = "sandboxed"

    async def meter(self) -> Meter:
        return lambda: Usage(memory_bytes=1000, cpu_seconds=time.monotonic() / 2, pids=1)

    async def wait(self) -> Exit:
        return Exit(0, "exited")

    async def kill(self) -> None:
        pass

    async def usage(self) -> Usage:
        return (await self.meter())()

    def leave(self) -> None:
        pass


class Inner:
    """Works for another, when it is let."""

    @tool(effects="read")
    async def work(self, call: Call, *, text: str) -> Said:
        """Says it back."""
        await call.log(f"working on {text}")
        await gates.inner.wait()
        return {"text": text}


class Outer:
    """Has another work, in a conversation within its own."""

    @tool(effects="read")
    async def lead(self, call: Call, *, goal: str) -> Said:
        """Has it said."""
        question = Message(id=new_id(), recipient="inner", kind=KIND_CALL, tool="work", data=json.dumps({"text": goal}))
        question.conversation = f"{call.message.conversation}/1"
        await call.ctx.bus.ask(question)
        await gates.outer.wait()
        return {"text": goal}

    @tool(effects="read")
    async def fail(self, call: Call) -> Said:
        """Does not answer."""
        raise RuntimeError("it cannot")


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    with a_home() as home:
        async with opened(home, inner=Inner, outer=Outer) as lab:
            yield lab


@pytest.fixture
async def page(lab: Lab) -> AsyncIterator[Looker]:
    with fail_after(LIMIT_S):
        async with looking(lab.home) as looker:
            yield looker


async def say(lab: Lab, conversation: str, text: str) -> int:
    message = Message(id=new_id(), conversation=conversation, kind=KIND_PROSE, text=text)
    return await lab.rogers.publish(message, sender="operator")


async def test_what_is_said_is_heard_once_and_only_where_it_was_asked_for(lab: Lab, page: Looker) -> None:
    async with page.following("conversation:a", "runs") as stream:
        await say(lab, "b", "not this")
        sequences = [await say(lab, "a", f"{number}") for number in range(5)]
        await stream.until("message", text="4")
    heard = [(each.id, each.data["text"]) for each in stream.told if each.name == "message"]
    assert heard == [(sequence, f"{number}") for number, sequence in enumerate(sequences)]


async def test_a_page_that_comes_back_again_and_again_misses_nothing(lab: Lab, page: Looker) -> None:
    count, heard = 600, list[int]()
    said: list[int] = []

    async def speak() -> None:
        said.extend([await say(lab, "back", f"{number} " + "x" * 100) for number in range(count)])

    last = lab.journal.statistics().entries
    async with create_task_group() as tasks:
        tasks.start_soon(speak)
        while len(heard) < count:
            async with page.following("conversation:back", last=last) as stream:
                for _ in range(17 if len(heard) % 2 else 40):
                    if len(heard) < count:
                        told = await stream.next()
                        heard.append(told.id)
                        last = told.id
    assert heard == said


async def test_one_that_does_not_read_holds_nobody_up_and_then_has_it_all(
    lab: Lab, page: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_BYTES", 20_000)
    text, count, sent, open_again = "y" * 5_000, 100, list[bytes](), Event()

    async def receive() -> MutableMapping[str, Any]:
        await sleep_forever()
        raise AssertionError

    async def take(part: MutableMapping[str, Any]) -> None:
        """A client whose window is full."""
        if part.get("body") and sent:
            await open_again.wait()
        sent.append(part.get("body", b""))

    async with create_task_group() as tasks:
        served = Feed(lab)
        tasks.start_soon(served.serve)
        slow = await served.answer(["conversation:slow"], None, None)
        tasks.start_soon(slow, {"type": "http"}, receive, take)
        async with page.following("conversation:slow") as quick:
            said = []
            for _ in range(count):
                said.append(await say(lab, "slow", text))
                assert (await quick.next()).id == said[-1]
        assert not slow.stream.live
        assert slow.stream.waiting <= 20_000
        open_again.set()
        await say(lab, "slow", "the last")
        while b"the last" not in sent[-1]:
            await checkpoint()
        tasks.cancel_scope.cancel()
    assert [int(each) for each in re.findall(rb"^id: (\d+)\nevent: message", b"".join(sent), re.MULTILINE)][:-1] == said


async def test_a_flood_is_read_from_the_journal_and_is_whole(
    lab: Lab, page: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_ROWS", 50)
    async with page.following("conversation:flood") as stream, create_task_group() as tasks:
        for number in range(400):
            tasks.start_soon(say, lab, "flood", f"{number}")
        heard = [await stream.next() for _ in range(400)]
    assert sorted(each.id for each in heard) == [each.id for each in heard]
    assert {each.data["text"] for each in heard} == {f"{number}" for number in range(400)}


async def test_a_run_is_followed_with_those_that_work_for_it_until_it_is_over(lab: Lab, page: Looker) -> None:
    gates.inner, gates.outer = Event(), Event()
    body = {
        "recipient": "outer",
        "kind": "call",
        "tool": "lead",
        "arguments": {"goal": "mend it"},
        "conversation": "run",
    }
    async with page.following("runs") as every:
        status, asked = await page.ask("POST", "/messages", body)
        assert status == 202
        async with page.following(f"run:{asked['run']}", last=asked["sequence"] - 1) as stream:
            call = await stream.until("message", id=asked["id"])
            line = await stream.until("message", text="working on mend it")
            gates.inner.set()
            child = await stream.until("run", mad="inner", state="destroyed")
            gates.outer.set()
            done = await stream.until("run", id=asked["run"], state="destroyed")
            later = await say(lab, "run", "this is not the run's any more")
            async with page.following(f"run:{asked['run']}", last=asked["sequence"] - 1) as again:
                replayed = await again.until("run", id=asked["run"])
        await every.until("run", id=asked["run"], outcome="succeeded")
    assert (call.data["conversation"], line.data["conversation"]) == ("run", "run/1")
    assert line.data["sender"] == "inner"
    assert child.data["parent"] == asked["run"]
    assert (done.data["outcome"], done.data["title"]) == ("succeeded", "lead: mend it")
    assert replayed.id == done.id
    live = {each.id for each in stream.told if each.name == "message"}
    assert {each.id for each in again.told if each.name == "message"} == live
    assert later not in live
    ids = [each.id for each in stream.told if each.id]
    assert ids == sorted(set(ids)) or ids[0] == ids[1]  # `open` says the same place as the first


async def test_events_are_told_with_the_commit_that_makes_them_durable(lab: Lab, page: Looker) -> None:
    async with page.following("conversation:log") as stream:
        line = Message(id=new_id(), conversation="log", kind=KIND_EVENT, tool="log", text="a line")
        await lab.rogers.report([line], sender="outer")
        told = await stream.next()
    assert told.id > 0
    assert told.data["text"] == "a line"


async def test_what_a_run_uses_is_told_to_who_follows_it_and_kept_with_its_end(lab: Lab, page: Looker) -> None:
    gates.inner = gates.outer = Event()
    body: dict[str, Any] = {"recipient": "outer", "kind": "call", "tool": "lead", "arguments": {"goal": "measure"}}
    _, asked = await page.ask("POST", "/messages", body)
    async with page.following(f"run:{asked['run']}", last=asked["sequence"]) as stream:
        child = await stream.until("run", mad="inner", state="running")
        with lab.dispatcher._lives.sampling.watching(child.data["id"], Sandboxed()):
            point = await stream.until("usage", run=child.data["id"])
            live = await page.get(f"/runs/{child.data['id']}/activity")
            gates.inner.set()
            await stream.until("run", mad="inner", state="destroyed")
        kept = (await page.get(f"/runs/{asked['run']}/activity"))["children"][0]["usage"]
    assert (point.id, point.data["memory"], point.data["step_s"]) == (0, 1000, 1.0)
    assert live["usage"]["memory"] == [1000] * len(live["usage"]["cpu"])
    assert kept["memory"][: len(live["usage"]["memory"])] == live["usage"]["memory"]


async def test_how_things_are_is_told_at_once_and_when_it_changes(lab: Lab, page: Looker) -> None:
    async with page.following("attention", "lab") as stream:
        first = await stream.until("attention")
        assert first.id == 0
        await stream.until("lab", runs={"running": 0, "queued": 0})
        body = {"recipient": "outer", "kind": "call", "tool": "fail", "arguments": {}}
        _, asked = await page.ask("POST", "/messages", body)
        while not (items := (await stream.until("attention")).data["items"]):
            pass
        (item,) = items
        assert item["kind"] == "run"
        assert item["evidence"][0]["path"] == f"/runs/{asked['run']}"
        act = next(each for each in item["acts"] if each["label"] == "Dismiss")
        assert await page.ask(act["method"], act["path"], act["body"]) == (200, {"items": []})
        await stream.until("attention", items=[])


@pytest.mark.parametrize(
    ("topics", "status", "sentence"),
    [
        ("", 400, "topics: name 1 to 32"),
        ("everything", 400, "topics: 'everything' is none"),
        ("run:", 400, "topics: 'run:' is none"),
        ("conversation:", 400, "is none"),
        ("run:none-0000000000", 404, "There is no run"),
        (",".join(f"conversation:{number}" for number in range(33)), 400, "topics: name 1 to 32"),
    ],
)
async def test_what_is_no_topic_is_refused(page: Looker, topics: str, status: int, sentence: str) -> None:
    answered, said = await page.ask("GET", f"/events?topics={topics}")
    assert (answered, sentence in said["error"]["message"]) == (status, True), said


async def test_a_lab_that_stops_ends_its_streams() -> None:
    with a_home() as home, fail_after(LIMIT_S):
        async with AsyncExitStack() as stack:
            async with opened(home):
                page = await stack.enter_async_context(looking(home))
                stream = await stack.enter_async_context(page.following("runs"))
            with pytest.raises((StopAsyncIteration, httpx2.TransportError)):
                await stream.until("nothing")
