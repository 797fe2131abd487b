"""Whether the core stays as it is: a mixed load at an ordinary rate, and what the core holds meanwhile.

The core is the one that `madlab up` starts. Everything that people, programs and MADs do with a lab is done all the
time, each thing at a rate of its own (`LOAD`): runs in sandboxes, scans, calls, prose, requests to a model whose key is
in the vault, blobs, pages and their event streams over TCP, an MCP client, secrets, archives, searches. Telemetry is
told to a collector, and `/metrics` is read. The first fifth of the time is for caches to fill; what the core holds in
the tenth behind it is the baseline of what it holds in the last fifth. Whatever does not do as it should is an error,
and so is a line in the core's log that says so.

MADLAB_SOAK_MINUTES says how long: 3 without it, 30 for the figure that counts. A line on stderr tells each tenth of it.
"""

import base64
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from anyio import CancelScope, create_task_group, current_time, fail_after, sleep, sleep_until, to_thread

from core.home import Home
from core.horace.snapshot import take
from protos.ids import new_id
from protos.serve import answer_id
from protos.tree import Caps
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.bench.figure import Figure
from tests.collector import Collector, a_collector
from tests.commands import Madlab
from tests.labs import ROOT, a_home
from tests.mcp_clients import MODES, over_http
from tests.model_server import ModelServer, Play, model_server

LONG = True  # not without being named, unless everything is run
MINUTES = float(os.environ.get("MADLAB_SOAK_MINUTES", "3"))
SAMPLE_S = 3.0
STREAMS = 20
ACT_S = 120.0  # the longest that one thing of the load may take
WARM, BASE_END, LAST = 0.2, 0.3, 0.8  # parts of the whole: the baseline is behind the first, the figure behind the last
GROWTH = 1.1
KEY = "sk-soak-5e8d1c0b7a-of-a-provider"
WORDS = ("lemur", "otter", "heron", "quince", "maple", "basalt", "copper", "violet", "saffron", "ember", "lagoon")
IMAGES = ("base", "mcnamara", "tests/emads/echo")
SETTINGS = """
emads = ["{root}/tests/emads/echo", "{root}/periphery/mcnamara"]
{runtime}
[residents.parrot]
class = "tests.emads.echo:Echo"
[vault]
key_file = "vault.key"
[telemetry]
otlp = "{otlp}"
signals = ["traces", "metrics", "logs"]
metrics_s = 10
[providers.here]
kind = "openai"
base_url = "{model}"
key = "secret://model-key"
[models.one]
provider = "here"
model = "scripted"
input_usd = 1
output_usd = 2
"""


async def run() -> list[Figure]:
    """What the core held behind the warm-up and at the end, and what went wrong."""
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(model_server(Play(text="The otter sleeps by the lagoon. " * 8)))
        collector = await stack.enter_async_context(a_collector())
        with_bubblewrap = shutil.which("bwrap") is not None
        settings = SETTINGS.format(
            root=ROOT,
            otlp=collector.address,
            model=models.openai,
            runtime='[sandbox]\nruntime = "bwrap"' if with_bubblewrap else "",
        )
        home = stack.enter_context(a_home(settings, images=IMAGES, unpacked=with_bubblewrap))
        madlab = Madlab(home)
        await to_thread.run_sync(madlab.up)
        try:
            soak = Soak(home, models, collector)
            await soak.whole(MINUTES * 60)
        finally:
            ended = await to_thread.run_sync(madlab, "down")
        if ended.code != 0:
            soak.wrong("madlab down", ended.err)
        soak.read_log()
        return soak.figures()


@dataclass(frozen=True)
class Sample:
    """What the core holds at one moment. Sizes are MiB."""

    at: float  # as a part of the whole
    resident: float
    anonymous: float  # of it: not pages of files
    descriptors: int
    threads: int
    wal: float
    journal: float


