"""One connection of a program to the proxy: its requests, one after the other, each made by the core.

A program may speak to the proxy in two ways. Plainly, with the whole address in the request line; or through CONNECT,
after which it starts TLS (or plain HTTP) with what it believes to be the host. Either way the requests are read by h11,
here, in the sandbox, where a parser's mistake hurts nobody, and go on as typed messages. What a rule forbids comes back
as an HTTP answer that says so: 403 for a denial, 429 where a budget is used up, 502 where the host cannot be reached.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from urllib.parse import urlsplit

import h11
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, fail_after
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream
from anyio.streams.tls import TLSStream

from periphery.proxy.authority import Authority
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unavailable
from protos.ids import new_id
from protos.v1.web_pb2 import Header, RequestHead, ResponseHead
from protos.web import PIECE_BYTES, Web

IDLE_S = 300.0  # between two requests of one connection
READ_BYTES = 64 * 1024
TLS_HELLO = 0x16  # the first byte of a TLS record that begins a handshake
STATUS = {Denied: 403, Exhausted: 429, InvalidArgument: 400, Unavailable: 502}
OURS = frozenset(  # between two neighbours, or the core's to say; a length is passed on as a promise
    {
        *(b"connection", b"host", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
    }
)
GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, ssl.SSLError, TimeoutError)


class Conversation:
    """One connection. `origin` is what its requests are relative to: set once it went through CONNECT."""

    def __init__(self, stream: ByteStream, web: Web, authority: Callable[[], Authority], origin: str = "") -> None:
        self._stream, self._web, self._authority, self._origin = stream, web, authority, origin
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)

    async def go(self) -> None:
        """Answers requests until the program hangs up."""
        with suppress(*GONE):
            try:
                while await self._answer_one():
                    self._http.start_next_cycle()
            except h11.RemoteProtocolError as error:
                if self._http.our_state is h11.IDLE:
                    await self._refuse(error.error_status_hint, "InvalidArgument", f"No HTTP request: {error}.")
        with suppress(*GONE):
            await self._stream.aclose()

    async def _answer_one(self) -> bool:
        """Answers one request; whether there may be another."""
        request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        if request.method == b"CONNECT":
            await self._connect(request.target.decode("ascii", "replace"))
            return False
        try:
            head, body = self._head(request), self._body(request)
            if body is None:
                self._http.next_event()  # the end of the request, or the connection could not be used again
            async with aclosing(self._web.fetch(head, body)) as events:  # type: ignore[type-var]
                async for event in events:
                    match event.WhichOneof("kind"):
                        case "head":
                            await self._send(_response(event.head))
                        case "bytes":
                            if request.method != b"HEAD":
                                await self._send(h11.Data(data=event.bytes))
            await self._send(h11.EndOfMessage())
        except Error as error:
            if self._http.our_state is not h11.SEND_RESPONSE:
                return False  # half an answer was given: hanging up is all that can still be said
            await self._refuse(STATUS.get(type(error), 502), error.code, error.message, error.next)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def _head(self, request: h11.Request) -> RequestHead:
        """The request as the core takes it.

        Raises:
            InvalidArgument: its address is none, or it names another host than the connection.
            Denied: it wants to speak something else than HTTP.
        """
        target = request.target.decode("latin-1")
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        if any(name == b"upgrade" for name, _ in request.headers):
            raise Denied("rule upgrade: only HTTP requests leave a sandbox.", next="Do it without WebSockets.")
        if self._origin:
            if not target.startswith("/"):
                raise InvalidArgument("In a tunnel a request names a path.", next='Begin its target with "/".')
            if hosts and _authority(hosts[0], self._origin) != urlsplit(self._origin).netloc:
                raise InvalidArgument(f"The request is for {hosts[0][:255]}, its tunnel leads to {self._origin}.")
            url = self._origin + target
        elif target.lower().startswith(("http://", "https://")):
            url = target
        else:
            raise InvalidArgument("This is a proxy: a request names a whole address.", next="Set HTTP_PROXY to it.")
        headers = [
            Header(name=name.decode("latin-1"), value=value) for name, value in request.headers if name not in OURS
        ]
        return RequestHead(id=new_id(), method=request.method.decode("latin-1"), url=url, headers=headers)

    def _body(self, request: h11.Request) -> AsyncIterator[bytes] | None:
        names = {name for name, _ in request.headers}
        return self._chunks() if names & {b"content-length", b"transfer-encoding"} else None

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            event = await self._event()
            if not isinstance(event, h11.Data):
                return
            data = bytes(event.data)
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]

    async def _connect(self, target: str) -> None:
        """Becomes the host that the program asked for."""
        host, _, port = target.rpartition(":")
        host = host.strip("[]").lower()
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return await self._refuse(400, "INVALID_ARGUMENT", "CONNECT names a host and a port.")
        try:
            context = self._authority().context(host)
        except ValueError:
            return await self._refuse(400, "INVALID_ARGUMENT", f"There is no host called {host[:255]!r}.")
        await self._stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        early, _ = self._http.trailing_data
        buffered = BufferedByteReceiveStream(self._stream)
        with fail_after(IDLE_S):
            first = early[:1] or await buffered.receive(1)
        buffered.feed_data(early or first)
        stream: ByteStream = StapledByteStream(self._stream, buffered)
        is_tls = first[0] == TLS_HELLO
        if is_tls:
            with fail_after(IDLE_S):
                stream = await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)
        scheme, usual = ("https", "443") if is_tls else ("http", "80")
        name = f"[{host}]" if ":" in host else host
        origin = f"{scheme}://{name}" if port == usual else f"{scheme}://{name}:{port}"
        await Conversation(stream, self._web, self._authority, origin).go()

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            try:
                with fail_after(IDLE_S):
                    data = await self._stream.receive(READ_BYTES)
            except EndOfStream:
                data = b""
            self._http.receive_data(data)

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send(data)

    async def _refuse(self, status: int, code: str, message: str, next: str = "") -> None:
        """Answers for the core: in words a program shows to its user, and as JSON for one that reads it."""
        body = json.dumps({"error": {"code": code, "message": message, "next": next}}, ensure_ascii=False).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        reason = f"madlab: {message}".encode("ascii", "replace")[:200].replace(b"\r", b" ").replace(b"\n", b" ")
        await self._send(h11.Response(status_code=status, headers=headers, reason=reason))
        if self._http.our_state is h11.SEND_BODY:
            with suppress(h11.LocalProtocolError):  # the answer to HEAD has none
                await self._send(h11.Data(data=body))
            await self._send(h11.EndOfMessage())


def _response(head: ResponseHead) -> h11.Response:
    """The answer's head. Its length stays where it says one; else h11 sends it in chunks."""
    kept = [
        (name, each.value)
        for each in head.headers
        if (name := each.name.lower().encode("latin-1", "replace")) not in OURS
    ]
    return h11.Response(status_code=head.status, headers=kept, reason=head.reason.encode("latin-1", "replace"))


def _authority(host: str, origin: str) -> str:
    """A Host header as the origin would write it."""
    usual = ":443" if origin.startswith("https") else ":80"
    return host.lower().removesuffix(usual)
