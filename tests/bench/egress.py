"""What the broker costs: a request of a worker, 200 at once, and a large answer, beside the same without it.

Three processes, as in life: a client, the lab, a web server. A request is measured from the call of the port to the end
of the answer: policy, journal, name, address, connection of the run's own. The baseline is httpx2 in the same process,
straight to the same server, connection kept, and what is granted on top is 3 ms and the one commit that stands on the
way (*started*). Once at the port itself, once as a worker has it, with contract and gate between. The large answer
passes a plain proxy as well, which does nothing but copy bytes, in the lab's process. The 200 are ten runs' twenty;
the server answers none of them before all have arrived.

On a machine that others use as well, how long a stream takes says little of it. So what each process spends on one is
told, too: of the processor's time, as much as a plain proxy's stream costs the same three.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import httpx2
from anyio import create_task_group

from core.gate import Session, hash_of, open_door
from core.lab import Lab
from core.memory import give_memory_back
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Allowance
from core.ports.web import LocalWeb
from protos.ids import new_id
from protos.remote import connect, ports_of
from protos.v1.session_pb2 import Assignment
from protos.v1.web_pb2 import RequestHead
from protos.web import Web
from tests.bench.dispatch import lone_commit
from tests.bench.figure import Figure, in_turns
from tests.labs import lab_of

CALLS = 100  # a round
AT_ONCE = 200
RUNS = 10  # whose requests these are
LARGE_BYTES = 100 << 20
ADDED_MS = 3.0
STREAM_RATIO = 0.5
SMALL = b"x" * 1000
RULES = """
[[rules]]
name = "bench"
kinds = ["web.fetch"]
principals = ["mad:bench"]
hosts = ["*:*"]
verdict = "allow"
limits = { addresses = ["127.0.0.1/32"], bytes_down = 200_000_000, requests_per_minute = 1_000_000 }
"""

Measure = Callable[[str], Awaitable[float]]  # milliseconds, MiB a second, or of a process its seconds


async def run() -> list[Figure]:
    """A request, many at once, and a stream."""
    give_memory_back()  # as the core does
    with TemporaryDirectory(prefix="bench") as directory:
        rules = Path(directory) / "policy.toml"
        rules.write_text(RULES)
        async with (
            a_process("serve") as (said, ask),
            lab_of(f'policy = ["{rules}"]\n[egress.names]\n"bench.test" = ["127.0.0.1"]\n') as lab,
            a_proxy(port := int(await said())) as proxy,
            a_worker(lab, port, proxy) as measure,
            httpx2.AsyncClient(trust_env=False) as http,
        ):
            web = LocalWeb(lab.services, an_identity()[0], Allowance(2**40, 2**40, 2**40))
            of = await in_turns(
                {
                    "request": partial(measure, "request"),
                    "straight": partial(measure, "straight"),
                    "near request": lambda: timed(lambda: fetched(web, f"http://bench.test:{port}/")),
                    "near straight": lambda: timed(lambda: gotten(http, f"http://127.0.0.1:{port}/")),
                    "commit": partial(lone_commit, lab.journal),
                }
            )
            spent = Spent({"core": here, "worker": partial(measure, "spent"), "server": lambda: seconds(said, ask)})
            of |= await in_turns(
                {
                    "at once": partial(ours_at_once, lab, port),
                    "straight at once": partial(measure, "straight at once"),
                    "stream": lambda: spent.on("stream", partial(measure, "stream")),
                    "proxied": lambda: spent.on("proxied", partial(measure, "proxied")),
                    "straight stream": partial(measure, "straight stream"),
                },
                rounds=5,
            )
    granted = ADDED_MS + of["commit"]
    limit = f"{ADDED_MS:g} ms + a lone commit"
    return [
        Figure("the broker adds to a request", of["near request"] - of["near straight"], "ms", limit, granted, 1.0),
        Figure("the same from a worker, gate too", of["request"] - of["straight"], "ms", limit, granted, 1.0),
        Figure("a request from a worker", of["request"], "ms", "straight from the host", of["straight"]),
        Figure(f"{AT_ONCE} requests at once", of["at once"], "ms", "straight from the host", of["straight at once"]),
        Figure("a stream of 100 MiB", of["stream"], "MiB/s", "a plain proxy", of["proxied"], STREAM_RATIO, True),
        Figure("the same, no proxy at all", of["straight stream"], "MiB/s"),
        *[
            Figure(f"processor time of it, {name}", ours, "ms", "a plain proxy's", spent.ms("proxied")[name])
            for name, ours in spent.ms("stream").items()
        ],
    ]


class Spent:
    """What each process has spent on what was measured. `told` are its seconds on the processor so far."""

    def __init__(self, told: Mapping[str, Callable[[], Awaitable[float]]]) -> None:
        self._told = told
        self._taken: dict[str, list[dict[str, float]]] = {}

    async def on(self, what: str, measure: Callable[[], Awaitable[float]]) -> float:
        """What `measure` returns."""
        before = {name: await told() for name, told in self._told.items()}
        value = await measure()
        taken = {name: await told() - before[name] for name, told in self._told.items()}
        self._taken.setdefault(what, []).append(taken | {"all three": sum(taken.values())})
        return value

    def ms(self, what: str) -> dict[str, float]:
        """By process: of all times the median."""
        taken = self._taken[what]
        return {name: statistics.median(each[name] for each in taken) * 1000 for name in taken[0]}


async def here() -> float:
    """What this process has spent."""
    return time.process_time()


async def seconds(said: Callable[[], Awaitable[str]], ask: Callable[[str], None]) -> float:
    """What the server has spent."""
    ask("spent")
    return float(await said())


@asynccontextmanager
async def a_process(*arguments: str) -> AsyncIterator[tuple[Callable[[], Awaitable[str]], Callable[[str], None]]]:
    """A process of this module: how to hear a line of it, and how to tell it one."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.egress", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told, said = process.stdin, process.stdout

    async def hear() -> str:
        return (await said.readline()).decode().strip()

    try:
        yield hear, lambda line: told.write(line.encode() + b"\n")
    finally:
        told.close()
        await process.wait()


