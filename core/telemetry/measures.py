"""The lab in figures: what it holds at this moment, what has happened since it started, and how its process fares."""

import os
import resource
import time
from collections import Counter as Tallied
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from anyio import current_time, sleep

from core import VERSION
from core.lives import Lives
from core.ports.services import Services
from core.redaction.canaries import count_of
from core.telemetry.meters import Family, Histogram, Point, counter, gauge
from core.telemetry.tally import Tally
from sandbox.pool import Pool

SAMPLE_S = 1.0  # between two looks at how late the loop is
PAGE = os.sysconf("SC_PAGE_SIZE")


class Machine(Protocol):
    """What is at work: the dispatcher."""

    def counts(self) -> dict[str, int]: ...

    def sandboxes(self) -> list[dict[str, object]]: ...


@dataclass
class Door:
    """What the HTTP door has answered."""

    requests: Histogram = field(
        default_factory=lambda: Histogram(
            "http.server.request.duration",
            "Requests at the door, streams left out.",
            ("http.request.method", "http.route", "http.response.status_code"),
        )
    )
    active: int = 0
    streams: int = 0  # of them server-sent events


@dataclass
class Measures:
    """Everything that is measured of one lab."""

    services: Services
    lives: Lives
    machine: Machine
    pools: Mapping[str, Pool[Any]]
    about: Mapping[str, str] = field(default_factory=lambda: {"version": VERSION})  # what does not change
    started: float = field(default_factory=time.time)  # seconds since the epoch
    door: Door = field(default_factory=Door)
    lag: Histogram = field(
        default_factory=lambda: Histogram("madlab.loop.lag", "How late the event loop wakes, each second.")
    )
    own: list[Family] = field(default_factory=list)  # what telemetry says of itself

    def __post_init__(self) -> None:
        self.tally = Tally(self.services.journal, self.services.journal.statistics().entries)

    async def watch_loop(self) -> None:
        """Takes the event loop's lag once a second, until cancelled."""
        while True:
            due = current_time() + SAMPLE_S
            await sleep(SAMPLE_S)
            self.lag.record(max(current_time() - due, 0.0))

    async def families(self) -> list[Family]:
        """All of it, as it stands now."""
        services = self.services
        journal, files = services.journal.statistics(), services.horace.usage()
        states = Tallied((each.run.mad, str(each.run.state)) for each in self.lives.all.values())
        places = Tallied((str(each["mad"]), str(each["state"])) for each in self.machine.sandboxes())
        found = [
            gauge("madlab.info", "The lab and its version.", [Point(dict(self.about), 1)]),
            gauge("madlab.runs", "Runs that are not over.", _by(states, "gen_ai.agent.name", "state"), "{run}"),
            gauge("madlab.runs.queued", "Runs that wait for the machine.", self.machine.counts()["queued"]),
            gauge("madlab.sandboxes", "Sandboxes that stand.", _by(places, "gen_ai.agent.name", "state"), "{sandbox}"),
            *self._pools(),
            gauge("madlab.approvals.waiting", "Acts that wait for a person.", len(await services.approvals.pending())),
            counter("madlab.incidents", "Secrets seen where none belong.", await count_of(services.journal)),
            counter("madlab.journal.entries", "Entries of the journal.", journal.entries, "{entry}"),
            counter("madlab.journal.messages", "Messages and events among them.", journal.messages, "{message}"),
            counter("madlab.journal.commits", "Commits since the start.", journal.commits, "{commit}"),
            counter("madlab.journal.lost", "Entries nobody waited for that were lost.", journal.lost, "{entry}"),
            gauge("madlab.journal.pending", "Entries that wait for the next commit.", journal.pending, "{entry}"),
            gauge("madlab.journal.size", "The journal on the disk.", journal.bytes, "By"),
            gauge("madlab.journal.commit.duration", "The sync of the last commit.", journal.sync_s, "s"),
            gauge("madlab.journal.sealed", "1: nothing can be written any more.", int(journal.sealed is not None)),
            counter("madlab.events.dropped", "Events over their sender's rate.", services.rogers.dropped, "{event}"),
            gauge("madlab.files.blobs", "Blobs that are kept.", files.blobs, "{blob}"),
            gauge("madlab.files.size", "What they take.", files.bytes, "By"),
            gauge("madlab.files.quota", "What they may take.", files.quota_bytes, "By"),
            self.door.requests.family(),
            gauge("http.server.active_requests", "Requests at the door.", self.door.active, "{request}"),
            gauge("madlab.door.streams", "Event streams that are open.", self.door.streams, "{stream}"),
            self.lag.family(),
            *_process(self.started),
            *self.own,
        ]  # fmt: skip
        return found + await self.tally.families()

    def _pools(self) -> list[Family]:
        known = {mad: pool.statistics() for mad, pool in self.pools.items()}
        ready = [Point({"gen_ai.agent.name": mad}, each.ready) for mad, each in known.items()]
        failed = [Point({"gen_ai.agent.name": mad}, each.failures) for mad, each in known.items()]
        return [
            gauge("madlab.pool.ready", "Warm workers that wait.", ready, "{worker}"),
            counter("madlab.pool.failures", "Warm workers that could not be had.", failed, "{worker}"),
        ]


def _by(tallied: Mapping[tuple[str, str], int], *names: str) -> list[Point]:
    return [Point(dict(zip(names, key, strict=True)), count) for key, count in tallied.items()]


def _process(started: float) -> list[Family]:
    """The process, under the names that Prometheus' own clients use."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    virtual, resident = (int(each) * PAGE for each in Path("/proc/self/statm").read_text().split()[:2])
    return [
        gauge("process.start_time", "When the core started.", started, "s"),
        gauge("process.uptime", "For how long it runs.", time.time() - started, "s"),
        counter("process.cpu", "Processor time.", used.ru_utime + used.ru_stime, "s"),
        gauge("process.resident_memory", "Memory in use.", resident, "By"),
        gauge("process.virtual_memory", "Memory that is mapped.", virtual, "By"),
        gauge("process.open_fds", "Open files.", len(os.listdir("/proc/self/fd"))),
    ]
