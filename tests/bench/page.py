"""What the page asks, of a lab with a long past: 10,000 runs and 1,000,000 messages.

The journal is written through the real one, in large batches, and then opened by the core that `madlab up` starts: from
there on nothing is ours but the questions. A request is timed from its first byte sent to its last byte read, over the
lab's own socket; its baseline is the same exchange with a bare starlette handler that has the answer ready. An event
is timed from before its message is posted until the page's end of the stream has it; its baseline is a bare stream of
starlette, which has no journal, no topics and no past. Both servers are processes of their own, and their share of one
core is what the kernel says. `--small` takes a hundredth.
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from anyio import fail_after, sleep, to_thread

from core.app import open_journal
from core.dispatcher import SELF
from core.home import Home
from core.rogers.entry import Entry
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, KIND_REPLY, Message
from tests.bench import figure
from tests.bench.figure import Figure, in_turns
from tests.commands import Madlab
from tests.labs import a_home

RUNS, MESSAGES = 10_000, 1_000_000
STREAMS, RATE, LOAD_S = 100, 20.0, 15.0
ASKED = 60  # times each request
READY_S, REQUEST_MS, EVENT_MS, SHARE = 2.0, 100.0, 250.0, 0.25
SETTLE_S, IDLE_SHARE = 900.0, 0.05
BATCH = 4000  # entries at once
MADS = ("hopper", "marco", "mcnamara", "playfair")
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = """emads = []
[residents]
echo = { class = "tests.emads.echo:Echo" }
[llm]
usd_per_day = 100.0
"""


async def run() -> list[Figure]:
    """The start, every request, and a hundred pages that look."""
    scale = 100 if figure.small else 1
    with a_home(SETTINGS) as home:
        began = time.perf_counter()
        past = await write(home, RUNS // scale, MESSAGES // scale)
        written = Figure(f"written: {past.entries:,} entries", time.perf_counter() - began, "s")
        figures = [written, *await start(home)]
        madlab = Madlab(home)
        await to_thread.run_sync(madlab.up)
        try:
            await settled(home)
            figures += await requests(home, past)
            figures += await events(home)
        finally:
            await to_thread.run_sync(madlab, "down")
    return figures


# --- the past


@dataclass
class Past:
    """What was written."""

    runs: list[str] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    entries: int = 0
    long: str = ""  # a conversation of a tenth of all messages
    noisy: str = ""  # its run, which has written most of them as lines


async def write(home: Home, runs: int, messages: int) -> Past:
    """A journal as the lab would have it after a year or so."""
    past, chosen = Past(), random.Random(5)
    each = messages * 9 // 10 // runs
    async with open_journal(home) as journal:
        batch: list[Entry] = []
        for number in range(runs):
            sequence = past.entries + len(batch) + 1
            is_long = number == runs // 2
            said = messages // 10 if is_long else each
            entries = list(_run(past, number, sequence, said, chosen, time.time() - (runs - number) * 60))
            batch += entries
            if is_long:
                past.long, past.noisy = past.conversations[-1], past.runs[-1]
            while len(batch) >= BATCH:
                await journal.append(*batch[:BATCH])
                past.entries += BATCH
                batch = batch[BATCH:]
        if batch:
            await journal.append(*batch)
        past.entries += len(batch)
        journal.keep_cursor(SELF, "", past.entries)  # what these messages asked for was done
    return past


def _run(past: Past, number: int, sequence: int, said: int, chosen: random.Random, at: float) -> Iterator[Entry]:
    """One run with everything that it left: what was said, its lines, its acts, its models, its end."""
    mad, conversation, question = MADS[number % len(MADS)], new_id(), new_id()
    run = f"{mad}-{number:010x}"
    past.runs.append(run)
    past.conversations.append(conversation)
    goal = f"mend the {chosen.choice(('parser', 'scheduler', 'index', 'cache'))} of repository {number}"

    def message(kind: Any, text: str, sender: str, **fields: Any) -> Entry:
        id = fields.pop("id", None) or new_id()
        body = Message(id=id, conversation=conversation, sender=sender, kind=kind, text=text, at=at, **fields)
        word = "event" if kind == KIND_EVENT else "message"
        return Entry(id, word, body.SerializeToString(), conversation, sender, fields.get("recipient", ""), at)

    def entry(kind: str, name: str, sender: str = "core", /, **body: Any) -> Entry:
        return Entry(name, kind, json.dumps(body).encode(), conversation, sender, mad if kind == "run" else "", at)

    arguments = json.dumps({"goal": goal})
    yield message(KIND_CALL, "", "operator", id=question, recipient=mad, tool="code", data=arguments)
    asked: dict[str, Any] = {
        "id": run,
        "mad": mad,
        "conversation": conversation,
        "trigger": question,
        "trigger_sequence": sequence,
    }
    asked |= {"created": at, "parent": "", "terms": {}, "title": f"code: {goal}", "asker": "operator"}
    yield entry("run", f"run:{run}:requested", **asked, state="requested")
    for state in ("admitted", "starting", "ready"):
        yield entry("run", f"run:{run}:{state}", id=run, state=state)
    yield entry("run", f"run:{run}:running", id=run, state="running", started=at, deadline=at + 600)
    for step in range(said - 2):
        if step % 3 == 0:
            yield message(KIND_PROSE, f"{chosen.random()} is what I found in module {step}", mad, recipient="operator")
        else:
            yield message(KIND_EVENT, f"line {step}: {'lorem ipsum dolor ' * 4}", mad, tool="log")
    for step in range(2):
        act, attempt = new_id(), f"{new_id()}.1"
        url = f"https://example.org/{number}/{step}"
        web: dict[str, Any] = {"act": "web.fetch", "target": url, "details": {"method": "GET"}, "verdict": "allow"}
        web |= {"rule": "reading", "principals": [f"run:{run}", f"mad:{mad}"], "taint": []}
        yield entry("act", f"act:{act}:started", run, step="started", **web)
        done = {"act": "web.fetch", "status": 200, "bytes_sent": 100, "bytes_received": 5000}
        yield entry("act", f"act:{act}:outcome", run, step="outcome", **done)
        llm: dict[str, Any] = {"act": "llm.complete", "step": "started", "attempt": attempt, "request": new_id()}
        llm |= {"number": 1, "mad": mad, "run": run, "account": f"run:{run}", "alias": "smart", "provider": "p"}
        llm |= {"model": "m", "digest": "d", "held_tokens": 1000, "held_usd": 10**9}
        yield entry("act", f"act:llm:{attempt}:started", run, **llm)
        cost: dict[str, Any] = {"act": "llm.complete", "step": "outcome", "attempt": attempt, "outcome": "finished"}
        cost |= {"reason": "", "input": 900, "cached": 0, "cache_write": 0, "output": 80, "reasoning": 0}
        yield entry("act", f"act:llm:{attempt}:outcome", run, **cost, usd=10**8, assumed=0)
    yield message(
        KIND_REPLY, "done", mad, id=answer_id(Message(id=question)), recipient="operator", in_reply_to=question
    )
    outcome = "failed" if number % 20 == 0 else "succeeded"
    reason = f"tests fail after {number} s" if outcome == "failed" else ""
    ended: dict[str, Any] = {"outcome": outcome, "reason": reason, "ended": at + 50, "cost": {"usd": 0.1, "wall_s": 50}}
    yield entry("run", f"run:{run}:collecting", id=run, state="collecting", **ended, evidence={}, artifacts=[])
    yield entry(
        "usage", f"run:{run}:usage", run=run, began=at, step_s=1.0, cpu=[0.5] * 100, memory=[10**8] * 100, why=""
    )
    yield entry("run", f"run:{run}:destroyed", id=run, state="destroyed")
    if number % 50 == 0:
        digest = f"{number:032x}"
        form = json.dumps(
            {"kind": "web.fetch", "principals": [f"run:{run}"], "target": f"https://{number % 7}.example"}
        )
        known: dict[str, Any] = {"approval": digest, "step": "asked", "digest": digest, "form": form, "rule": "writing"}
        late = at + 600 if number % 500 else time.time() + 3600
        yield entry("approval", f"approval:{digest}:asked", run, **known, reason="it writes", expires=late)
    if number % 200 == 0:
        told: dict[str, Any] = {
            "run": run,
            "mad": mad,
            "what": f"the value of secret s{number % 3}",
            "place": "a file",
            "path": [],
        }
        yield entry("incident", f"incident:{number}", **told, encoding="plain", ended=[run])


# --- the start


async def start(home: Home) -> list[Figure]:
    """From the command until the core is ready, in turns with a lab that has no past."""

    async def up(home: Home) -> float:
        madlab, began = Madlab(home), time.perf_counter()
        await to_thread.run_sync(madlab.up)
        took = time.perf_counter() - began
        await to_thread.run_sync(madlab, "down")
        return took

    with a_home(SETTINGS) as empty:
        of = await in_turns({"long": partial(up, home), "none": partial(up, empty)}, rounds=3)
    size = sum(each.stat().st_size for each in home.path.glob("journal.db*")) / 2**20
    name = f"madlab up, to ready, behind a journal of {size:,.0f} MiB"
    return [
        Figure(name, of["long"], "s", "limit", READY_S, 1.0),
        Figure("the same", of["long"], "s", "an empty journal", of["none"]),
    ]


async def settled(home: Home) -> None:
    """Waits until the core has nothing left to do: the index of Dewey takes a while over so much that is new to it."""
    pid = home.holder()
    assert pid is not None
    with fail_after(SETTLE_S):
        while True:
            before, began = cpu_of(pid), time.perf_counter()
            await sleep(2.0)
            if cpu_of(pid) - before < IDLE_SHARE * (time.perf_counter() - began):
                return


# --- requests


async def requests(home: Home, past: Past) -> list[Figure]:
    """Each request that the page makes, asked with other names each time."""
    chosen, long, ran = random.Random(7), past.long, past.runs

    def some(names: Sequence[str]) -> str:
        return chosen.choice(names)

    def place() -> int:
        return chosen.randrange(past.entries)

    questions: dict[str, Callable[[], str]] = {
        "status": lambda: "/status",
        "what needs a person": lambda: "/attention",
        "the newest runs": lambda: "/runs?limit=50",
        "older runs": lambda: f"/runs?limit=50&before={some(ran)}",
        "runs of a MAD": lambda: f"/runs?limit=50&mad={some(MADS)}&before={some(ran)}",
        "failed runs": lambda: f"/runs?limit=50&outcome=failed&before={some(ran)}",
        "failed runs of a MAD": lambda: f"/runs?limit=50&outcome=failed&mad={some(MADS)}",
        "live runs": lambda: "/runs?limit=50&state=live",
        "runs by a word": lambda: (
            f"/runs?limit=50&q={some(('parser', 'cache', str(chosen.randrange(len(past.runs)))))}"
        ),
        "runs by a word that none has": lambda: "/runs?limit=50&q=nowhere",
        "a run": lambda: f"/runs/{some(ran)}",
        "what a run did": lambda: f"/runs/{some(ran)}/activity",
        "the lines of a run": lambda: f"/runs/{some(ran)}/logs?limit=200",
        "a long run": lambda: f"/runs/{past.noisy}",
        "what a long run did": lambda: f"/runs/{past.noisy}/activity",
        "the lines of a long run": lambda: f"/runs/{past.noisy}/logs?limit=200&after={place()}",
        "conversations": lambda: "/conversations?limit=50",
        "a conversation": lambda: f"/conversations/{some(past.conversations)}/messages?limit=100",
        "the end of a long one": lambda: f"/conversations/{long}/messages?limit=100&before={10**15}",
        "about a place of it": lambda: f"/conversations/{long}/messages?limit=100&around={place()}",
        "approvals": lambda: "/approvals",
        "incidents": lambda: "/incidents",
        "the audit": lambda: "/audit?limit=200",
        "patches": lambda: "/patches",
        "reports": lambda: "/reports",
        "costs of the day": lambda: "/costs?by=day",
        "the lab's map": lambda: "/lab/map",
        "MADs": lambda: "/mads",
    }
    figures = []
    async with at(home.api_socket) as client:
        for name, question in questions.items():
            taken = []
            for _ in range(ASKED):
                path = "/api/v1" + question()
                began = time.perf_counter()
                answer = await client.get(path)
                taken.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    raise RuntimeError(f"{path}: {answer.text[:300]}")
            figures.append(Figure(f"{name}, p95", p95(taken), "ms", "limit", REQUEST_MS, 1.0))
    async with bare(home) as (place_of_it, _), at(place_of_it) as client:
        taken = []
        for _ in range(ASKED):
            began = time.perf_counter()
            (await client.get("/ready")).raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
    figures.append(Figure("baseline: a bare handler with 64 KiB ready, p95", p95(taken), "ms"))
    return figures


# --- events


class Reader(asyncio.Protocol):
    """A page's end of a stream, which only looks where it must."""

    def __init__(self, path: str, *, looks: bool) -> None:
        self.count = 0  # messages
        self.seen: dict[bytes, float] = {}  # by id, when
        self.ended = False
        self._path, self._looks = path, looks
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.count += data.count(b"event: message")
        if self._looks:
            for id in re.findall(rb'"id":"([^"]+)"', data):
                self.seen.setdefault(id, now)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True


