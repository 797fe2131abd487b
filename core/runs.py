"""The table of runs: a view of the journal's "run" entries, and the one way to add to it.

A run's `number` is its place among all runs, in the order of the journal: what lists are ordered by and go on from. No
list reads more than it shows: each way to ask has its index, and titles one of their trigrams.

A title is made of a person's words. It is in no entry of a run, since those stay for ever: the view takes it from the
message that started the run, and drops it with the conversation. Made anew, it has none where that message is gone.

With a forgotten conversation the view drops the words of the evidence, too, and what files there were: figures stay.
The entries keep them, since the view is made of these.
"""

import json
import sqlite3
import time
from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, ClassVar

from google.protobuf.message import DecodeError

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.run import Outcome, Run, State, check_move, run_id, title_of
from protos.errors import NotFound
from protos.ids import new_id
from protos.v1.message_pb2 import Message

COLUMNS = tuple(each.name for each in fields(Run))
JSON_COLUMNS = frozenset({"terms", "cost", "evidence", "artifacts"})
TRIGRAM = 3  # characters: what is shorter cannot be looked up

_OF_RUNS = ", ".join(f'runs."{each}"' for each in COLUMNS)
SELECT = f"SELECT {_OF_RUNS} FROM runs "


class RunsView:
    """One row a run, as its latest entries left it."""

    name = "runs"
    kinds = frozenset({"run", "retention"})
    tables = ("runs", "runs_titles")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS runs (
            number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, mad TEXT, conversation TEXT, "trigger" TEXT,
            trigger_sequence INTEGER, state TEXT, created REAL, outcome TEXT, started REAL DEFAULT 0,
            ended REAL DEFAULT 0, deadline REAL DEFAULT 0, reason TEXT DEFAULT '', sandbox TEXT DEFAULT '',
            token TEXT DEFAULT '', credential TEXT DEFAULT '', confirmed INTEGER DEFAULT 0, parent TEXT DEFAULT '',
            terms TEXT DEFAULT '{}', cancel TEXT DEFAULT '', killed INTEGER DEFAULT 0, cost TEXT DEFAULT '{}',
            evidence TEXT DEFAULT '{}', artifacts TEXT DEFAULT '[]', title TEXT DEFAULT '', asker TEXT DEFAULT '',
            resumes TEXT DEFAULT '', forgotten REAL DEFAULT 0, changed INTEGER DEFAULT 0);
        CREATE INDEX IF NOT EXISTS runs_live ON runs (state) WHERE state != 'destroyed';
        CREATE INDEX IF NOT EXISTS runs_mad ON runs (mad);
        CREATE INDEX IF NOT EXISTS runs_asker ON runs (asker);
        CREATE INDEX IF NOT EXISTS runs_outcome ON runs (outcome);
        CREATE INDEX IF NOT EXISTS runs_outcome_of_mad ON runs (outcome, mad);
        CREATE INDEX IF NOT EXISTS runs_changed ON runs (changed);
        CREATE INDEX IF NOT EXISTS runs_trigger ON runs ("trigger");
        CREATE INDEX IF NOT EXISTS runs_conversation ON runs (conversation);
        CREATE INDEX IF NOT EXISTS runs_parent ON runs (parent) WHERE parent != '';
        CREATE INDEX IF NOT EXISTS runs_resumes ON runs (resumes) WHERE resumes != '';
        CREATE VIRTUAL TABLE IF NOT EXISTS runs_titles USING fts5 (title, tokenize = 'trigram');
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Inserts a requested run; for a known one, changes what the entry names. Hears of what is forgotten."""
        changes: dict[str, Any] = json.loads(row.body or b"{}")
        if row.kind == "retention":
            self._forget(db, changes.get("conversation", ""), row.at)
            return
        values = {
            key: json.dumps(value, ensure_ascii=False) if key in JSON_COLUMNS else value
            for key, value in changes.items()
            if key in COLUMNS
        }
        run = values.pop("id")
        values["changed"] = row.sequence
        if db.execute("INSERT OR IGNORE INTO runs (id) VALUES (?)", (run,)).rowcount:
            title, sender = asked(db, values.get("trigger", ""))
            (number,) = db.execute("SELECT number FROM runs WHERE id = ?", (run,)).fetchone()
            if title:
                db.execute("INSERT INTO runs_titles (rowid, title) VALUES (?, ?)", (number, title))
            parent = db.execute("SELECT asker FROM runs WHERE id = ?", (values.get("parent", ""),)).fetchone()
            values = {"asker": parent[0] if parent else sender} | values | {"title": title}
        assignments = ", ".join(f'"{key}" = ?' for key in values)
        db.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*values.values(), run))

    def _forget(self, db: sqlite3.Connection, conversation: str, at: float) -> None:
        if conversation:
            whose = "(conversation = ? OR (conversation > ? AND conversation < ?)) AND forgotten = 0"
            within = (conversation, f"{conversation}/", f"{conversation}0")  # 0 is what follows / in ASCII
            db.execute(f"DELETE FROM runs_titles WHERE rowid IN (SELECT number FROM runs WHERE {whose})", within)
            told = db.execute(f"SELECT evidence, id FROM runs WHERE {whose}", within).fetchall()
            db.executemany(
                "UPDATE runs SET title = '', artifacts = '[]', forgotten = ?, evidence = ? WHERE id = ?",
                [(at, json.dumps(figures(json.loads(evidence))), id) for evidence, id in told],
            )


def figures(told: Any) -> Any:
    """What is no words of anybody: numbers, yes and no, under names that are none of a file."""
    if isinstance(told, dict):
        kept = ((key, figures(value)) for key, value in told.items() if key.isidentifier())
        return {key: value for key, value in kept if value is not None}
    if isinstance(told, list):
        return [value for each in told if (value := figures(each)) is not None]
    return told if isinstance(told, (bool, int, float)) else None


def asked(db: sqlite3.Connection, trigger: str) -> tuple[str, str]:
    """What the message says that a run is started by, in one line, and who said it; empty where that is gone."""
    sql = (
        "SELECT j.sender, b.body FROM journal j LEFT JOIN body b USING (sequence) WHERE j.id = ? AND j.kind = 'message'"
    )
    sender, body = db.execute(sql, (trigger,)).fetchone() or ("", None)
    try:
        return (title_of(Message.FromString(body)) if body else ""), sender
    except DecodeError:
        return "", sender


class Runs:
    """Every run there was. `key` is the secret of the lab that ids of runs are made with."""

    def __init__(self, journal: Journal, key: bytes) -> None:
        self._journal, self._key = journal, key

    def id_of(self, mad: str, trigger: str) -> str:
        """The id of the run of `mad` that a message starts, or would start: the same message never starts two."""
        return run_id(self._key, mad, trigger)

    async def request(self, run: Run) -> None:
        """Makes a requested run durable. The same run again changes nothing."""
        values: dict[str, Any] = {
            "id": run.id,
            "mad": run.mad,
            "conversation": run.conversation,
            "trigger": run.trigger,
        }
        values |= {"trigger_sequence": run.trigger_sequence, "state": run.state, "created": run.created}
        values |= {"parent": run.parent, "terms": run.terms, "asker": run.asker, "resumes": run.resumes}
        await self._journal.append(_entry(run, f"run:{run.id}:requested", values))

    async def move(self, run: Run, *states: State, **changes: Any) -> Run:
        """Takes `run` through `states` in one durable step and returns it as it is now.

        Raises:
            Conflict: the table of `core.run` does not allow it; nothing was changed.
            Unavailable: the journal is sealed.
        """
        entries = []
        for each in states:
            check_move(run.state, each)
            run = replace(run, state=each)
            entries.append(_entry(run, f"run:{run.id}:{each}:{new_id()}", {"id": run.id, "state": each}))
        run = replace(run, **changes)
        entries[-1] = _entry(run, entries[-1].id, {"id": run.id, "state": states[-1]} | changes)
        await self._journal.append(*entries)
        return run

    async def note(self, run: Run, **changes: Any) -> Run:
        """Changes what is known of a run without moving it."""
        run = replace(run, **changes)
        await self._journal.append(_entry(run, f"run:{run.id}:note:{new_id()}", {"id": run.id} | changes))
        return run

    def note_soon(self, run: Run, **changes: Any) -> Run:
        """Like `note`, durable with the next commit."""
        run = replace(run, **changes)
        self._journal.append_soon(_entry(run, f"run:{run.id}:note:{new_id()}", {"id": run.id} | changes))
        return run

    async def get(self, run: str) -> Run:
        """
        Raises:
            NotFound: there never was such a run.
        """
        rows = await self._journal.query(SELECT + "WHERE id = ?", (run,))
        if not rows:
            raise _unknown(run)
        return _run(rows[0])

    async def moves(self, run: str) -> list[tuple[State, float]]:
        """The states it came to, each with when (seconds since the epoch), as far as its entries are not packed."""
        prefix = f"run:{run}:"  # of the ids of its entries; what follows : is ;
        rows = await self._journal.query(
            "SELECT id, at FROM journal WHERE id > ? AND id < ? ORDER BY sequence", (prefix, f"run:{run};")
        )
        named = ((str(id).removeprefix(prefix).partition(":")[0], float(at)) for id, at in rows)
        return [(State(name), at) for name, at in named if name in State.__members__.values()]

    async def known(self, run: str) -> bool:
        """Whether there ever was such a run."""
        return bool(await self._journal.query("SELECT 1 FROM runs WHERE id = ?", (run,)))

    async def claims(self, run: str, mad: str, trigger: str) -> list[tuple[str, str]]:
        """The runs, with their triggers, that have this id, or that this message has started."""
        rows = await self._journal.query(
            'SELECT id, "trigger" FROM runs WHERE id = ? OR ("trigger" = ? AND mad = ?)', (run, trigger, mad)
        )
        return [(str(id), str(of)) for id, of in rows]

    async def newest(
        self,
        limit: int = 50,
        *,
        before: str = "",
        mad: str = "",
        state: str = "",
        outcome: str = "",
        text: str = "",
        asker: str = "",
    ) -> list[Run]:
        """The newest runs first; older ones than the run `before`, where one is named.

        `state` is one of the table's, or "live" for all but the last; `text` stands somewhere in the title, whatever
        its case; `asker` is who asked for them in the end.

        Raises:
            NotFound: there never was a run `before`.
        """
        found = await self._journal.query("SELECT number FROM runs WHERE id = ?", (before,)) if before else [(1 << 62,)]
        if not found:
            raise _unknown(before)
        text = "".join(filter(str.isprintable, text))  # titles have nothing else, and a zero byte ends what FTS5 reads
        source, number = "runs", "runs.number"
        wanted: dict[str, object] = {}
        if len(text) >= TRIGRAM:
            quoted = text.replace('"', '""')
            source, number = "runs_titles JOIN runs ON runs.number = runs_titles.rowid", "runs_titles.rowid"
            wanted["runs_titles MATCH ?"] = f'"{quoted}"'
        elif text:
            wanted["instr(lower(title), ?)"] = text.lower()
        elif state and state != State.DESTROYED:
            source = "runs INDEXED BY runs_live"  # SQLite would rather look at all of them, newest first
        if state:
            wanted["state != 'destroyed' AND ? IN ('live', state)" if state != State.DESTROYED else "state = ?"] = state
        wanted |= {
            f"{name} = ?": value for name, value in (("mad", mad), ("outcome", outcome), ("asker", asker)) if value
        }
        conditions = " AND ".join((f"{number} < ?", *wanted))
        sql = f"SELECT {_OF_RUNS} FROM {source} WHERE {conditions} ORDER BY {number} DESC LIMIT ?"
        rows = await self._journal.query(sql, (found[0][0], *wanted.values(), limit))
        return [_run(each) for each in rows]

    async def some(self, ids: Collection[str]) -> dict[str, Run]:
        """The runs of these ids, as far as there are any."""
        marks = ", ".join("?" * len(ids))
        rows = await self._journal.query(SELECT + f"WHERE id IN ({marks})", tuple(ids))
        return {each.id: each for each in map(_run, rows)}

    async def changed(self, after: int, upto: int, limit: int) -> list[Run]:
        """Runs whose last entry is past `after` and not past `upto`, in the order of these entries."""
        sql = SELECT + "WHERE changed > ? AND changed <= ? ORDER BY changed LIMIT ?"
        return [_run(each) for each in await self._journal.query(sql, (after, upto, limit))]

    async def children(self, run: str) -> list[Run]:
        """The runs that one asked for, oldest first, over or not."""
        rows = await self._journal.query(SELECT + "WHERE parent = ? AND parent != '' ORDER BY trigger_sequence", (run,))
        return [_run(each) for each in rows]

    async def resumed(self, run: str, limit: int = 100) -> list[str]:
        """The ids of the runs that went on from one, oldest first."""
        sql = "SELECT id FROM runs WHERE resumes = ? AND resumes != '' ORDER BY number LIMIT ?"
        return [str(id) for (id,) in await self._journal.query(sql, (run, limit))]

    async def family(self, run: str, limit: int = 100) -> list[Run]:
        """A run, then those that worked for it, and for these, in the order in which they were asked for.

        Raises:
            NotFound: there never was such a run.
        """
        rows = await self._journal.query(
            "WITH RECURSIVE family (id) AS (SELECT ?1 UNION"
            " SELECT runs.id FROM family JOIN runs ON runs.parent = family.id AND runs.parent != '')"
            f" SELECT {_OF_RUNS} FROM family JOIN runs USING (id) ORDER BY runs.id != ?1, number LIMIT ?2",
            (run, limit),
        )
        if not rows:
            raise _unknown(run)
        return [_run(each) for each in rows]

    async def live(self) -> list[Run]:
        """Runs that are not over, oldest first."""
        rows = await self._journal.query(SELECT + "WHERE state != 'destroyed' ORDER BY trigger_sequence", ())
        return [_run(each) for each in rows]


def _unknown(run: str) -> NotFound:
    return NotFound(f"There is no run {run[:64]!r}.", next="See: madlab runs")


def _entry(run: Run, id: str, values: dict[str, Any]) -> Entry:
    return Entry(
        id=id,
        kind="run",
        body=json.dumps(values, ensure_ascii=False).encode(),
        conversation=run.conversation,
        sender="core",
        recipient=run.mad,
        at=time.time(),
    )


def _run(row: tuple[Any, ...]) -> Run:
    values = dict(zip(COLUMNS, row, strict=True))
    values |= {key: json.loads(values[key]) for key in JSON_COLUMNS}
    values["state"] = State(values["state"])
    values["outcome"] = Outcome(values["outcome"]) if values["outcome"] else None
    values |= {key: bool(values[key]) for key in ("confirmed", "killed")}
    return Run(**values)
