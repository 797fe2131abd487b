"""The HTTP door: `/api/v1`, JSON in and out, for the command line and every later face of the lab.

Rules of the file
  1. The door decides nothing that the ports and services behind it do not. It turns JSON into their calls, checks the
     shape of what comes in strictly, and turns what they raise into `{"error": {code, message, next}}`.
  2. Everything that can be long is a stream: blobs go in and out in chunks, followers get server-sent events.
  3. Whoever can open the lab's own socket (mode 0600) is the operator; over TCP a token says who it is (`surface`).
     Nothing that is written in a request can name another sender.
  4. It ends at once: a stream in progress never holds up a shutdown, since its reader can take it up again.
"""

import json
from functools import cache

from anyio import Event
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from core.grace.door import (
    activity,
    alarms,
    archives,
    attention,
    clients,
    costs,
    files,
    following,
    mcp,
    messages,
    metrics,
    openapi,
    oversight,
    overview,
    page,
    patches,
    reports,
    runs,
    search,
    sessions,
    support,
    talks,
    vault,
    whole,
)
from core.grace.door.desk import Desk
from core.grace.door.edge import Answers, refuse, refuse_http
from core.grace.door.events import Changes
from core.grace.door.feed import Feed
from core.grace.door.routes import Endpoint, routes_of
from core.grace.door.sessions import Tickets
from core.grace.door.shares import Shares
from core.grace.door.surface import Guesses, Surface
from core.grace.door.talks import Recent
from core.grace.door.tokens import Tokens
from core.grace.door.trail import Trail
from core.lab import Lab
from protos.errors import Error

PARTS = (
    whole,
    sessions,
    clients,
    mcp,
    messages,
    runs,
    activity,
    files,
    patches,
    reports,
    search,
    archives,
    talks,
    overview,
    vault,
    oversight,
    alarms,
    attention,
    costs,
    metrics,
    support,
    following,
    openapi,
    page,
)


def endpoints() -> list[Endpoint]:
    """All that the door answers."""
    return [each for part in PARTS for each in part.routes()]


def door(lab: Lab) -> Starlette:
    """The application. `app.state.closing`, once set, ends its streams."""
    tokens, guesses = Tokens(lab.journal, lab.services.redactor), Guesses()
    app = Starlette(
        routes=routes_of(endpoints()),
        middleware=[
            Middleware(metrics.Measured, lab=lab),
            Middleware(Answers, lease_s=lab.config.runs.lease_s),
            Middleware(Surface, lab=lab, tokens=tokens, guesses=guesses),
        ],
        exception_handlers={Error: refuse, HTTPException: refuse_http},  # type: ignore[dict-item]
    )
    app.router.redirect_slashes = False
    app.state.lab = lab
    app.state.openapi = cache(lambda: json.dumps(openapi.document(endpoints())))
    app.state.tokens, app.state.tickets, app.state.guesses = tokens, Tickets(), guesses
    app.state.closing = Event()
    app.state.changes = Changes()
    app.state.feed = Feed(lab)
    app.state.desk = Desk()
    app.state.shares = Shares(lab)
    app.state.deciding = set()  # runs whose patch somebody is just deciding about
    app.state.mcp = mcp.mount(app)
    app.state.trail = Trail(lab.journal)
    lab.journal.on_commit(app.state.changes.committed)
    app.state.tally, app.state.card = overview.opened(lab)
    app.state.recent = Recent()
    lab.journal.on_commit(app.state.recent.committed)
    return app