async def events(home: Home) -> list[Figure]:
    """A hundred open streams and an ordinary load: how late a message is, and the servers' shares of a core."""
    pid = home.holder()
    assert pid is not None
    call = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": "x" * 200}}
    async with at(home.api_socket) as client:

        async def looked_at(streams: int) -> tuple[float, list[float]]:
            """In a conversation of its own: an answer of the load before may come late."""
            conversation = new_id()

            async def speak() -> str:
                body = call | {"conversation": conversation, "id": new_id()}
                (await client.post("/api/v1/messages", json=body)).raise_for_status()
                return str(body["id"])

            topics = f"attention,runs,lab,conversation:{conversation}"
            return await _load(home.api_socket, f"/api/v1/events?topics={topics}", pid, speak, streams)

        alone, _ = await looked_at(0)
        ours, late = await looked_at(STREAMS)
        one, soon = await looked_at(1)
    async with bare(home) as (path, bare_pid), at(path) as client:

        async def shout() -> str:
            id = new_id()
            for each in (id, f"{id}.reply"):
                item = json.dumps({"id": each, "text": "x" * 500}, separators=(",", ":"))
                (await client.post("/say", content=item)).raise_for_status()
            return id

        bare_alone, _ = await _load(path, "", bare_pid, shout, 0)
        theirs, their_late = await _load(path, "/events", bare_pid, shout, STREAMS)
    load, many = f"{RATE:g} messages/s", f"{STREAMS} streams"
    median, their_median = statistics.median(late), statistics.median(their_late)
    return [
        Figure(f"publish → page, {many}, {load}, p95", p95(late), "ms", "limit", EVENT_MS, 1.0),
        Figure(f"publish → page, {many}, p95", p95(late), "ms", "bare stream", p95(their_late)),
        Figure(f"publish → page, {many}, median", median, "ms", "bare stream", their_median),
        Figure("publish → page, one stream, p95", p95(soon), "ms"),
        Figure(f"the core's share of one core, {many}, {load}", ours, "", "limit", SHARE, 1.0),
        Figure(f"of it: the {many}", ours - alone, "", "bare streams", theirs - bare_alone),
        Figure("the core's share with one stream", one, "", "without any", alone),
    ]


