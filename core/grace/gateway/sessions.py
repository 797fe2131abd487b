"""The gateway over streamable HTTP, within the core.

Clients of the newer protocol (2026-07-28) say all they have to in each request; one that closes the stream of an answer
has cancelled its call. Clients of the older ones open a session, and it is kept, rather than each request served alone:
to cancel, they send a message of its own, which must find the call. So the table of sessions is bounded, for all and
for each owner, and so is what each of them holds; one that nobody used for a while ends, and what was going on in it is
cancelled. Nobody uses another's session: a request with somebody else's credential is told that there is none. When a
token ends its sessions do, whether or not somebody is connected to them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.grace.gateway.calls import Context
from core.grace.gateway.door import Door
from core.grace.gateway.inside import Inside
from core.grace.gateway.mount import Callers
from core.grace.gateway.server import Gateway
from protos.errors import Exhausted

SESSIONS = 512  # of all owners
OWN_SESSIONS = 64  # of one
IDLE_S = 900.0  # without a request or an open stream, after which a session ends
REQUEST_BYTES = 4 * 1024**2
OPENING_BYTES = 16 * 1024  # of a request that opens a session, which keeps it
SESSION, PROTOCOL = b"mcp-session-id", b"mcp-protocol-version"


@asynccontextmanager
async def opened(door: ASGIApp, callers: Callers) -> AsyncIterator[ASGIApp]:
    """The gateway as an ASGI application, until left. `door` is asked in turn, as whoever asks the gateway."""

    def door_for(context: Context) -> Door:
        assert context.request is not None
        caller = context.request.scope[callers.place]
        last = Door(inside(callers.last(caller)), waits=False)
        return Door(inside(caller), waits=False, whose=callers.owner(caller), last=last)

    def inside(caller: object) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=Inside(door, {callers.place: caller}, gateway.tasks), trust_env=False)

    gateway = Gateway(door_for)
    manager = StreamableHTTPSessionManager(
        gateway.server, max_sessions=SESSIONS, session_idle_timeout=IDLE_S, max_request_body_size=REQUEST_BYTES
    )

    opening = RequestBodyLimitMiddleware(manager.handle_request, OPENING_BYTES)
    watched: set[str] = set()  # owners whose end is waited for

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope[callers.place]
        owner = callers.owner(caller)
        known = {**scope, "user": _user(owner)}
        if not _opens(scope):
            await manager.handle_request(known, receive, send)
            return
        if len(_sessions_of(manager, owner)) >= OWN_SESSIONS:
            await _too_many(scope, receive, send)
            return
        if owner not in watched:
            watched.add(owner)
            gateway.tasks.start_soon(end_with, caller, owner)
        await opening(known, receive, send)

    async def end_with(caller: object, owner: str) -> None:
        await callers.over(caller)
        for each in _sessions_of(manager, owner):
            leaving = {"type": "http", "method": "DELETE", "path": "/mcp", "query_string": b"", "user": _user(owner)}
            await manager.handle_request(leaving | {"headers": [(SESSION, each.encode())]}, _nothing, _unheard)
        watched.discard(owner)

    async with manager.run():
        yield answer


async def _nothing() -> Message:
    """A request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(part: Message) -> None:
    """Nobody is there."""


def _user(owner: str) -> AuthenticatedUser:
    """How the SDK is told whose a session is."""
    return AuthenticatedUser(AccessToken(token="", client_id=owner, scopes=[]))


def _opens(scope: Scope) -> bool:
    """Whether a request would open a session: one of the older protocol that is in none."""
    said = dict(scope["headers"])
    protocol = said.get(PROTOCOL, b"").decode("latin-1")
    return SESSION not in said and (not protocol or protocol in HANDSHAKE_PROTOCOL_VERSIONS)


def _sessions_of(manager: StreamableHTTPSessionManager, owner: str) -> list[str]:
    """Which of them somebody has open. The SDK tells by no public name."""
    return [id for id, each in manager._session_owners.items() if each["client_id"] == owner]


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    said = {
        "code": Exhausted.code,
        "message": f"{OWN_SESSIONS} sessions of yours are open",
        "next": "close those that you do not use: DELETE /mcp",
    }
    await JSONResponse({"error": said}, 429)(scope, receive, send)
