"""What a call costs through the MCP gateway, beside the same call at the door: over HTTP and over standard input and
output, of a MAD that answers at once and of one that needs a run; and what the gateway takes of the core's memory.

The core runs in a process of its own. The client is the official SDK's: its own part is in every figure, and so the
figure with no call in it, the list of prompts, stands beside.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import httpx2
from anyio import create_task_group
from mcp import Client

from core.grace.gateway.door import Door
from protos.ids import new_id
from tests.bench.figure import Figure, in_turns
from tests.bench.lab import memory_of
from tests.commands import Madlab, a_lab
from tests.mcp_clients import content_of, over_http, over_stdio

SETTINGS = 'emads = []\n[residents]\necho = { class = "tests.emads.echo:Echo" }\n'
CALLS = 10  # a round
AT_ONCE = 50
ASKED = {"text": "hello"}


async def run() -> list[Figure]:
    """A call, fifty clients, memory."""
    with a_lab(SETTINGS) as madlab:
        pid = madlab.home.holder()
        assert pid is not None
        idle = memory_of(pid)
        origin = f"http://127.0.0.1:{(madlab.home.path / 'port').read_text().strip()}"
        token = madlab("client", "add", "bench", "--may", "echo").out.strip()
        figures = await _calls(madlab, origin, token)
        together = await _together(origin, token)
        used = memory_of(pid)
    return [
        *figures,
        Figure(f"{AT_ONCE} clients: open, call, close", together, "s"),
        Figure("core, after the gateway was used", used, "MiB", "before its first request", idle),
    ]


async def _calls(madlab: Madlab, origin: str, token: str) -> list[Figure]:
    transport = httpx2.AsyncHTTPTransport(uds=str(madlab.home.api_socket))
    async with AsyncExitStack() as stack:
        bare = Door(await stack.enter_async_context(httpx2.AsyncClient(transport=transport)), waits=False)
        newer = await stack.enter_async_context(over_http(origin, token))
        older = await stack.enter_async_context(over_http(origin, token, mode="legacy"))
        stdio = await stack.enter_async_context(over_stdio(madlab))
        of = await in_turns(
            {
                "bare": partial(_each, partial(_bare, bare)),
                "newer": partial(_each, partial(_call, newer)),
                "older": partial(_each, partial(_call, older)),
                "stdio": partial(_each, partial(_call, stdio)),
                "nothing": partial(_each, partial(_nothing, newer)),
            }
        )
    beside = "POST /messages and its answer"
    return [
        Figure("a call over HTTP (2026-07-28)", of["newer"], "ms", beside, of["bare"]),
        Figure("a call over HTTP, in a session (2025-11-25)", of["older"], "ms", beside, of["bare"]),
        Figure("a call over stdio", of["stdio"], "ms", beside, of["bare"]),
        Figure("the SDK alone: prompts/list over HTTP", of["nothing"], "ms"),
    ]


async def _each(act: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds of one, of some in a row."""
    began = time.perf_counter()
    for _ in range(CALLS):
        await act()
    return (time.perf_counter() - began) / CALLS * 1000


async def _bare(door: Door) -> None:
    message = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": ASKED, "id": new_id()}
    said = await door.post("/messages", message)
    place = f"/conversations/{said['conversation']}/messages"
    async with door.follow(place, after=said["sequence"]) as answers:
        async for each in answers:
            assert each["data"] == ASKED
            return


async def _call(client: Client) -> None:
    assert content_of(await client.call_tool("echo_say", ASKED)) == ASKED


async def _nothing(client: Client) -> None:
    assert (await client.list_prompts()).prompts


async def _together(origin: str, token: str) -> float:
    async def one() -> None:
        async with over_http(origin, token, mode="legacy") as client:
            await _call(client)

    began = time.perf_counter()
    async with create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(one)
    return time.perf_counter() - began
