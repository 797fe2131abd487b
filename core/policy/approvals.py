"""Approvals: an act that the policy marks *ask* waits here for a person, in its exact form.

    asked ──▶ pending ──▶ approved (N uses) ──▶ used up
                 │            │    each use: in the transaction that starts its act, or not at all
                 ├──▶ denied ◀┘    holds against the same act until it expires
                 └──▶ expired      nobody said anything

An approval is bound to the digest of the act's canonical form: who, what, where, with which details and which taint.
Whatever differs in one byte is another act and is asked about anew. Acts of one digest are *one* question, however many
wait; but each takes a use of its own, so a person who approves once lets one of them through, and says `--for N` where
N wait.

All of it is entries of the journal and the view below, so a core that dies forgets nothing: an act that comes again
after a restart finds its question, or its answer. The view has the last word on each use: what is used up, denied or
too late refuses the entry, and with it the act that was to start.

An id is 128 bits of a hash over a form that a worker knows byte for byte: shorter, he could search for two acts of one
id. People see and type its beginning; where several questions begin alike they are told so, and none is answered.
"""

import json
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from anyio import Event, move_on_after

from core.policy.acts import Act, Decision
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, Denied, Exhausted, NotFound

EXPIRE_S = 600.0
WAITING_AT_ONCE = 16  # questions of one principal that nobody has answered: more would only bury the others
MOST_USES = 1000
ID_DIGITS = 32  # hexadecimal
SHORT_DIGITS = 10  # of an id, for people
BEGINNING = re.compile(f"[0-9a-f]{{4,{ID_DIGITS}}}")  # of an id, as a person may write it

State = Literal["pending", "approved", "denied"]


class Spent(Denied):
    """The approval has no use left, or no longer holds."""


@dataclass(frozen=True)
class Approval:
    """One question and its answer. Times are seconds since the epoch."""

    id: str
    digest: str
    principal: str
    conversation: str
    form: str  # the act in its canonical form
    rule: str
    reason: str
    asked: float
    expires: float
    state: State = "pending"
    uses: int = 0  # left
    used: int = 0
    by: str = ""
    decided: float = 0.0

    @property
    def short(self) -> str:
        """The beginning of its id, for people."""
        return self.id[:SHORT_DIGITS]

    def holds(self, now: float) -> bool:
        """Whether it still says something: a question that waits, a no, or a yes with a use left."""
        return now < self.expires and (self.state != "approved" or self.uses > 0)

    def said(self, now: float) -> str:
        """Where it stands, in one word or two."""
        if self.state == "approved" and not self.uses:
            return "used up"
        return self.state if now < self.expires else "expired"


COLUMNS = tuple(each.name for each in fields(Approval))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM approvals "


