"""The web port: the egress broker with one caller's permissions, limits and secrets.

    the address in its one form ─▶ headers and body that can be sent ─▶ granted secrets ─▶ `acting`: may it? ─▶ broker

What is decided about is what is sent. A body that is small enough is here before the decision, which so names its
digest: who approves a request approves its content. Secrets are put into the headers at the last moment, for exactly
the address that was decided about; a redirect is an answer, and asking for where it leads is another request, with
another decision and other secrets. A value that the lab knows is struck out of every answer, and one that a caller has
found somewhere does not leave.
"""

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
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
from core.ports.acting import PRIVATE, acting, denying
from core.ports.packages import PackageDesk
from core.ports.passing import Answer, Body, headers_shown
from core.ports.services import Allowance, Services
from core.ports.standing import Standing
from core.ports.watching import watching
from core.rogers.entry import Entry
from core.turing.secret import Secret
from core.turing.turing import Revealed
from protos.errors import Denied, Exhausted
from protos.ids import is_uuid
from protos.v1.web_pb2 import Fetched, FetchEvent, RequestHead
from protos.web import Web

METHOD_CHARACTERS = 32  # of one that is no method, in the journal
MINUTE_S = 60.0
NOT_WHOLE = {"accept-encoding", "range", "if-range"}  # headers for an answer that cannot be looked through as one


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
        begun = Act("web.fetch", self.identity.principals, url, {"method": head.method[:METHOD_CHARACTERS]})
        self.allowance.take_act(begun)
        async with denying(self.services, self.identity, begun):
            check_method(head.method)
            headers, length = checked((each.name, each.value) for each in head.headers)
        content = await Body.of(body, length, self.services.redactor)
        act = replace(begun, details={**begun.details, **headers_shown(headers), **content.details})
        self.allowance.take_act(act, paid=begun)
        labels = await self.services.taints.of(self.identity)
        with watching(self.services, self.identity, f"{head.method} {url}"):
            async with denying(self.services, self.identity, act):
                content.check(url, headers)
                sealed = self._sealed(head.method, url, headers, is_private=PRIVATE in labels)
                standing = self._standing(act, sealed, labels)
                if not content.is_whole:
                    standing.check_unseen()
            traffic = Traffic()
            made = self._made(broker, address, content, sealed, standing, head, traffic)
            async with aclosing(_together(made, traffic)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event

    def _standing(self, act: Act, sealed: "_Sealed", labels: frozenset[str]) -> Standing:
        uses = [Act("secret.use", act.principals, each, {**act.details, "url": act.target}) for each in sealed.names]
        own = ("web", PRIVATE) if uses else ("web",)
        return Standing(self.services, self.identity, (act, *uses), labels, own)

    async def _made(
        self,
        broker: Broker,
        url: Url,
        content: Body,
        sealed: "_Sealed",
        standing: Standing,
        head: RequestHead,
        traffic: Traffic,
    ) -> AsyncIterator[FetchEvent]:
        """The request as it was decided about, and its answer."""
        method, (act, *needs) = head.method, standing.acts
        called = {"request": head.id} if is_uuid(head.id) else {}
        answer = Answer(self.services.redactor, is_sealed=sealed.is_strict, keeps_length=method == "HEAD")
        async with acting(
            self.services, self.identity, act, also=sealed.entries, needs=needs, waits=False, **called
        ) as added:
            self._pace(added.decision.rule, added.limits)
            limits = _limits(added.limits, broker, head.seconds)
            together = head.together and not added.limits.packages
            request = Request(act.principals[0], method, url, sealed.revealed(), content.length, limits, together)
            if added.limits.packages:
                brought = partial(added.note, "brought")
                source = PackageDesk(broker, self.services.horace, self.allowance.take_in, brought).serve(
                    request, traffic
                )
            else:
                source = broker.fetch(request, content.paid(self.allowance, standing.check), traffic)
            try:
                async with aclosing(source) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        if not isinstance(piece, bytes):
                            added["status"] = piece.status
                            answer.is_sealed |= PRIVATE in await self.services.taints.of(self.identity)
                        elif not added.limits.packages:
                            self.allowance.take_in(len(piece))
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

    def _sealed(self, method: str, url: str, headers: list[tuple[bytes, bytes]], *, is_private: bool) -> "_Sealed":
        """The headers with what was granted for this very request.

        Where a secret goes along, or the run knows what one has opened, the answer is asked for whole and uncompressed,
        so that it can be looked through.

        Raises:
            InvalidArgument: with their secrets the headers are too long.
            Denied: rule *grant*: a handle that was not granted for it.
            Unavailable: the vault is locked.
        """
        turing, me = self.services.turing, self.identity.principals
        texts = [(name.decode(), value) for name, value in headers]
        revealed = turing.reveal_in(me, method, url, texts) if turing is not None else Revealed(tuple(texts), ())
        filled = {name.lower() for name, value in revealed.headers if isinstance(value, Secret)}
        credentials = turing.credentials(me, method, url, having=filled) if turing is not None else []
        added = {each.header.lower() for each in credentials}
        entries = (*revealed.entries, *(each.entry for each in credentials))
        if is_strict := bool(entries) or is_private:
            added |= NOT_WHOLE
        kept: list[tuple[bytes, bytes | Secret]] = [
            (name.encode(), value) for name, value in revealed.headers if name.lower() not in added
        ]
        kept += [(each.header.encode(), each.value) for each in credentials]
        if is_strict:
            kept.append((b"Accept-Encoding", b"identity"))
        sealed = _Sealed(kept, entries, is_strict)
        if entries:
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
    is_strict: bool  # its answer is to be looked through, or is none

    @property
    def names(self) -> list[str]:
        """Of the secrets."""
        return sorted({str(json.loads(each.body)["name"]) for each in self.entries})

    def revealed(self) -> list[tuple[bytes, bytes]]:
        """As they are sent."""
        return [(name, value.reveal() if isinstance(value, Secret) else value) for name, value in self.headers]


async def _together(events: AsyncIterator[FetchEvent], traffic: Traffic) -> AsyncIterator[FetchEvent]:
    """The events as they come, or as one, where the answer is there as a whole."""
    whole: FetchEvent | None = None
    async with aclosing(events):  # type: ignore[type-var]
        async for event in events:
            if not traffic.is_whole:
                yield event
            elif whole is None:
                whole = event
            else:
                whole.then.append(event)
    if whole is not None:
        yield whole


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
