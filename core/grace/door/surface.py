"""The DMZ: what a request over TCP has to be before anything of the lab hears of it.

    target in the plain form ─▶ one meaning (no two lengths, no doubled headers) ─▶ Host is ours ─▶ Origin is ours
    ─▶ no upgrade ─▶ a token, if any, that is good, from a connection of the lab's own user ─▶ the door

Whoever can send a request to loopback: every program of every user of the machine, every page in the operator's
browser (by its own origin, or by a name of its own that suddenly means 127.0.0.1), every server on another port.

  - *No cookies*, so a browser adds nothing by itself that would mean anything here: a page from elsewhere can send
    what it likes and is nobody. `Origin` and `Sec-Fetch-Site` are checked all the same, and CORS is never granted.
  - *Host* is one of our names with our port, exactly: a name that was rebound to 127.0.0.1 still says what it is.
  - *Another user* of the machine who got hold of a token (a process list, a screen, a page that he served on our port
    while the lab was down) cannot use it: whose socket the other end is, the kernel says.
  - *A session* is for the origin that it was opened for, which outlives the core for a lease (`origin`). When it was
    given up, whoever has the old port now gets nothing from tokens that browsers still send there.
  - *Guesses* are slowed down, and only they: a good token is recognised first.

An answer to who is not known is always the same: nothing tells a token that was revoked from one that never was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Part

from core.grace.door.callers import CALLER, Caller, caller_with
from core.grace.door.edge import refuse
from core.grace.door.limits import HEAD_BYTES, HEADERS, Bucket
from core.grace.door.planted import asks_for_worker, ended
from core.grace.door.tokens import Tokens
from core.grace.door.wire import WIRE, Connection
from core.lab import Lab
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unauthenticated

ONCE = (
    *(b"host", b"origin", b"authorization", b"content-length", b"transfer-encoding", b"content-type"),
    *(b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"last-event-id"),
)
SITES = (b"same-origin", b"none")  # of Sec-Fetch-Site: our page, or a person who typed the address
GUESSES = (10.0, 20.0)  # of tokens, by all strangers together: a second, and at once
OF_A_CLIENT = (200.0, 600.0)  # requests
TOKEN_BYTES = 200
PLAIN = "See core/grace/door/README.md"

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Guesses:
    """What somebody hears who has shown a token, or a ticket, that is none: always the same, but slowed down."""

    _bucket: Bucket = field(default_factory=lambda: Bucket(*GUESSES))

    def failed(self) -> Error:
        """The refusal, to be raised."""
        if not self._bucket.take():
            return Exhausted("Too many wrong tokens.", next="Wait a second; see: madlab open, madlab client add")
        return Unauthenticated("This is not known here.", next="See: madlab open, madlab client add")


@dataclass
class Surface:
    """An ASGI application in front of the door. What came over the lab's own socket has its caller already, and so has
    what the gateway asks within the core: for as long as the caller's token holds, that too."""

    app: ASGIApp
    lab: Lab
    tokens: Tokens
    guesses: Guesses
    _paces: dict[str, Bucket] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = scope[CALLER] if CALLER in scope else self._caller(scope)
            if asks_for_worker(scope):
                await ended()(scope, receive, send)
            elif caller is None or caller.token is None:
                await self.app(scope, receive, send)
            else:
                await self._serve(caller, scope, receive, send)
        except Error as error:
            answer = await refuse(Request(scope), error)
            answer.headers["connection"] = "close"  # what follows may be meant as something else than it looks like
            await answer(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        """Who asks; None for a stranger.

        Raises:
            InvalidArgument: the request could be understood in more than one way.
            Denied: it is meant for another server, or comes from another page.
            Unauthenticated, Exhausted: its token is not good.
        """
        headers = scope["headers"]
        _has_one_meaning(scope, headers)
        said = dict(headers)
        host = said.get(b"host", b"")
        if host not in hosts_of(self.lab.web):
            raise Denied("rule host: this request is meant for another server.", next=f"Use {self.lab.web}")
        if b"origin" in said and said[b"origin"] != b"http://" + host:
            raise Denied("rule origin: this request comes from another page.", next=f"Use {self.lab.web}")
        if said.get(b"sec-fetch-site", b"none") not in SITES:
            if not _is_followed_link(scope, said):
                raise Denied("rule origin: this request comes from another page.", next=f"Use {self.lab.web}")
            return None  # nobody: it leads to the page's shell, and to nothing else
        if b"authorization" not in said:
            return None
        return self._known(said[b"authorization"], scope[WIRE])

    def _known(self, authorization: bytes, wire: Connection) -> Caller:
        scheme, _, secret = authorization.partition(b" ")
        token = None
        if scheme.lower() == b"bearer" and len(secret) <= TOKEN_BYTES:
            token = self.tokens.with_secret(secret.decode("latin-1"), place=self.lab.origin)
        if token is None or not wire.is_ours():
            raise self.guesses.failed()
        if token.is_client and not self._paces.setdefault(token.id, Bucket(*OF_A_CLIENT)).take():
            raise Exhausted(f"Over {OF_A_CLIENT[0]:g} requests a second.", next="Wait a second.")
        if not wire.know(token.id, client=token.is_client):
            raise Exhausted("Too many connections with this token.", next="Close some.")
        return caller_with(token)

    async def _serve(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves somebody as long as the token holds.

        Raises:
            Unauthenticated: it ended before the answer began.
            Exhausted: too many requests are in progress with it.
        """
        assert caller.token is not None
        started, ended = False, False

        async def answer(part: Part) -> None:
            nonlocal started, ended
            started = True
            await send(part)
            ended = part["type"] == "http.response.body" and not part.get("more_body", False)

        with self.tokens.living(caller.token) as alive:
            await self.app({**scope, CALLER: replace(caller, alive=alive)}, receive, answer)
        if alive.cancelled_caught and not started:
            raise Unauthenticated("This token has ended.", next="See: madlab open, madlab client add")
        if alive.cancelled_caught and not ended and WIRE in scope:
            scope[WIRE].hang_up()


@cache
def hosts_of(origin: str) -> frozenset[bytes]:
    """What Host may say to the listener whose page is at `origin`; nothing while there is none."""
    if not origin:
        return frozenset()
    address, _, port = origin.removeprefix("http://").rpartition(":")
    return frozenset(f"{each}:{port}".encode() for each in (address, "localhost"))


def _has_one_meaning(scope: Scope, headers: Headers) -> None:
    """
    Raises:
        InvalidArgument: it has not, or asks for another protocol.
    """
    names = [name for name, _ in headers]
    if not scope["raw_path"].startswith(b"/"):
        raise InvalidArgument("The target of a request is a path here.", next=PLAIN)
    if len(headers) > HEADERS or sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES:
        raise InvalidArgument(f"Over {HEADERS} headers, or {HEAD_BYTES} bytes of them.", next=PLAIN)
    for each in ONCE:
        if names.count(each) > 1:
            raise InvalidArgument(f"The header {each.decode()} is given twice.", next=PLAIN)
    if b"content-length" in names and b"transfer-encoding" in names:
        raise InvalidArgument("A body has one length, not two.", next=PLAIN)
    if b"upgrade" in names:
        raise InvalidArgument("There is nothing to upgrade to: no WebSocket, no HTTP/2.", next=PLAIN)


def _is_followed_link(scope: Scope, said: dict[bytes, bytes]) -> bool:
    """Whether a person followed a link from elsewhere, into a window of its own."""
    wanted = (said.get(b"sec-fetch-mode"), said.get(b"sec-fetch-dest", b"document"))
    return scope["method"] == "GET" and wanted == (b"navigate", b"document")