class ApprovalsView:
    """One row a question."""

    name = "approvals"
    kinds = frozenset({"approval"})
    tables = ("approvals",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS approvals (
            id TEXT PRIMARY KEY, digest TEXT NOT NULL, principal TEXT NOT NULL, conversation TEXT NOT NULL,
            form TEXT NOT NULL, rule TEXT NOT NULL, reason TEXT NOT NULL, asked REAL NOT NULL, expires REAL NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending', uses INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL DEFAULT 0,
            by TEXT NOT NULL DEFAULT '', decided REAL NOT NULL DEFAULT 0);
        CREATE INDEX IF NOT EXISTS approvals_digest ON approvals (digest, asked);
        CREATE INDEX IF NOT EXISTS approvals_asked ON approvals (asked);
        CREATE INDEX IF NOT EXISTS approvals_pending ON approvals (principal, expires) WHERE state = 'pending';
        CREATE INDEX IF NOT EXISTS approvals_waiting ON approvals (expires) WHERE state = 'pending';
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in a question, its answer, or a use.

        Raises:
            Exhausted: too many questions of one principal wait already.
            Spent: a use of what has none left, or no longer holds.
            Conflict: an answer to what was answered, or is too old.
            NotFound: there is no such question.
        """
        body: dict[str, Any] = json.loads(row.body or b"{}")
        id = body["approval"]
        if body["step"] == "asked":
            sql = "SELECT count(*) FROM approvals WHERE state = 'pending' AND expires > ? AND principal = ?"
            if db.execute(sql, (row.at, row.sender)).fetchone()[0] >= WAITING_AT_ONCE:
                raise Exhausted(
                    f"rule {body['rule']}: {WAITING_AT_ONCE} acts of {row.sender} wait for a person already.",
                    next="Wait until some are answered.",
                )
            values = (id, body["digest"], row.sender, row.conversation, body["form"], body["rule"], body["reason"])
            db.execute(
                "INSERT INTO approvals (id, digest, principal, conversation, form, rule, reason, asked, expires)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row.at, body["expires"]),
            )
            return
        found = db.execute(SELECT + "WHERE id = ?", (id,)).fetchone()
        if found is None:
            raise NotFound(f"There is no approval {id!r}.", next="See: madlab approvals")
        known = Approval(*found)
        late = row.at >= known.expires
        match body["step"]:
            case "used":
                if body.get("digest") != known.digest:
                    raise Denied(
                        f"rule approval: the approval {known.short} is another act's.",
                        next="Ask again: a person is asked.",
                    )
                if known.state != "approved" or known.uses < 1 or late:
                    raise Spent(
                        f"rule approval: the approval {known.short} is {known.said(row.at)}.",
                        next="Ask again: a person is asked.",
                    )
                db.execute("UPDATE approvals SET uses = uses - 1, used = used + 1 WHERE id = ?", (id,))
            case "approved" | "denied" as state:
                if late or not (known.state == "pending" or (known.state, state) == ("approved", "denied")):
                    raise Conflict(f"The approval {known.short} is {known.said(row.at)}.", next="See: madlab approvals")
                db.execute(
                    "UPDATE approvals SET state = ?, uses = ?, expires = ?, by = ?, decided = ? WHERE id = ?",
                    (state, body.get("uses", 0), body["expires"], row.sender, row.at, id),
                )


class Approvals:
    """Every question there was, and those who wait for an answer. Enter it to hear of answers."""

    def __init__(self, journal: Journal, *, expire_s: float = EXPIRE_S) -> None:
        self._journal = journal
        self._expire_s = expire_s
        self._waiting: dict[str, set[Event]] = {}  # by digest

    async def __aenter__(self) -> Self:
        self._journal.on_commit(self._hear)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Who still waits is cancelled with his run; the question stays for the next core."""

    async def obtain(
        self,
        act: Act,
        decision: Decision,
        *,
        conversation: str,
        principal: str,
        tell: Callable[[Approval], Awaitable[None]],
    ) -> Approval:
        """Waits until a person has approved `act`, and returns the approval: `use` makes its use.

        `tell` is called once the question is there, for whoever watches the conversation.

        Raises:
            Denied: a person said no, or nobody said anything before it expired.
            Exhausted: too many questions of this principal wait already.
        """
        digest, told = act.digest, False
        while True:
            changed = Event()
            self._waiting.setdefault(digest, set()).add(changed)
            try:
                found = await self._ask(act, digest, decision, conversation, principal)
                if found.state == "denied":
                    raise Denied(
                        f"rule {decision.rule}: {found.by or 'a person'} denied it (approval {found.short}).",
                        next="Do without it; the same act is not asked about again before the denial expires.",
                    )
                if found.state == "approved":
                    return found
                if not told:
                    await tell(found)
                    told = True
                with move_on_after(found.expires - time.time()):
                    await changed.wait()
                    continue
            finally:
                waiting = self._waiting.get(digest, set())
                waiting.discard(changed)
                if not waiting:
                    self._waiting.pop(digest, None)
            raise Denied(
                f"rule {decision.rule}: nobody approved it within {self._expire_s:.0f} s (approval {found.short}).",
                next="Have the operator at hand, then try again: madlab approvals -f",
            )

    def use(self, approval: Approval, act: str) -> Entry:
        """The entry that takes one use; append it with the start of the act `act`, or not at all.

        Appending it raises `Spent` where no use is left."""
        body = {"step": "used", "act": act, "digest": approval.digest}
        return _entry(approval.id, f"used:{act}", "core", body)

    def waiting(self, approval: Approval) -> int:
        """How many acts wait for it now."""
        return len(self._waiting.get(approval.digest, ()))

    async def approve(self, id: str, *, by: str, uses: int = 1) -> Approval:
        """Lets `uses` acts of exactly this form through, for as long as an approval holds. Twice is once.

        Raises:
            NotFound: there is no such question.
            Conflict: it was answered otherwise, or is too old; several questions' ids begin with `id`.
        """
        known = await self.get(id)
        if (known.state, known.uses + known.used) == ("approved", uses):
            return known
        body = {"step": "approved", "uses": uses, "expires": time.time() + self._expire_s}
        await self._answer(known, by, body)
        return await self.get(known.id)

    async def deny(self, id: str, *, by: str) -> Approval:
        """Says no, also to what was approved and not used yet. Twice is once.

        Raises:
            NotFound: there is no such question.
            Conflict: it is too old; several questions' ids begin with `id`.
        """
        known = await self.get(id)
        if known.state == "denied":
            return known
        await self._answer(known, by, {"step": "denied", "expires": time.time() + self._expire_s})
        return await self.get(known.id)

    async def get(self, id: str) -> Approval:
        """The question of that id, or the only one whose id begins so: of all there ever were, so that no later one can
        take the place of one that somebody has seen.

        Raises:
            NotFound: there is no such question.
            Conflict: several begin so.
        """
        rows = []
        if BEGINNING.fullmatch(id):
            rows = await self._journal.query(SELECT + "WHERE id >= ? AND id < ? LIMIT 2", (id, f"{id}g"))
        if not rows:
            raise NotFound(f"There is no approval {id[:64]!r}.", next="See: madlab approvals")
        if len(rows) > 1:
            raise Conflict(f"Several approvals begin with {id}.", next="Write more of it: madlab approvals --json")
        return Approval(*rows[0])

    async def pending(self) -> Sequence[Approval]:
        """What waits for an answer, the oldest first."""
        sql = SELECT + "WHERE state = 'pending' AND expires > ? ORDER BY asked"
        return [Approval(*each) for each in await self._journal.query(sql, (time.time(),))]

    async def newest(self, limit: int = 50) -> Sequence[Approval]:
        """The newest questions first, answered or not."""
        return [Approval(*row) for row in await self._journal.query(SELECT + "ORDER BY asked DESC LIMIT ?", (limit,))]

    async def _answer(self, known: Approval, by: str, body: dict[str, Any]) -> None:
        await self._journal.append(_entry(known.id, str(body["step"]), by, body | {"digest": known.digest}))
        # An entry of that id may have been there: then this answer was given before, perhaps with other words.
        now = await self.get(known.id)
        if now.state != body["step"] or now.uses + now.used != body.get("uses", now.uses + now.used):
            said = now.said(time.time())
            raise Conflict(f"The approval {known.short} is {said} already.", next="See: madlab approvals")

    async def _ask(self, act: Act, digest: str, decision: Decision, conversation: str, principal: str) -> Approval:
        """The question about this digest that still holds; asked anew where none does."""
        asked = await self._journal.query(SELECT + "WHERE digest = ? ORDER BY asked DESC", (digest,))
        now = time.time()
        if asked and (last := Approval(*asked[0])).holds(now):
            return last
        # Made of the digest and of how often it was asked: two that ask at once ask one question.
        id = sha256(f"{digest} {len(asked)}".encode()).hexdigest()[:ID_DIGITS]
        body = {
            "step": "asked",
            "digest": digest,
            "form": act.canonical().decode(),
            "rule": decision.rule,
            "reason": decision.reason,
            "expires": now + self._expire_s,
        }
        await self._journal.append(_entry(id, "asked", principal, body, conversation))
        found = await self.get(id)
        if found.digest != digest:  # an entry of that id was there: of another act
            raise Denied(f"rule {decision.rule}: the approval {found.short} is another act's.", next="Change the act.")
        return found

    def _hear(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.kind != "approval":
                continue
            body = json.loads(row.body or b"{}")
            if body["step"] != "used":
                for each in self._waiting.get(body["digest"], ()):
                    each.set()


def _entry(approval: str, step: str, sender: str, body: dict[str, Any], conversation: str = "") -> Entry:
    return Entry(
        id=f"approval:{approval}:{step}",
        kind="approval",
        body=json.dumps({"approval": approval} | body, ensure_ascii=False).encode(),
        conversation=conversation,
        sender=sender,
        at=time.time(),
    )
