"""A request's body and its answer on their way: what of them is known beforehand, looked through, and counted."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing

from anyio import fail_after

from core.egress.wire import READ_BYTES
from core.ports.hashing import RunningDigest
from core.ports.services import Allowance
from core.redaction.redactor import Redactor
from core.redaction.refusal import SecretSeen, refuse
from core.redaction.strainer import Strainer
from core.turing.headers import is_for_secrets
from protos.errors import InvalidArgument, Unavailable
from protos.v1.web_pb2 import FetchEvent, ResponseHead

GATHERED_BYTES = 64 * 1024  # of a body: up to here it is known before the decision
BODY_S = 60.0  # for these
ANSWERED_BYTES = READ_BYTES  # of an answer, in one message
UNKNOWN = -1  # bytes of a body that is longer and does not say how long

SHOWN_CHARACTERS = 2000  # of all headers, to whoever approves a request

Details = dict[str, str | int]


def headers_shown(headers: Sequence[tuple[bytes, bytes]]) -> Details:
    """What a decision hangs on of the headers: all of them by their digest, and for people as far as they are short.

    What a caller brings as a password of its own is not written down; a handle is.
    """
    if not headers:
        return {}
    digest, lines = hashlib.sha256(), list[str]()
    for name, value in headers:
        digest.update(b"%s: %s\r\n" % (name, value))  # neither has a line break
        hidden = is_for_secrets(name.decode()) and b"secret://" not in value
        lines.append(f"{name.decode()}: {f'({len(value)} bytes)' if hidden else value.decode('utf-8', 'replace')}")
    shown = "\n".join(lines)
    shown = shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]} …"
    return {"headers": shown, "headers_digest": f"sha256:{digest.hexdigest()}"}


class Body:
    """The body of a request: what is known of it before it is sent, and the rest on its way."""

    def __init__(self, begin: bytes, rest: AsyncIterator[bytes] | None, length: int | None, redactor: Redactor) -> None:
        self._begin, self._rest, self._redactor = begin, rest, redactor
        self._digest = RunningDigest()
        self.length = len(begin) if length is None and rest is None else length

    @classmethod
    async def of(cls, body: AsyncIterable[bytes] | None, length: int | None, redactor: Redactor) -> "Body":
        """Takes in as much as is looked at before the decision.

        Raises:
            Unavailable: not even that came in time.
        """
        begin = bytearray()
        if body is None:
            return cls(b"", None, length, redactor)
        chunks = aiter(body)
        try:
            with fail_after(BODY_S):
                while len(begin) <= GATHERED_BYTES:
                    begin += await anext(chunks)
        except StopAsyncIteration:
            if length not in (None, len(begin)):
                raise InvalidArgument("The body is not as long as was said.", next="Mend content-length.") from None
            return cls(bytes(begin), None, length, redactor)
        except TimeoutError:
            raise Unavailable(f"The body did not begin within {BODY_S:g} s.", next="Send it at once.") from None
        return cls(bytes(begin), chunks, length, redactor)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here, so that a decision is about what it says."""
        return self._rest is None

    @property
    def details(self) -> Details:
        """What a decision hangs on: how long it is, and which one it is where that is known."""
        if self._rest is not None:
            return {"bytes": UNKNOWN if self.length is None else self.length}
        if not self._begin:
            return {}
        return {"bytes": len(self._begin), "body": f"sha256:{hashlib.sha256(self._begin).hexdigest()}"}

    @property
    def digest(self) -> str:
        """Of what was sent so far."""
        return str(self._digest)

    def check(self, url: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Looks through all of a request that is here already.

        Raises:
            SecretSeen: a value that the lab keeps stands in it.
        """
        refuse(self._redactor, [url.encode()], "URL")
        refuse(self._redactor, [each for header in headers for each in header], "header")
        refuse(self._redactor, [self._begin], "body")

    async def paid(self, allowance: Allowance, check: Callable[[], None]) -> AsyncIterator[bytes]:
        """The whole body. What is looked through and what is counted is what is sent.

        `check` is called before each piece of what was not known when it was decided about.

        Raises:
            SecretSeen: a value that the lab keeps stands in it.
            Exhausted: the run has sent its share.
        """
        strainer = Strainer(self._redactor)
        async with aclosing(self._chunks()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                for piece in (strainer.feed(chunk),) if chunk else (strainer.flush(),):
                    if strainer.hits:
                        raise SecretSeen(strainer.hits, "body")
                    if piece:
                        if self._rest is not None:
                            check()
                        allowance.take_out(len(piece))
                        self._digest.update(piece)
                        yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        """An empty one is the end."""
        if self._begin:
            yield self._begin
        if self._rest is not None:
            async for each in self._rest:
                if each:
                    yield each
        yield b""


class Answer:
    """An answer on its way to whoever asked, with every value struck out that the lab knows.

    A server may show to anybody what was sent to it with another request. Where this run knows what a secret opens
    (`is_sealed`), what cannot be looked through is refused; else what is compressed passes unopened.
    """

    def __init__(self, redactor: Redactor, *, is_sealed: bool, keeps_length: bool) -> None:
        self.is_sealed = is_sealed
        self._redactor, self._keeps_length = redactor, keeps_length
        self._strainer: Strainer | None = Strainer(redactor)
        self._digest = RunningDigest()

    @property
    def digest(self) -> str:
        """Of what was handed on so far."""
        return str(self._digest)

    def events(self, piece: ResponseHead | bytes) -> Iterator[FetchEvent]:
        """
        Raises:
            Unavailable: it is compressed, so that nobody can see what is in it.
        """
        if isinstance(piece, ResponseHead):
            yield FetchEvent(head=self._head(piece))
        else:
            yield from self._handed_on(piece if self._strainer is None else self._strainer.feed(piece))

    def rest(self) -> Iterator[FetchEvent]:
        """What was held back: the answer has ended."""
        if self._strainer is not None:
            yield from self._handed_on(self._strainer.flush())

    def _head(self, head: ResponseHead) -> ResponseHead:
        if self._redactor.is_empty and not self.is_sealed:
            return head
        if any(each.name.lower() == "content-encoding" and each.value.lower() != b"identity" for each in head.headers):
            if self.is_sealed:
                raise Unavailable("The answer is compressed, which nobody asked for.", next="Ask another server.")
            self._strainer = None
        kept = ResponseHead(status=head.status, reason=self._redactor.redact_text(head.reason))
        for each in head.headers:
            name = each.name.lower()
            if self._redactor.scan(each.name.encode()):
                continue
            if name != "content-length" or self._keeps_length or self._strainer is None:  # it may get another one
                kept.headers.add(name=each.name, value=self._redactor.redact(each.value))
        return kept

    def _handed_on(self, data: bytes) -> Iterator[FetchEvent]:
        self._digest.update(data)
        for start in range(0, len(data), ANSWERED_BYTES):
            yield FetchEvent(bytes=data[start : start + ANSWERED_BYTES])
