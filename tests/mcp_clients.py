"""MCP clients to test with: the official SDK's, over the command's standard input and output, or over HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from anyio import Event
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from core.lab import Lab
from core.run import Outcome
from tests.commands import COMMAND, Madlab, environment

Mode = Literal["auto", "legacy"]  # "auto" is the newer protocol, where both ends have it
MODES: Sequence[Mode] = ("auto", "legacy")


@dataclass
class Told:
    """What a client heard of how far its call is."""

    heard: list[tuple[float, float | None, str]] = field(default_factory=list)
    _more: Event = field(default_factory=Event)

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.heard.append((progress, total, message or ""))
        self._more.set()
        self._more = Event()

    async def times(self, count: int) -> None:
        """Waits until it was told so much."""
        while len(self.heard) < count:
            await self._more.wait()

    @property
    def numbers(self) -> list[float]:
        return [each for each, _, _ in self.heard]

    @property
    def words(self) -> list[str]:
        return [each for _, _, each in self.heard]

    @property
    def run(self) -> str:
        """The run that it was told of."""
        (run,) = {each.split("madlab://runs/")[1] for each in self.words if "madlab://runs/" in each}
        return run


def command(madlab: Madlab, *arguments: str, **more: str) -> StdioServerParameters:
    """How an MCP client starts `madlab mcp`."""
    variables = environment(madlab.home.path) | more
    program, *first = COMMAND
    return StdioServerParameters(command=program, args=[*first, "mcp", *arguments], env=variables, cwd=Path.cwd())


@asynccontextmanager
async def over_stdio(madlab: Madlab, *arguments: str, mode: Mode = "auto", **more: Any) -> AsyncIterator[Client]:
    """A client that starts the command."""
    async with Client(command(madlab, *arguments), mode=mode, **more) as client:
        yield client


@asynccontextmanager
async def over_http(origin: str, token: str, *, mode: Mode = "auto", **more: Any) -> AsyncIterator[Client]:
    """A client of `/mcp` at `origin`, with a token."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, verify=False) as http:  # no certificates to be loaded
        transport = streamable_http_client(f"{origin}/mcp", http_client=http)
        async with Client(transport, mode=mode, **more) as client:
            yield client


async def add_client(lab: Lab, name: str, *may: str, sees: str = "own") -> str:
    """A new client of a lab, as `madlab client add` makes it; its token."""
    transport = httpx2.AsyncHTTPTransport(uds=str(lab.home.api_socket))
    async with httpx2.AsyncClient(transport=transport) as http:
        body = {"name": name, "may": may, "sees": sees}
        answer = await http.post("http://localhost/api/v1/clients", json=body)
    token: str = answer.json()["token"]
    return token


async def outcome_of(lab: Lab, run: str) -> Outcome | None:
    """How a run ended, once it has: its log, as the door streams it, ends with it."""
    transport = httpx2.AsyncHTTPTransport(uds=str(lab.home.api_socket))
    async with httpx2.AsyncClient(transport=transport, timeout=120) as http:
        await http.get(f"http://localhost/api/v1/runs/{run}/logs", headers={"accept": "text/event-stream"})
    return (await lab.runs.get(run)).outcome


def text_of(result: CallToolResult) -> str:
    """The words of a result."""
    return "\n\n".join(each.text for each in result.content if isinstance(each, TextContent))


def content_of(result: CallToolResult) -> Mapping[str, Any]:
    """What a program reads of a result that is one."""
    assert not result.is_error, text_of(result)
    content: Mapping[str, Any] = result.structured_content
    return content
