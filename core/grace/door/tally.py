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
from typing import Any

from core.policy.targets import address_of
from core.rogers.entry import Row

WINDOW_S = 60
EDGES, OPEN = 1_000, 10_000
TIMES = 64  # that an edge remembers
NAME = 100  # characters
EVERYBODY = "everybody"
RUN = re.compile(r"-[0-9a-f]{10}$")  # what stands behind its MAD's name in a run's id
ANSWER = ".reply"  # ends the id of an answer, behind the id of what it answers
PORTS = {"llm": "llm", "web": "web", "files": "files", "secret": "secrets"}  # the port of each family of acts

Place = tuple[str, str]  # what a node is, and its name: ("mad", "hopper"), ("port", "web"), ("host", "pypi.org")


class Edge:
    """What went from one place to another."""

    __slots__ = ("_in_second", "_second", "_seconds", "count", "failed", "last", "times")

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self.last = 0.0  # seconds since the epoch
        self.times: deque[float] = deque(maxlen=TIMES)  # how long an answer took
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW_S)  # which one, and how much in it
        self._second = self._in_second = 0

    def take(self, at: float) -> None:
        """One more."""
        self.count += 1
        self.last = at
        second = int(at)
        if second != self._second:
            self._seconds.append((self._second, self._in_second))
            self._second, self._in_second = second, 0
        self._in_second += 1

    def recent(self, now: float) -> int:
        """How much there was in the last minute."""
        seconds = (*self._seconds, (self._second, self._in_second))
        return sum(number for second, number in seconds if second > now - WINDOW_S)

    @property
    def middle_s(self) -> float | None:
        """How long an answer takes: the median of the last ones."""
        return sorted(self.times)[len(self.times) // 2] if self.times else None


class Tally:
    """The edges of the map."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._talks: OrderedDict[tuple[str, str], Edge] = OrderedDict()  # by sender and recipient, as rows have them
        self._ways: OrderedDict[tuple[Place, Place], Edge] = OrderedDict()
        self._open: OrderedDict[str, tuple[Sequence[Edge], float]] = OrderedDict()

    def committed(self, rows: Sequence[Row]) -> None:
        """For the journal to call after each commit."""
        for row in rows:
            kind = row.kind
            if kind == "message" or kind == "event":
                edge = _edge(self._talks, (row.sender, row.recipient))
                edge.take(row.at)
                if row.id.endswith(ANSWER):
                    self._close(row.id, row.at)
                elif row.recipient:
                    self._wait(row.id + ANSWER, (edge,), row.at)
            elif kind == "act":
                self._act(row)

    def edges(self) -> Iterator[tuple[Place, Place, Edge]]:
        """All there are."""
        for (sender, recipient), edge in self._talks.items():
            yield participant(sender), participant(recipient or EVERYBODY), edge
        for (source, target), edge in self._ways.items():
            yield source, target, edge

    def as_json(self) -> list[dict[str, Any]]:
        """For the door."""
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

    def _act(self, row: Row) -> None:
        body = row.body or b""
        family = body[9:30].partition(b".")[0].decode("ascii", "replace") if body.startswith(b'{"act": "') else ""
        if family not in PORTS:
            return
        _, _, rest = row.id.partition(":")
        id, _, step = rest.rpartition(":")
        if step == "outcome":
            failed = b'"failed": "' in body or b'"outcome": "failed"' in body
            self._close(id, row.at, failed=failed)
        elif step in ("started", "denied"):
            way = self._way(row, family, body)
            for each in way:
                each.take(row.at)
                each.failed += step == "denied"
            if step == "started":
                self._wait(id, way, row.at)

    def _way(self, row: Row, family: str, body: bytes) -> Sequence[Edge]:
        """The edges that an act goes along: to its port, and beyond it where something lies there."""
        told: dict[str, Any] = json.loads(body) if family in ("llm", "web") else {}
        here, port = participant(str(told.get("mad") or RUN.sub("", row.sender))), ("port", PORTS[family])
        beyond = _beyond(family, told)
        way = [_edge(self._ways, (here, port))]
        return way if beyond is None else [*way, _edge(self._ways, (port, beyond))]

    def _wait(self, id: str, way: Sequence[Edge], at: float) -> None:
        self._open[id] = way, at
        if len(self._open) > OPEN:
            self._open.popitem(last=False)

    def _close(self, id: str, at: float, *, failed: bool = False) -> None:
        way, began = self._open.pop(id, ((), 0.0))
        for each in way:
            each.times.append(max(0.0, at - began))
            each.failed += failed


def _edge(edges: OrderedDict[Any, Edge], key: Any) -> Edge:
    """The edge of that key, which is the last one used now; what was used longest ago makes room."""
    edge = edges.get(key)
    if edge is None:
        edge = edges[key] = Edge()
        if len(edges) > EDGES:
            edges.popitem(last=False)
    else:
        edges.move_to_end(key)
    return edge


def participant(name: str) -> Place:
    """Who says something, or hears it."""
    if name == "operator" or name.startswith("client:"):
        return "person", name[:NAME]
    return ("core" if name in ("core", EVERYBODY) else "mad"), name[:NAME]


def node_id(place: Place) -> str:
    """What a node is called: "mad:hopper"."""
    return ":".join(place)


def _beyond(family: str, told: dict[str, Any]) -> Place | None:
    """What lies beyond a port: a model, a host."""
    if family == "llm":
        model = "/".join(str(told.get(each, "")) for each in ("provider", "model"))
        return ("model", model[:NAME]) if model != "/" else None
    address = address_of(str(told.get("target", ""))) if family == "web" else None
    return ("host", address.host[:NAME]) if address is not None else None
