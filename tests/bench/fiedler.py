"""What Fiedler adds to a model: the first token, and 64 streams at once, beside the bare SDK on the same server.

Both are asked in turns, of a server in this same process, over real HTTP. Ours also checks the request, holds and
journals its worst case before a byte leaves, hands on what comes, and settles. The figure for the first token is what
is added, against a limit in milliseconds. Memory is the process's own after many calls, beside what it was before.
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

from protos.llm import prompt
from tests.bench.figure import Figure, in_turns
from tests.model_server import Play, model_server
from tests.orchestras import CALLER, KEY, Hall, hall

CALLS = 20  # a round
STREAMS = 64
ADDED_MS, STREAMS_RATIO, MEMORY_RATIO = 2.0, 1.2, 1.05
KEPT_UP = int(os.environ.get("MADLAB_BENCH_CALLS", 1000))  # 10,000 for the real figure: minutes
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
                    "streams": partial(_together, partial(_through, ours), STREAMS),
                    "bare streams": partial(_together, partial(_bare, sdk), STREAMS),
                }
            )
            server.requests.clear()
            server.bill.clear()
            before = _memory_mb()
            for _ in range(KEPT_UP // 32):
                await _together(partial(_through, ours), 32)
                server.requests.clear()
                server.bill.clear()
            after = _memory_mb()
    added = of["first"] - of["bare first"]
    return [
        Figure("added to the first token", added, "ms", "limit", ADDED_MS, 1.0),
        Figure(f"{STREAMS} streams", of["streams"], "ms", "the bare SDK's", of["bare streams"], STREAMS_RATIO),
        Figure(f"memory after {KEPT_UP} calls", after, "MB", "before them", before, MEMORY_RATIO),
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


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
