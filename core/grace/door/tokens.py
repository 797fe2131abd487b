"""Tokens: who holds one, what it may, and how long; kept as hashes in the journal, so that they outlive the core.

There are two kinds. A *session* is the operator's, in a browser: it ends after 12 hours without use, after 7 days at
most, and when the page moves to another port, since whoever has the old port then is somebody else. A *client* is a
program with a name of its own, `client:NAME`, and may only what was named when it was added.

A token is 256 random bits behind a few letters that tell people and secret scanners what it is. Only its SHA-256 is
kept: of 256 random bits nothing can be guessed from it. Whoever looks a token up does so by that hash, which nobody
who tries tokens can steer, so how long a look-up takes says nothing about the tokens that there are.

Everything in progress with a token runs inside `living`; revoking the token ends it at once.
"""

import hmac
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, ClassVar, Literal

from anyio import CancelScope, current_time, sleep_forever

from core.redaction.redactor import Redactor
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, Exhausted, NotFound
from protos.ids import new_id

KIND = "token"
NOTED_S = 900.0  # between two entries that say that a token is in use
KEPT_S = 30 * 86_400.0  # how long the table remembers what has ended
AT_ONCE = 256  # requests of one token

Sees = Literal["own", "all"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without what it is. Times are seconds since the epoch, 0 for never."""

    id: str  # "session:ID", "client:NAME"
    hash: str  # SHA-256, hexadecimal
    made: float
    expires: float = 0.0
    idle_s: float = 0.0  # it ends after so long without use; 0: it does not
    may: tuple[str, ...] = ()  # of a client: "MAD", "MAD.TOOL"
    sees: Sees = "own"
    place: str = ""  # of a session: the origin that it is for
    about: str = ""  # of a session: what the browser says it is
    used: float = 0.0
    ended: float = 0.0

    @property
    def is_client(self) -> bool:
        """Whether it is a program's, and not the operator's."""
        return self.id.startswith("client:")

    def until(self) -> float:
        """When it ends if it is not used again; infinity if it does not."""
        ends = [self.expires or float("inf")]
        if self.idle_s:
            ends.append(max(self.made, self.used) + self.idle_s)
        return min(ends)

    def holds(self, now: float) -> bool:
        """Whether it is good."""
        return not self.ended and now < self.until()


COLUMNS = tuple(each.name for each in fields(Token))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM tokens "


class TokensView:
    """One row a token; of a client that was added again, the last."""

    name = "tokens"
    kinds = frozenset({KIND})
    tables = ("tokens",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS tokens (
            id TEXT PRIMARY KEY, hash TEXT NOT NULL, made REAL NOT NULL, expires REAL NOT NULL, idle_s REAL NOT NULL,
            may TEXT NOT NULL, sees TEXT NOT NULL, place TEXT NOT NULL, about TEXT NOT NULL, used REAL NOT NULL,
            ended REAL NOT NULL) STRICT;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in a new token, its use, its end."""
        body: dict[str, Any] = json.loads(row.body or b"{}")
        match body["step"]:
            case "made":
                db.execute("DELETE FROM tokens WHERE ended > 0 AND ended < ?", (row.at - KEPT_S,))
                db.execute("DELETE FROM tokens WHERE expires > 0 AND expires < ?", (row.at - KEPT_S,))
                token = _of(row, body)
                values = [json.dumps(token.may) if each == "may" else getattr(token, each) for each in COLUMNS]
                db.execute(f"INSERT OR REPLACE INTO tokens VALUES ({', '.join('?' * len(values))})", values)
            case "used":
                db.execute("UPDATE tokens SET used = ? WHERE id = ? AND ended = 0", (row.at, body["name"]))
            case "ended":
                db.execute("UPDATE tokens SET ended = ? WHERE id = ? AND ended = 0", (row.at, body["name"]))


def _of(row: Row, body: dict[str, Any]) -> Token:
    given = {each: body[each] for each in ("hash", "expires", "idle_s", "sees", "place", "about")}
    return Token(body["name"], made=row.at, may=tuple(body["may"]), **given)


class Tokens:
    """The tokens in memory. They follow the journal's commits; `load` them once."""

    def __init__(self, journal: Journal, redactor: Redactor) -> None:
        self._journal, self._redactor = journal, redactor
        self._by_id: dict[str, Token] = {}
        self._by_hash: dict[str, str] = {}
        self._noted: dict[str, float] = {}  # when the journal last heard that it is used
        self._learnt: set[str] = set()
        self._living: dict[str, set[CancelScope]] = {}

    async def load(self) -> None:
        """Reads what the table says, and follows from there."""
        for values in await self._journal.query(SELECT):
            named = dict(zip(COLUMNS, values, strict=True))
            self._add(Token(**named | {"may": tuple(json.loads(named["may"]))}))
        self._journal.on_commit(self._committed)

    # --- what there is

    def all(self, family: str) -> list[Token]:
        """Every token of a family ("client", "session") that is remembered, the newest first."""
        found = [each for each in self._by_id.values() if each.id.startswith(f"{family}:")]
        return sorted(found, key=lambda each: each.made, reverse=True)

    def get(self, id: str) -> Token:
        """
        Raises:
            NotFound: there is none.
        """
        if id not in self._by_id:
            raise NotFound(f"There is no {id[:80]!r}.", next="See: madlab client list, madlab sessions")
        return self._by_id[id]

    def knows(self, token: Token) -> bool:
        """Whether what was good once still is."""
        now = self._by_id.get(token.id)
        return now is not None and now.hash == token.hash and now.holds(time.time())

    def with_secret(self, secret: str, *, place: str) -> Token | None:
        """The token that is good now, at that origin, if `secret` is one; it counts as used."""
        now, found = time.time(), digest_of(secret)
        token = self._by_id.get(self._by_hash.get(found, ""))
        if token is None or not hmac.compare_digest(token.hash, found):
            return None
        if not token.holds(now) or (token.place and token.place != place):
            return None
        self._by_id[token.id] = token = replace(token, used=now)
        if now - self._noted.get(token.id, 0.0) > NOTED_S:
            self._noted[token.id] = now
            self._journal.append_soon(_entry("used", token.id, "core", {}))
        self._learn(token.id, secret)
        return token

    # --- life and death

    async def make(
        self,
        id: str,
        prefix: str,
        *,
        by: str,
        expires: float = 0.0,
        idle_s: float = 0.0,
        may: Sequence[str] = (),
        sees: Sees = "own",
        place: str = "",
        about: str = "",
    ) -> tuple[Token, str]:
        """A new token and its secret, which is told this once.

        Raises:
            Conflict: there is one of that name that is good.
            Unavailable: the journal is sealed.
        """
        known = self._by_id.get(id)
        if known is not None and known.holds(time.time()):
            raise Conflict(f"There is a {id} already.", next=f"Revoke it first: madlab client revoke {id[7:]}")
        secret = f"{prefix}{secrets.token_urlsafe(32)}"
        body = {"hash": digest_of(secret), "expires": expires, "idle_s": idle_s, "may": list(may)}
        self._learn(id, secret)
        await self._journal.append(_entry("made", id, by, body | {"sees": sees, "place": place, "about": about}))
        return self._by_id[id], secret

    async def end(self, id: str, *, by: str, sparing: CancelScope | None = None) -> Token:
        """Ends a token, and at once what is in progress with it, but for `sparing`: the request that asks for it.

        Raises:
            NotFound: there is none.
            Unavailable: the journal is sealed.
        """
        if not self.get(id).ended:
            if sparing is not None:
                self._living.get(id, set()).discard(sparing)
            await self._journal.append(_entry("ended", id, by, {}))
        return self._by_id[id]

    @contextmanager
    def living(self, token: Token) -> Iterator[CancelScope]:
        """For the time of one request: cancelled when the token ends, by whoever's hand.

        Raises:
            Exhausted: too many requests are in progress with it.
        """
        if len(self._living.get(token.id, ())) >= AT_ONCE:
            raise Exhausted(f"{AT_ONCE} requests are in progress with this token.", next="Wait until some have ended.")
        with self._until_over(token) as scope:
            yield scope

    async def over(self, token: Token) -> None:
        """Returns when it has ended, by whatever hand or by itself; at once if it has already."""
        while self.knows(token):
            with self._until_over(self._by_id[token.id]):
                await sleep_forever()

    @contextmanager
    def _until_over(self, token: Token) -> Iterator[CancelScope]:
        scopes = self._living.setdefault(token.id, set())
        with CancelScope(deadline=current_time() + (token.until() - time.time())) as scope:
            scopes.add(scope)
            try:
                yield scope
            finally:
                scopes.discard(scope)
                if not scopes and self._living.get(token.id) is scopes:
                    del self._living[token.id]

    # --- following the journal

    def _committed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.kind == KIND:
                self._follow(row, json.loads(row.body or b"{}"))

    def _follow(self, row: Row, body: dict[str, Any]) -> None:
        id = body["name"]
        if body["step"] == "made":
            self._end_all(id)
            self._add(_of(row, body))
        elif body["step"] == "ended" and id in self._by_id:
            self._by_id[id] = replace(self._by_id[id], ended=row.at)
            self._end_all(id)
            self._redactor.forget(id)  # what opens nothing is no secret any more
            self._learnt.discard(id)

    def _add(self, token: Token) -> None:
        if (before := self._by_id.get(token.id)) is not None:
            self._by_hash.pop(before.hash, None)
        self._by_id[token.id] = token
        self._by_hash[token.hash] = token.id

    def _end_all(self, id: str) -> None:
        for scope in self._living.get(id, ()):
            scope.cancel()

    def _learn(self, id: str, secret: str) -> None:
        """From now on it is not written down: a client that says its own token must not put it into the journal."""
        if id not in self._learnt:
            self._learnt.add(id)
            self._redactor.learn(id, secret.encode())


def digest_of(secret: str) -> str:
    """What is kept of a token."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _entry(step: str, id: str, by: str, body: dict[str, Any]) -> Entry:
    body = {"step": step, "name": id} | body
    return Entry(f"token:{new_id()}", KIND, json.dumps(body, ensure_ascii=False).encode(), sender=by, at=time.time())
