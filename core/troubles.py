"""What went wrong and no person has seen yet: a view of the journal's runs and incidents, until somebody dismisses it.

Equal ones are one trouble with a count: runs of one MAD that ended alike for the same reason, incidents of one MAD with
the same value. So the list stays short however much goes wrong, and looking at it costs what it shows. What one run
asked others to do is that run's own trouble, and is not told twice.

What was before the first start with this view is nobody's trouble any more: `troubles_since` says where it began. When
a conversation is forgotten, the words about what went wrong in it go; that something did stays.

Whoever makes many runs fail in many ways buries nothing under them: of the runs that one asker had of one MAD, `EACH`
troubles are told apart and all further ones are one, and incidents are looked for by themselves.
"""

import json
import re
import sqlite3
import time
from dataclasses import astuple, dataclass, fields, replace
from hashlib import sha256
from typing import Any, ClassVar

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.run import Outcome
from core.runs import asked
from protos.errors import Conflict, NotFound

BAD = frozenset(set(Outcome) - {Outcome.SUCCEEDED, Outcome.PARTIAL, Outcome.CANCELLED})
NUMBER = re.compile(r"\b[0-9a-f-]*\d[0-9a-f-]*\b")  # what differs between two sentences that say the same
REASON = 300  # characters of a reason that are kept
EACH = 10  # troubles with runs of one MAD for one asker, before the others are one
OTHERS = "others"  # what that one is


@dataclass(frozen=True)
class Trouble:
    """Something that happened `count` times since `since` (seconds since the epoch), last to `run`."""

    id: str
    kind: str  # "run" or "incident"
    mad: str
    what: str  # the outcome, or what was seen, or OTHERS
    detail: str  # of the last one
    title: str  # what the last run was for
    run: str
    count: int
    since: float
    last: float
    sequence: int  # of the last one's entry: what a dismissal must have seen
    asker: str = ""  # whose runs
    conversation: str = ""  # of the last run


COLUMNS = "id, kind, mad, what, detail, title, run, count, since, last, sequence, asker, conversation"


