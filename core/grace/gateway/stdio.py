"""The gateway over standard input and output: one client, which started it, on the lab's own machine.

It ends when its client closes its input, or at a signal; what the client waited for then is cancelled. A core that ends
meanwhile is waited for, as long as its lease.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from anyio import create_task_group, open_signal_receiver
from mcp.server.stdio import stdio_server

from core.grace.gateway.door import Door
from core.grace.gateway.server import Gateway
from core.grace.gateway.sources import Folders

LIMITS = httpx2.Limits(max_connections=256)  # calls and streams of one client at once
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@asynccontextmanager
async def over_socket(path: Path) -> AsyncIterator[Door]:
    """The door on the lab's own socket, as the operator."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path), limits=LIMITS)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as http:
        yield Door(http, waits=True)


@asynccontextmanager
async def over_loopback(origin: str, token: str) -> AsyncIterator[Door]:
    """The door where the page is, as the client whose token it is."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, limits=LIMITS, trust_env=False) as http:
        yield Door(http, waits=True, origin=origin)


async def serve(door: Door, folders: Folders) -> None:
    """Serves until the client leaves, or a signal says so."""
    gateway, signalled = Gateway(lambda context: door, folders=folders), 0
    try:
        async with stdio_server() as (incoming, outgoing):
            async with create_task_group() as tasks:

                async def watch() -> None:
                    nonlocal signalled
                    with open_signal_receiver(*ENDINGS) as signals:
                        async for each in signals:
                            signalled = each
                            tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                await gateway.server.run(incoming, outgoing, gateway.server.create_initialization_options())
                tasks.cancel_scope.cancel()
            if signalled:
                os._exit(128 + signalled)  # the thread that waits for input cannot be woken
    except* BrokenPipeError:
        pass  # nobody reads any more: the client has gone
