"""The web port: the egress broker with one caller's permissions, limits and secrets.

    the address in its one form ─▶ headers and body that can be sent ─▶ granted secrets ─▶ `acting`: may it? ─▶ broker

What is decided about is what is sent. A body that is small enough is here before the decision, which so names its
digest: who approves a request approves its content. Secrets are put into the headers at the last moment, for exactly
the address that was decided about; a redirect is an answer, and asking for where it leads is another request, with
another decision and other secrets. A value that the server says back is struck out of its answer, and one that a
caller has found somewhere does not leave.
"""

import hashlib
import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from anyio import current_time, fail_after

from core.egress.broker import Broker, Request, Traffic
from core.egress.heads import check_method, checked
from core.egress.limits import Limits
from core.egress.urls import Url, canonical
from core.policy.acts import Act
from core.policy.acts import Limits as Allowed
from core.policy.capabilities import Identity
from core.ports.acting import acting, denying
from core.ports.packages import PackageDesk
from core.ports.services import Allowance, Services
from core.ports.watching import watching
from core.redaction.redactor import Redactor
from core.redaction.refusal import SecretSeen, refuse
from core.redaction.strainer import Strainer
from core.rogers.entry import Entry
from core.turing.secret import Secret
from protos.errors import Denied, Exhausted, InvalidArgument, Unavailable
from protos.ids import is_uuid
from protos.v1.web_pb2 import Fetched, FetchEvent, RequestHead, ResponseHead
from protos.web import PIECE_BYTES, Web

GATHERED_BYTES = 64 * 1024  # of a body: up to here it is known before the decision
BODY_S = 60.0  # for these
METHOD_CHARACTERS = 32  # of one that is no method, in the journal
UNKNOWN = -1  # bytes of a body that is longer and does not say how long
MINUTE_S = 60.0

Details = dict[str, str | int]


