"""One connection: uvicorn's HTTP/1.1 with a time for everything.

uvicorn waits for ever for the end of a head, of a body, and for a reader. Here each of these has a timer, of which one
runs at most, by what the connection waits for:

    head     from the first moment, or the first byte of the next request, to its last header; never extended
    body     from the last header on; the more has come, the more time there is, at a least rate
    reader   from the moment that what is ready is not taken, until it is
    idle     between two requests (uvicorn's own)

Who is late is hung up on: whatever handles its request hears of a client that has left. What is no HTTP gets the
same kind of answer as everything else.
"""

import json
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from core.grace.door.headers import secured
from core.grace.door.limits import Crowd
from core.grace.door.peers import is_ours
from protos.errors import InvalidArgument

WIRE = "madlab.wire"  # where a request's scope has its connection
BUFFER = 64 * 1024  # bytes that wait for a reader before whoever sends has to wait, too
NO_HTTP = {
    "error": {
        "code": InvalidArgument.code,
        "message": "This is no HTTP/1.1 request that the lab understands.",
        "next": "See core/grace/door/README.md",
    }
}

Waits = Literal["head", "body", "reader"]


class Connection(H11Protocol):
    """One connection of one listener."""

    def __init__(self, *, crowd: Crowd, **given: Any) -> None:
        super().__init__(**given)
        self.app = cast(Any, partial(_with_wire, self.app, self))
        self._crowd, self._limits = crowd, crowd.limits
        self._timer: TimerHandle | None = None
        self._waits: Waits | None = None
        self._body_since, self._body_bytes = 0.0, 0
        self._is_ours: bool | None = None

    @property
    def is_served(self) -> bool:
        """Whether the lab is at work for it, and it has not to be waited for."""
        return self._waits is None and self.conn.their_state is not h11.IDLE

    def know(self, token: str, *, client: bool) -> bool:
        """Notes whose it is, a client's or the operator's; whether there is a place for it."""
        return self._crowd.know(self, token, client=client)

    def is_ours(self) -> bool:
        """Whether the other end is a program of our own user. Asked once, for who has shown a good token."""
        if self._is_ours is None:
            match self.client, self.server:
                case (str(), int()) as peer, (str(), int()) as here:
                    self._is_ours = is_ours(peer, here)
                case _:  # the lab's own socket, which nobody else can open
                    self._is_ours = True
        return self._is_ours

    def hang_up(self) -> None:
        """Ends it, whatever is in progress."""
        self.transport.abort()

    # --- what the loop tells

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast(Transport, transport))
        self.transport.set_write_buffer_limits(high=BUFFER)
        self._crowd.enter(self)
        self._wait("head", self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waits == "body":
            self._body_bytes += len(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._limits.reader_s is not None:
            self._wait("reader", self._limits.reader_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._waits == "reader":
            self._wait(None)
            self._look()

    def send_400_response(self, msg: str) -> None:
        content = json.dumps(NO_HTTP).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=400, headers=secured(headers), reason=b"Bad Request"),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    # --- the timer

    def _look(self) -> None:
        """Sees to it that what the connection waits for now has its timer."""
        if self._waits == "reader" or self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            if self._waits != "body":
                self._body_since, self._body_bytes = self.loop.time(), 0
                self._wait("body", self._limits.body_s)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            if self._waits != "head":
                self._wait("head", self._limits.head_s)
        elif self._waits == "body" or self.conn.their_state is not h11.IDLE:
            self._wait(None)

    def _wait(self, waits: Waits | None, seconds: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waits = waits
        self._timer = None if waits is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """The timer is over."""
        if self._waits == "body":
            now, limits = self.loop.time(), self._limits
            if self.flow.read_paused:  # it is the lab that is slow
                self._wait("body", limits.body_s)
                return
            due = self._body_since + limits.body_s + (self._body_bytes / limits.body_rate if limits.body_rate else 0)
            if now < due:
                self._wait("body", due - now)
                return
        self.hang_up()


def protocol(crowd: Crowd) -> Callable[..., Connection]:
    """What makes the connections of one listener."""
    return partial(Connection, crowd=crowd)


async def _with_wire(app: ASGIApp, wire: Connection, scope: Scope, receive: Receive, send: Send) -> None:
    await app({**scope, WIRE: wire}, receive, send)
