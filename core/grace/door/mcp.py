"""The door's route for MCP clients: `/mcp`, whose gateway asks the door in turn, as whoever asks it."""

from collections.abc import Iterator
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from core.grace.door.callers import CALLER, Caller
from core.grace.door.routes import Endpoint
from core.grace.gateway.mount import Callers, Mount


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/mcp", _mcp, "What the gateway has to tell a session.", clients=True, base="", shown=False)
    yield Endpoint("POST", "/mcp", _mcp, "A message of an MCP client.", clients=True, base="", shown=False)
    yield Endpoint("DELETE", "/mcp", _mcp, "Ends a session.", clients=True, base="", shown=False)


def mount(app: Starlette) -> Mount:
    """The gateway of this door; its `serve` must run beside it."""
    return Mount(app, app.state.closing, Callers(CALLER, _name_of, _revoked, _last))


async def _mcp(request: Request) -> ASGIApp:
    gateway: Mount = request.app.state.mcp
    return gateway


def _name_of(scope: Scope) -> str:
    name: str = scope[CALLER].name
    return name


def _revoked(scope: Scope) -> bool:
    alive = scope[CALLER].alive
    return alive is not None and alive.cancel_called


def _last(caller: Caller) -> Caller:
    return replace(caller, alive=None, token=None)
