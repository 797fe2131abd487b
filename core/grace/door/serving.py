"""Serves the door as tasks of ours: on a unix socket that only this user can open, and on loopback.

The sockets are not made by uvicorn, which would open the one to everyone, and which would take the signals too. The
one on loopback outlives the core (`origin`), so that a page that is open finds the next core, and nobody else.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import uvicorn
from anyio import TASK_STATUS_IGNORED, CancelScope, Event, create_task_group, sleep_forever
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from core.config import Web
from core.grace.door.callers import CALLER, THE_OPERATOR
from core.grace.door.headers import Secured
from core.grace.door.limits import ACCEPTED, HEAD_BYTES, OWN_SOCKET, WAITING, WEB, Crowd, Limits
from core.grace.door.origin import open_origin
from core.grace.door.wire import protocol
from core.home import Home
from core.lab import Lab

GRACE_S = 2  # for requests in progress at a shutdown
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what strangers do wrong is told to them, not to the log


class Server(uvicorn.Server):
    """Uvicorn as a task of ours: signals belong to the core, and being ready is said and not polled."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(WAITING)  # asyncio takes one number for what waits and for what is accepted in one go
        self._ready()


async def serve(app: Starlette, path: Path, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Serves on a unix socket that only this user can open, until cancelled; then ends streams, then requests.

    Raises:
        OSError: the socket cannot be made.
    """
    with closing(listen(path)) as listener:
        try:
            await serve_on(_of_owner(app), app.state.closing, listener, OWN_SOCKET, task_status)
        finally:
            path.unlink(missing_ok=True)  # noqa: ASYNC240  one name in a memory file system


async def serve_web(
    app: Starlette, home: Home, setting: Web, *, task_status: TaskStatus[str] = TASK_STATUS_IGNORED
) -> None:
    """Serves on loopback, until cancelled, and tells the page's address; the empty one where that cannot be had."""
    lab: Lab = app.state.lab
    origin = await open_origin(home, setting, lab.config.runs.lease_s)
    if origin is None:
        task_status.started("")
        return
    app.state.origin, lab.origin, now = origin, origin.id, time.time()
    try:
        async with create_task_group() as tasks:
            await tasks.start(_started, app, origin.listener)
            tasks.start_soon(origin.watch)
            if any(each.holds(now) for each in app.state.tokens.all("client")):
                origin.want()
            task_status.started(origin.address)
    finally:
        with CancelScope(shield=True):
            await origin.close(keep=lab.keep_runs)


async def _started(app: Starlette, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
    await serve_on(app, app.state.closing, listener, WEB, task_status)


async def serve_on(
    app: ASGIApp, ending: Event, listener: socket.socket, limits: Limits, task_status: TaskStatus[None]
) -> None:
    """Serves on a socket that listens, until cancelled; then sets `ending`, and waits for requests for a moment."""
    config = uvicorn.Config(
        Secured(app), lifespan="off", ws="none", http=cast(Any, protocol(Crowd(limits))), log_config=None,
        access_log=False, server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=int(limits.idle_s), timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEAD_BYTES, backlog=ACCEPTED,
    )  # fmt: skip
    server = Server(config, task_status.started)

    async def run() -> None:
        with CancelScope(shield=True):
            await server.serve(sockets=[listener])

    async with create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            await sleep_forever()
        finally:
            ending.set()
            server.should_exit = True


def _of_owner(app: ASGIApp) -> ASGIApp:
    """The application for whoever can open the lab's own socket: the operator."""

    async def owned(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, CALLER: THE_OPERATOR}, receive, send)

    return owned


def listen(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600, in the place of one that an earlier core left."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(WAITING)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
