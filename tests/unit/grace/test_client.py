"""The client against a real door: what it makes of refusals, of streams, and of a core that goes and comes back."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from anyio import CancelScope, Event, create_task_group, fail_after, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.grace.cli.client import LEASE_HEADER, Broken, Client, Unreachable
from core.grace.door.serving import serve
from core.home import Home
from protos.errors import Exhausted, InvalidArgument, NotFound

T = TypeVar("T")
Handler = Callable[[Request], Any]


@pytest.fixture
def home() -> Any:
    with TemporaryDirectory(prefix="m") as directory:
        yield Home(Path(directory), "00000000", Path(directory))


@asynccontextmanager
async def a_door(home: Home, **handlers: Handler) -> AsyncIterator[CancelScope]:
    """A door whose places are named like the handlers; a core that has it gives the lease of half a second."""

    async def handle(request: Request) -> Response:
        answer = await handlers[request.path_params["name"]](request)
        assert isinstance(answer, Response)
        answer.headers[LEASE_HEADER] = "0.5"
        return answer

    app = Starlette(routes=[Route("/{name}", handle, methods=["GET", "POST"])])
    app.state.closing = Event()
    with fail_after(60):
        async with create_task_group() as tasks:
            await tasks.start(serve, app, home.api_socket)
            yield tasks.cancel_scope
            tasks.cancel_scope.cancel()


async def blocking(act: Callable[[], T]) -> T:
    return await to_thread.run_sync(act, abandon_on_cancel=True)


def said_no(code: str, status: int) -> Handler:
    async def handler(request: Request) -> Response:
        said = {"error": {"code": code, "message": "no", "next": "do that"}}
        return JSONResponse(said, status, {"Connection": "close"})

    return handler


async def test_a_lab_that_was_never_there_is_told_at_once(home: Home) -> None:
    with fail_after(60), pytest.raises(Unreachable, match="is not running") as told:
        await blocking(lambda: Client(home).get("/status"))
    assert told.value.next == "start it with: madlab up"


async def test_the_code_picks_the_class_and_nothing_else(home: Home) -> None:
    async def nonsense(request: Request) -> Response:
        return Response("<html>", 502)

    doors = {
        "a": said_no("NOT_FOUND", 404),
        "b": said_no("INTERNAL", 500),
        "c": said_no("SystemExit", 400),
        "d": nonsense,
    }
    async with a_door(home, **doors):
        for name, kind in (("a", NotFound), ("b", Broken), ("c", InvalidArgument), ("d", InvalidArgument)):
            with pytest.raises(kind):
                await blocking(lambda name=name: Client(home).get("/" + name))  # type: ignore[misc]


async def test_a_refusal_in_the_middle_of_an_upload_is_heard(home: Home) -> None:
    def endless() -> Any:
        while True:
            yield bytes(65536)

    async with a_door(home, blobs=said_no("RESOURCE_EXHAUSTED", 429)):
        client = Client(home)

        def send() -> None:
            client._exchange("POST", "/blobs", endless())

        with pytest.raises(Exhausted, match="no"):
            await blocking(send)


async def test_a_stream_goes_on_where_it_stopped_when_the_core_comes_back(home: Home) -> None:
    asked: list[str] = []

    async def stream(request: Request) -> Response:
        last = int(request.headers["last-event-id"])
        asked.append(str(last))

        async def events() -> AsyncIterator[str]:
            yield ":\n\n"
            for number in range(last + 1, last + 3):
                yield f'id: {number}\ndata: {{"id": "m{number}"}}\n\n'
            if last == 0:
                yield 'data: {"id": "e"}\n\n'  # not durable yet: no sequence
            else:
                yield 'id: 9\ndata: {"id": "e"}\n\nevent: end\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")

    heard: list[str] = []
    waited: list[float] = []
    client = Client(home, waiting=waited.append)
    events = client.follow("/stream")
    async with a_door(home, stream=stream):
        heard += await blocking(lambda: [each["id"] for each in islice(events, 3)])
    async with create_task_group() as tasks:

        async def come_back() -> None:
            async with a_door(home, stream=stream):
                heard.extend(await blocking(lambda: [each["id"] for each in events]))

        tasks.start_soon(come_back)
    assert heard == ["m1", "m2", "e", "m3", "m4"]
    assert asked == ["0", "2"]


async def test_a_core_that_stays_away_is_waited_for_no_longer_than_its_lease(home: Home) -> None:
    async def fine(request: Request) -> Response:
        return JSONResponse({})

    waited: list[float] = []
    client = Client(home, waiting=waited.append)
    async with a_door(home, status=fine):
        await blocking(lambda: client.get("/status"))
    with fail_after(60), pytest.raises(Unreachable, match=r"did not come back within 0\.5 s"):
        await blocking(lambda: client.get("/status"))
    assert waited == [0.5]


async def test_a_blob_is_checked_against_its_digest(home: Home) -> None:
    content = b"x" * 300_000
    digest = "sha256:" + sha256(content).hexdigest()

    async def whole(request: Request) -> Response:
        return Response(content)

    async def cut(request: Request) -> Response:
        return Response(content[:-1])

    for handler, good in ((whole, True), (cut, False)):
        async with a_door(home, blob=handler):
            client, into = Client(home), io.BytesIO()
            if good:
                await blocking(lambda: client._copy("/blob", digest, into))  # noqa: B023
                assert into.getvalue() == content
            else:
                with pytest.raises(Unreachable, match="incomplete"):
                    await blocking(lambda: client._patiently(lambda: client._copy("/blob", digest, into)))  # noqa: B023


async def test_only_this_user_can_open_the_door(home: Home) -> None:
    async with a_door(home):
        assert home.api_socket.stat().st_mode & 0o777 == 0o600
    assert not home.api_socket.exists()
