"""What happens in the lab, as it happens, for everybody who looks: one stream for each page, of the topics it names.

    commit ──▶ fresh rows ──▶ a turn: made into bytes, once ──▶ the streams that want it ──▶ one write each
                                                                   │ its buffer is full, or it just came
                                                                   ▼
                                                behind: it reads the journal, up to where the feed is

Two sorts of things are told. *What happened* (`message`, `run`) has its sequence in the journal as its id, so a page
that comes back says `Last-Event-ID` and misses nothing and hears nothing twice. *How it is* (`attention`, `lab`,
`usage`) has none: it is told whole, at the beginning and when it changes, and only the newest counts.

No gap, no duplicate
  `sequence` is how far the feed has come: up to there everything was offered. A stream that is behind notes it as
  `upto`, and from this moment on is offered what comes later; then it reads what lies between. Nothing runs in between
  the two, so the line between past and present is one number. A stream whose buffer is full forgets it and is behind
  again, from what it took last. A run that has changed ten times is told once, as it is now.

What it costs
  An item is serialised once, for all. A stream is one task, woken once a turn, that writes all it has with one write.
  After a turn the feed rests, a millisecond for each stream it woke: one page hears within a few milliseconds, a
  hundred within a tenth of a second, and what came meanwhile goes out together. Nothing is made of what nobody wants.
  Memory is bounded: rows that wait for a turn, bytes that wait for a reader; beyond, the journal has it.
"""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any

import structlog
from anyio import create_task_group, move_on_after, sleep
from starlette.types import Receive, Scope, Send

from core.grace.door.attention import attention_json
from core.grace.door.shapes import message_json, run_json
from core.grace.door.streams import cancel_when_gone
from core.lab import Lab
from core.rogers.bus import Span
from core.rogers.entry import Row
from core.rogers.subscription import to_message
from core.run import Run
from protos.errors import Error, InvalidArgument
from protos.v1.message_pb2 import Message

HEARTBEAT_S = 10.0
REST_S = 0.001  # after a turn, for each stream that it woke
LONGEST_REST_S = 0.1
PAGE = 200  # items that a stream which is behind reads at once
MOST_ROWS = 4096  # that wait for a turn
MOST_BYTES = 256 * 1024  # that wait for one reader
TOPICS = 32  # of one stream
WHOLE = ("attention", "runs", "lab")  # topics that are about everything
CHOICE = "attention, runs, lab, run:ID, conversation:ID"
CALM_S = 0.25  # between two looks at what needs attention
LOOK_S = 5.0  # after which it is looked at in any case: not all of it is in the journal
STIRRING = frozenset({"approval", "incident", "run", "dismissal", "budget", "vault"})

logger = structlog.get_logger()
Sees = Callable[[Run], bool]