class TroublesView:
    """One row a trouble that nobody has dismissed."""

    name = "troubles"
    kinds = frozenset({"run", "incident", "dismissal", "retention"})
    tables = ("troubles", "troubles_runs")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS troubles (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, mad TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL,
            title TEXT NOT NULL, run TEXT NOT NULL, count INTEGER NOT NULL, since REAL NOT NULL, last REAL NOT NULL,
            sequence INTEGER NOT NULL, asker TEXT NOT NULL, conversation TEXT NOT NULL);
        CREATE INDEX IF NOT EXISTS troubles_last ON troubles (kind, last);
        CREATE INDEX IF NOT EXISTS troubles_asker ON troubles (kind, mad, asker);
        CREATE TABLE IF NOT EXISTS troubles_runs (
            run TEXT PRIMARY KEY, mad TEXT NOT NULL, "trigger" TEXT NOT NULL, asker TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS troubles_since AS
            SELECT max((SELECT coalesce(max(sequence), 0) FROM journal), (SELECT coalesce(max(last), 0) FROM segment))
            AS sequence;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in a bad end, an incident, or that somebody has seen one.

        Raises:
            NotFound: there is no such trouble, or no more.
            Conflict: it has happened again since it was looked at.
        """
        body: dict[str, Any] = json.loads(row.body or b"{}")
        match row.kind:
            case "run":
                self._run(db, row, body)
            case "incident" if _is_new(db, row):
                run, mad, what = (str(body.get(each, "")) for each in ("run", "mad", "what"))
                seen = Trouble("", "incident", mad, what, f"seen in {body.get('place', '')}", "", run, *_once(row))
                self._add(db, replace(seen, conversation=row.conversation), "")
            case "dismissal" if _is_new(db, row):
                self._dismiss(db, body)
            case "retention":
                self._forget(db, body.get("conversation", ""))

    def _run(self, db: sqlite3.Connection, row: Row, body: dict[str, Any]) -> None:
        run = body["id"]
        if "mad" in body and not body.get("parent"):
            known = (run, body["mad"], body.get("trigger", ""), body.get("asker", ""))
            db.execute("INSERT OR IGNORE INTO troubles_runs VALUES (?, ?, ?, ?)", known)
        if body.get("outcome") in BAD and _is_new(db, row):
            found = db.execute('SELECT mad, "trigger", asker FROM troubles_runs WHERE run = ?', (run,)).fetchone()
            if found:
                (mad, trigger, asker), reason = found, body.get("reason", "")
                title, _ = asked(db, trigger)
                bad = Trouble("", "run", mad, body["outcome"], reason, title, run, *_once(row), asker, row.conversation)
                self._add(db, bad, NUMBER.sub("#", reason))
        if body.get("state") == "destroyed":
            db.execute("DELETE FROM troubles_runs WHERE run = ?", (run,))

    def _add(self, db: sqlite3.Connection, seen: Trouble, alike: str) -> None:
        """Counts what was seen with the trouble that it is equal to, or as a new one."""
        id, what = _id(seen.kind, seen.mad, seen.asker, seen.what, alike), seen.what
        if seen.kind == "run" and not db.execute("SELECT 1 FROM troubles WHERE id = ?", (id,)).fetchone():
            whose = (seen.mad, seen.asker)
            (others,) = db.execute(
                "SELECT count(*) FROM troubles WHERE kind = 'run' AND mad = ? AND asker = ?", whose
            ).fetchone()
            if others >= EACH:
                id, what = _id("run", *whose, OTHERS), OTHERS
        values = replace(seen, id=id, what=what, detail=seen.detail[:REASON])
        db.execute(
            f"INSERT INTO troubles ({COLUMNS}) VALUES ({', '.join('?' * len(fields(Trouble)))}) ON CONFLICT DO UPDATE"
            " SET count = count + 1, detail = excluded.detail, title = excluded.title, run = excluded.run,"
            " last = excluded.last, sequence = excluded.sequence, conversation = excluded.conversation",
            astuple(values),
        )

    def _dismiss(self, db: sqlite3.Connection, body: dict[str, Any]) -> None:
        found = db.execute("SELECT sequence FROM troubles WHERE id = ?", (body["item"],)).fetchone()
        if found is None:
            raise NotFound("Nothing like that waits any more.", next="Look again: somebody else may have dismissed it.")
        if found[0] > body["seen"]:
            raise Conflict("It has happened again since you looked.", next="Look at it again, then dismiss it.")
        db.execute("DELETE FROM troubles WHERE id = ?", (body["item"],))

    def _forget(self, db: sqlite3.Connection, conversation: str) -> None:
        if conversation:
            within = (conversation, f"{conversation}/", f"{conversation}0")  # 0 is what follows / in ASCII
            whose = "conversation = ? OR (conversation > ? AND conversation < ?)"
            db.execute(f"UPDATE troubles SET title = '', detail = '' WHERE {whose}", within)


def _is_new(db: sqlite3.Connection, row: Row) -> bool:
    """Whether it happened since there is this view."""
    (since,) = db.execute("SELECT sequence FROM troubles_since").fetchone()
    return bool(row.sequence > since)


def _once(row: Row) -> tuple[int, float, float, int]:
    """How often, since when, when last, and by which entry: of what has just been seen."""
    return 1, row.at, row.at, row.sequence


def _id(kind: str, *same: str) -> str:
    return f"{kind}-{sha256(chr(0).join((kind, *same)).encode()).hexdigest()[:16]}"


async def troubles(journal: Journal, *, limit: int = 100) -> list[Trouble]:
    """What nobody has seen yet: the newest incidents, then the newest troubles with runs, `limit` of each."""
    rows: list[tuple[Any, ...]] = []
    for kind in ("incident", "run"):
        newest = f"SELECT {COLUMNS} FROM troubles WHERE kind = ? ORDER BY last DESC LIMIT ?"
        rows += await journal.query(newest, (kind, limit))
    return [Trouble(*each) for each in rows]


async def dismiss(journal: Journal, item: str, *, seen: int, by: str) -> None:
    """Notes that somebody has seen a trouble, up to the entry `seen`.

    Raises:
        NotFound: there is no such trouble, or no more.
        Conflict: it has happened again since.
        Unavailable: the journal is sealed.
    """
    body = json.dumps({"item": item, "seen": seen}).encode()
    await journal.append(Entry(f"dismissal:{item}:{seen}", "dismissal", body, sender=by, at=time.time()))
