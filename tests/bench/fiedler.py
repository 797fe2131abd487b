"""What Fiedler adds to a model: first token and 64 streams, beside the bare SDK on the same server, in the same run.

    python -m tests.bench.fiedler [CALLS]

The two are taken in turns, so that a busy machine is busy for both. Memory is looked at after each tenth of CALLS.
"""

import resource
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import openai
from anyio import create_task_group

from protos.llm import prompt
from tests.model_server import Play, model_server
from tests.orchestras import CALLER, KEY, Hall, hall

STREAMS = 64
TEXT = "word " * 40


async def main(calls: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with (
            model_server(Play(text=TEXT)) as server,
            hall(server, Path(directory)) as tried,
            openai.AsyncOpenAI(api_key=KEY, base_url=server.openai, max_retries=0) as sdk,
        ):
            await _bare(sdk)
            await _through(tried)
            await _first_tokens(sdk, tried)
            await _many(sdk, tried)
            await _memory(server.requests, tried, calls)


async def _bare(sdk: openai.AsyncOpenAI) -> float:
    began, first = perf_counter(), 0.0
    stream = await sdk.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "Hello?"}], max_tokens=100, stream=True
    )
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = perf_counter() - began
    return first


async def _through(tried: Hall) -> float:
    began, first = perf_counter(), 0.0
    async for each in tried.fiedler.complete(prompt("Hello?"), CALLER):
        if not first and each.text:
            first = perf_counter() - began
    return first


async def _first_tokens(sdk: openai.AsyncOpenAI, tried: Hall) -> None:
    bare, through = [], []
    for _ in range(100):
        bare.append(await _bare(sdk))
        through.append(await _through(tried))
    a, b = statistics.median(bare) * 1000, statistics.median(through) * 1000
    print(f"first token, p50 of 100: bare SDK {a:.2f} ms, Fiedler {b:.2f} ms, added {b - a:.2f} ms")


async def _many(sdk: openai.AsyncOpenAI, tried: Hall) -> None:
    bare, through = [], []
    for _ in range(5):
        bare.append(await _together(lambda: _bare(sdk)))
        through.append(await _together(lambda: _through(tried)))
    a, b = statistics.median(bare), statistics.median(through)
    print(f"{STREAMS} streams, median of 5: bare SDK {a * 1000:.0f} ms, Fiedler {b * 1000:.0f} ms, {b / a:.2f} x")


async def _together(ask: Callable[[], Awaitable[object]]) -> float:
    async def one() -> None:
        await ask()

    began = perf_counter()
    async with create_task_group() as tasks:
        for _ in range(STREAMS):
            tasks.start_soon(one)
    return perf_counter() - began


async def _memory(requests: list[Any], tried: Hall, calls: int) -> None:
    sizes = []
    for _ in range(10):
        for _ in range(max(calls // 10 // 32, 1)):
            async with create_task_group() as tasks:
                for _ in range(32):
                    tasks.start_soon(_through, tried)
            requests.clear()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)
    shown = " ".join(f"{each:.0f}" for each in sizes)
    grown = (sizes[-1] / sizes[1] - 1) * 100
    print(f"memory while {calls} calls were made, MB: {shown} ({grown:+.1f} % since the second)")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