async def _load(
    path: Path, target: str, pid: int, speak: Callable[[], Awaitable[str]], streams: int
) -> tuple[float, list[float]]:
    """The share of one core that `pid` takes while `speak` is called as often as the load says; how late each is."""
    loop, readers = asyncio.get_running_loop(), list[Reader]()
    for number in range(streams):
        end = partial(Reader, target, looks=number == streams - 1)
        _, reader = await loop.create_unix_connection(end, str(path))
        readers.append(reader)
    await sleep(2.0)  # so that what opening costs is over
    before, began, spoken = cpu_of(pid), time.perf_counter(), dict[str, float]()
    each_s = 2 / RATE  # each is a question and an answer
    for number in range(round(LOAD_S / each_s)):
        await sleep(max(0.0, began + number * each_s - time.perf_counter()))
        at = time.perf_counter()
        spoken[await speak()] = at
    await sleep(max(0.0, began + LOAD_S - time.perf_counter()))
    share = (cpu_of(pid) - before) / (time.perf_counter() - began)
    if not readers:
        return share, []
    with fail_after(10):
        while min(each.count for each in readers) < 2 * len(spoken):
            await sleep(0.05)
    late = [(readers[-1].seen[id.encode()] - at) * 1000 for id, at in spoken.items()]
    for each in readers:
        if each.ended or each.count != 2 * len(spoken):
            raise RuntimeError(f"a stream has {each.count} of {2 * len(spoken)} messages")
        each.transport.abort()
    return share, late


