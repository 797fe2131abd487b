"""The ledger: every attempt at a model and every movement of a budget, as entries of the journal and as tables of it.

An attempt is an *act* like any other: `started` is durable before a byte leaves for the provider, `outcome` after it.
With each goes, in the same append and so in the same transaction, a *budget* entry: the worst case is held with the
one, the cost settled with the other. Two views follow: `calls`, one row an attempt, from the acts; `budgets`, one row
an account, from the budget entries. They are kept apart on purpose, as a book is kept twice: `check` adds both up.

What an earlier core had started and not settled nobody can know the cost of. `load` settles it at its worst case, says
so in the outcome, and never counts it again.
"""

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from core.fiedler.escrow import Account, Escrow
from core.fiedler.money import Amount, Bound, Price, Used, dollars
from core.fiedler.policy import Leg
from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from protos.errors import Conflict, Error, InvalidArgument
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import Answer

PREFIX = b'{"act": "llm.'
ACCOUNTS = 4096  # kept in memory; others are read when they are needed
OUTCOME = ("outcome", "reason", "input", "cached", "cache_write", "output", "reasoning", "usd", "assumed")
LOST = "the core ended while it ran: what it cost is not known, and counted at its worst case"

By = Literal["run", "mad", "model", "day"]
NO_RUN = "-"  # where no run and no conversation is known: people ask Fiedler himself
COSTS = 100  # that are told one by one; the rest is told as one sum
COLUMNS: dict[By, str] = {
    "run": f"coalesce(nullif(run, ''), nullif(conversation, ''), '{NO_RUN}')",
    "mad": "mad",
    "model": "alias",
    "day": "date(at, 'unixepoch')",
}


@dataclass(frozen=True)
class Caller:
    """Who asks, and whose budget pays."""

    principal: str  # a run's id, or a resident's or person's name
    mad: str
    conversation: str = ""
    run: str = ""
    account: str = ""  # empty: the lab's own, of the day
    also: tuple[Entry, ...] = ()  # entries that are durable with the first attempt or not at all: an approval's use


