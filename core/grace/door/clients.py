"""The door's routes for clients: programs with a name, a token, and the few tools that were named for them.

A token is made over the lab's own socket only, so that one that was stolen makes no others. It is told once.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door.answers import Answer, Moment
from core.grace.door.callers import caller_of
from core.grace.door.edge import Empty, Strict, json_of, lab_of
from core.grace.door.routes import Endpoint
from core.grace.door.sessions import tokens_of
from core.grace.door.tokens import Token
from core.registry import Registry
from protos.errors import Conflict, NotFound

PREFIX = "madlab_client_"
TTL_S = 10 * 366 * 86_400.0

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
May = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,64})?$")]


class ClientBody(Strict):
    """Who it is, which tools it may call ("MAD" is all of one, and prose to it), and what it sees."""

    name: Name
    may: Annotated[tuple[May, ...], Field(max_length=256)] = ()
    sees: Literal["own", "all"] = "own"
    ttl_s: Annotated[float | None, Field(gt=0, le=TTL_S)] = None


class Client(Answer):
    """A client, without its token."""

    name: str
    principal: str
    may: list[str]
    sees: Literal["own", "all"]
    made: Moment
    used: Moment | None
    expires: Moment | None
    ended: Moment | None
    holds: bool


class Added(Client):
    """A new client, and its token, which is told this once."""

    token: str


class Clients(Answer):
    """Clients, the newest first."""

    clients: list[Client]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/clients", _list, "Programs that have, or had, a token.", answer=Clients)
    yield Endpoint(
        "POST", "/clients", _add, "Adds a client and tells its token, once.",
        body=ClientBody, answer=Added, status=201, local=True,
    )  # fmt: skip
    yield Endpoint("GET", "/clients/{name}", _show, "One client.", answer=Client)
    yield Endpoint(
        "POST", "/clients/{name}/revoke", _revoke, "Ends a client's token, with all that is in progress or waits.",
        body=Empty, answer=Client,
    )  # fmt: skip


async def _list(request: Request) -> Response:
    return JSONResponse({"clients": [_client_json(each) for each in tokens_of(request).all("client")]})


async def _add(request: Request) -> Response:
    body = await json_of(request, ClientBody)
    for each in body.may:
        _check_tool(lab_of(request).registry, each)
    token, secret = await tokens_of(request).make(
        f"client:{body.name}",
        PREFIX,
        by=caller_of(request).name,
        expires=time.time() + body.ttl_s if body.ttl_s is not None else 0.0,
        may=sorted(set(body.may)),
        sees=body.sees,
    )
    if lab_of(request).web:
        request.app.state.origin.want()
    return JSONResponse(_client_json(token) | {"token": secret}, 201)


async def _show(request: Request) -> Response:
    return JSONResponse(_client_json(tokens_of(request).get(f"client:{request.path_params['name']}")))


async def _revoke(request: Request) -> Response:
    await json_of(request, Empty)
    by, approvals = caller_of(request).name, lab_of(request).services.approvals
    ended = await tokens_of(request).end(f"client:{request.path_params['name']}", by=by)
    for each in await approvals.pending():
        if each.principal == ended.id:
            with suppress(Conflict):  # it was answered just now
                await approvals.deny(each.id, by=by)
    return JSONResponse(_client_json(ended))


def _check_tool(registry: Registry, may: str) -> None:
    """
    Raises:
        NotFound: no such MAD, or no such tool of it: a mistake in writing would otherwise wait for its day.
    """
    mad, _, tool = may.partition(".")
    tools = registry.mad(mad).tools
    if tool and tool not in tools:
        raise NotFound(f"{mad} has no tool {tool[:64]!r}.", next=f"Choose from: {', '.join(sorted(tools)) or 'none'}.")


def _client_json(token: Token) -> dict[str, Any]:
    return {
        "name": token.id.removeprefix("client:"),
        "principal": token.id,
        "may": list(token.may),
        "sees": token.sees,
        "made": token.made,
        "used": token.used or None,
        "expires": token.expires or None,
        "ended": token.ended or None,
        "holds": token.holds(time.time()),
    }
