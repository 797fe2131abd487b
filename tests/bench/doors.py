"""What the doors add to the first token that an agent sees.

All of it in one process, over real HTTP on loopback: the client, the doors, Fiedler with his journal, the model
server. The limit is for what comes on top of Fiedler: the first token that a plain HTTP client gets through the
doors, less that of a caller who asks Fiedler himself. The client is plain because an agent has its SDK on either
road. What such an agent sees in all, Fiedler's part and SDK included, stands below beside the same SDK on the same
server without the doors; and the same with the gate between, as a sandbox has it (gRPC over a unix socket).
"""

import json
import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import anthropic
import openai
from anyio import connect_tcp, create_task_group

from protos.llm import prompt
from tests.bench.figure import Figure, in_turns
from tests.model_server import Play, model_server
from tests.orchestras import CALLER, Hall
from tests.roads import DOORS, GATE, STRAIGHT, open_road

CALLS = 10  # a round
STREAMS = 64
ADDED_MS = 4.0
PLAY = Play(text="word " * 8, pause_s=0.002)  # a model takes its time between tokens; all at once would be in the way
FLOOD = Play(text="word " * 40)


async def run() -> list[Figure]:
    """First token and streams."""
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        async with (
            model_server(PLAY) as server,
            open_road(STRAIGHT, Path(one), server=server) as straight,
            open_road(DOORS, Path(one), server=server) as near,
            open_road(GATE, Path(two), server=server) as far,
        ):
            hall = near.hall
            assert hall is not None
            of = await in_turns(
                {
                    "fiedler": partial(_first, partial(_ask, hall)),
                    "plain": partial(_first, partial(_plain, near.doors.port)),
                    "straight chat": partial(_first, partial(_chat, straight.openai)),
                    "chat": partial(_first, partial(_chat, near.openai)),
                    "far chat": partial(_first, partial(_chat, far.openai)),
                    "straight message": partial(_first, partial(_message, straight.anthropic)),
                    "message": partial(_first, partial(_message, near.anthropic)),
                }
            )
            server.script = lambda _: FLOOD
            of |= await in_turns(
                {
                    "fiedler's streams": partial(_together, partial(_ask, hall), STREAMS),
                    "streams": partial(_together, partial(_plain, near.doors.port), STREAMS),
                },
                rounds=3,
            )
    added = of["plain"] - of["fiedler"]
    return [
        Figure("the doors add to the first token", added, "ms", "limit", ADDED_MS, 1.0),
        Figure("first token of a chat", of["chat"], "ms", "straight", of["straight chat"]),
        Figure("first token of a chat, gate too", of["far chat"], "ms", "straight", of["straight chat"]),
        Figure("first token of a message", of["message"], "ms", "straight", of["straight message"]),
        Figure(f"{STREAMS} streams at once", of["streams"], "ms", "Fiedler's", of["fiedler's streams"]),
    ]


async def _ask(hall: Hall) -> float:
    """Seconds to the first token of a stream that is read to its end."""
    began, first = perf_counter(), 0.0
    async for each in hall.fiedler.complete(prompt("Hello?", model="one"), CALLER):
        if not first and each.text:
            first = perf_counter() - began
    return first


async def _plain(port: int) -> float:
    content = json.dumps({"model": "one", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(content)}\r\n\r\n"
    async with await connect_tcp("127.0.0.1", port) as stream:
        began, first, received = perf_counter(), 0.0, b""
        await stream.send(head.encode() + content)
        while not received.endswith(b"0\r\n\r\n"):
            received += await stream.receive()
            if not first and b'"content":"word' in received:
                first = perf_counter() - began
    return first


async def _chat(sdk: openai.AsyncOpenAI) -> float:
    began, first = perf_counter(), 0.0
    stream = await sdk.chat.completions.create(
        model="one", messages=[{"role": "user", "content": "Hello?"}], max_tokens=100, stream=True
    )
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = perf_counter() - began
    return first


async def _message(sdk: anthropic.AsyncAnthropic) -> float:
    began, first = perf_counter(), 0.0
    stream = await sdk.messages.create(
        model="two", messages=[{"role": "user", "content": "Hello?"}], max_tokens=100, stream=True
    )
    async for event in stream:
        if not first and event.type == "content_block_delta":
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
