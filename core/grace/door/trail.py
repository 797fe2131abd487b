"""The audit trail: every privileged act as one line, from the entries that the journal has of it.

An act has two entries (*started* with its intent and decision, *outcome*), or one, where it was denied. Approvals,
grants, secrets and policies have one for each thing that happened to them. `lines` puts the entries of one act
together; `follow` gives each entry as it comes, under the same id and in the same form.
"""

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from anyio import Event

from core.rogers.entry import Row
from core.rogers.journal import Journal
from core.rogers.tables import COLUMNS

KINDS = ("act", "approval", "policy", "grant", "secret", "vault", "incident", "token")
PAGE = 500
RUN = re.compile(r"-[0-9a-f]{10}")  # what stands behind its MAD's name in a run's id
SKIPPED = frozenset(
    {"act", "step", "principals", "target", "taint", "rule", "verdict", "details", "failed", "reason", "next"}
)

_MARKS = ", ".join(f"'{each}'" for each in KINDS)
_READ = f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence) WHERE j.kind IN ({_MARKS})"


class Trail:
    """Reads the privileged acts of a journal, and hears of new ones."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed = Event()
        journal.on_commit(self._committed)

    def _committed(self, rows: Sequence[Row]) -> None:
        if any(row.kind in KINDS for row in rows):
            self._changed.set()
            self._changed = Event()

    async def lines(self, *, principal: str = "", since: float = 0.0, limit: int = 200) -> list[dict[str, Any]]:
        """The newest `limit` acts since `since` (seconds since the epoch), the oldest of them first."""
        found: dict[str, dict[str, Any]] = {}
        before = 1 << 62
        while len(found) < limit:
            rows = await self._page(f"{_READ} AND j.sequence < ? ORDER BY j.sequence DESC LIMIT ?", before)
            for row in rows:
                before = row.sequence
                if row.at < since:
                    return _in_order(found)
                line = line_of(row)
                if line is None or not _is_of(principal, line):
                    continue
                known = found.get(line["id"])
                if known is None and len(found) == limit:
                    continue  # what began before the oldest that is shown, and ended after it
                found[line["id"]] = line if known is None else merged(line, known)
            if len(rows) < PAGE:
                break
        return _in_order(found)

    async def follow(self, *, principal: str = "", after: int = 0) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
        """Each entry past `after`, then what comes, without an end."""
        while True:
            changed = self._changed
            rows = await self._page(f"{_READ} AND j.sequence > ? ORDER BY j.sequence LIMIT ?", after)
            for row in rows:
                after = row.sequence
                line = line_of(row)
                if line is not None and _is_of(principal, line):
                    yield row.sequence, line
            if not rows:
                await changed.wait()

    async def approvals(self, after: int) -> AsyncGenerator[tuple[int, str], None]:
        """The ids of approvals to which something happens past `after`, without an end."""
        while True:
            changed = self._changed
            rows = await self._page(f"{_READ} AND j.kind = 'approval' AND j.sequence > ? ORDER BY 1 LIMIT ?", after)
            for row in rows:
                after = row.sequence
                yield row.sequence, json.loads(row.body or b"{}")["approval"]
            if not rows:
                await changed.wait()

    async def entries_of(self, id: str) -> list[Row]:
        """What the journal has of one act, by the id that its line shows."""
        ids = [id, *(f"act:{id}:{step}" for step in ("started", "denied", "outcome")), f"approval:{id}:asked"]
        ids += [f"{id}:{step}" for step in ("started", "outcome")]  # of what was done to the vault
        marks = ", ".join("?" * len(ids))
        sql = f"{_READ} AND j.id IN ({marks}) ORDER BY j.sequence"
        return [Row(*values) for values in await self._journal.query(sql, ids)]

    async def acts(self, *, since: float = 0.0) -> AsyncGenerator[dict[str, Any], None]:
        """The bodies of the journal's acts since `since`, where they were decided about, oldest first."""
        after = 0
        sql = (
            f"SELECT {COLUMNS} FROM journal j LEFT JOIN body b USING (sequence)"
            " WHERE j.kind = 'act' AND j.sequence > ? ORDER BY j.sequence LIMIT ?"
        )
        while rows := await self._page(sql, after):
            after = rows[-1].sequence
            for row in rows:
                if row.body and row.at >= since and row.id.endswith((":started", ":denied")):
                    yield json.loads(row.body)

    async def _page(self, sql: str, place: int) -> list[Row]:
        return [Row(*values) for values in await self._journal.query(sql, (place, PAGE))]