class Stream:
    """One page's stream: what it wants, what waits for it, and how far it has come."""

    def __init__(self, topics: Sequence[str], position: int, sees: Sees | None) -> None:
        self.topics = topics
        self.sees = sees  # of all runs, those that it may hear of; None: every one
        self.position = position  # it has had everything up to here
        self.live = False
        self.ended = False
        self.had: dict[str, bytes] = {}  # how things were when it was told last
        self._upto = 0  # went live there: what is offered from before was read
        self._parts: list[bytes] = []
        self._size = 0
        self._states: dict[str, bytes] = {}
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Bytes that wait for its reader."""
        return self._size

    def go_live(self, upto: int) -> None:
        """From now on it is offered everything past `upto`."""
        self.live, self._upto = True, upto

    def offer(self, sequence: int, item: bytes) -> bool:
        """Gives it something that happened; whether it had to be woken."""
        if not self.live or sequence <= self._upto:
            return False
        if self._size + len(item) > MOST_BYTES:
            return self.fall_behind()
        self._parts.append(item)
        self._size += len(item)
        return self._wake()

    def tell(self, name: str, state: bytes) -> bool:
        """Tells it how something is, unless it knows; whether it had to be woken."""
        if self.had.get(name) == state:
            return False
        self.had[name] = self._states[name] = state
        return self._wake()

    def beat(self) -> None:
        """Something to hear for who hears nothing else."""
        if not self._parts:
            self._states.setdefault("", b":\n\n")
            self._wake()

    def fall_behind(self) -> bool:
        """Forgets what waits for it, since the journal has it; whether it had to be woken."""
        self.live = False
        self._parts.clear()
        self._size = 0
        return self._wake()

    def end(self) -> None:
        """There will be nothing more."""
        self.ended = True
        self._wake()

    async def take(self, sequence: Callable[[], int]) -> bytes:
        """All that waits for it, as soon as there is anything; empty when it has fallen behind or ended.

        `sequence` is how far the feed has come when it is taken.
        """
        while self.live and not self.ended and not self._parts and not self._states:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken = b"".join((*self._parts, *self._states.values()))
        self._states.clear()
        if self.live:
            self._parts.clear()
            self._size, self.position = 0, sequence()
        return taken

    def _wake(self) -> bool:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return False
        waiter.set_result(None)
        return True


class Feed:
    """Everybody who looks, and what they are told. `serve` it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._sequence = lab.journal.statistics().entries
        self._fresh: list[Row] = []
        self._streams: set[Stream] = set()
        self._by_topic: dict[str, set[Stream]] = {}
        self._runs_in: dict[str, set[str]] = {}  # by conversation, the topics of runs that work there
        self._pairs: Counter[tuple[str, str]] = Counter()  # who wrote to whom, since the last look
        self._changed, self._stirred, self._visited = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closed = False
        lab.journal.on_commit(self._committed)

    @property
    def sequence(self) -> int:
        """Up to where everything was offered to whoever is live."""
        return self._sequence

    async def serve(self) -> None:
        """Tells everybody, until cancelled; then every stream ends."""
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._attend)
                tasks.start_soon(self._beat)
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    woken = await self._turn()
                    await sleep(min(woken * REST_S, LONGEST_REST_S))
        finally:
            self._closed = True
            for each in self._streams:
                each.end()

    async def answer(self, topics: Sequence[str], after: int | None, sees: Sees | None) -> "Answer":
        """A stream of `topics`: what happened past `after`, then what happens; without `after`, from now on.

        Raises:
            InvalidArgument: something is no topic, or there are too many.
            NotFound: a topic is a run that never was.
        """
        if not topics or len(topics) > TOPICS:
            raise InvalidArgument(f"topics: name 1 to {TOPICS} of them", next=f"choose from: {CHOICE}")
        conversations: dict[str, str] = {}  # of the runs that go on
        for each in topics:
            kind, _, name = each.partition(":")
            if kind == "run" and name:
                run = await self._lab.runs.get(name)
                conversations |= {each: run.conversation} if run.live else {}
            elif each not in WHOLE and not (kind == "conversation" and name):
                raise InvalidArgument(f"topics: {each[:64]!r} is none", next=f"choose from: {CHOICE}")
        place = self._sequence if after is None else min(after, self._sequence)
        return Answer(self, Stream(topics, place, sees), conversations)

    @contextmanager
    def joined(self, stream: Stream, conversations: dict[str, str]) -> Iterator[None]:
        """While the body runs, the stream is among those that are told."""
        self._streams.add(stream)
        for topic in stream.topics:
            self._by_topic.setdefault(topic, set()).add(stream)
        for topic, conversation in conversations.items():
            self._runs_in.setdefault(conversation, set()).add(topic)
        self._visited.set()
        self._stirred.set()
        if self._closed:
            stream.end()
        try:
            yield
        finally:
            self._streams.discard(stream)
            for topic in stream.topics:
                group = self._by_topic.get(topic, set())
                group.discard(stream)
                if not group:
                    self._by_topic.pop(topic, None)
                    where = self._runs_in.get(conversations.get(topic, ""), set())
                    where.discard(topic)
                    if not where:
                        self._runs_in.pop(conversations.get(topic, ""), None)

    # --- what happened

    def _committed(self, rows: Sequence[Row]) -> None:
        """For the journal to call after each commit."""
        if not self._streams:
            self._fresh.clear()
            self._sequence = rows[-1].sequence
            return
        if len(self._fresh) + len(rows) > MOST_ROWS:
            self._fresh.clear()
            self._sequence = rows[-1].sequence
            for each in self._streams:
                each.fall_behind()
            return
        self._fresh += rows
        self._changed.set()

    async def _turn(self) -> int:
        """Offers what was committed to whoever wants it; returns how many had to be woken."""
        rows, self._fresh = self._fresh, []
        if not rows:
            return 0
        last = {json.loads(each.body or b"{}").get("id"): each.sequence for each in rows if each.kind == "run"}
        wants_runs = "runs" in self._by_topic or self._runs_in
        try:
            runs = await self._lab.runs.some(list(last)) if last and wants_runs else {}
        except (Error, sqlite3.Error) as error:  # it is closing, or its disk fails: whoever comes back reads it there
            logger.warning("runs cannot be told of", reason=str(error))
            runs = {}
        by_sequence = {last[id]: run for id, run in runs.items()}
        woken = 0
        for row in rows:  # from here to the end nothing else runs
            if row.kind in ("message", "event"):
                woken += self._offer(row.sequence, self._hearers(row.conversation), partial(of_row, row))
                self._count(row)
            elif (run := by_sequence.get(row.sequence)) is not None:
                make = partial(of_run, self._lab, run, row.sequence)
                woken += self._offer(row.sequence, self._hearers_of(run), make)
                if not run.live:
                    self._runs_in.get(run.conversation, set()).discard(f"run:{run.id}")
            if row.kind in STIRRING:
                self._stirred.set()
        self._sequence = max(self._sequence, rows[-1].sequence)
        return woken

    def _offer(self, sequence: int, hearers: set[Stream], make: Callable[[], bytes]) -> int:
        if not hearers:
            return 0
        try:
            item = make()
        except Exception:  # what cannot be shown must not keep the rest from being shown
            logger.exception("an entry cannot be told of", sequence=sequence)
            return 0
        return sum(each.offer(sequence, item) for each in hearers)

    def _hearers(self, conversation: str) -> set[Stream]:
        """Who hears what is said there: who follows the conversation, or a run that it is within."""
        found = set(self._by_topic.get(f"conversation:{conversation}", ()))
        while conversation:
            for topic in self._runs_in.get(conversation, ()):
                found |= self._by_topic.get(topic, set())
            conversation = conversation.rpartition("/")[0]
        return found

    def _hearers_of(self, run: Run) -> set[Stream]:
        of_all = {each for each in self._by_topic.get("runs", ()) if each.sees is None or each.sees(run)}
        return of_all | self._hearers_of_family(run)

    def _hearers_of_family(self, run: Run) -> set[Stream]:
        """Who follows the run, or one that it works for."""
        topics = {f"run:{run.id}"}
        conversation = run.conversation if run.parent else ""
        while conversation:
            topics |= self._runs_in.get(conversation, set())
            conversation = conversation.rpartition("/")[0]
        return set[Stream]().union(*(self._by_topic.get(topic, set()) for topic in topics))

    async def missed(self, stream: Stream) -> AsyncIterator[bytes]:
        """What a stream that is behind has not had, up to where the feed is now; from then on it is live."""
        upto = self._sequence
        stream.go_live(upto)
        while stream.position < upto:
            items, stream.position = await self._page(stream, stream.position, upto)
            if items:
                yield b"".join(items)

    async def _page(self, stream: Stream, after: int, upto: int) -> tuple[list[bytes], int]:
        """Some of what lies past `after` and up to `upto`, and up to where that is all there is."""
        lab, end = self._lab, upto
        found: list[tuple[int, Callable[[], bytes]]] = []
        spans: dict[str, Span] = {}  # by conversation, so that nothing is told twice
        family: dict[str, Run] = {}
        for topic in stream.topics:
            kind, _, name = topic.partition(":")
            if kind == "conversation":
                spans[name] = Span(name)
            elif kind == "run":
                run = await lab.runs.get(name)
                family |= {each.id: each for each in (run, *await lab.runs.children(run.id))}
                last = upto if run.live else run.changed
                for each in (run.conversation, *await lab.rogers.inner(run.conversation)):
                    spans.setdefault(each, Span(each, run.trigger_sequence, last))
        if spans:
            messages = await lab.rogers.within([*spans.values()], after=after, upto=upto, limit=PAGE)
            if len(messages) == PAGE:
                end = messages[-1].sequence
            found += [(each.sequence, partial(of_message, each)) for each in messages]
        if "runs" in stream.topics:
            changed = await lab.runs.changed(after, end, PAGE)
            if len(changed) == PAGE:
                end = changed[-1].changed
            family |= {each.id: each for each in changed if stream.sees is None or stream.sees(each)}
        told = [each for each in family.values() if after < each.changed <= end]
        found += [(each.changed, partial(of_run, lab, each, each.changed)) for each in told]
        return [make() for sequence, make in sorted(found, key=itemgetter(0)) if sequence <= end], end

    # --- how it is

    async def _attend(self) -> None:
        """Tells what needs attention, when it changes."""
        while True:
            with move_on_after(LOOK_S):
                await self._stirred.wait()
            self._stirred.clear()
            if "attention" not in self._by_topic:
                await self._stirred.wait()
                continue
            try:
                state = said("attention", await attention_json(self._lab))
            except Error as error:  # the journal is closing
                logger.debug("nobody can be told what needs attention", reason=error.message)
            except Exception:  # the next look may go well, and the rest of the feed has nothing to do with it
                logger.exception("nobody can be told what needs attention")
            else:
                for each in self._by_topic.get("attention", ()):
                    each.tell("attention", state)
            await sleep(CALM_S)

    async def _beat(self) -> None:
        """Once a second while somebody looks: how the lab is, and what the runs that are looked at use."""
        began = time.monotonic()
        while True:
            if not self._streams:
                self._visited.clear()
                await self._visited.wait()
                self._pairs.clear()
            before = time.monotonic()
            await sleep(1.0)
            if self._by_topic.get("lab"):
                state = said("lab", self._rates(time.monotonic() - before))
                for each in self._by_topic["lab"]:
                    each.tell("lab", state)
            self._pairs.clear()
            self._tell_usage()
            if time.monotonic() - began > HEARTBEAT_S:
                began = time.monotonic()
                for each in self._streams:
                    each.beat()

    def _tell_usage(self) -> None:
        """The last point of what each run uses that is looked at, and of those that work for it."""
        for run in self._lab.dispatcher.live() if self._runs_in else ():
            hearers = self._hearers_of_family(run)
            series = self._lab.dispatcher.usage(run.id) if hearers else None
            if series is not None and series.cpu:
                point = {"index": len(series.cpu) - 1, "cpu": series.cpu[-1], "memory": series.memory[-1]}
                state = said("usage", {"run": run.id, "began": series.began, "step_s": series.step_s} | point)
                for each in hearers:
                    each.tell(f"usage:{run.id}", state)

    def _count(self, row: Row) -> None:
        if "lab" in self._by_topic:
            self._pairs[row.sender, row.recipient] += 1

    def _rates(self, seconds: float) -> dict[str, Any]:
        """The lab now: messages a second by who says them to whom (empty: to nobody in particular), and its counts."""
        journal = self._lab.journal.statistics()
        return {
            "at": time.time(),
            "rates": [
                {"sender": sender, "recipient": recipient, "per_s": round(count / seconds, 2)}
                for (sender, recipient), count in self._pairs.most_common(200)
            ],
            "runs": self._lab.dispatcher.counts(),
            "sandboxes": len(self._lab.dispatcher.sandboxes()),
            "messages": journal.messages,
            "bytes": journal.bytes,
            "lost": journal.lost,
            "sealed": journal.sealed,
        }


