"""The broker: makes one request for somebody, at an address that may be reached, and streams the answer back.

It knows neither policy nor secrets: whoever calls has decided, and hands in headers and limits. What it promises:

- **The address that is checked is the address that is connected to.** A name is resolved once for each connection,
  every answer is judged, one forbidden answer is enough to refuse, and the socket goes to that number. So a name server
  that changes its mind, or a redirect into private space, gains nothing. A connection used again is judged again.
- **Nothing of one owner is seen by another.** Each has connections of its own, which end with it; there are no cookies,
  no cache, no resumed TLS sessions.
- **Each exchange is a task of the broker's**, which reads the answer while the body may still be on its way. The
  caller pulls what it wants; what it does not pull is not read from the server. Closing the iterator ends the exchange,
  and the connection with it unless both sides were done.
"""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import h11
from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    WouldBlock,
    create_task_group,
    current_time,
    fail_after,
    move_on_after,
)
from anyio.abc import TaskGroup

from core.egress.connection import Connection
from core.egress.dialing import Dialer, may_reach
from core.egress.heads import end_to_end, framed
from core.egress.limits import Limits
from core.egress.names import Ask, Names, ask_machine
from core.egress.packages import Packages
from core.egress.request import Request, Traffic
from core.egress.settings import Egress
from protos.errors import Exhausted, InvalidArgument, Unavailable
from protos.v1.web_pb2 import Header, ResponseHead

ALL_AT_ONCE = 512  # exchanges of all owners together
PIECES = 1  # of an answer that wait for whoever asked; each has up to `READ_BYTES`
IDLE_EACH = 8  # connections that an owner keeps open
KEPT_S = 4.0  # for so long; most servers hang up after five seconds, and losing that race costs a request
REASON_CHARACTERS = 200
SHORT_BYTES = 64 * 1024  # of the body of an answer that may be handed on as one
LINGER_S = 0.001  # so long its head waits for it

Place = tuple[str, str, int]  # scheme, host, port


@dataclass(eq=False)
class _Owner:
    """What one owner has under way, and open."""

    limiter: CapacityLimiter
    idle: dict[Place, list[Connection]] = field(default_factory=dict)
    scopes: set[CancelScope] = field(default_factory=set)

    @property
    def has_nothing(self) -> bool:
        return not self.scopes and not any(self.idle.values())


class Broker:
    """Open it, ask it to `fetch`, and tell it to `forget` each owner that has ended."""

    def __init__(self, settings: Egress, *, ask: Ask = ask_machine) -> None:
        self.settings = settings
        self.packages = Packages(settings.packages)
        self._dialer = Dialer(Names(settings.names, ask), settings.ca_file)
        self._owners: dict[str, _Owner] = {}
        self._all = CapacityLimiter(ALL_AT_ONCE)
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        self._tasks = create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *about: Any) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        with CancelScope(shield=True):
            for each in list(self._owners):
                await self.forget(each)

    async def forget(self, owner: str) -> None:
        """Ends what an owner has under way, and hangs up everywhere."""
        self.packages.forget(owner)
        known = self._owners.pop(owner, None)
        if known is None:
            return
        for scope in known.scopes:
            scope.cancel()
        for connections in known.idle.values():
            for each in connections:
                await each.aclose()
        known.idle.clear()

    async def fetch(
        self, request: Request, body: AsyncIterable[bytes], traffic: Traffic
    ) -> AsyncIterator[ResponseHead | bytes]:
        """Makes `request`: its answer's head, then the pieces of its body, as they come.

        Raises:
            InvalidArgument: the body has another length than was said.
            Denied: rule *address*: the host leads nowhere, or to an address of a kind that must be named.
            Exhausted: it is longer or takes longer than its limits allow.
            Unavailable: no connection, or it broke, or what comes back is no HTTP.
        """
        if request.owner not in self._owners:
            self._owners[request.owner] = _Owner(CapacityLimiter(self.settings.at_once))
        owner = self._owners[request.owner]
        exchange = _Exchange(self, owner, request, body, traffic)
        owner.scopes.add(exchange.scope)
        self._tasks.start_soon(exchange.run)
        try:
            if request.together:
                for each in await exchange.short():
                    yield each
            while (piece := await exchange.heard()) is not None:
                yield piece
            if exchange.failure is not None:
                raise exchange.failure
        finally:
            if not exchange.over.is_set():
                exchange.scope.cancel()
                with CancelScope(shield=True):
                    await exchange.over.wait()

    def leave(self, owner: _Owner, exchange: "_Exchange") -> None:
        """An exchange is over."""
        owner.scopes.discard(exchange.scope)
        if owner.has_nothing and self._owners.get(exchange.request.owner) is owner:
            del self._owners[exchange.request.owner]

    @asynccontextmanager
    async def connection(self, owner: _Owner, request: Request, traffic: Traffic) -> AsyncIterator[Connection]:
        """A connection for one request, kept for the next if both sides are done with it."""
        place = (request.url.scheme, request.url.host, request.url.port)
        async with turn(owner.limiter), turn(self._all):  # in this order: who waits for itself takes no one's place
            connection = await self._again(owner, place, request.limits) or await self._dialer.open(request, traffic)
            is_kept = False
            try:
                traffic.address = str(connection.address)
                yield connection
                is_kept = connection.is_reusable and owner is self._owners.get(request.owner)
            finally:
                if not is_kept:
                    await connection.aclose()
            if is_kept:
                connection.renew()
                owner.idle.setdefault(place, []).append(connection)
                if sum(map(len, owner.idle.values())) > IDLE_EACH:
                    await next(each for each in owner.idle.values() if each).pop(0).aclose()

    async def _again(self, owner: _Owner, place: Place, limits: Limits) -> Connection | None:
        """A connection that is open already, if it still may be used."""
        while idle := owner.idle.get(place):  # looked up anew: while one is closed, another is put back
            connection = idle.pop()
            if connection.is_fresh(KEPT_S) and may_reach(connection.address, limits):
                return connection
            await connection.aclose()
        owner.idle.pop(place, None)
        return None


