"""Who talks to whom, how much and how fast: counted in memory from what the journal commits, for the map of the lab.

    sender ──said──▶ recipient            a message, an event; the answer to it gives the time that it took
    MAD ──act──▶ port ──▶ model, host     an act's *started*; its *outcome* gives the time, and whether it failed

Each row costs the same, however much there was before: a look into a few dictionaries, and for an act the parsing of
its body. Edges, hosts and what is waited for are bounded: what was used longest ago makes room. Nothing is kept over a
restart, and nothing here decides anything.
"""

import json
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.policy.targets import address_of
from core.rogers.entry import Row

WINDOW_S = 60
EDGES, OPEN = 1_000, 10_000
TIMES = 64  # that an edge remembers
NAME = 100  # characters
EVERYBODY = "everybody"
RUN = re.compile(r"-[0-9a-f]{10}$")  # what stands behind its MAD's name in a run's id
ACT = re.compile(r"act:(.+):(started|outcome|denied)$")

Place = tuple[str, str]  # what a node is, and its name: ("mad", "hopper"), ("port", "web"), ("host", "pypi.org")


@dataclass
class Edge:
    """What went from one place to another."""

    count: int = 0
    failed: int = 0
    last: float = 0.0  # seconds since the epoch
    seconds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW_S))  # which one, how much in it
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES))  # how long an answer took

    def take(self, at: float) -> None:
        """One more."""
        self.count += 1
        self.last = max(self.last, at)
        second = int(at)
        if self.seconds and self.seconds[-1][0] >= second:
            latest, number = self.seconds[-1]
            self.seconds[-1] = latest, number + 1
        else:
            self.seconds.append((second, 1))

    def recent(self, now: float) -> int:
        """How much there was in the last minute."""
        return sum(number for second, number in self.seconds if second > now - WINDOW_S)

    @property
    def middle_s(self) -> float | None:
        """How long an answer takes: the median of the last ones."""
        return sorted(self.times)[len(self.times) // 2] if self.times else None


class Tally:
    """The edges of the map."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._edges: OrderedDict[tuple[Place, Place], Edge] = OrderedDict()
        self._open: OrderedDict[str, tuple[list[Edge], float]] = OrderedDict()

    def committed(self, rows: Sequence[Row]) -> None:
        """For the journal to call after each commit."""
        for row in rows:
            if row.kind in ("message", "event"):
                self._said(row)
            elif row.kind == "act":
                self._act(row)

    def edges(self) -> Iterator[tuple[Place, Place, Edge]]:
        """All there are."""
        for (source, target), edge in self._edges.items():
            yield source, target, edge

    def as_json(self) -> list[dict[str, Any]]:
        """For the door: what was used last comes last."""
        now = self._clock()
        return [
            {
                "from": node_id(source),
                "to": node_id(target),
                "count": edge.count,
                "minute": edge.recent(now),
                "failed": edge.failed,
                "middle_ms": None if edge.middle_s is None else round(edge.middle_s * 1000, 2),
                "last": edge.last,
            }
            for source, target, edge in self.edges()
        ]

    def _said(self, row: Row) -> None:
        edge = self._edge(participant(row.sender), participant(row.recipient or EVERYBODY))
        edge.take(row.at)
        self._close(row.id, row.at)
        if row.kind == "message" and row.recipient:
            self._wait(f"{row.id}.reply", [edge], row.at)

    def _act(self, row: Row) -> None:
        found = ACT.match(row.id)
        if found is None:
            return
        if found[2] == "outcome":
            failed = b'"failed": "' in (row.body or b"") or b'"outcome": "failed"' in (row.body or b"")
            self._close(found[1], row.at, failed=failed)
            return
        body = json.loads(row.body or b"{}")
        port, beyond = _way(body)
        if not port:
            return
        here = participant(str(body.get("mad") or RUN.sub("", row.sender)))
        way = [self._edge(here, ("port", port))]
        if beyond is not None:
            way.append(self._edge(("port", port), beyond))
        for each in way:
            each.take(row.at)
            each.failed += found[2] == "denied"
        if found[2] == "started":
            self._wait(found[1], way, row.at)

    def _edge(self, source: Place, target: Place) -> Edge:
        key = source, target
        edge = self._edges.get(key)
        if edge is None:
            edge = self._edges[key] = Edge()
            if len(self._edges) > EDGES:
                self._edges.popitem(last=False)
        else:
            self._edges.move_to_end(key)
        return edge

    def _wait(self, id: str, way: list[Edge], at: float) -> None:
        self._open[id] = way, at
        if len(self._open) > OPEN:
            self._open.popitem(last=False)

    def _close(self, id: str, at: float, *, failed: bool = False) -> None:
        way, began = self._open.pop(id, ([], 0.0))
        for each in way:
            each.times.append(max(0.0, at - began))
            each.failed += failed


def participant(name: str) -> Place:
    """Who says something, or hears it."""
    if name == "operator" or name.startswith("client:"):
        return "person", name[:NAME]
    return ("core" if name in ("core", EVERYBODY) else "mad"), name[:NAME]


def node_id(place: Place) -> str:
    """What a node is called: "mad:hopper"."""
    return ":".join(place)


def _way(body: dict[str, Any]) -> tuple[str, Place | None]:
    """The port that an act goes through, and what lies beyond it; no port where it is none of theirs."""
    kind, target = str(body.get("act", "")), str(body.get("target", ""))
    family = kind.partition(".")[0]
    if family == "llm":
        model = "/".join(str(body.get(each, "")) for each in ("provider", "model"))
        return "llm", ("model", model[:NAME]) if model != "/" else None
    if family == "web":
        address = address_of(target)
        return "web", ("host", address.host[:NAME]) if address is not None else None
    return (family + "s" if family == "secret" else family, None) if family in ("files", "secret") else ("", None)
