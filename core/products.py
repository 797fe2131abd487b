"""What runs leave for a person to judge, patches and reports; and what was decided about a patch, once.

A view of the journal. A run that left such a file has a row by the entry that fixed its outcome, so the newest are
found without a look at other runs. A decision is an act with two entries, *started* and *outcome*: where its outcome is
there, the patch is decided about, and the view refuses every further act; where the act failed, it waits as before.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.run import Run, forgotten
from protos.errors import Conflict, NotFound

PATCH, REPORT = "patch.diff", "report.json"
MAKERS = {PATCH: "foreman", REPORT: "mcnamara"}  # whose file of that name it is; anybody may call a file so
PREFIX = "act:patch-"  # of the ids of the entries that decide about a patch
RULE = "operator"  # that a person decides

Decision = Literal["apply", "send_back", "drop"]
STATES: Mapping[str, str] = {"apply": "applied", "send_back": "sent_back", "drop": "dropped"}


@dataclass(frozen=True)
class Decided:
    """What was decided about a patch."""

    decision: Decision
    by: str
    at: float  # seconds since the epoch
    details: Mapping[str, Any]  # what was asked for: a branch, a remark
    result: Mapping[str, Any]  # what came of it: a commit, a run

    @property
    def state(self) -> str:
        """The state of the patch: "applied", "sent_back" or "dropped"."""
        return STATES[self.decision]


@dataclass(frozen=True)
class Product:
    """One file that a run left to be judged."""

    run: str
    sequence: int  # of the entry that told of it
    size: int  # bytes
    decided: Decided | None = None


class ProductsView:
    """One row a file, and one a decision."""

    name = "products"
    kinds = frozenset({"run", "act"})
    tables = ("products", "patches_decided")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS products (
            name TEXT NOT NULL, sequence INTEGER NOT NULL, run TEXT NOT NULL, size INTEGER NOT NULL,
            PRIMARY KEY (name, sequence)) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS products_run ON products (run);
        CREATE TABLE IF NOT EXISTS patches_decided (
            run TEXT PRIMARY KEY, act TEXT NOT NULL, decision TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL,
            details TEXT NOT NULL, result TEXT NOT NULL) WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in what a run left, or a step of a decision.

        Raises:
            Conflict: the patch is decided about already.
        """
        if row.kind == "run":
            if b'"artifacts"' in (row.body or b""):
                self._keep(db, row)
        elif row.id.startswith(PREFIX):
            self._decide(db, row)

    def _keep(self, db: sqlite3.Connection, row: Row) -> None:
        told = json.loads(row.body or b"{}")
        for each in told.get("artifacts") or ():
            name = each.get("name")
            if MAKERS.get(name) == row.recipient and each.get("size"):
                db.execute("DELETE FROM products WHERE run = ? AND name = ?", (told["id"], name))
                values = (name, row.sequence, told["id"], each["size"])
                db.execute("INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?)", values)

    def _decide(self, db: sqlite3.Connection, row: Row) -> None:
        told = json.loads(row.body or b"{}")
        run = told["target"]
        known = db.execute("SELECT decision FROM patches_decided WHERE run = ?", (run,)).fetchone()
        if known is not None:
            raise Conflict(f"The patch of {run} was {said(known[0])} already.", next=f"See: madlab show {run}")
        if told["step"] == "outcome" and "failed" not in told:
            details, result = (json.dumps(told.get(each, {}), ensure_ascii=False) for each in ("asked", "result"))
            values = (run, row.id, told["act"].removeprefix("patch."), row.sender, row.at, details, result)
            db.execute("INSERT INTO patches_decided VALUES (?, ?, ?, ?, ?, ?, ?)", values)


@dataclass(frozen=True)
class Deciding:
    """One decision on its way into the journal: `started` before anything is done, then one of the other two."""

    id: str
    run: str
    conversation: str
    decision: Decision
    by: str
    asked: Mapping[str, Any]

    def started(self) -> Entry:
        """That it is about to be carried out; refused with Conflict where the patch is decided about."""
        return self._entry("started", {"details": dict(self.asked), "rule": RULE, "verdict": "allow"})

    def done(self, result: Mapping[str, Any]) -> Entry:
        """That it was."""
        return self._entry("outcome", {"asked": dict(self.asked), "result": dict(result)})

    def failed(self, why: str) -> Entry:
        """That it could not be; the patch waits as before."""
        return self._entry("outcome", {"failed": why})

    def _entry(self, step: str, body: Mapping[str, Any]) -> Entry:
        told = {"act": f"patch.{self.decision}", "step": step, "target": self.run, **body}
        content = json.dumps(told, ensure_ascii=False).encode()
        return Entry(f"{PREFIX}{self.id}:{step}", "act", content, self.conversation, self.by)


async def products(
    journal: Journal, name: str, *, limit: int, before: int | None = None, state: str = ""
) -> Sequence[Product]:
    """The newest files of that name first, all or those of one state; `before` is the sequence of the one to go on
    behind. Those of forgotten runs are no more."""
    decision = {"waiting": "", **{word: each for each, word in STATES.items()}}.get(state, "any")
    rows = await journal.query(
        f"SELECT {_COLUMNS} WHERE p.name = :name AND p.sequence < :before"
        " AND :decision IN ('any', ifnull(d.decision, ''))"
        " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = p.run AND r.forgotten > 0)"
        " ORDER BY p.sequence DESC LIMIT :limit",
        {"name": name, "before": 1 << 62 if before is None else before, "decision": decision, "limit": limit},
    )
    return [_product(each) for each in rows]


async def product_of(journal: Journal, run: Run, name: str) -> Product | None:
    """The file of that name that a run left to be judged.

    Raises:
        NotFound: it was forgotten.
    """
    rows = await journal.query(f"SELECT {_COLUMNS} WHERE p.run = ? AND p.name = ?", (run.id, name))
    if rows and run.forgotten:
        raise NotFound(forgotten(run.id, run.forgotten), next=f"See what is known of it still: madlab show {run.id}")
    return _product(rows[0]) if rows else None


def said(decision: str) -> str:
    """A decision as the end of a sentence: "sent back"."""
    return STATES.get(decision, decision).replace("_", " ")


_COLUMNS = (
    "p.run, p.sequence, p.size, d.decision, d.by, d.at, d.details, d.result"
    " FROM products p LEFT JOIN patches_decided d ON d.run = p.run AND p.name = 'patch.diff'"
)


def _product(row: tuple[Any, ...]) -> Product:
    run, sequence, size, decision, by, at, details, result = row
    decided = None if decision is None else Decided(decision, by, at, json.loads(details), json.loads(result))
    return Product(run, sequence, size, decided)
