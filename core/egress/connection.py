"""One connection to one address, of one run: requests one after the other, each read to its end or the connection goes.

h11 keeps the state of both sides; what it never sees is a head that `check_head` has not seen first, and a byte that
was there before we asked. A body whose length was said is counted here and handed on as it came: h11 would copy each
piece three times. Nothing is decompressed and nothing is tried again.
"""

import re
import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import h11
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, aclose_forcefully, current_time, fail_after
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute

from core.egress.addresses import Address
from core.egress.heads import ANSWER_HEAD_BYTES, INFORMATIONAL, check_head, nonsense
from core.egress.wire import READ_BYTES
from protos.errors import Unavailable

BROKEN = (BrokenResourceError, ClosedResourceError, ssl.SSLError, OSError)
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
Value = TypeVar("Value")


class Connection:
    """An open connection, for one request at a time: send, head, body; then ask whether it `is_reusable`."""

    def __init__(self, stream: ByteStream, address: Address) -> None:
        self.address = address
        self._stream, self._idle_since = stream, 0.0
        self._tls: ssl.SSLObject | None = stream.extra(TLSAttribute.ssl_object, None)
        self._poll = select.poll()
        self._poll.register(stream.extra(SocketAttribute.raw_socket), select.POLLIN)
        self._begin()

    def _begin(self) -> None:
        """Neither side has said anything yet."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=ANSWER_HEAD_BYTES)
        self._method = b""
        self._left: int | None = None  # bytes of a body whose length was said; None: h11 reads it
        self._ahead = b""  # came along with what was read before

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage, idle_s: float) -> None:
        """Sends a part of the request.

        Raises:
            h11.LocalProtocolError: the body does not have the length that was said.
            Unavailable: the server hung up, or took nothing for `idle_s`.
        """
        data = self._http.send(event)
        if isinstance(event, h11.Request):
            self._method = event.method
        if data:
            await _within(idle_s, lambda: self._stream.send(data), "takes nothing")

    async def head(self) -> h11.Response:
        """The head of the answer. Waits as long as the caller lets it.

        Raises:
            Unavailable: there is none, or it is no HTTP that has only one meaning.
        """
        raw = bytearray()
        for _ in range(INFORMATIONAL + 1):
            end = await self._end_of_head(raw)
            check_head(bytes(raw[:end]))
            self._http.receive_data(bytes(raw[:end]))
            del raw[:end]
            event = self._event()
            if isinstance(event, h11.Response):
                self._left = self._said_length(event)
                if self._left is not None:
                    self._ahead = bytes(raw)
                elif raw:
                    self._http.receive_data(bytes(raw))
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise nonsense("it changes to another protocol, unasked")
        raise nonsense(f"more than {INFORMATIONAL} times it says that it will come")

    def _said_length(self, head: h11.Response) -> int | None:
        """How many bytes the body has, if there is one and the server has said so."""
        if self._method == b"HEAD" or head.status_code in (204, 304):
            return None
        return next((int(value) for name, value in head.headers if name == b"content-length"), None)

    async def _end_of_head(self, raw: bytearray) -> int:
        """Reads until `raw` begins with a whole head; where that ends."""
        while (end := raw.find(b"\r\n\r\n", 0, ANSWER_HEAD_BYTES)) < 0:
            if len(raw) >= ANSWER_HEAD_BYTES:
                raise nonsense(f"its head is longer than {ANSWER_HEAD_BYTES} bytes")
            if BARE_LINE_FEED.search(raw):
                raise nonsense("a line of its head ends in a bare line feed")
            data = await self._receive()
            if not data:
                raise Unavailable("The server hung up before it had answered.", next="Try again.")
            raw += data
        return end + 4

    async def body(self, idle_s: float) -> AsyncIterator[bytes]:
        """The body of the answer in the pieces in which it comes, without its framing.

        Raises:
            Unavailable: it broke off, sent nothing for `idle_s`, or its framing is none.
        """
        while self._left:
            data = self._ahead or await _within(idle_s, self._receive, "sends nothing")
            if not data:
                raise nonsense(f"its body ends {self._left} bytes before its end")
            data, self._ahead = data[: self._left], data[self._left :]
            self._left -= len(data)
            yield data
        while self._left is None:
            event = self._event()
            if event is h11.NEED_DATA:
                data = await _within(idle_s, self._receive, "sends nothing")
                with _reading():
                    self._http.receive_data(data)
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    @property
    def is_reusable(self) -> bool:
        """Whether both sides are done, and nothing came behind the answer."""
        if self._http.our_state is not h11.DONE:
            return False
        if self._left is not None:
            return not self._left and not self._ahead
        return self._http.their_state is h11.DONE and self._http.trailing_data == (b"", False)

    @property
    def _is_silent(self) -> bool:
        """Whether nothing lies there to be read: neither what was not asked for, nor that the server has hung up."""
        if self._tls is not None:
            try:
                self._tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
            else:
                return False
        return not self._poll.poll(0)

    def renew(self) -> None:
        """Makes it ready for the next request."""
        self._begin()
        self._idle_since = current_time()

    def is_fresh(self, seconds: float) -> bool:
        """Whether it was in use within the last `seconds`, and nobody spoke since."""
        return current_time() - self._idle_since < seconds and self._is_silent

    async def aclose(self) -> None:
        """Hangs up, at once."""
        await aclose_forcefully(self._stream)

    def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        with _reading():
            return self._http.next_event()

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive(READ_BYTES)
        except EndOfStream:
            return b""
        except BROKEN:
            raise Unavailable("The connection broke.", next="Try again.") from None
        return data if self._tls is None else b"".join((data, *self._deciphered(self._tls, READ_BYTES - len(data))))

    def _deciphered(self, tls: ssl.SSLObject, most: int) -> Iterator[bytes]:
        """What else has come: TLS tells it by records, of 16 KiB at most."""
        with suppress(ssl.SSLError):  # there is no more; or something is wrong, which the next read will tell
            while most > 0 and (data := tls.read(most)):
                most -= len(data)
                yield data


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except h11.RemoteProtocolError as error:
        raise nonsense(str(error)[:200]) from None


async def _within(seconds: float, act: Callable[[], Awaitable[Value]], what: str) -> Value:
    try:
        with fail_after(seconds):
            return await act()
    except TimeoutError:
        raise Unavailable(f"The server {what} for {seconds:g} s.", next="Try again.") from None
    except BROKEN:
        raise Unavailable("The connection broke.", next="Try again.") from None
