"""Roads from the official SDKs to a model server of ours: straight, through the doors, and through doors and gate.

On all of them the traffic of the SDKs is recorded as it goes over the wire, so that a test can lay one road's beside
another's.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    IncompleteRead,
    create_task_group,
    create_tcp_listener,
)
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from core.app import open_journal
from core.fiedler.settings import Model as ModelSettings
from core.fiedler.wire import authorities
from core.gate import Session, hash_of, open_door
from core.horace.store import Horace
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.registry import Registry
from core.rogers.bus import Rogers
from periphery.doors import Doors, open_doors
from protos.llm import Llm
from protos.remote import connect, ports_of
from protos.v1 import llm_pb2 as pb
from protos.v1.session_pb2 import Assignment
from tests.labs import a_home
from tests.model_server import ModelServer, Request, model_server, read_request
from tests.orchestras import CALLER, Hall, a_model, hall

STRAIGHT, DOORS, GATE = "straight", "through the doors", "through the doors and the gate"
KEY = "sk-of-the-client"
TOKEN = "t" * 43
OF_THE_HOP = ("host", "connection", "content-length", "transfer-encoding", "accept-encoding")


@dataclass
class Exchange:
    """One request of an SDK and what came back, byte by byte."""

    request: httpx2.Request
    status: int
    headers: Mapping[str, str]
    pieces: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The body of the answer."""
        return b"".join(self.pieces).decode()

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events: name and data; `[DONE]` is a string."""
        found = []
        for block in self.text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in lines:
                data = lines["data"]
                found.append((lines.get("event", ""), json.loads(data) if data.startswith("{") else data))
        return found


class Recording(httpx2.AsyncBaseTransport):
    """A transport that keeps what passes, of a test's own SDKs or of whoever talks to a `relay`."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=authorities())
        self.exchanges: list[Exchange] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        exchange = Exchange(request, response.status_code, dict(response.headers))
        self.exchanges.append(exchange)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        response.stream = _Tee(stream, exchange.pieces)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Tee(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, pieces: list[bytes]) -> None:
        self._inner, self._pieces = inner, pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for each in self._inner:
            self._pieces.append(each)
            yield each

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[int, Recording]]:
    """A port of loopback at which the server of `port` answers, and what goes over that wire: for programs of others,
    whose transport nobody can hand over."""
    recording = Recording()

    async def serve(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    await pass_on(await read_request(received), stream)
            except (EndOfStream, IncompleteRead, BrokenResourceError, ClosedResourceError):
                return

    async def pass_on(request: Request, stream: SocketStream) -> None:
        headers = {name: value for name, value in request.headers.items() if name not in OF_THE_HOP}
        address = f"http://127.0.0.1:{port}{request.path}"
        async with http.stream(request.method, address, headers=headers, content=request.content) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name not in OF_THE_HOP]
            lines = [f"HTTP/1.1 {answer.status_code} Status", *(f"{name}: {value}" for name, value in kept)]
            await stream.send("\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode())
            async for each in answer.aiter_raw():
                await stream.send(b"%x\r\n%s\r\n" % (len(each), each))
            await stream.send(b"0\r\n\r\n")

    async with (
        httpx2.AsyncClient(transport=recording, timeout=60) as http,
        await create_tcp_listener(local_host="127.0.0.1") as listener,
        create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port), recording
        tasks.cancel_scope.cancel()


@dataclass
class Road:
    """An open road."""

    name: str
    server: ModelServer
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    recording: Recording
    opened: Doors | None = None
    hall: Hall | None = None

    @property
    def is_straight(self) -> bool:
        return self.opened is None

    @property
    def doors(self) -> Doors:
        assert self.opened is not None
        return self.opened

    @property
    def last(self) -> Exchange:
        """The last exchange of an SDK."""
        return self.recording.exchanges[-1]

    @property
    def sent(self) -> Any:
        """The body that the model server got last."""
        return self.server.requests[-1].body


class FiedlerOf(Llm):
    """The port of one caller, without a gate between."""

    def __init__(self, opened: Hall) -> None:
        self._fiedler = opened.fiedler

    def complete(self, request: pb.CompleteRequest) -> AsyncIterator[pb.CompletionEvent]:
        return self._fiedler.complete(request, CALLER)

    async def embed(self, request: pb.EmbedRequest) -> pb.EmbedReply:
        return await self._fiedler.embed(request, CALLER)

    async def models(self) -> Sequence[pb.Model]:
        return self._fiedler.models()

    async def costs(self, by: str = "model", *, since: float = 0.0) -> pb.CostsReply:
        return await self._fiedler.ledger.report(by, CALLER, since=since)


def models() -> dict[str, ModelSettings]:
    """One alias a protocol, and one for vectors."""
    patient: dict[str, Any] = {"attempts": 1, "first_output_s": 30, "idle_s": 30}
    return {
        "one": a_model(images=True, max_tokens=1000, **patient),
        "two": a_model("anthropic", images=True, max_tokens=1000, **patient),
        "vectors": a_model(chat=False, embeddings=True),
    }


@asynccontextmanager
async def open_road(
    name: str, directory: Path, *, server: ModelServer | None = None, model: str = "one", **orchestra: Any
) -> AsyncIterator[Road]:
    """A road of this name; `model` is what the doors take for names that they do not know."""
    async with AsyncExitStack() as stack:
        behind = server if server is not None else await stack.enter_async_context(model_server())
        opened: Doors | None = None
        ours: Hall | None = None
        if name != STRAIGHT:
            here = await stack.enter_async_context(hall(behind, directory, models(), **orchestra))
            llm = FiedlerOf(here) if name == DOORS else await stack.enter_async_context(_gate(here, directory))
            doors = await stack.enter_async_context(open_doors(llm, model))
            ours, opened = here, doors
        recording = Recording()
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=recording, timeout=60))
        of_openai = openai.AsyncOpenAI(
            api_key=KEY, base_url=opened.openai if opened else behind.openai, max_retries=0, http_client=http
        )
        of_anthropic = anthropic.AsyncAnthropic(
            api_key=KEY, base_url=opened.anthropic if opened else behind.anthropic, max_retries=0, http_client=http
        )
        yield Road(name, behind, of_openai, of_anthropic, recording, opened, ours)


@asynccontextmanager
async def _gate(ours: Hall, directory: Path) -> AsyncIterator[Llm]:
    """The port as a worker has it: over gRPC on a unix socket."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(a_home())
        journal = await stack.enter_async_context(open_journal(home))
        rogers = await stack.enter_async_context(Rogers(journal))
        horace = await stack.enter_async_context(Horace(home.path / "blobs", journal, quota_bytes=2**30))
        services = Services(journal, rogers, horace, Registry([]), ours.fiedler)
        identity = Identity("hopper", frozenset({"llm"}), run="run-1", conversation="c")
        assignment = Assignment(participant="hopper", run="run-1", conversation="c")
        socket = directory / "door"
        socket.mkdir()
        session = Session(lease_s=60, token=hash_of(TOKEN))
        session.assign(context_for(services, identity, assignment, unlimited()))
        await stack.enter_async_context(open_door(socket, session))
        remote = await stack.enter_async_context(connect(f"unix:{socket}/gate.sock", TOKEN, on_end=lambda: None))
        yield ports_of(remote, await remote.assigned()).llm
