"""The operator in a browser: a ticket from the lab's own socket is traded for a session's token.

The ticket travels in the fragment of an address, which a browser sends to nobody, and is worth nothing after its one
use or a minute. The token never was in an address, a header of a redirect, a cookie, a log or a command line.
"""

import secrets
import time
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door.answers import Answer, Moment
from core.grace.door.callers import OPERATOR, caller_of
from core.grace.door.edge import Empty, Strict, json_of, lab_of
from core.grace.door.routes import Endpoint
from core.grace.door.surface import Guesses
from core.grace.door.tokens import Token, Tokens, digest_of
from core.grace.door.wire import WIRE, Connection
from protos.errors import Exhausted, InvalidArgument, Unavailable

TICKET_S = 60.0
TICKETS = 16  # that nobody has used yet
IDLE_S = 12 * 3600.0
LIFE_S = 7 * 86_400.0
PREFIX = "madlab_session_"
ABOUT = 200  # characters of what a browser says it is


class Tickets:
    """Tickets that nobody has used yet, by their hash. They do not outlive the core."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def make(self) -> str:
        """A new one.

        Raises:
            Exhausted: too many wait to be used.
        """
        now = time.monotonic()
        self._until = {each: until for each, until in self._until.items() if until > now}
        if len(self._until) >= TICKETS:
            raise Exhausted(f"{TICKETS} tickets wait to be used.", next="Use one, or wait a minute.")
        ticket = secrets.token_urlsafe(32)
        self._until[digest_of(ticket)] = now + TICKET_S
        return ticket

    def take(self, ticket: str) -> bool:
        """Whether it is good; from now on it is not."""
        return self._until.pop(digest_of(ticket), 0.0) > time.monotonic()


class TicketBody(Strict):
    """What `madlab open` was given."""

    ticket: Annotated[str, Field(max_length=100)]


class Ticket(Answer):
    """A ticket, and where to take it. `expires_s` is seconds from now."""

    ticket: str
    url: str
    expires_s: float


class Session(Answer):
    """A session of the operator's. It ends at `expires`, or earlier if nobody uses it."""

    id: str
    made: Moment
    used: Moment | None
    expires: Moment
    ended: Moment | None
    holds: bool
    about: str
    current: bool


class Opened(Session):
    """A new session, and its token, which is told this once."""

    token: str


class Sessions(Answer):
    """Sessions, the newest first."""

    sessions: list[Session]


class Whoami(Answer):
    """Who asks, as the lab sees it."""

    principal: str
    may: list[str]
    sees: str
    expires: Moment | None
    local: bool


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "POST", "/tickets", _ticket, "A ticket that a page trades for a session, once, within a minute.",
        body=Empty, answer=Ticket, status=201, local=True,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/sessions", _open, "Trades a ticket for a session's token.",
        body=TicketBody, answer=Opened, status=201, anybody=True,
    )  # fmt: skip
    yield Endpoint("GET", "/sessions", _list, "The operator's sessions in browsers.", answer=Sessions)
    yield Endpoint("DELETE", "/sessions/current", _leave, "Ends the session that asks.", answer=Session)
    yield Endpoint("POST", "/sessions/{id}/revoke", _revoke, "Ends a session.", body=Empty, answer=Session)
    yield Endpoint("GET", "/whoami", _whoami, "Who asks, as the lab sees it.", answer=Whoami, clients=True)


async def _ticket(request: Request) -> Response:
    await json_of(request, Empty)
    lab = lab_of(request)
    if not lab.web:
        raise Unavailable("This lab has no page.", next="See [web] in madlab.toml, and core.log.")
    await request.app.state.origin.hold()
    tickets: Tickets = request.app.state.tickets
    ticket = tickets.make()
    return JSONResponse({"ticket": ticket, "url": f"{lab.web}/#ticket={ticket}", "expires_s": TICKET_S}, 201)


async def _open(request: Request) -> Response:
    body = await json_of(request, TicketBody)
    tickets: Tickets = request.app.state.tickets
    guesses: Guesses = request.app.state.guesses
    wire: Connection = request.scope[WIRE]
    if not tickets.take(body.ticket) or not wire.is_ours():
        raise guesses.failed()
    token, secret = await tokens_of(request).make(
        f"session:{secrets.token_hex(4)}",
        PREFIX,
        by=OPERATOR,
        expires=time.time() + LIFE_S,
        idle_s=IDLE_S,
        sees="all",
        place=lab_of(request).origin,
        about=request.headers.get("user-agent", "")[:ABOUT],
    )
    return JSONResponse(_session_json(token, lab_of(request).origin, token) | {"token": secret}, 201)


async def _list(request: Request) -> Response:
    current = caller_of(request).token
    origin = lab_of(request).origin
    found = [_session_json(each, origin, current) for each in tokens_of(request).all("session")]
    return JSONResponse({"sessions": found})


async def _leave(request: Request) -> Response:
    caller = caller_of(request)
    if caller.token is None:
        raise InvalidArgument("The lab's own socket has no session.", next="See: madlab sessions")
    ended = await tokens_of(request).end(caller.token.id, by=caller.name, sparing=caller.alive)
    return JSONResponse(_session_json(ended, lab_of(request).origin, caller.token))


async def _revoke(request: Request) -> Response:
    await json_of(request, Empty)
    caller = caller_of(request)
    id = f"session:{request.path_params['id']}"
    ended = await tokens_of(request).end(id, by=caller.name, sparing=caller.alive)
    return JSONResponse(_session_json(ended, lab_of(request).origin, caller.token))


async def _whoami(request: Request) -> Response:
    caller = caller_of(request)
    until = caller.token.until() if caller.token is not None else float("inf")
    return JSONResponse(
        {
            "principal": caller.name,
            "may": sorted(each.removeprefix("call:") for each in caller.identity.ports),
            "sees": "all" if caller.sees_all else "own",
            "expires": None if until == float("inf") else until,
            "local": caller.local,
        }
    )


def tokens_of(request: Request) -> Tokens:
    """The tokens of the lab."""
    tokens: Tokens = request.app.state.tokens
    return tokens


def _session_json(token: Token, origin: str, current: Token | None) -> dict[str, object]:
    return {
        "id": token.id.removeprefix("session:"),
        "made": token.made,
        "used": token.used or None,
        "expires": token.until(),
        "ended": token.ended or None,
        "holds": token.holds(time.time()) and token.place == origin,
        "about": token.about,
        "current": current is not None and current.id == token.id,
    }