@dataclass
class LocalWeb(Web):
    """The broker with one caller's permissions."""

    services: Services
    identity: Identity
    allowance: Allowance
    _begun: dict[str, deque[float]] = field(default_factory=dict)  # by rule: the requests of the last minute

    async def fetch(self, head: RequestHead, body: AsyncIterable[bytes] | None = None) -> AsyncIterator[FetchEvent]:
        broker = self.services.egress
        if broker is None:
            raise Denied("rule port: nothing is reached from here.", next="Serve the MAD in a lab with a broker.")
        address = canonical(head.url)
        url = str(address)
        self.allowance.take_act()
        act = Act("web.fetch", self.identity.principals, url, {"method": head.method[:METHOD_CHARACTERS]})
        async with denying(self.services, self.identity, act):
            check_method(head.method)
            headers, length = checked((each.name, each.value) for each in head.headers)
        content = await _Body.of(body, length, self.services.redactor)
        act = replace(act, details={**act.details, **content.details})
        with watching(self.services, self.identity, f"{head.method} {url}"):
            async with denying(self.services, self.identity, act):
                content.check(url, headers)
                sealed = self._sealed(head.method, url, headers)
            async with aclosing(self._made(broker, act, address, content, sealed, head)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event

    async def _made(
        self, broker: Broker, act: Act, url: Url, content: "_Body", sealed: "_Sealed", head: RequestHead
    ) -> AsyncIterator[FetchEvent]:
        """The request as it was decided about, and its answer."""
        method = head.method
        called = {"request": head.id} if is_uuid(head.id) else {}
        needs = [Act("secret.use", act.principals, each, {**act.details, "url": act.target}) for each in sealed.names]
        answer = _Answer(self.services.redactor if sealed.names else None, keeps_length=method == "HEAD")
        traffic = Traffic()
        async with acting(
            self.services, self.identity, act, also=sealed.entries, needs=needs, waits=False, **called
        ) as added:
            self._pace(added.decision.rule, added.limits)
            limits = _limits(added.limits, broker, head.seconds)
            request = Request(act.principals[0], method, url, sealed.revealed(), content.length, limits)
            if added.limits.packages:
                added.waits = True  # what was installed is known as soon as it is
                source = PackageDesk(broker, self.services.horace).serve(request, traffic, added)
            else:
                source = broker.fetch(request, content.paid(self.allowance), traffic)
            try:
                async with aclosing(source) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        if isinstance(piece, bytes):
                            self.allowance.take_in(len(piece))
                        else:
                            added["status"] = piece.status
                        for event in answer.events(piece):
                            yield event
                for event in answer.rest():
                    yield event
            finally:
                added |= {"address": traffic.address, "bytes_sent": traffic.sent, "bytes_received": traffic.received}
                added |= {"digest_sent": content.digest, "digest_received": answer.digest}
        end = Fetched(bytes_sent=traffic.sent, bytes_received=traffic.received, digest=answer.digest)
        yield FetchEvent(end=end)  # behind the outcome: whoever has it may leave at once

    def _sealed(self, method: str, url: str, headers: list[tuple[bytes, bytes]]) -> "_Sealed":
        """The headers with what was granted for this very request.

        Raises:
            Denied: rule *grant*: a handle that was not granted for it.
            Unavailable: the vault is locked.
        """
        turing, me = self.services.turing, self.identity.principals
        if turing is None:
            return _Sealed([(name, value) for name, value in headers], ())
        revealed = turing.reveal_in(me, method, url, [(name.decode(), value) for name, value in headers])
        filled = {name.lower() for name, value in revealed.headers if isinstance(value, Secret)}
        credentials = turing.credentials(me, method, url, having=filled)
        added = {each.header.lower() for each in credentials}
        entries = (*revealed.entries, *(each.entry for each in credentials))
        if entries:
            added.add("accept-encoding")  # what is compressed cannot be looked through
        kept: list[tuple[bytes, bytes | Secret]] = [
            (name.encode(), value) for name, value in revealed.headers if name.lower() not in added
        ]
        kept += [(each.header.encode(), each.value) for each in credentials]
        return _Sealed([*kept, (b"Accept-Encoding", b"identity")] if entries else kept, entries)

    def _pace(self, rule: str, allowed: Allowed) -> None:
        """
        Raises:
            Exhausted: so many requests under this rule have begun within a minute.
        """
        begun, now = self._begun.setdefault(rule, deque()), current_time()
        while begun and begun[0] <= now - MINUTE_S:
            begun.popleft()
        if len(begun) >= allowed.requests_per_minute:
            raise Exhausted(
                f"rule {rule}: {allowed.requests_per_minute} requests a minute, and they have been made.",
                next=f"Wait {begun[0] + MINUTE_S - now:.0f} s.",
            )
        begun.append(now)


@dataclass(frozen=True)
class _Sealed:
    """Headers in which secrets do not show yet, and the entries of their use."""

    headers: Sequence[tuple[bytes, bytes | Secret]]
    entries: tuple[Entry, ...]

    @property
    def names(self) -> list[str]:
        """Of the secrets."""
        return sorted({str(json.loads(each.body)["name"]) for each in self.entries})

    def revealed(self) -> list[tuple[bytes, bytes]]:
        """As they are sent."""
        return [(name, value.reveal() if isinstance(value, Secret) else value) for name, value in self.headers]


class _Body:
    """The body of a request: what is known of it before it is sent, and the rest on its way."""

    def __init__(self, begin: bytes, rest: AsyncIterator[bytes] | None, length: int | None, redactor: Redactor) -> None:
        self._begin, self._rest, self._redactor = begin, rest, redactor
        self._hash = hashlib.sha256()
        self.length = len(begin) if length is None and rest is None else length

    @classmethod
    async def of(cls, body: AsyncIterable[bytes] | None, length: int | None, redactor: Redactor) -> "_Body":
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
        return f"sha256:{self._hash.hexdigest()}"

    def check(self, url: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Looks through all of a request that is here already.

        Raises:
            SecretSeen: a value that the lab keeps stands in it.
        """
        refuse(self._redactor, [url.encode()], "URL")
        refuse(self._redactor, [each for header in headers for each in header], "header")
        refuse(self._redactor, [self._begin], "body")

    async def paid(self, allowance: Allowance) -> AsyncIterator[bytes]:
        """The whole body. What is looked through and what is counted is what is sent.

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
                        allowance.take_out(len(piece))
                        self._hash.update(piece)
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


class _Answer:
    """An answer on its way to whoever asked, with secrets struck out where some were sent along."""

    def __init__(self, redactor: Redactor | None, *, keeps_length: bool) -> None:
        self._redactor, self._keeps_length = redactor, keeps_length
        self._strainer = Strainer(redactor) if redactor is not None else None
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of what was handed on so far."""
        return f"sha256:{self._hash.hexdigest()}"

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
        if self._redactor is None:
            return head
        kept = ResponseHead(status=head.status, reason=self._redactor.redact_text(head.reason))
        for each in head.headers:
            name = each.name.lower()
            if self._redactor.scan(each.name.encode()):
                continue
            if name == "content-encoding" and each.value.lower() != b"identity":
                raise Unavailable("The answer is compressed, which nobody asked for.", next="Ask another server.")
            if name != "content-length" or self._keeps_length:  # it may get another one
                kept.headers.add(name=each.name, value=self._redactor.redact(each.value))
        return kept

    def _handed_on(self, data: bytes) -> Iterator[FetchEvent]:
        self._hash.update(data)
        for start in range(0, len(data), PIECE_BYTES):
            yield FetchEvent(bytes=data[start : start + PIECE_BYTES])


def _limits(allowed: Allowed, broker: Broker, seconds: float) -> Limits:
    """What the rule, the operator's settings and the caller let a request take: of each the least."""
    settings = broker.settings
    return Limits(
        networks=tuple(ip_network(each) for each in allowed.addresses),
        bytes_up=min(allowed.bytes_up, settings.upload_mb << 20),
        bytes_down=min(allowed.bytes_down, settings.answer_mb << 20),
        seconds=min(allowed.seconds, settings.seconds, seconds if seconds > 0 else allowed.seconds),
        idle_s=settings.idle_s,
        head_s=settings.idle_s,
        connect_s=settings.connect_s,
    )