def look(home: Home, pid: int, at: float) -> Sample:
    """Looks at it, as the kernel sees it."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {each[0]: int(each[1]) / 1024 for each in lines}
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    journal = home.path / "journal.db"
    return Sample(
        at,
        sizes["Rss:"],
        sizes["Anonymous:"],
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
        sum(each.stat().st_size for each in home.path.glob("*.db-wal")) / 2**20,
        journal.stat().st_size / 2**20,
    )


@dataclass
class Soak:
    """One lab under load, and what was seen of it."""

    home: Home
    models: ModelServer
    collector: Collector
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    seen: int = 0  # events of all streams

    async def whole(self, for_s: float) -> None:
        """Does everything for so long."""
        pid = self.home.holder()
        assert pid is not None
        own = httpx2.AsyncHTTPTransport(uds=str(self.home.api_socket))
        async with (
            httpx2.AsyncClient(transport=own, base_url="http://lab", timeout=ACT_S) as self.local,
            httpx2.AsyncClient(timeout=ACT_S, trust_env=False) as self.page,
        ):
            await self._prepare()
            async with create_task_group() as tasks:
                began = current_time()
                for number in range(STREAMS):
                    tasks.start_soon(self._stream, number)
                for name, (every_s, act) in LOAD.items():
                    tasks.start_soon(self._again_and_again, name, every_s, act)
                tenth = 0
                while (at := (current_time() - began) / for_s) < 1:
                    self.samples.append(await to_thread.run_sync(look, self.home, pid, at))
                    if at * 10 >= tenth:
                        tenth += 1
                        self._tell(at * for_s)
                    await sleep(SAMPLE_S)
                    self._forget()
                tasks.cancel_scope.cancel()
            self._tell(for_s)
            await self._look_back()

    async def _prepare(self) -> None:
        """A key in the vault, a client with a token, a session of a page, and something to scan."""
        value = base64.b64encode(KEY.encode()).decode()
        await self.post("/secrets/model-key", {"value": value}, method="PUT")
        self.token = (await self.post("/clients", {"name": "soak", "may": ["parrot", "echo"]}))["token"]
        ticket = await self.post("/tickets", {})
        self.origin = ticket["url"].partition("/#")[0]
        opened = await self.page.post(f"{self.origin}/api/v1/sessions", json={"ticket": ticket["ticket"]})
        opened.raise_for_status()
        self.page.headers["authorization"] = f"Bearer {opened.json()['token']}"
        caps = Caps()
        self.tree = b"".join(take(ROOT / "core/telemetry", caps, history=False).pack(caps, note=lambda _: None))

    # --- asking

    async def post(self, path: str, body: Mapping[str, Any], *, method: str = "POST") -> Any:
        """Sends JSON over the lab's own socket; the JSON that comes back."""
        answer = await self.local.request(method, f"/api/v1{path}", json=body)
        if not answer.is_success:
            raise RuntimeError(f"{method} {path.split('/')[1]}: {answer.status_code} {answer.text[:200]}")
        return answer.json()

    async def see(self, path: str) -> Any:
        """What a page gets over TCP."""
        answer = await self.page.get(f"{self.origin}/api/v1{path}")
        if not answer.is_success:
            raise RuntimeError(f"GET {path.split('/')[1]}: {answer.status_code} {answer.text[:200]}")
        return answer.json()

    async def ask(self, recipient: str, tool: str, *, blobs: Any = (), **arguments: Any) -> tuple[dict[str, Any], Any]:
        """Calls a tool and follows the conversation until it is answered; what was said, and the answer."""
        body = {"recipient": recipient, "kind": "call", "tool": tool, "arguments": arguments, "blobs": list(blobs)}
        return await self._answered(body)

    async def _answered(self, body: dict[str, Any], kind: str = "reply") -> tuple[dict[str, Any], Any]:
        said = await self.post("/messages", body)
        wanted = answer_id(Message(id=said["id"], kind=KIND_CALL))
        headers = {"accept": "text/event-stream"}
        path = f"/api/v1/conversations/{said['conversation']}/messages"
        async with self.local.stream("GET", path, headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:") and (message := json.loads(line[5:])).get("id") == wanted:
                    if message["kind"] != kind:
                        raise RuntimeError(f"{body['recipient']}: {message['kind']}: {message['text'][:200]}")
                    return said, message
        raise RuntimeError(f"{body['recipient']}: the conversation ended without an answer")

    async def _succeeded(self, run: str) -> None:
        while (found := await self.see(f"/runs/{run}"))["state"] != "destroyed":
            await sleep(0.5)
        if found["outcome"] != "succeeded":
            raise RuntimeError(f"a run of {found['mad']} is {found['outcome']}: {found['reason'][:200]}")

    # --- the load

    async def echo(self) -> None:
        """A run in a sandbox, from the call until it is gone."""
        text = words(6)
        said, answer = await self.ask("echo", "say", text=text)
        assert answer["data"] == {"text": text}
        await self._succeeded(said["run"])

    async def scan(self) -> None:
        """A scan of a room of this repository."""
        sent = await self.local.post("/api/v1/blobs", content=self.tree)
        blob = {"digest": sent.json()["digest"], "name": "telemetry", "media_type": "application/x-tar"}
        wanted = {"source": blob["digest"], "kind": "tree", "name": "telemetry", "history": False}
        said, _ = await self.ask("mcnamara", "scan", blobs=[blob], **wanted)
        await self._succeeded(said["run"])
        await self.see(f"/runs/{said['run']}/report")

    async def call(self) -> None:
        """A call to a MAD in the core, whose answer is large now and then."""
        await self.ask("parrot", "repeat", text=words(3), times=random.choice((1, 5, 2000)))

    async def prose(self) -> None:
        """Something said to one that does not think, and says so."""
        await self._answered(
            {"recipient": "parrot", "kind": "prose", "text": f"where is the {words(4)} #{words(1)}"}, kind="fault"
        )

    async def model(self) -> None:
        """A request to a model, whose key comes from the vault."""
        _, answer = await self.ask("fiedler", "ask", prompt=f"Where is the {words(2)}?")
        assert "otter" in answer["data"]["text"], answer
        assert self.models.requests[-1].headers["authorization"] == f"Bearer {KEY}"

    async def blob(self) -> None:
        """Bytes in and out."""
        content = random.randbytes(random.choice((1_000, 100_000, 3_000_000)))
        sent = await self.page.post(f"{self.origin}/api/v1/blobs", content=content)
        digest = sent.json()["digest"]
        got = await self.page.get(f"{self.origin}/api/v1/blobs/{digest}")
        assert f"sha256:{hashlib.sha256(got.content).hexdigest()}" == digest

    async def look_around(self) -> None:
        """A person with the page: every view once."""
        runs = (await self.see("/runs?limit=50"))["runs"]
        if runs:
            run = random.choice(runs)["id"]
            for path in (f"/runs/{run}", f"/runs/{run}/activity", f"/runs/{run}/logs?limit=200"):
                await self.see(path)
        talks = (await self.see("/conversations?limit=50"))["conversations"]
        if talks:
            talk = random.choice(talks)["id"]
            await self.see(f"/conversations/{talk}/about")
            await self.see(f"/conversations/{talk}/messages?limit=100")
        for path in (
            "/status", "/attention", f"/search?q={words(1)}", "/audit?limit=200", "/lab/map", "/lab/pool", "/mads",
            "/patches", "/reports", "/costs?by=day", "/approvals", "/incidents", "/archives", "/index", "/secrets",
        ):  # fmt: skip
            await self.see(path)

    async def program(self) -> None:
        """A client of MCP: comes, lists, calls, goes."""
        mode = random.choice(MODES)
        async with over_http(self.origin, self.token, mode=mode) as client:
            assert "echo_say" in {each.name for each in (await client.list_tools()).tools}
            result = await client.call_tool("parrot_say", {"text": words(3)})
            assert not result.is_error, result

    async def scrape(self) -> None:
        """What Prometheus does."""
        answer = await self.local.get("/metrics")
        answer.raise_for_status()
        assert "madlab_" in answer.text

    async def secret(self) -> None:
        """A secret that is set, granted, renewed and removed."""
        name = f"soak-{random.randrange(10**9)}"
        value = {"value": base64.b64encode(random.randbytes(30).hex().encode()).decode()}
        await self.post(f"/secrets/{name}", value, method="PUT")
        grant = {"id": f"g{random.randrange(10**9):09}", "to": "mad:marco", "place": "api.example.org"}
        await self.post(f"/secrets/{name}/grants", grant)
        await self.post(f"/secrets/{name}/rotate", value | {"at_once": True})
        await self.see(f"/secrets/{name}/versions")
        await self.post(f"/secrets/{name}/remove", {})

    async def archive(self) -> None:
        """A conversation that goes into the archive, is found and read there, and comes back or is forgotten."""
        word = f"soak{new_id().replace('-', '')}"
        said, _ = await self._answered(
            {"recipient": "parrot", "kind": "prose", "text": f"where is {word}"}, kind="fault"
        )
        await self.post("/archives", {"conversation": said["conversation"]})
        while not (await self.see(f"/search?q={word}"))["hits"]:
            await sleep(0.5)
        assert len((await self.see(f"/conversations/{said['conversation']}/messages"))["messages"]) == 2
        if random.random() < 0.5:
            await self.post("/archives/restore", {"conversation": said["conversation"]})
        else:
            await self.post(f"/conversations/{said['conversation']}/forget", {})

    # --- around it

    async def _again_and_again(self, name: str, every_s: float, act: Callable[["Soak"], Awaitable[None]]) -> None:
        await sleep(random.random() * every_s)
        due = current_time()
        while True:
            try:
                with fail_after(ACT_S):
                    await act(self)
                self.done[name] += 1
            except Exception as error:  # noqa: BLE001  whatever it is, it is counted, and the load goes on
                self.wrong(name, repr(error))
            due = max(due + every_s, current_time())
            await sleep_until(due)

    async def _stream(self, number: int) -> None:
        """One page that looks. Every fourth comes and goes, some where they were, some anew."""
        last = ""
        while True:
            headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
            path = f"{self.origin}/api/v1/events?topics=attention,runs,lab"
            try:
                with CancelScope(deadline=current_time() + random.uniform(5, 40)) as scope:
                    if number % 4:
                        scope.deadline = float("inf")
                    async with self.page.stream("GET", path, headers=headers, timeout=60) as stream:
                        stream.raise_for_status()
                        async for line in stream.aiter_lines():
                            self.seen += line.startswith("event:")
                            if line.startswith("id:"):
                                last = line[3:].strip()
                if not scope.cancelled_caught:
                    self.wrong("a stream", "it ended")
                    await sleep(1)
            except Exception as error:  # noqa: BLE001  likewise
                self.wrong("a stream", repr(error))
                await sleep(1)
            self.done["a stream that went"] += 1
            last = random.choice(("", last))

    def wrong(self, where: str, what: str) -> None:
        """Counts something that should not be."""
        error = f"{where}: {what}"[:400]
        if not self.errors[error]:
            print(f"soak: {error}", file=sys.stderr, flush=True)
        self.errors[error] += 1

    def _forget(self) -> None:
        """What we need not hold; the core is what is looked at, and this is on the same machine."""
        del self.models.requests[:-100], self.collector.spans[:], self.collector.lines[:]
        self.collector.raw.clear()
        self.collector.heads.clear()

    def _tell(self, seconds: float) -> None:
        now = self.samples[-1]
        print(
            f"soak: {seconds / 60:5.1f} min: {now.resident:6.1f} MiB ({now.anonymous:.1f} anonymous),"
            f" {now.descriptors} descriptors, {now.threads} threads, WAL {now.wal:.1f} MiB,"
            f" journal {now.journal:.1f} MiB, {sum(self.done.values())} done, {self.seen} events,"
            f" {sum(self.errors.values())} errors",
            file=sys.stderr,
            flush=True,
        )

    async def _look_back(self) -> None:
        """What the lab itself says went wrong."""
        for each in (await self.see("/runs?limit=200&outcome=failed"))["runs"]:
            self.wrong("a failed run", f"{each['id']}: {each['reason'][:200]}")
        if self.collector.refused:
            self.wrong("telemetry", f"{self.collector.refused} batches were refused")

    def read_log(self) -> None:
        """Lines of the core that say that something went wrong."""
        for line in (self.home.path / "core.log").read_text().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                self.wrong("core.log", line)  # nobody writes there but the log
                continue
            if said.get("level") in ("warning", "error", "critical"):
                self.wrong("core.log", line)

    def figures(self) -> list[Figure]:
        """The last fifth beside what was behind the first."""
        for what, count in self.done.items():
            print(f"soak: {count} times {what}", file=sys.stderr)

        def beside(
            text: str,
            name: str,
            unit: str,
            limit: float | None = GROWTH,
            taken: Callable[[list[float]], float] = statistics.median,
        ) -> Figure:
            at_last = taken([getattr(each, name) for each in self.samples if each.at >= LAST])
            before = taken([getattr(each, name) for each in self.samples if WARM <= each.at < BASE_END])
            return Figure(text, at_last, unit, "behind the warm-up", before, limit)

        return [
            beside(f"the core's memory, {MINUTES:g} min", "resident", "MiB"),
            beside("of it: not pages of files", "anonymous", "MiB", None),
            beside("descriptors, the fewest", "descriptors", "", taken=min),  # runs that go on have their own
            beside("threads, the fewest", "threads", "", taken=min),
            Figure("write-ahead logs, the most", max(each.wal for each in self.samples), "MiB"),
            Figure("things done", float(sum(self.done.values())), ""),
            Figure("errors", float(sum(self.errors.values())), ""),
        ]


LOAD: Mapping[str, tuple[float, Callable[[Soak], Awaitable[None]]]] = {
    "a run in a sandbox": (5.0, Soak.echo),
    "a scan": (75.0, Soak.scan),
    "a call": (0.5, Soak.call),
    "prose": (1.0, Soak.prose),
    "a request to a model": (2.0, Soak.model),
    "a blob in and out": (3.0, Soak.blob),
    "a look at every page": (5.0, Soak.look_around),
    "an MCP client": (7.0, Soak.program),
    "a scrape": (10.0, Soak.scrape),
    "a secret's life": (20.0, Soak.secret),
    "an archive": (30.0, Soak.archive),
}


def words(count: int) -> str:
    """Some words."""
    return " ".join(random.choices(WORDS, k=count))
