"""The door's routes for the lab as it runs now: the map of who talks to whom, its sandboxes and pools, doctor's card.

The map's edges are the tally's, its nodes are what the lab knows of itself; both are made when somebody asks. The
doctor opens sandboxes and times the disk, so it is asked when a person wants it, runs in a thread of its own with an
event loop of its own, once at a time, and what it found is kept.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import anyio
import structlog
from anyio import create_task_group, to_thread
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.doctor import Finding, as_json, examine
from core.grace.door.edge import Empty, json_of, lab_of
from core.grace.door.routes import Endpoint
from core.grace.door.shapes import mads_json
from core.grace.door.tally import WINDOW_S, Tally
from core.lab import Lab

PORTS = {
    "llm": "models, within budgets",
    "web": "the way out, by policy",
    "files": "blobs and named files",
    "secrets": "used by handle, never seen",
}
DAY_S = 86_400.0
NODES = 500

logger = structlog.get_logger()


@dataclass
class Card:
    """What the doctor found, and whether it is looking."""

    findings: list[Finding] = field(default_factory=list)
    at: float = 0.0  # seconds since the epoch; 0: never
    took_s: float = 0.0
    running: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the door."""
        return as_json(self.findings) | {
            "at": self.at or None,
            "took_s": round(self.took_s, 1),
            "running": self.running,
        }


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/lab/map", _map, "Who talks to whom, how much and how fast, over the last minute.")
    yield Endpoint("GET", "/lab/pool", _pool, "Every sandbox there is, and what is kept warm.")
    yield Endpoint("GET", "/lab/doctor", _doctor, "What the doctor found when it looked last.")
    yield Endpoint(
        *("POST", "/lab/doctor", _examine, "Has the doctor look at this machine; what it finds is there later."),
        body=Empty,
        status=202,
    )


# --- the map


async def _map(request: Request) -> Response:
    lab, tally = lab_of(request), request.app.state.tally
    edges = tally.as_json()
    nodes = {each["id"]: each for each in await _nodes(lab)}
    for place in {end for source, target, _ in tally.edges() for end in (source, target)}:
        nodes.setdefault(":".join(place), {"id": ":".join(place), "kind": place[0], "name": place[1]})
    return JSONResponse(
        {"at": time.time(), "window_s": WINDOW_S, "nodes": list(nodes.values())[:NODES], "edges": edges}
    )


async def _nodes(lab: Lab) -> list[dict[str, Any]]:
    """What is there whether it talks or not."""
    live = Counter(each.mad for each in await lab.runs.live())
    costs = await _costs(lab)
    found: list[dict[str, Any]] = [{"id": "person:operator", "kind": "person", "name": "operator"}]
    found += [
        each | {"id": f"mad:{each['name']}", "mad": each["kind"], "kind": "mad", "live": live[each["name"]]}
        | {"cost": costs.get(each["name"])}
        for each in mads_json(lab)
    ]  # fmt: skip
    found += [{"id": f"port:{name}", "kind": "port", "name": name, "summary": what} for name, what in PORTS.items()]
    return found


async def _costs(lab: Lab) -> dict[str, dict[str, Any]]:
    """What models cost each MAD in the last day."""
    if lab.services.fiedler is None:
        return {}
    found = await lab.services.fiedler.ledger.costs("mad", since=time.time() - DAY_S)
    return {
        each.name: {
            "calls": each.calls,
            "failed": each.failed,
            "usd": each.usd,
            "tokens": each.input_tokens + each.output_tokens,
        }
        for each in found.costs
    }


# --- sandboxes


async def _pool(request: Request) -> Response:
    lab = lab_of(request)
    pools = [
        {"mad": name, **asdict(pool.statistics())}
        for name, pool in lab.pools.items()
    ]  # fmt: skip
    runs = {each.id: each for each in await lab.runs.live()}
    sandboxes = [
        each | {"started": run.started or None, "deadline": run.deadline or None, "title": run.title}
        if (run := runs.get(str(each["run"]))) is not None
        else each
        for each in lab.dispatcher.sandboxes()
    ]
    return JSONResponse({"pools": pools, "sandboxes": sandboxes, "counts": lab.dispatcher.counts()})


# --- the doctor


async def _doctor(request: Request) -> Response:
    card: Card = request.app.state.card
    return JSONResponse(card.as_json())


async def _examine(request: Request) -> Response:
    await json_of(request, Empty)
    card: Card = request.app.state.card
    if card.running:
        return JSONResponse(card.as_json(), 202)
    card.running = True
    look = BackgroundTask(_look, card, str(lab_of(request).home.path), request.app.state.closing)
    return JSONResponse(card.as_json(), 202, background=look)


async def _look(card: Card, home: str, closing: anyio.Event) -> None:
    """Has the doctor look, unless the lab ends meanwhile."""
    began = time.monotonic()
    try:
        async with create_task_group() as tasks:

            async def leave() -> None:
                await closing.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave)
            card.findings = await to_thread.run_sync(partial(anyio.run, _examined, home), abandon_on_cancel=True)
            card.at, card.took_s = time.time(), time.monotonic() - began
            tasks.cancel_scope.cancel()
    except Exception:  # the doctor may stumble over anything on a machine; the lab goes on
        logger.exception("the doctor could not look")
    finally:
        card.running = False


async def _examined(home: str) -> list[Finding]:
    return [each async for each in examine(home)]


def opened(lab: Lab) -> tuple[Tally, Card]:
    """What is kept for these routes; the tally hears of every commit from now on."""
    tally = Tally()
    lab.journal.on_commit(tally.committed)
    return tally, Card()
