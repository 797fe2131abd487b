"""Where what workers left is read: reports and patches, as big and as bad as a sandbox can make them.

    who asks ─▶ one at a time of each caller ─▶ one at a time of all: read, parsed, made into an answer, in a thread
             ─▶ a file of our own ─▶ sent at the reader's pace

However many are asked for, by whomever, the door stays quick for everybody else, and memory holds the last two reports
and the one answer in the making.
"""

from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, cast

from anyio import CapacityLimiter, Lock, create_task_group, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.grace.door.callers import caller_of
from core.grace.door.streams import cancel_when_gone
from core.grace.reports import Report

KEPT = 2  # reports: one, and the one that it is compared with
AT_ONCE = 4  # answers of one caller that are being made, or sent
IN_MEMORY = 256 * 1024  # bytes of an answer; a bigger one lies on the disk until it is sent
PIECE = 64 * 1024


class Desk:
    """One for the whole door."""

    def __init__(self) -> None:
        self._all = Lock()
        self._each: defaultdict[str, Lock] = defaultdict(Lock)
        self._places: defaultdict[str, CapacityLimiter] = defaultdict(lambda: CapacityLimiter(AT_ONCE))
        self._reports: OrderedDict[tuple[str, str], Report] = OrderedDict()

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """Of `who`: one who asks for much waits for himself, not the others for him."""
        async with self._each[who], self._all:
            yield

    @asynccontextmanager
    async def place(self, who: str) -> AsyncIterator[None]:
        """For an answer of `who`, from before it is made until it is sent."""
        async with self._places[who]:
            yield

    async def report(self, run: str, digest: str, read: Callable[[], Awaitable[Report]]) -> Report:
        """The report of a run, which `read` brings where it is not among the last. Only in a turn."""
        found = self._reports.pop((run, digest), None) or await read()
        self._reports[run, digest] = found
        if len(self._reports) > KEPT:
            self._reports.popitem(last=False)
        return found


class Made(Response):
    """An answer that is made at the desk, once it is its turn, and sent from a file.

    `make` gathers what it needs and returns the work that is done in a thread: the pieces of the answer.
    """

    def __init__(
        self,
        request: Request,
        make: Callable[[], Awaitable[Callable[[], Iterable[str]]]],
        media: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, media_type=media, headers=headers)
        del self.headers["content-length"]
        self._desk, self._who, self._make = desk_of(request), caller_of(request).name, make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            Error: `make` or its work says so; nothing was sent.
        """
        async with self._desk.place(self._who):
            async with self._desk.turn(self._who):
                work = await self._make()
                file = await to_thread.run_sync(_written, work)
                del work  # and with it the reports
            with file:
                await self._send(file, receive, send)

    async def _send(self, file: IO[bytes], receive: Receive, send: Send) -> None:
        size = file.tell()
        file.seek(0)
        headers = [*self.raw_headers, (b"content-length", b"%d" % size)]
        async with create_task_group() as tasks:
            tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while piece := await to_thread.run_sync(file.read, PIECE):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()


def desk_of(request: Request) -> Desk:
    """The desk of the door."""
    return cast("Desk", request.app.state.desk)


def _written(work: Callable[[], Iterable[str]]) -> IO[bytes]:
    """In a thread: the pieces in a file, which stands at its end."""
    file = cast("IO[bytes]", SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - whoever sends it closes it
    try:
        for piece in work():
            file.write(piece.encode("utf-8", "replace"))
    except BaseException:
        file.close()
        raise
    return file
