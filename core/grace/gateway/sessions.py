"""The gateway over streamable HTTP, within the core.

Clients of the newer protocol (2026-07-28) say all they have to in each request; one that closes the stream of an answer
has cancelled its call. Clients of the older ones open a session, and it is kept, rather than each request served alone:
to cancel, they send a message of its own, which must find the call. So the table of sessions is bounded, for all and
for each owner; one that nobody used for a while ends, and what was going on in it is cancelled. Nobody uses another's
session: a request with somebody else's credential is told that there is none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from anyio import CancelScope, get_cancelled_exc_class
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.grace.gateway.calls import Context
from core.grace.gateway.door import Door
from core.grace.gateway.inside import Inside
from core.grace.gateway.mount import Callers
from core.grace.gateway.server import Gateway
from protos.errors import Exhausted

SESSIONS = 512  # of all owners
OWN_SESSIONS = 128  # of one
IDLE_S = 900.0  # without a request or an open stream, after which a session ends
REQUEST_BYTES = 4 * 1024**2
SESSION = b"mcp-session-id"


@asynccontextmanager
async def opened(door: ASGIApp, callers: Callers) -> AsyncIterator[ASGIApp]:
    """The gateway as an ASGI application, until left. `door` is asked in turn, as whoever asks the gateway."""

    def door_for(context: Context) -> Door:
        assert context.request is not None
        caller = context.request.scope[callers.place]
        return Door(inside(caller), waits=False, last=Door(inside(callers.last(caller)), waits=False))

    def inside(caller: object) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=Inside(door, {callers.place: caller}, gateway.tasks), trust_env=False)

    gateway = Gateway(door_for)
    manager = StreamableHTTPSessionManager(
        gateway.server, max_sessions=SESSIONS, session_idle_timeout=IDLE_S, max_request_body_size=REQUEST_BYTES
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        name = callers.name(scope)
        opens = not any(key == SESSION for key, _ in scope["headers"])
        if opens and _sessions_of(manager, name) >= OWN_SESSIONS:
            await _too_many(scope, receive, send)
            return
        known = {**scope, "user": AuthenticatedUser(AccessToken(token="", client_id=name, scopes=[]))}
        try:
            await manager.handle_request(known, receive, send)
        except get_cancelled_exc_class():
            if callers.revoked(scope) and not opens:
                with CancelScope(shield=True):  # what goes on in its session ends with the token
                    await manager.handle_request({**known, "method": "DELETE"}, _nothing, _unheard)
            raise

    async with manager.run():
        yield answer


async def _nothing() -> Message:
    """A request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(part: Message) -> None:
    """Nobody is there."""


def _sessions_of(manager: StreamableHTTPSessionManager, name: str) -> int:
    """How many somebody has open. The SDK bounds them all, and has no public count of one owner's."""
    return sum(each["client_id"] == name for each in manager._session_owners.values())


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    said = {
        "code": Exhausted.code,
        "message": f"{OWN_SESSIONS} sessions of yours are open",
        "next": "close those that you do not use: DELETE /mcp",
    }
    await JSONResponse({"error": said}, 429)(scope, receive, send)