# --- the baseline

BARE = """
import asyncio, json, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

open_now = set()
READY = {"items": ["x" * 1000] * 64}

async def ready(request):
    return JSONResponse(READY)

async def say(request):
    item = b"event: message\\ndata: " + await request.body() + b"\\n\\n"
    for each in open_now:
        each.put_nowait(item)
    return Response(status_code=204)

async def events(request):
    queue = asyncio.Queue()
    open_now.add(queue)
    async def items():
        try:
            while True:
                yield await queue.get()
        finally:
            open_now.discard(queue)
    return StreamingResponse(items(), media_type="text/event-stream")

app = Starlette(routes=[Route("/ready", ready), Route("/events", events), Route("/say", say, methods=["POST"])])
uvicorn.run(app, uds=sys.argv[1], log_level="error", access_log=False, http="h11", ws="none", lifespan="off")
"""


@asynccontextmanager
async def bare(home: Home) -> AsyncIterator[tuple[Path, int]]:
    """A server as a careful person would write it in a minute, and its pid."""
    path = home.runtime / "bare.sock"
    process = subprocess.Popen([sys.executable, "-c", BARE, str(path)], stderr=subprocess.PIPE)
    try:
        with fail_after(20):
            while not answers(path):
                await sleep(0.05)
        yield path, process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as knock:
        return knock.connect_ex(str(path)) == 0


@asynccontextmanager
async def at(path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the socket at `path`."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=60, trust_env=False
    ) as client:
        yield client


def cpu_of(pid: int) -> float:
    """Seconds of processor that a process and its threads have had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def p95(values: list[float]) -> float:
    """The value that one in twenty is above."""
    return sorted(values)[max(0, round(len(values) * 0.95) - 1)]
