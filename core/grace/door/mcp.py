"""The door's route for MCP clients: `/mcp`, whose gateway asks the door in turn, as whoever asks it."""

from collections.abc import Iterator
from dataclasses import replace

from anyio import sleep_forever
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp

from core.grace.door.callers import CALLER, Caller
from core.grace.door.routes import Endpoint
from core.grace.door.tokens import Tokens
from core.grace.gateway.mount import Callers, Mount


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/mcp", _mcp, "What the gateway has to tell a session.", clients=True, base="", shown=False)
    yield Endpoint("POST", "/mcp", _mcp, "A message of an MCP client.", clients=True, base="", shown=False)
    yield Endpoint("DELETE", "/mcp", _mcp, "Ends a session.", clients=True, base="", shown=False)


def mount(app: Starlette) -> Mount:
    """The gateway of this door; its `serve` must run beside it."""
    tokens: Tokens = app.state.tokens

    async def over(caller: Caller) -> None:
        if caller.token is None:
            await sleep_forever()
        else:
            await tokens.over(caller.token)

    return Mount(app, app.state.closing, Callers(CALLER, _owner, over, _last))


async def _mcp(request: Request) -> ASGIApp:
    gateway: Mount = request.app.state.mcp
    return gateway


def _owner(caller: Caller) -> str:
    """Of whoever has a token it is that token: a client that is added again under the same name is another."""
    return caller.name if caller.token is None else caller.token.hash


def _last(caller: Caller) -> Caller:
    return replace(caller, alive=None, token=None)
