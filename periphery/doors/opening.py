"""Opens the doors: the servers that an agent of any make finds on loopback in its sandbox, without a key."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass

import uvicorn
from anyio import TASK_STATUS_IGNORED, CancelScope, Event, create_task_group, sleep_forever
from anyio.abc import TaskStatus

from periphery.doors.application import Application
from periphery.doors.exchange import Exchange, Usage
from protos.errors import Exhausted
from protos.llm import Llm

KEY = "in-the-core"  # SDKs insist on one; nobody looks at it
KEEP_ALIVE_S = 600  # longer than clients keep a connection, so that it is they who close it
GRACE_S = 2


@dataclass(frozen=True)
class Doors:
    """Open doors."""

    port: int
    exchange: Exchange

    @property
    def openai(self) -> str:
        """The address for clients of OpenAI's protocol."""
        return f"{self.anthropic}/v1"

    @property
    def anthropic(self) -> str:
        """The address for clients of Anthropic's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def usage(self) -> Usage:
        """What went through them so far."""
        return self.exchange.usage

    @property
    def exhausted(self) -> Exhausted | None:
        """The last time that there was no budget for a request, whatever the client made of it."""
        return self.exchange.exhausted

    def environment(self) -> Mapping[str, str]:
        """The variables by which agents find their model."""
        return {
            "OPENAI_BASE_URL": self.openai,
            "OPENAI_API_BASE": self.openai,
            "OPENAI_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": self.anthropic,
            "ANTHROPIC_API_KEY": KEY,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


@asynccontextmanager
async def open_doors(llm: Llm, model: str = "") -> AsyncIterator[Doors]:
    """Doors in front of `llm`, on a free port of this machine's loopback.

    `model` is the alias that is meant by names which are none ("gpt-4o"); empty: the lab's default. Leaving ends what
    is still being answered. What the body raises comes out as it is.
    """
    exchange = Exchange(llm, model)
    application = Application(exchange)
    problem: Exception | None = None
    async with create_task_group() as tasks:
        port = await tasks.start(_serve, application)
        try:
            yield Doors(port, exchange)
        except Exception as error:  # noqa: BLE001  raised again below, without the group's wrapping
            problem = error
        tasks.cancel_scope.cancel()
    if problem is not None:
        raise problem


class _Server(uvicorn.Server):
    """Uvicorn as a task of ours: signals belong to the worker; being ready is said and the end awaited, not polled."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], closing: Event) -> None:
        super().__init__(config)
        self._ready, self._closing = ready, closing

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # once is enough: it renews a date that is not sent
        await self._closing.wait()


async def _serve(application: Application, *, task_status: TaskStatus[int] = TASK_STATUS_IGNORED) -> None:
    """Serves until cancelled; then ends what is being answered."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=256)) as listener:
        # Connections inherit it. Asyncio sets it too, but not on sockets that leave their protocol unsaid, as this one.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        application.hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        config = uvicorn.Config(
            application, lifespan="off", ws="none", http="h11", interface="asgi3", log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )  # fmt: skip
        server = _Server(config, lambda: task_status.started(port), application.closing)

        async def run() -> None:
            with CancelScope(shield=True):
                await server.serve(sockets=[listener])

        async with create_task_group() as tasks:
            tasks.start_soon(run)
            try:
                await sleep_forever()
            finally:
                application.closing.set()
