"""What Fiedler adds to a model: the first token, and 64 streams at once, beside the bare SDK on the same server.

Both are asked in turns, of a server in this same process, over real HTTP. Ours also checks the request, holds and
journals its worst case before a byte leaves, hands on what comes, and settles. The figure for the first token is what
is added, against 2 ms and the one commit that stands on the way: the worst case is durable before a byte leaves.

Memory is the process's own after many calls, beside what it was once warm: after some calls, with a journal larger than
its connections keep pages of. SQLite fills its page cache (16 MB for the writer, 4 MB for each reader) once and no
further; without a journal of that size to begin with, the first 5,000 calls would show its growth and not ours.
"""

import os
import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import openai
from anyio import create_task_group

from core.rogers.entry import Entry
from core.rogers.journal import READERS
from protos.ids import new_id
from protos.llm import prompt
from tests.bench.dispatch import lone_commit
from tests.bench.figure import Figure, in_turns
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import CALLER, KEY, Hall, hall

CALLS = 20  # a round
STREAMS = 64
ADDED_MS, STREAMS_RATIO, MEMORY_RATIO = 2.0, 1.2, 1.05
KEPT_UP = int(os.environ.get("MADLAB_BENCH_CALLS", 1000))  # 10,000 for the real figure: minutes
LOOKED_AT = (1000, 2000, 5000, 10_000)  # calls
AT_ONCE, WARM = 32, 320  # calls
JOURNAL_BYTES, BODY_BYTES = 32 * 10**6, 15_000
TEXT = "word " * 40


async def run() -> list[Figure]:
    """First token, streams, memory."""
    with TemporaryDirectory() as directory:
        async with (
            model_server(Play(text=TEXT)) as server,
            hall(server, Path(directory)) as ours,
            openai.AsyncOpenAI(api_key=KEY, base_url=server.openai, max_retries=0) as sdk,
        ):
            of = await in_turns(
                {
                    "first": partial(_first, partial(_through, ours)),
                    "bare first": partial(_first, partial(_bare, sdk)),
                    "commit": partial(lone_commit, ours.journal),
                    "streams": partial(_together, partial(_through, ours), STREAMS),
                    "bare streams": partial(_together, partial(_bare, sdk), STREAMS),
                }
            )
            await _fill(ours)
            await _keep_up(ours, server, WARM)
            before, done = _memory_mb(), 0
            memory = {}
            for calls in [each for each in LOOKED_AT if each < KEPT_UP] + [KEPT_UP]:
                await _keep_up(ours, server, calls - done)
                memory[calls], done = _memory_mb(), calls
    added = of["first"] - of["bare first"]
    limit = f"{ADDED_MS:g} ms + a lone commit of {of['commit']:.2f}"
    return [
        Figure("added to the first token", added, "ms", limit, ADDED_MS + of["commit"], 1.0),
        Figure(f"{STREAMS} streams", of["streams"], "ms", "the bare SDK's", of["bare streams"], STREAMS_RATIO),
        *(Figure(f"memory after {n} calls", mb, "MB", "warm", before, MEMORY_RATIO) for n, mb in memory.items()),
    ]


async def _bare(sdk: openai.AsyncOpenAI) -> float:
    """Seconds to the first token of a stream that is read to its end."""
    began, first = perf_counter(), 0.0
    stream = await sdk.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "Hello?"}], max_tokens=100, stream=True
    )
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = perf_counter() - began
    return first


async def _through(ours: Hall) -> float:
    began, first = perf_counter(), 0.0
    async for each in ours.fiedler.complete(prompt("Hello?"), CALLER):
        if not first and each.text:
            first = perf_counter() - began
    return first


async def _first(ask: Callable[[], Awaitable[float]]) -> float:
    return statistics.median([await ask() for _ in range(CALLS)]) * 1000


async def _together(ask: Callable[[], Awaitable[float]], count: int) -> float:
    """Milliseconds until all have ended."""

    async def one() -> None:
        await ask()

    began = perf_counter()
    async with create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return (perf_counter() - began) * 1000


async def _fill(ours: Hall) -> None:
    """Makes the journal larger than its connections keep pages of, and has each of them read all of it."""
    body = b"x" * BODY_BYTES
    for _ in range(JOURNAL_BYTES // BODY_BYTES // 100):
        await ours.journal.append(*(Entry(id=new_id(), kind="file", body=body) for _ in range(100)))
    for _ in range(READERS):
        await ours.journal.query("SELECT max(substr(body, -1)) FROM body")


async def _keep_up(ours: Hall, server: ModelServer, calls: int) -> None:
    """Many calls, some at a time."""
    for _ in range(calls // AT_ONCE):
        await _together(partial(_through, ours), AT_ONCE)
        server.requests.clear()
        server.bill.clear()


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
