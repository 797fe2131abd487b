"""The port `ctx.web` as a Protocol: one request to the world, made by the core, and its answer as a stream."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from protos.errors import Denied
from protos.v1.web_pb2 import FetchEvent, RequestHead

PIECE_BYTES = 256 * 1024


class Web(Protocol):
    """The egress broker, as one caller sees it."""

    def fetch(self, head: RequestHead, body: AsyncIterable[bytes] | None = None) -> AsyncIterator[FetchEvent]:
        """Makes one request and streams its answer: head, bytes, end. Closing the iterator drops the connection.

        Nothing is followed and nothing is tried again: a redirect is an answer like any other.

        Raises:
            InvalidArgument: no absolute http or https address, an unknown method, headers that are the core's.
            Denied: a rule forbids it; the message begins with "rule NAME:", `next` says what would be needed.
            Exhausted: bytes, rate or time of the run are used up.
            Unavailable: no connection, or it broke; the sentence says where.
        """
        ...


class NoWeb(Web):
    """The port of a host that reaches nothing."""

    async def fetch(self, head: RequestHead, body: AsyncIterable[bytes] | None = None) -> AsyncIterator[FetchEvent]:
        raise Denied("rule port: nothing is reached from here.", next="Serve the MAD in a lab with a broker.")
        yield