class _Exchange:
    """One request and its answer, on its way in a task of the broker's."""

    def __init__(
        self, broker: Broker, owner: _Owner, request: Request, body: AsyncIterable[bytes], traffic: Traffic
    ) -> None:
        self.request = request
        self._broker, self._owner, self._body, self._traffic = broker, owner, body, traffic
        self._waiting = deque[ResponseHead | bytes]()
        self._came, self._taken = Event(), Event()  # for who waits for a piece, and for room
        self.scope = CancelScope()
        self.over = Event()
        self.failure: Exception | None = Unavailable("The exchange was ended.", next="Its run has ended, or the lab.")

    async def short(self) -> list[ResponseHead | bytes]:
        """The head, and what comes within a moment: as a rule all of a short answer."""
        said = list[ResponseHead | bytes]()
        piece = await self.heard()
        with move_on_after(LINGER_S):
            while piece is not None:
                said.append(piece)
                if self._traffic.received >= SHORT_BYTES:
                    return said
                piece = await self.heard()
            self._traffic.is_whole = self.failure is None
        return said

    async def heard(self) -> ResponseHead | bytes | None:
        """The next piece of the answer; None: the exchange is over. There is no turn of the loop where it is there."""
        while not self._waiting:
            if self.over.is_set():
                return None
            self._came = Event()
            await self._came.wait()
        self._taken.set()
        return self._waiting.popleft()

    async def run(self) -> None:
        """The whole exchange. What goes wrong is whoever asked's to hear, not the broker's."""
        try:
            with self.scope:
                await self._run()
                self.failure = None
        except Exception as error:  # noqa: BLE001  it is raised again where somebody asked
            self.failure = error
        finally:
            self._broker.leave(self._owner, self)
            self.over.set()
            self._came.set()

    async def _run(self) -> None:
        seconds = self.request.limits.seconds
        try:
            with fail_after(seconds):
                async with self._broker.connection(self._owner, self.request, self._traffic) as connection:
                    await self._converse(connection)
        except TimeoutError:
            raise Exhausted(
                f"The request took longer than its {seconds:g} s.", next="A rule of the policy may allow it more."
            ) from None

    async def _converse(self, connection: Connection) -> None:
        """Sends and reads side by side: a server may answer before it has everything."""
        request, failures = self.request, list[Exception]()
        head = framed(request.method, request.url, request.headers, request.length)
        await connection.send(head, request.limits.idle_s)
        waiting = CancelScope()  # for the answer; it has no end before everything was sent
        if request.length == 0:
            await self._upload(connection, waiting)
            return await self._download(connection, waiting)
        async with create_task_group() as tasks:

            async def upload() -> None:
                try:
                    await self._upload(connection, waiting)
                except Exception as error:  # noqa: BLE001  raised below
                    failures.append(error)
                    tasks.cancel_scope.cancel()

            tasks.start_soon(upload)
            try:
                await self._download(connection, waiting)
            except Exception as error:  # noqa: BLE001  raised below: a task group would wrap it
                failures.append(error)
            tasks.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _upload(self, connection: Connection, waiting: CancelScope) -> None:
        limits = self.request.limits
        try:
            async for each in self._body:
                self._traffic.sent += len(each)
                if self._traffic.sent > limits.bytes_up:
                    raise Exhausted(f"The body is longer than {limits.bytes_up} bytes.", next="Send less.")
                if not await self._took(connection, h11.Data(data=each)):
                    break
            else:
                await self._took(connection, h11.EndOfMessage())
        except h11.LocalProtocolError:
            raise InvalidArgument("The body is not as long as was said.", next="Mend content-length.") from None
        waiting.deadline = current_time() + limits.head_s

    async def _took(self, connection: Connection, part: h11.Data | h11.EndOfMessage) -> bool:
        """Sends a part of the body. A server that hangs up may have answered before: then that is what counts."""
        try:
            await connection.send(part, self.request.limits.idle_s)
        except Unavailable:
            return False
        return True

    async def _download(self, connection: Connection, waiting: CancelScope) -> None:
        limits = self.request.limits
        with waiting:
            head = await connection.head()
        if waiting.cancelled_caught:
            raise Unavailable(f"The server sent no whole head for {limits.head_s:g} s.", next="Try again.")
        await self._tell(_said(head))
        async with aclosing(connection.body(limits.idle_s)) as pieces:  # type: ignore[type-var]
            async for each in pieces:
                self._traffic.received += len(each)
                if self._traffic.received > limits.bytes_down:
                    raise Exhausted(f"The answer is longer than {limits.bytes_down} bytes.", next="Ask for less.")
                await self._tell(each)

    async def _tell(self, piece: ResponseHead | bytes) -> None:
        while len(self._waiting) >= PIECES:
            self._taken = Event()
            await self._taken.wait()
        self._waiting.append(piece)
        self._came.set()


@asynccontextmanager
async def turn(limiter: CapacityLimiter) -> AsyncIterator[None]:
    """One of `limiter`'s places: at once where there is one."""
    try:
        limiter.acquire_nowait()
    except WouldBlock:
        await limiter.acquire()
    try:
        yield
    finally:
        limiter.release()


def _said(head: h11.Response) -> ResponseHead:
    said = ResponseHead(status=head.status_code, reason=head.reason.decode("ascii", "replace")[:REASON_CHARACTERS])
    for name, value in end_to_end(head.headers.raw_items()):
        said.headers.append(Header(name=name.decode("ascii"), value=value))
    return said