class Answer:
    """An ASGI response: one stream, until its client leaves or the lab stops."""

    def __init__(self, feed: Feed, stream: Stream, conversations: dict[str, str]) -> None:
        self.stream = stream
        self._feed, self._conversations = feed, conversations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with self._feed.joined(self.stream, self._conversations):
                await self._copy(send)
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

    async def _copy(self, send: Send) -> None:
        feed, stream = self._feed, self.stream

        async def say(text: bytes) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": True})

        await say(said("open", {"sequence": stream.position}, stream.position))
        while not stream.ended:
            if not stream.live:
                async for each in feed.missed(stream):
                    await say(each)
            if taken := await stream.take(lambda: feed.sequence):
                await say(taken)


def said(name: str, data: object, sequence: int = 0) -> bytes:
    """One server-sent event."""
    number = f"id: {sequence}\n" if sequence else ""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{number}event: {name}\ndata: {text}\n\n".encode("utf-8", "replace")


def of_row(row: Row) -> bytes:
    """A message or an event that was committed."""
    return of_message(to_message(row))


def of_message(message: Message) -> bytes:
    """A message."""
    return said("message", message_json(message), message.sequence)


def of_run(lab: Lab, run: Run, sequence: int) -> bytes:
    """A run that changed."""
    return said("run", run_json(lab, run), sequence)
