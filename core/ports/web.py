"""The web port: the egress broker with one caller's permissions, limits and secrets.

    the address in its one form ─▶ headers and body that can be sent ─▶ granted secrets ─▶ `acting`: may it? ─▶ broker

What is decided about is what is sent. A body that is small enough is here before the decision, which so names its
digest: who approves a request approves its content. Secrets are put into the headers at the last moment, for exactly
the address that was decided about; a redirect is an answer, and asking for where it leads is another request, with
another decision and other secrets. A value that the server says back is struck out of its answer, and one that a
caller has found somewhere does not leave.
"""

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from anyio import current_time

from core.egress.broker import Broker
from core.egress.heads import check_filled, check_method, checked
from core.egress.limits import Limits
from core.egress.request import Request, Traffic
from core.egress.urls import Url, canonical
from core.policy.acts import Act
from core.policy.acts import Limits as Allowed
from core.policy.capabilities import Identity
from core.ports.acting import acting, denying
from core.ports.packages import PackageDesk
from core.ports.passing import Answer, Body
from core.ports.services import Allowance, Services
from core.ports.watching import watching
from core.rogers.entry import Entry
from core.turing.secret import Secret
from protos.errors import Denied, Exhausted
from protos.ids import is_uuid
from protos.v1.web_pb2 import Fetched, FetchEvent, RequestHead
from protos.web import Web

METHOD_CHARACTERS = 32  # of one that is no method, in the journal
MINUTE_S = 60.0


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
        content = await Body.of(body, length, self.services.redactor)
        act = replace(act, details={**act.details, **content.details})
        with watching(self.services, self.identity, f"{head.method} {url}"):
            async with denying(self.services, self.identity, act):
                content.check(url, headers)
                sealed = self._sealed(head.method, url, headers)
            async with aclosing(self._made(broker, act, address, content, sealed, head)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event

    async def _made(
        self, broker: Broker, act: Act, url: Url, content: Body, sealed: "_Sealed", head: RequestHead
    ) -> AsyncIterator[FetchEvent]:
        """The request as it was decided about, and its answer."""
        method = head.method
        called = {"request": head.id} if is_uuid(head.id) else {}
        needs = [Act("secret.use", act.principals, each, {**act.details, "url": act.target}) for each in sealed.names]
        answer = Answer(self.services.redactor if sealed.names else None, keeps_length=method == "HEAD")
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
                added |= {"why": traffic.why} if traffic.why else {}
                added |= {"digest_sent": content.digest, "digest_received": answer.digest}
        end = Fetched(bytes_sent=traffic.sent, bytes_received=traffic.received, digest=answer.digest)
        yield FetchEvent(end=end)  # behind the outcome: whoever has it may leave at once

    def _sealed(self, method: str, url: str, headers: list[tuple[bytes, bytes]]) -> "_Sealed":
        """The headers with what was granted for this very request.

        Raises:
            InvalidArgument: with their secrets the headers are too long.
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
        if not entries:
            return _Sealed(kept, ())
        sealed = _Sealed([*kept, (b"Accept-Encoding", b"identity")], entries)
        check_filled(sealed.revealed())
        return sealed

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