@asynccontextmanager
async def a_worker(lab: Lab, port: int, proxy: int) -> AsyncIterator[Measure]:
    """The client's process, at a door of the lab."""
    session = Session(lease_s=60, token=hash_of("bench"))
    web, assignment = an_identity()
    session.assign(context_for(lab.services, web, assignment, Allowance(2**40, 2**40, 2**40)))
    with TemporaryDirectory(prefix="door") as directory:
        async with (
            open_door(Path(directory), session),
            a_process("client", f"unix:{directory}/gate.sock", str(port), str(proxy)) as (hear, tell),
        ):

            async def measure(what: str) -> float:
                tell(what)
                return float(await hear())

            yield measure


def an_identity() -> tuple[Identity, Assignment]:
    """A new run."""
    assignment = Assignment(participant="bench", run=new_id(), conversation=new_id())
    ports = frozenset({"web"})
    return Identity("bench", ports, run=assignment.run, conversation=assignment.conversation), assignment


async def ours_at_once(lab: Lab, port: int) -> float:
    """Milliseconds until 200 requests of ten runs are answered, none of them before all are there."""
    ports = [LocalWeb(lab.services, an_identity()[0], Allowance(2**40, 2**40, 2**40)) for _ in range(RUNS)]
    began = time.perf_counter()
    async with create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(fetched, ports[number % RUNS], f"http://bench.test:{port}/together")
    return (time.perf_counter() - began) * 1000


@asynccontextmanager
async def a_proxy(port: int) -> AsyncIterator[int]:
    """Copies bytes between whoever connects and the server, and nothing else."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.close()

    async def serve(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", port)
        async with create_task_group() as tasks:
            tasks.start_soon(copy, source, back)
            await copy(to, sink)
            tasks.cancel_scope.cancel()
        back.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# --- the other processes


async def serve() -> None:
    """The web server: says its port, then for each line what it has spent, and answers until standard input ends."""
    waiting: list[asyncio.StreamWriter] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    block = b"x" * (1 << 18)

    async def handle(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await source.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /large"):
                    sink.write(answer % LARGE_BYTES)
                    for _ in range(LARGE_BYTES // len(block)):
                        sink.write(block)
                        await sink.drain()
                elif head.startswith(b"GET /together"):
                    waiting.append(sink)
                    if len(waiting) == AT_ONCE:
                        for each in waiting:
                            each.write(answer % len(SMALL) + SMALL)
                        waiting.clear()
                else:
                    sink.write(answer % len(SMALL) + SMALL)
        except (asyncio.IncompleteReadError, OSError):
            sink.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=AT_ONCE)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await anyio.to_thread.run_sync(sys.stdin.readline):
        print(time.process_time(), flush=True)


async def client(address: str, port: str, proxy: str) -> None:
    """A worker, and a program of the host that needs nobody: it measures what it is told."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        connect(address, "bench", on_end=lambda: None) as session,
        httpx2.AsyncClient(trust_env=False, limits=limits, timeout=60) as http,
    ):
        web = ports_of(session, await session.assigned()).web
        ours, straight, proxied = (f"http://bench.test:{port}", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{proxy}")
        measures: dict[str, Callable[[], Awaitable[float]]] = {
            "request": lambda: timed(lambda: fetched(web, f"{ours}/")),
            "straight": lambda: timed(lambda: gotten(http, f"{straight}/")),
            "straight at once": lambda: together(lambda: gotten(http, f"{straight}/together")),
            "stream": lambda: rate(lambda: fetched(web, f"{ours}/large")),
            "proxied": lambda: rate(lambda: gotten(http, f"{proxied}/large")),
            "straight stream": lambda: rate(lambda: gotten(http, f"{straight}/large")),
            "spent": here,
        }
        while what := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
            print(await measures[what](), flush=True)


async def fetched(web: Web, url: str) -> int:
    """The bytes of an answer through the port."""
    size = 0
    async with aclosing(web.fetch(RequestHead(method="GET", url=url))) as events:  # type: ignore[type-var]
        async for event in events:
            size += len(event.bytes)
    return size


async def gotten(http: httpx2.AsyncClient, url: str) -> int:
    """The bytes of an answer without us."""
    size = 0
    async with http.stream("GET", url) as answer:
        async for chunk in answer.aiter_raw():
            size += len(chunk)
    return size


async def timed(call: Callable[[], Awaitable[int]]) -> float:
    """The median of one request after the other, in milliseconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        assert await call() == len(SMALL)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def together(call: Callable[[], Coroutine[None, None, int]]) -> float:
    """Milliseconds until 200 at once are answered."""
    began = time.perf_counter()
    async with create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(call)
    return (time.perf_counter() - began) * 1000


async def rate(call: Callable[[], Awaitable[int]]) -> float:
    """MiB a second."""
    began = time.perf_counter()
    assert await call() == LARGE_BYTES
    return (LARGE_BYTES >> 20) / (time.perf_counter() - began)


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    anyio.run(serve if role == "serve" else partial(client, *rest))
