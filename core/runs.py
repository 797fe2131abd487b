"""The table of runs: a view of the journal's "run" entries, and the one way to add to it."""

import json
import sqlite3
import time
from dataclasses import fields, replace
from typing import Any, ClassVar

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.run import Outcome, Run, State, check_move, run_id
from protos.errors import NotFound
from protos.ids import new_id

COLUMNS = tuple(each.name for each in fields(Run))
JSON_COLUMNS = frozenset({"terms", "cost", "evidence", "artifacts"})
SELECT = "SELECT " + ", ".join(f'"{each}"' for each in COLUMNS) + " FROM runs "


class RunsView:
    """One row a run, as its latest entries left it."""

    name = "runs"
    kinds = frozenset({"run"})
    tables = ("runs",)
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS runs (
            id TEXT PRIMARY KEY, mad TEXT, conversation TEXT, "trigger" TEXT, trigger_sequence INTEGER, state TEXT,
            created REAL, outcome TEXT, started REAL DEFAULT 0, ended REAL DEFAULT 0, deadline REAL DEFAULT 0,
            reason TEXT DEFAULT '', sandbox TEXT DEFAULT '', token TEXT DEFAULT '', credential TEXT DEFAULT '',
            confirmed INTEGER DEFAULT 0,
            parent TEXT DEFAULT '', terms TEXT DEFAULT '{}', cancel TEXT DEFAULT '', killed INTEGER DEFAULT 0,
            cost TEXT DEFAULT '{}', evidence TEXT DEFAULT '{}',
            artifacts TEXT DEFAULT '[]');
        CREATE INDEX IF NOT EXISTS runs_live ON runs (created) WHERE state != 'destroyed';
        CREATE INDEX IF NOT EXISTS runs_created ON runs (created);
        CREATE INDEX IF NOT EXISTS runs_trigger ON runs ("trigger");
        CREATE INDEX IF NOT EXISTS runs_parent ON runs (parent) WHERE parent != '';
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Inserts a requested run; for a known one, changes what the entry names."""
        changes: dict[str, Any] = json.loads(row.body or b"{}")
        values = {
            key: json.dumps(value, ensure_ascii=False) if key in JSON_COLUMNS else value
            for key, value in changes.items()
            if key in COLUMNS
        }
        run = values.pop("id")
        db.execute("INSERT OR IGNORE INTO runs (id) VALUES (?)", (run,))
        assignments = ", ".join(f'"{key}" = ?' for key in values)
        db.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*values.values(), run))


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
        values |= {"parent": run.parent, "terms": run.terms}
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
            raise NotFound(f"There is no run {run[:64]!r}.", next="See: madlab runs")
        return _run(rows[0])

    async def known(self, run: str) -> bool:
        """Whether there ever was such a run."""
        return bool(await self._journal.query("SELECT 1 FROM runs WHERE id = ?", (run,)))

    async def claims(self, run: str, mad: str, trigger: str) -> list[tuple[str, str]]:
        """The runs, with their triggers, that have this id, or that this message has started."""
        rows = await self._journal.query(
            'SELECT id, "trigger" FROM runs WHERE id = ? OR ("trigger" = ? AND mad = ?)', (run, trigger, mad)
        )
        return [(str(id), str(of)) for id, of in rows]

    async def newest(self, limit: int = 50) -> list[Run]:
        """The newest runs first."""
        rows = await self._journal.query(SELECT + "ORDER BY created DESC, trigger_sequence DESC LIMIT ?", (limit,))
        return [_run(each) for each in rows]

    async def children(self, run: str) -> list[Run]:
        """The runs that one asked for, oldest first, over or not."""
        rows = await self._journal.query(SELECT + "WHERE parent = ? AND parent != '' ORDER BY trigger_sequence", (run,))
        return [_run(each) for each in rows]

    async def live(self) -> list[Run]:
        """Runs that are not over, oldest first."""
        rows = await self._journal.query(SELECT + "WHERE state != 'destroyed' ORDER BY trigger_sequence", ())
        return [_run(each) for each in rows]


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
