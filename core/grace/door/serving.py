"""Serves an application on a unix socket that only this user can open, as a task of ours.

The socket is made here rather than by uvicorn, which would open it to everyone, and which would take the signals too.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn
from anyio import TASK_STATUS_IGNORED, CancelScope, create_task_group, sleep_forever
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from core.grace.door.callers import CALLER, THE_OPERATOR

GRACE_S = 2  # for requests in progress at a shutdown


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
        self._ready()


async def serve(app: Starlette, path: Path, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Serves on a unix socket that only this user can open, until cancelled; then ends streams, then requests.

    Raises:
        OSError: the socket cannot be made.
    """
    with closing(listen(path)) as listener:
        config = uvicorn.Config(
            _of_owner(app), lifespan="off", ws="none", http="h11", log_config=None, access_log=False,
            server_header=False, date_header=False, timeout_graceful_shutdown=GRACE_S,
        )  # fmt: skip
        server = Server(config, task_status.started)

        async def run() -> None:
            with CancelScope(shield=True):
                await server.serve(sockets=[listener])

        try:
            async with create_task_group() as tasks:
                tasks.start_soon(run)
                try:
                    await sleep_forever()
                finally:
                    app.state.closing.set()
                    server.should_exit = True
        finally:
            path.unlink(missing_ok=True)  # noqa: ASYNC240  one name in a memory file system


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
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
