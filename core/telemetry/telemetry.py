"""Tells a collector what the lab does, where the operator wants it: `[telemetry]` in madlab.toml. Off by default.

    journal ──commit──▶ "there is news"            one flag: nothing else happens while a message is published
                           │
      cursor ◀── taken ──  follower ──▶ spans ─┐   reads the journal on a reader's thread, makes spans of what ended
                           lines (a queue) ────┼──▶ collector     OTLP over HTTP, gzip; later is later, never is counted
                           measures ───────────┘

What is guaranteed. *Traces*: the journal is the queue, and a cursor in it says how far the collector has taken it. What
ended while the collector was away is told when it is back; after a crash of the core the last batch may be sent again,
with the same ids, and nothing is left out. Beyond `BEHIND` entries the oldest are given up, and counted. *Metrics* are
cumulative: the next batch makes good what was not taken. *Logs* wait in memory; `core.log` keeps them.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from anyio import Event, create_task_group, sleep

from core.config import Telemetry as Settings
from core.fiedler.keys import Key
from core.rogers.entry import Row
from core.rogers.tables import COLUMNS
from core.telemetry.logs import LINES, Lines
from core.telemetry.measures import Measures
from core.telemetry.meters import Counter
from core.telemetry.otlp import Span, Teller
from core.telemetry.past import Past
from core.telemetry.sending import Collector, Later, Never, Signal
from core.telemetry.spans import ENDS, Spans
from protos.errors import Error

READER = "telemetry"  # whose cursor says how far traces were taken
PAGE = 256  # entries that one look at the journal brings
WINDOW = 20_000  # entries that it looks at
BATCH = 512  # spans, or lines, of one request
BEHIND = 200_000  # entries that traces may lag behind
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0

logger = structlog.get_logger()


@dataclass
class Telemetry:
    """What is told of one lab, and how it fares."""

    settings: Settings
    measures: Measures
    past: Past
    lab: str
    version: str
    key: Callable[[], Key | None]
    clean: Callable[[str], str]
    lines: Lines = field(default_factory=lambda: LINES)
    asked: Event = field(default_factory=Event)  # somebody wants figures
    _news: Event = field(default_factory=Event)
    _refused: set[tuple[Signal, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._first = self.measures.services.journal.statistics().entries
        about = ("signal",)
        self._sent = Counter("madlab.telemetry.sent", "Spans, lines and batches of figures that were taken.", about)
        self._dropped = Counter("madlab.telemetry.dropped", "Of them those that nobody got.", (*about, "reason"))
        self._failures = Counter("madlab.telemetry.failures", "Requests that were not taken.", about)
        resource = {"service.name": self.settings.service, "service.version": self.version}
        resource |= {
            "service.instance.id": self.lab,
            "telemetry.sdk.name": "madlab",
            "telemetry.sdk.language": "python",
        }
        self._teller = Teller(resource, self.version, self.clean)

    @property
    def is_on(self) -> bool:
        """Whether anything is sent."""
        return self.settings.otlp is not None

    @property
    def traces(self) -> bool:
        """Whether it is worth writing down how a request came in."""
        return self.is_on and "traces" in self.settings.signals

    async def figures(self) -> Measures:
        """The measures; from the first time on, the loop is watched."""
        self.asked.set()
        self.measures.own[:] = [each.family() for each in (self._sent, self._dropped, self._failures)]
        return self.measures

    async def serve(self) -> None:
        """Tells until cancelled. Nothing that a collector does, or is not there to do, ends it."""
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch)
            if self.settings.otlp is None:
                return
            collector = Collector(
                self.settings.otlp, self.key, header=self.settings.header, ca_file=self.settings.ca_file
            )
            self.measures.services.journal.on_commit(self._hear)
            async with collector, create_task_group() as signals:
                told = {"traces": self._tell_traces, "metrics": self._tell_metrics, "logs": self._tell_logs}
                for each in self.settings.signals:
                    signals.start_soon(self._go_on, told[each], collector)

    async def _watch(self) -> None:
        """Nobody who asks for no figures pays for them; who asked once gets them quickly the next time."""
        await self.asked.wait()
        async with create_task_group() as tasks:
            tasks.start_soon(self.measures.watch_loop)
            while True:
                await sleep(300)
                await self._quietly(self.measures.tally.catch_up)

    async def _go_on(self, tell: Callable[[Collector], Awaitable[None]], collector: Collector) -> None:
        while True:
            await self._quietly(lambda: tell(collector))
            await sleep(LAST_PAUSE_S)

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Error as error:  # the journal is closed or sealed
            logger.warning("telemetry has to wait", reason=error.message)
        except Exception:  # the lab must outlive a fault in what tells of it
            logger.exception("telemetry failed")

    # --- traces

    async def _tell_traces(self, collector: Collector) -> None:
        journal = self.measures.services.journal
        spans = Spans(self.past, self.lab, lambda rule: self.measures.services.policy.hosts_of(rule))
        after = await journal.cursor(READER, "")
        if not after:  # what was before anybody listened is not told
            after = self._first
            journal.keep_cursor(READER, "", after)
        while True:
            head = journal.statistics().entries
            if head - after > BEHIND:
                self._dropped.add(Signal.TRACES, "behind", by=head - BEHIND - after)
                after = head - BEHIND
            if after >= head:
                self._news = Event()
                if journal.statistics().entries == head:
                    await self._news.wait()
                await sleep(self.settings.every_s)
                continue
            rows, until = await self._ended(after, head)
            found: list[Span] = []
            for row in rows:
                found += await self._spans_of(spans, row)
            for at in range(0, len(found), BATCH):
                some = found[at : at + BATCH]
                await self._send(collector, Signal.TRACES, self._teller.spans(some), len(some))
            after = until
            journal.keep_cursor(READER, "", after)

    async def _spans_of(self, spans: Spans, row: Row) -> Sequence[Span]:
        try:
            return await spans.of(row)
        except Error:
            raise
        except Exception:  # one entry that cannot be read shall not keep all that follow from being told
            logger.exception("an entry has no span", id=row.id)
            self._dropped.add(Signal.TRACES, "unreadable")
            return ()

    async def _ended(self, after: int, head: int) -> tuple[list[Row], int]:
        """The next entries that end spans, and how far the journal was looked at."""
        until = min(after + WINDOW, head)
        rows = await self.measures.services.journal.query(
            f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
            f" WHERE j.sequence > ? AND j.sequence <= ? AND {ENDS} ORDER BY j.sequence LIMIT ?",
            (after, until, PAGE),
        )
        found = [Row(*each) for each in rows]
        return found, found[-1].sequence if len(found) == PAGE else until

    def _hear(self, rows: Sequence[Row]) -> None:
        self._news.set()

    # --- metrics and logs

    async def _tell_metrics(self, collector: Collector) -> None:
        while True:
            await sleep(self.settings.metrics_s)
            families = [each for each in await (await self.figures()).families() if each.points]
            body = self._teller.metrics(families, since=self.measures.started, at=time.time())
            await self._send(collector, Signal.METRICS, body, 1, once=True)

    async def _tell_logs(self, collector: Collector) -> None:
        self.lines.open = True
        dropped = 0
        try:
            while True:
                await sleep(self.settings.every_s)
                if self.lines.dropped > dropped:
                    self._dropped.add(Signal.LOGS, "full", by=self.lines.dropped - dropped)
                    dropped = self.lines.dropped
                while lines := self.lines.take(BATCH):
                    await self._send(collector, Signal.LOGS, self._teller.lines(lines), len(lines))
        finally:
            self.lines.open = False

    # --- sending

    async def _send(self, collector: Collector, signal: Signal, body: bytes, items: int, *, once: bool = False) -> None:
        """Sends until it is taken or refused for good; `once`: what is not taken now is not worth keeping."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                thrown_away = min(items, await collector.send(signal, body))  # it may say anything
            except Never as error:
                self._failures.add(signal)
                self._dropped.add(signal, "refused", by=items)
                if (signal, str(error)) not in self._refused:  # once: of a line about it would come another one
                    self._refused.add((signal, str(error)))
                    logger.warning("the collector refuses what it is told", signal=str(signal), reason=str(error))
                return
            except Later as error:
                self._failures.add(signal)
                if once:
                    return
                await sleep(error.pause_s or pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LAST_PAUSE_S)
            else:
                self._sent.add(signal, by=items - thrown_away)
                if thrown_away:
                    self._dropped.add(signal, "thrown_away", by=thrown_away)
                return
