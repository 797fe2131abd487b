"""The last step before the network: where a request gets its key, and an answer its bounds.

The SDKs are given a client that ends here. They are used for what they are good at, the protocols, and are kept from
what a library should not decide for us: they read no credential and no header from the environment (whatever they
found there is taken off again), follow no redirect, use no proxy, and do not retry. The key is put on a copy of the
request, so no object that an SDK keeps or raises has ever held it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext

import httpx2

from core.fiedler.keys import Key
from core.fiedler.provider import Ask, Kind, Trouble
from core.redaction.redactor import Redactor

ANSWER_BYTES = 64 << 20  # of one answer; a model writes less in an hour
CONNECT_S = 10.0
KEPT = frozenset(
    {"accept", "anthropic-beta", "anthropic-version", "content-length", "content-type", "host", "user-agent"}
    | {"transfer-encoding"}
)  # of the headers that an SDK writes; what else it adds tells about this machine, or comes from its environment
IDLE_CONNECTIONS = 128


@dataclass
class Lent:
    """What one call lends to the wire."""

    key: Key | None
    before_sending: Callable[[], Awaitable[None]]
    redactor: Redactor
    refused: BaseException | None = None  # why it was not sent: the SDKs would hide it behind an error of their own


_lent: ContextVar[Lent] = ContextVar("lent")


@contextmanager
def lending(ask: Ask) -> Iterator[Lent]:
    """Whatever is sent in the body carries the key of `ask`."""
    lent = Lent(ask.key, ask.before_sending, ask.redactor)
    token = _lent.set(lent)
    try:
        yield lent
    finally:
        _lent.reset(token)


def open_client(scheme: str, transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """A client for an SDK. `scheme` is how a key is shown: "bearer" or "x-api-key"."""
    if transport is None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS)
        transport = httpx2.AsyncHTTPTransport(verify=authorities(), limits=limits, trust_env=False)
    return httpx2.AsyncClient(
        transport=_Wire(transport, scheme),
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,
    )


@cache
def authorities() -> SSLContext:
    """Whom this machine trusts. Read once: it takes some 20 ms, and would be read for each client."""
    return httpx2.create_ssl_context(trust_env=False)


class _Wire(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, scheme: str) -> None:
        self._inner, self._scheme = inner, scheme

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        lent = _lent.get()
        headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() in KEPT]
        headers.append(("accept-encoding", "identity"))
        if lent.key is not None:
            value = lent.key.reveal()
            headers.append(("authorization", f"Bearer {value}") if self._scheme == "bearer" else ("x-api-key", value))
        try:
            await lent.before_sending()
        except BaseException as error:
            lent.refused = error
            raise
        sent = httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        response = await self._inner.handle_async_request(sent)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            lent.refused = Trouble(Kind.NONSENSE, "The answer is compressed, which nobody asked for.")
            raise lent.refused
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = ANSWER_BYTES
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise httpx2.RemoteProtocolError(f"the answer is longer than {ANSWER_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
