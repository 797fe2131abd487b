"""The door's part in telemetry: `GET /metrics` for Prometheus, how long requests take, and how a message came in."""

import time
from collections.abc import Iterator, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Part

from core.grace.door.callers import Caller, caller_of
from core.grace.door.edge import lab_of
from core.grace.door.routes import Endpoint
from core.lab import Lab
from core.rogers.entry import Entry
from core.telemetry.meters import OTHER
from core.telemetry.prometheus import CONTENT_TYPE, exposed
from core.telemetry.spans import METHODS
from core.telemetry.traced import Traced
from protos.errors import Denied
from protos.v1.message_pb2 import Message

CAME = "madlab.came"  # in a request's scope: when it came, in seconds since the epoch


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/metrics", _metrics, "The lab in figures, as Prometheus reads them.",
        media="text/plain", base="", clients=True,
    )  # fmt: skip


async def _metrics(request: Request) -> Response:
    caller = caller_of(request)
    if not caller.is_operator and not caller.sees_all:
        raise Denied(
            "rule operator: figures are of the whole lab, and this client sees its own runs alone.",
            next="Ask the operator for a client that sees all: madlab client add",
        )
    measures = await lab_of(request).telemetry.figures()
    return Response(exposed(await measures.families()), headers={"content-type": CONTENT_TYPE})


def came_in(request: Request, lab: Lab, caller: Caller, message: Message) -> Sequence[Entry]:
    """What is journalled beside a message that asks for something: when the request came, and the caller's trace."""
    if not lab.telemetry.traces:
        return ()
    traced = Traced.by(
        request.headers.get("traceparent", ""),
        route=request.scope["path"],
        at=request.scope.get(CAME, time.time()),
        is_operator=caller.is_operator,
    )
    return (traced.entry(message.id, message.conversation, caller.name),)


class Measured:
    """Measures each request: how long it took, by route and status. Streams are counted while they are open."""

    def __init__(self, app: ASGIApp, lab: Lab) -> None:
        self._app, self._door = app, lab.telemetry.measures.door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        door, began, status, is_stream = self._door, time.perf_counter(), 0, False
        scope[CAME] = time.time()

        async def answer(part: Part) -> None:
            nonlocal status, is_stream
            if part["type"] == "http.response.start":
                status = part["status"]
                if (b"content-type", b"text/event-stream") in part["headers"]:
                    is_stream = True
                    door.streams += 1
            await send(part)

        door.active += 1
        try:
            await self._app(scope, receive, answer)
        finally:
            door.active -= 1
            if is_stream:
                door.streams -= 1
            else:
                method = scope["method"] if scope["method"] in METHODS else "_OTHER"
                door.requests.record(time.perf_counter() - began, method, _route(scope), str(status or 499))


def _route(scope: Scope) -> str:
    """The declared path, never the one that was asked for: it holds ids, and anything a stranger likes."""
    app: Starlette | None = scope.get("app")
    endpoint = scope.get("endpoint")
    if app is None or endpoint is None:
        return OTHER
    by_endpoint: dict[object, str] | None = getattr(app.state, "paths", None)
    if by_endpoint is None:
        by_endpoint = app.state.paths = {each.endpoint: each.path for each in app.routes if isinstance(each, Route)}
    return by_endpoint.get(endpoint, OTHER)