def line_of(row: Row) -> dict[str, Any] | None:
    """An entry as a line; None where it adds nothing."""
    body: dict[str, Any] = json.loads(row.body or b"{}")
    line: dict[str, Any] = {
        "id": row.id,
        "sequence": row.sequence,
        "last": row.sequence,  # of its entries: where to go on from
        "at": row.at,
        "principal": row.sender or "core",
        "conversation": row.conversation,
        "act": row.kind,
        "target": "",
        "verdict": "",
        "rule": "",
        "outcome": "",
        "ended": None,
        "reason": body.get("reason", ""),
        "taint": body.get("taint", []),
        "details": {},
    }
    match row.kind:
        case "act":
            return _of_act(row, body, line)
        case "approval":
            return line | _of_approval(body)
        case "policy":
            return line | {"target": f"version {body.get('version')}", "outcome": "loaded"}
        case "secret" if "step" in body:
            return line | _of_custody(row, body)
    if (row.kind, body.get("step")) == ("token", "used"):
        return None
    what = body.get("step") or body.get("act") or ""
    principal = body.get("principal") or line["principal"]
    rest = {key: value for key, value in body.items() if key not in ("step", "act", "name", "principal", "hash")}
    return line | {"principal": principal, "target": body.get("name", ""), "outcome": what, "details": rest}


def _of_act(row: Row, body: dict[str, Any], line: dict[str, Any]) -> dict[str, Any] | None:
    step = body.get("step")
    if step not in ("started", "denied", "outcome"):
        return None
    details = body.get("details", {}) | {key: value for key, value in body.items() if key not in SKIPPED}
    line |= {"id": row.id.removeprefix("act:").removesuffix(f":{step}"), "act": body.get("act", ""), "details": details}
    if step == "outcome":
        failed = body.get("failed") or (body.get("outcome") if body.get("outcome") not in (None, "finished") else "")
        return line | {"outcome": f"failed: {failed}" if failed else "done", "ended": row.at}
    line |= {"target": body.get("target", body.get("alias", "")), "rule": body.get("rule", "")}
    line |= {"verdict": body.get("verdict", "allow")}
    return line | ({"outcome": "denied", "ended": row.at} if step == "denied" else {})


def _of_custody(row: Row, body: dict[str, Any]) -> dict[str, Any]:
    """What the operator did with the vault or with a secret: "vault.export", "secret.rotate"."""
    step = body["step"]
    rest = {key: value for key, value in body.items() if key not in ("step", "act", "name", "failed")}
    said = {"id": row.id.removesuffix(f":{step}"), "act": body["act"], "target": body.get("name", "")}
    said |= {"verdict": "allow", "details": rest}
    if step == "outcome":
        said |= {"outcome": f"failed: {body['failed']}" if body.get("failed") else "done", "ended": row.at}
    return said


def _of_approval(body: dict[str, Any]) -> dict[str, Any]:
    asked = {"id": body["approval"], "target": body["approval"], "outcome": body["step"], "rule": body.get("rule", "")}
    rest: dict[str, Any] = {key: body[key] for key in ("uses", "act") if key in body}
    if "form" in body:
        form = json.loads(body["form"])
        rest["for"] = f"{form['kind']} {form['target']}"
    return asked | {"id": f"approval:{body['approval']}:{body['step']}:{body.get('act', '')}", "details": rest}


def merged(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """What two entries of one act say together."""
    kept = {key: later[key] for key in ("outcome", "ended", "last") if later[key]}
    return (
        earlier
        | kept
        | {"reason": later["reason"] or earlier["reason"]}
        | {
            "details": earlier["details"] | later["details"],
            "taint": later["taint"] or earlier["taint"],
        }
    )


def _is_of(principal: str, line: dict[str, Any]) -> bool:
    bare = principal.partition(":")[2] or principal
    known = line["principal"]
    return not principal or known in (principal, bare) or RUN.fullmatch(known.removeprefix(bare)) is not None


def _in_order(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found.values(), key=lambda line: line["sequence"])