class CallsView:
    """One row an attempt."""

    name = "calls"
    kinds = frozenset({"act"})
    tables = ("calls",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS calls (
            attempt TEXT PRIMARY KEY, request TEXT, act TEXT, number INTEGER, at REAL, ended REAL DEFAULT 0,
            principal TEXT, mad TEXT, conversation TEXT, run TEXT, account TEXT, alias TEXT, provider TEXT, model TEXT,
            digest TEXT, held_tokens INTEGER, held_usd INTEGER, first REAL DEFAULT 0, outcome TEXT DEFAULT '',
            reason TEXT DEFAULT '', input INTEGER DEFAULT 0, cached INTEGER DEFAULT 0, cache_write INTEGER DEFAULT 0,
            output INTEGER DEFAULT 0, reasoning INTEGER DEFAULT 0, usd INTEGER DEFAULT 0, assumed INTEGER DEFAULT 0);
        CREATE INDEX IF NOT EXISTS calls_request ON calls (request);
        CREATE INDEX IF NOT EXISTS calls_at ON calls (at);
        CREATE INDEX IF NOT EXISTS calls_open ON calls (attempt) WHERE outcome = '';
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Adds an attempt, or what became of it."""
        if row.body is None or not row.body.startswith(PREFIX):
            return
        act: dict[str, Any] = json.loads(row.body)
        match act.pop("step"):
            case "started":
                act |= {"at": row.at, "conversation": row.conversation, "principal": row.sender}
                marks = ", ".join("?" * len(act))
                db.execute(f"INSERT OR IGNORE INTO calls ({', '.join(act)}) VALUES ({marks})", [*act.values()])
            case "first":
                db.execute("UPDATE calls SET first = ? WHERE attempt = ?", (row.at, act["attempt"]))
            case "outcome":
                changes = ", ".join(f"{each} = ?" for each in OUTCOME)
                db.execute(
                    f"UPDATE calls SET {changes}, ended = ? WHERE attempt = ?",
                    (*(act[each] for each in OUTCOME), row.at, act["attempt"]),
                )


class BudgetsView:
    """One row an account."""

    name = "budgets"
    kinds = frozenset({"budget"})
    tables = ("budgets", "holds")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS budgets (
            name TEXT PRIMARY KEY, parent TEXT DEFAULT '', cap_tokens INTEGER, cap_usd INTEGER,
            spent_tokens INTEGER DEFAULT 0, spent_usd INTEGER DEFAULT 0,
            held_tokens INTEGER DEFAULT 0, held_usd INTEGER DEFAULT 0);
        CREATE TABLE IF NOT EXISTS holds (attempt TEXT PRIMARY KEY, accounts TEXT, tokens INTEGER, usd INTEGER);
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Opens an account, or moves an amount in it and in those above."""
        entry: dict[str, Any] = json.loads(row.body or b"{}")
        match entry.get("step"):
            case "open":
                db.execute("INSERT OR IGNORE INTO budgets (name) VALUES (?)", (entry["account"],))
                db.execute(
                    "UPDATE budgets SET parent = ?, cap_tokens = ?, cap_usd = ? WHERE name = ?",
                    (entry["parent"], entry["cap_tokens"], entry["cap_usd"], entry["account"]),
                )
            case "hold":
                self._hold(db, entry)
            case "settle":
                self._settle(db, entry)

    def _hold(self, db: sqlite3.Connection, entry: dict[str, Any]) -> None:
        amount = entry["tokens"], entry["usd"]
        accounts = json.dumps(entry["accounts"])
        db.execute("INSERT INTO holds VALUES (?, ?, ?, ?)", (entry["attempt"], accounts, *amount))
        for name in entry["accounts"]:
            db.execute("INSERT OR IGNORE INTO budgets (name) VALUES (?)", (name,))
            db.execute(
                "UPDATE budgets SET held_tokens = held_tokens + ?, held_usd = held_usd + ? WHERE name = ?",
                (*amount, name),
            )

    def _settle(self, db: sqlite3.Connection, entry: dict[str, Any]) -> None:
        sql = "SELECT accounts, tokens, usd FROM holds WHERE attempt = ?"
        held = db.execute(sql, (entry["attempt"],)).fetchone()
        if held is None:
            return
        db.execute("DELETE FROM holds WHERE attempt = ?", (entry["attempt"],))
        for name in json.loads(held[0]):
            db.execute(
                "UPDATE budgets SET held_tokens = held_tokens - ?, held_usd = held_usd - ?,"
                " spent_tokens = spent_tokens + ?, spent_usd = spent_usd + ? WHERE name = ?",
                (*held[1:], entry["tokens"], entry["usd"], name),
            )


VIEWS = (CallsView(), BudgetsView())


@dataclass(frozen=True)
class Attempt:
    """One attempt, held and about to be journalled."""

    id: str  # "REQUEST.NUMBER"
    request: str
    number: int
    act: str
    caller: Caller
    account: str
    leg: Leg
    provider: str
    model: str
    price: Price
    bound: Bound
    digest: str  # of the request, so that an id cannot come to mean something else


@dataclass(frozen=True)
class Earlier:
    """A request that was begun before."""

    principal: str
    digest: str
    attempts: int
    is_without_output: bool  # every attempt failed before it said anything
    answer: Answer | None


class Ledger:
    """The books. `load` them before use."""

    def __init__(self, journal: Journal, *, usd_per_day: int | None = None, tokens_per_day: int | None = None) -> None:
        self.escrow = Escrow()
        self._journal = journal
        self._usd_per_day, self._tokens_per_day = usd_per_day, tokens_per_day
        self._in_use: Counter[str] = Counter()

    async def load(self) -> int:
        """Settles what an earlier core left open, at its worst case; returns how many attempts that were."""
        rows = await self._journal.query(
            "SELECT attempt, request, conversation, principal, held_tokens, held_usd FROM calls WHERE outcome = ''"
        )
        for attempt, request, conversation, principal, tokens, usd in rows:
            act: dict[str, Any] = {"act": "llm.complete", "step": "outcome", "attempt": attempt, "request": request}
            act |= {
                "outcome": "lost",
                "reason": LOST,
                "input": tokens,
                "cached": 0,
                "cache_write": 0,
                "output": 0,
                "reasoning": 0,
            }
            await self._journal.append(
                _entry("act", f"act:llm:{attempt}:outcome", act | {"usd": usd, "assumed": 1}, conversation, principal),
                _settle(attempt, Amount(tokens, usd), principal),
            )
        return len(rows)

    async def open_account(
        self, name: str, *, parent: str = "", cap_usd: int | None = None, cap_tokens: int | None = None
    ) -> None:
        """Opens an account, or gives one new caps. What it spends is also spent by `parent`, and by the day.

        Raises:
            NotFound, KeyError: there is no such parent.
        """
        parent = parent or self._today()
        await self.account(parent)
        account = await self.account(name)
        entry = {"step": "open", "account": name, "parent": parent, "cap_tokens": cap_tokens, "cap_usd": cap_usd}
        await self._journal.append(_entry("budget", f"budget:{name}:open:{time.time_ns()}", entry, "", "core"))
        account.parent, account.cap_tokens, account.cap_usd = parent, cap_tokens, cap_usd

    async def open_once(
        self, name: str, *, parent: str = "", cap_usd: int | None = None, cap_tokens: int | None = None
    ) -> None:
        """Opens an account that was never opened."""
        if not (await self.account(name)).parent:
            await self.open_account(name, parent=parent, cap_usd=cap_usd, cap_tokens=cap_tokens)

    async def account(self, name: str) -> Account:
        """An account with those above it, read from the tables where it is not at hand."""
        found = self.escrow.accounts.get(name)
        if found is not None:
            return found
        rows = await self._journal.query(
            "SELECT parent, cap_tokens, cap_usd, spent_tokens, spent_usd FROM budgets WHERE name = ?", (name,)
        )
        account = Account(name)
        if rows:
            parent, account.cap_tokens, account.cap_usd, tokens, usd = rows[0]
            account.parent, account.spent = parent, Amount(tokens, usd)
            if parent:
                await self.account(parent)
        if name == self._today():
            account.cap_usd, account.cap_tokens = self._usd_per_day, self._tokens_per_day
        account = self.escrow.accounts.setdefault(name, account)  # somebody may have been faster
        self._forget_idle()
        return account

    async def today(self) -> Account:
        """The account of the day, which all others draw from."""
        return await self.account(self._today())

    @asynccontextmanager
    async def account_of(self, caller: Caller) -> AsyncIterator[str]:
        """Whose cap counts, the caller's own account or the day's: at hand as long as the body runs."""
        name = caller.account or self._today()
        await self.account(name)
        lineage = [each.name for each in self.escrow.lineage(name)]
        self._in_use.update(lineage)
        try:
            yield name
        finally:
            self._in_use.subtract(lineage)

    def hold(self, attempt: Attempt) -> None:
        """Sets the worst case of an attempt aside; `start` makes it durable.

        Raises:
            Exhausted: the budget does not cover it.
        """
        self.escrow.hold(attempt.id, attempt.account, attempt.bound.worst(attempt.price))

    async def start(self, attempt: Attempt) -> None:
        """Makes *started* and the hold durable, together.

        Raises:
            Conflict: an attempt of that id was begun before.
            Unavailable: the journal is sealed; nothing was begun.
        """
        caller, worst = attempt.caller, attempt.bound.worst(attempt.price)
        act: dict[str, Any] = {"act": attempt.act, "step": "started", "attempt": attempt.id, "request": attempt.request}
        act |= {"number": attempt.number, "mad": caller.mad, "run": caller.run, "account": attempt.account}
        act |= {"alias": attempt.leg.alias, "provider": attempt.provider, "model": attempt.model}
        act |= {"digest": attempt.digest, "held_tokens": worst.tokens, "held_usd": worst.usd}
        accounts = list(self.escrow.holds[attempt.id].accounts)
        hold = {"step": "hold", "attempt": attempt.id, "accounts": accounts, "tokens": worst.tokens, "usd": worst.usd}
        known = self._journal.statistics().entries
        try:
            sequence, *_ = await self._journal.append(
                _entry("act", f"act:llm:{attempt.id}:started", act, caller.conversation, caller.principal),
                _entry("budget", f"budget:{attempt.id}:hold", hold, caller.conversation, caller.principal),
                *caller.also,
            )
        except Error:
            self.release(attempt)
            raise
        if sequence <= known:
            self.release(attempt)  # the hold of the first one was the one that counts
            raise Conflict(f"The request {attempt.request} was begun before.", next="Give a new request a new id.")

    def release(self, attempt: Attempt) -> None:
        """Gives back the hold of an attempt that was not begun after all."""
        self.escrow.settle(attempt.id, Amount())

    def spoke(self, attempt: Attempt) -> None:
        """Notes the first output; durable with the next commit."""
        act = {"act": attempt.act, "step": "first", "attempt": attempt.id}
        caller = attempt.caller
        self._journal.append_soon(
            _entry("act", f"act:llm:{attempt.id}:first", act, caller.conversation, caller.principal)
        )

    async def settle(
        self, attempt: Attempt, used: Used, outcome: str, reason: str = "", *, answer: Answer | None = None
    ) -> None:
        """Makes *outcome* and the cost durable, and with them the answer, together.

        Raises:
            Unavailable: the journal is sealed. The hold stays; the next core settles it at its worst case.
        """
        caller, cost = attempt.caller, Amount(used.input + used.output, attempt.price.of(used))
        act: dict[str, Any] = {"act": attempt.act, "step": "outcome", "attempt": attempt.id, "request": attempt.request}
        act |= {"outcome": outcome, "reason": reason, "input": used.input, "cached": used.cached}
        act |= {"cache_write": used.cache_write, "output": used.output, "reasoning": used.reasoning}
        act |= {"usd": cost.usd, "assumed": int(used.assumed)}
        entries = [
            _entry("act", f"act:llm:{attempt.id}:outcome", act, caller.conversation, caller.principal),
            _settle(attempt.id, cost, caller.principal),
        ]
        if answer is not None:
            entries.append(
                Entry(
                    id=f"answer:{attempt.request}",
                    kind="answer",
                    body=answer.SerializeToString(),
                    conversation=caller.conversation,
                    sender=caller.principal,
                )
            )
        await self._journal.append(*entries)
        self.escrow.settle(attempt.id, cost)

    async def earlier(self, request: str) -> Earlier | None:
        """What is known of a request that was begun before."""
        rows = await self._journal.query(
            "SELECT min(principal), min(digest), max(number), sum(outcome NOT IN ('failed', 'abandoned')) FROM calls"
            " WHERE request = ?",
            (request,),
        )
        principal, digest, attempts, with_output = rows[0]
        if attempts is None:
            return None
        kept = await self._journal.query(
            "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.id = ?", (f"answer:{request}",)
        )
        answer = Answer.FromString(kept[0][0]) if kept else None
        return Earlier(principal, digest, attempts, with_output == 0, answer)

    async def costs(self, by: By, *, since: float = 0.0, run: str = "", most: int = COSTS) -> pb.CostsReply:
        """What was spent, the most first (days: the newest first), of one run or of all; past `most` as one sum.

        By run, the runs that somebody asked for are told, each with those that it began.
        """
        of_all_runs = by == "run" and not run
        payer = "account" if of_all_runs else "''"
        rows = await self._journal.query(
            f"SELECT {COLUMNS[by]}, {payer}, count(*), sum(input), sum(cached),"
            " sum(output), sum(usd), sum(assumed), sum(outcome NOT IN ('finished', ''))"
            " FROM calls WHERE at >= ? AND (run = ? OR ? = '') GROUP BY 1, 2",
            (since, run, run),
        )
        roots = await self._roots(since) if of_all_runs else {}
        sums: defaultdict[str, _Sum] = defaultdict(_Sum)
        for name, account, *figures in rows:
            root = roots.get(account, name)
            sums[root].add(figures)
            if root != name:
                sums[root].children[name].add(figures)
        names = sorted(sums, reverse=True) if by == "day" else _ranked(sums)
        reply = pb.CostsReply(costs=[sums[each].told(each) for each in names[:most]])
        if rest := names[most:]:
            others = _Sum()
            for each in rest:
                others.add(sums[each].figures)
            reply.others.CopyFrom(others.told(""))
            reply.more = len(rest)
        return reply

    async def _roots(self, since: float) -> dict[str, str]:
        """The account of each run that has asked since then, and the run at the top of those it draws from."""
        rows = await self._journal.query(
            "WITH RECURSIVE above (account, name, parent) AS ("
            " SELECT name, name, parent FROM budgets WHERE name IN (SELECT account FROM calls WHERE at >= ?)"
            " UNION SELECT above.account, budgets.name, budgets.parent FROM above JOIN budgets"
            " ON budgets.name = above.parent WHERE above.parent LIKE 'run:%')"
            " SELECT account, substr(name, 5) FROM above WHERE name LIKE 'run:%' AND parent NOT LIKE 'run:%'",
            (since,),
        )
        return dict(rows)

    async def report(self, by: str, caller: Caller, *, since: float = 0.0) -> pb.CostsReply:
        """What `caller` may know of costs: a run of itself, others of everything.

        Raises:
            InvalidArgument: `by` is no way to group them.
        """
        if by not in COLUMNS:
            raise InvalidArgument(f"Costs are not kept by {by[:64]!r}.", next=f"Use one of: {', '.join(COLUMNS)}.")
        async with self.account_of(caller) as name:
            accounts = [_described(each) for each in self.escrow.lineage(name)]
        reply = await self.costs(by, since=since, run=caller.run)
        reply.accounts.extend(accounts)
        return reply

    def _today(self) -> str:
        return f"day:{datetime.now(UTC).date().isoformat()}"

    def _forget_idle(self) -> None:
        """So that a lab of many runs does not grow: an account that nobody uses is read again from the tables."""
        accounts = self.escrow.accounts
        if len(accounts) < ACCOUNTS:
            return
        self._in_use = +self._in_use
        needed = {name for hold in self.escrow.holds.values() for name in hold.accounts} | set(self._in_use)
        needed |= {each.parent for each in accounts.values()}
        for name in [each for each in accounts if each not in needed]:
            del accounts[name]


@dataclass
class _Sum:
    """What was spent on one thing, in the ledger's own units."""

    figures: list[int] = field(default_factory=lambda: [0] * 7)
    children: "defaultdict[str, _Sum]" = field(default_factory=lambda: defaultdict(_Sum))

    def add(self, figures: Iterable[int]) -> None:
        self.figures = [mine + more for mine, more in zip(self.figures, figures, strict=True)]

    def told(self, name: str) -> pb.Cost:
        calls, input, cached, output, usd, assumed, failed = self.figures
        return pb.Cost(
            name=name,
            calls=calls,
            input_tokens=input,
            cached_tokens=cached,
            output_tokens=output,
            usd=dollars(usd),
            assumed=assumed,
            failed=failed,
            children=[self.children[each].told(each) for each in _ranked(self.children)],
        )


def _ranked(sums: Mapping[str, _Sum]) -> list[str]:
    """The names, by what was spent, then by how often."""

    def rank(name: str) -> tuple[int, int, str]:
        calls, *_, usd, _assumed, _failed = sums[name].figures
        return -usd, -calls, name

    return sorted(sums, key=rank)


def _described(account: Account) -> pb.Account:
    return pb.Account(
        name=account.name,
        cap_usd=None if account.cap_usd is None else dollars(account.cap_usd),
        cap_tokens=account.cap_tokens,
        spent_usd=dollars(account.spent.usd),
        spent_tokens=account.spent.tokens,
        held_usd=dollars(account.held.usd),
        held_tokens=account.held.tokens,
    )


def _entry(kind: str, id: str, body: dict[str, Any], conversation: str, sender: str) -> Entry:
    return Entry(
        id=id, kind=kind, body=json.dumps(body, ensure_ascii=False).encode(), conversation=conversation, sender=sender
    )


def _settle(attempt: str, cost: Amount, sender: str) -> Entry:
    entry = {"step": "settle", "attempt": attempt, "tokens": cost.tokens, "usd": cost.usd}
    return _entry("budget", f"budget:{attempt}:settle", entry, "", sender)
