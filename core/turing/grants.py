"""Grants: who may use which secret where. Kept by the journal, decided here.

A grant is an entry, and so is each use of it and its end; the tables `grants`, `leases` and `uses` follow from these.
A use is journalled in the transaction that starts the act it belongs to, and there the view has the last word: where
the grant has ended or its uses are spent, it refuses the entry, so nothing of the act is written and the act does not
begin. Two that come at once for one last use cannot both have it.

`Grants` is the same state in memory, which follows every commit: what to try is decided there, without a query.

A *lease* is one principal's hold on one version of a secret. It begins with the first use, ends after `lease_s`, and
until then the holder gets that same version, also when the secret is rotated meanwhile: what was begun with one value
is not ended with another. When the last lease on an old version is over, the version is destroyed.

A request may wait for a person between the opening of a value and its use, and the secret be rotated in that time. So
an entry of a use says when the value was opened, and the view refuses it where the secret has had a new value since
and its user holds no lease on the old one. It goes by the journal's own order: an old vault that was put back, whose
versions are numbered anew, is in nobody's way.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import structlog

from core.rogers.entry import Entry, Row
from core.rogers.journal import Journal
from core.turing.places import Address, Place, place_of
from protos.errors import Denied, InvalidArgument

GRANT, SECRET = "grant", "secret"
USE = ("name", "version", "grant", "principal", "method", "target")  # of a use's body, as the table has them
LEASES = 1024  # kept in memory before those that are over are looked for
logger = structlog.get_logger()

COLUMNS = "id, name, principal, place, methods, use, made, expires, uses_left, used, last, revoked"


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant. Times are seconds since the epoch; `expires` is 0 for never, `revoked` while it holds."""

    id: str
    name: str
    principal: str
    place: Place
    methods: frozenset[str]  # empty: any
    use: str = ""  # "header:NAME=before{}after", "basic:USER"; empty: where a handle asks for it
    made: float = 0.0
    expires: float = 0.0
    uses_left: int | None = None  # None: as many as one likes
    used: int = 0
    last: float = 0.0
    revoked: float = 0.0

    def holds(self, now: float) -> bool:
        """Whether it can be used now."""
        return not self.revoked and (not self.expires or now < self.expires) and self.uses_left != 0

    def fits(self, method: str, address: Address) -> bool:
        """Whether a request is what it was given for."""
        return (not self.methods or method in self.methods) and self.place.holds(address)


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold on one version until a moment."""

    name: str
    version: int
    until: float
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Use:
    """One use, as the journal remembers it."""

    at: float
    name: str
    version: int
    grant: str
    principal: str
    method: str
    target: str


def made_entry(grant: Grant) -> Entry:
    """The entry that makes a grant."""
    return _entry(
        GRANT,
        f"grant:{grant.id}:made",
        "operator",
        {
            "step": "made",
            "id": grant.id,
            "name": grant.name,
            "principal": grant.principal,
            "place": str(grant.place),
            "methods": sorted(grant.methods),
            "use": grant.use,
            "expires": grant.expires,
            "uses": grant.uses_left,
        },
    )


def revoked_entry(grant: str) -> Entry:
    """The entry that ends a grant before its time."""
    return _entry(GRANT, f"grant:{grant}:revoked", "operator", {"step": "revoked", "id": grant})


def use_entry(
    id: str, grant: Grant, principal: str, lease: Lease, method: str, target: str, opened: float | None = None
) -> Entry:
    """The entry of one use. It goes into the transaction that starts the act; there it may be refused.

    `opened` is when the value was read, in seconds since the epoch.
    """
    body = {
        "act": "use",
        "grant": grant.id,
        "name": grant.name,
        "version": lease.version,
        "until": lease.until,
        "principal": principal,
        "method": method,
        "target": target,
        "opened": opened,
    }
    return _entry(SECRET, f"secret:{id}:use", principal, body)


def _entry(kind: str, id: str, sender: str, body: dict[str, Any]) -> Entry:
    return Entry(id=id, kind=kind, body=json.dumps(body, ensure_ascii=False).encode(), sender=sender)


# A use of a value that was opened before the last rotation, and on which its user holds no lease.
IS_OLD = """
    SELECT 1 FROM rotations WHERE name = :name AND version <> :version AND at > :opened AND NOT EXISTS (
        SELECT 1 FROM leases l WHERE l.name = :name AND l.version = :version AND l.principal = :principal
        AND l.until > :at)
"""


class GrantsView:
    """The tables of grants, of the leases that still hold, and of every use."""

    name = "grants"
    kinds = frozenset({GRANT, SECRET})
    tables = ("grants", "leases", "uses", "rotations")
    schema: ClassVar[str] = """
        CREATE TABLE IF NOT EXISTS grants (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, principal TEXT NOT NULL, place TEXT NOT NULL,
            methods TEXT NOT NULL, use TEXT NOT NULL, made REAL NOT NULL, expires REAL NOT NULL, uses_left INTEGER,
            used INTEGER NOT NULL DEFAULT 0, last REAL NOT NULL DEFAULT 0, revoked REAL NOT NULL DEFAULT 0) STRICT;
        CREATE TABLE IF NOT EXISTS leases (
            principal TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, until REAL NOT NULL,
            uses INTEGER NOT NULL, PRIMARY KEY (principal, name)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS uses (
            name TEXT NOT NULL, sequence INTEGER NOT NULL, at REAL NOT NULL, version INTEGER NOT NULL,
            "grant" TEXT NOT NULL, principal TEXT NOT NULL, method TEXT NOT NULL, target TEXT NOT NULL,
            PRIMARY KEY (name, sequence)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS rotations (
            name TEXT PRIMARY KEY, version INTEGER NOT NULL, at REAL NOT NULL) STRICT, WITHOUT ROWID;
    """

    def apply(self, db: sqlite3.Connection, row: Row) -> None:
        """Takes in a grant, its end, a use, or a secret's new value.

        Raises:
            Denied: rule *grant*: a use of what has ended or is spent, or of a value that is not the secret's any more.
        """
        body: dict[str, Any] = json.loads(row.body or b"{}")
        match body.get("step") or body.get("act"):
            case "made":
                values = body | {"methods": json.dumps(body["methods"]), "made": row.at}
                db.execute(
                    "INSERT INTO grants (id, name, principal, place, methods, use, made, expires, uses_left)"
                    " VALUES (:id, :name, :principal, :place, :methods, :use, :made, :expires, :uses)",
                    values,
                )
            case "revoked":
                db.execute("UPDATE grants SET revoked = ? WHERE id = ? AND revoked = 0", (row.at, body["id"]))
            case "use":
                self._use(db, row, body)
            case "outcome" if is_rotation(body):
                name, version = body["name"], body["version"]
                if body.get("at_once"):
                    db.execute("DELETE FROM leases WHERE name = ? AND version <> ?", (name, version))
                db.execute("INSERT OR REPLACE INTO rotations VALUES (?, ?, ?)", (name, version, row.at))

    def _use(self, db: sqlite3.Connection, row: Row, body: dict[str, Any]) -> None:
        changed = db.execute(
            "UPDATE grants SET used = used + 1, uses_left = uses_left - 1, last = ?1 WHERE id = ?2 AND revoked = 0"
            " AND (expires = 0 OR expires > ?1) AND (uses_left IS NULL OR uses_left > 0)",
            (row.at, body["grant"]),
        )
        if changed.rowcount == 0:
            raise spent(body["name"])
        if body.get("opened") is not None:
            values = {each: body[each] for each in ("name", "version", "opened", "principal")} | {"at": row.at}
            if db.execute(IS_OLD, values).fetchone() is not None:
                raise Denied(
                    f"rule grant: {body['name']} has had a new value since this request was made.", next="Ask again."
                )
        db.execute("DELETE FROM leases WHERE until <= ?", (row.at,))
        db.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET"
            " uses = CASE WHEN version = excluded.version THEN uses + 1 ELSE 1 END,"
            " version = excluded.version, until = excluded.until",
            (body["principal"], body["name"], body["version"], body["until"]),
        )
        db.execute(
            'INSERT INTO uses (sequence, at, name, version, "grant", principal, method, target)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row.sequence, row.at, *(body[each] for each in USE)),
        )


def is_rotation(body: dict[str, Any]) -> bool:
    """Whether the outcome of an operator's act is that a secret has a new value."""
    return body.get("act") == "secret.rotate" and "version" in body and "failed" not in body


def spent(name: str) -> Denied:
    """What who comes too late is told."""
    return Denied(
        f"rule grant: the grant of {name} has ended, or its uses are spent.",
        next=f"The operator can make a new one: madlab secret grant {name} …",
    )


class Grants:
    """The grants in memory. They follow the journal's commits; `load` them once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._all: dict[str, Grant] = {}
        self._by_principal: dict[str, dict[str, list[str]]] = {}  # then by host: ids, in the order they were made
        self._leases: dict[tuple[str, str], Lease] = {}

    async def load(self) -> None:
        """Reads what the tables say, and follows from there."""
        for row in await self._journal.query(f"SELECT {COLUMNS} FROM grants ORDER BY made, id"):
            try:
                self._add(_grant(row))
            except InvalidArgument:
                _skipped(row[0])
        for principal, *rest in await self._journal.query("SELECT principal, name, version, until, uses FROM leases"):
            self._leases[principal, rest[0]] = Lease(*rest)
        self._journal.on_commit(self._committed)

    def get(self, id: str) -> Grant | None:
        return self._all.get(id)

    def of(self, principals: Sequence[str], now: float, host: str | None = None) -> list[Grant]:
        """What any of `principals` holds now, everywhere or at one host: the narrowest principal's first."""
        found: list[Grant] = []
        for each in principals:
            hosts = self._by_principal.get(each, {})
            for ids in hosts.values() if host is None else (hosts.get(host, ()),):
                found += [grant for id in ids if (grant := self._all[id]).holds(now)]
        return found

    def on(self, name: str) -> list[Grant]:
        """Every grant there ever was of a secret, the oldest first."""
        return [each for each in self._all.values() if each.name == name]

    def all(self) -> Iterable[Grant]:
        return self._all.values()

    def lease(self, principal: str, name: str, now: float) -> Lease | None:
        """What a principal holds now."""
        lease = self._leases.get((principal, name))
        return lease if lease is not None and now < lease.until else None

    def held(self, now: float) -> dict[tuple[str, int], float]:
        """By name and version: the end of the last lease on it."""
        found: dict[tuple[str, int], float] = {}
        for each in self._leases.values():
            if now < each.until:
                key = (each.name, each.version)
                found[key] = max(each.until, found.get(key, 0.0))
        return found

    def leases_on(self, name: str, now: float) -> list[tuple[str, Lease]]:
        """Who holds which version of a secret now."""
        return [
            (principal, lease)
            for (principal, held), lease in self._leases.items()
            if held == name and now < lease.until
        ]

    async def uses(self, name: str, *, limit: int) -> list[Use]:
        """Who used a secret, the latest first."""
        rows = await self._journal.query(
            'SELECT at, name, version, "grant", principal, method, target FROM uses WHERE name = ?'
            " ORDER BY sequence DESC LIMIT ?",
            (name, limit),
        )
        return [Use(*row) for row in rows]

    def _committed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.kind in (GRANT, SECRET):
                self._follow(row)

    def _follow(self, row: Row) -> None:
        body: dict[str, Any] = json.loads(row.body or b"{}")
        match body.get("step") or body.get("act"):
            case "made":
                try:
                    place = place_of(body["place"])
                except InvalidArgument:
                    _skipped(body["id"])
                    return
                self._add(
                    Grant(
                        body["id"], body["name"], body["principal"], place, frozenset(body["methods"]), body["use"],
                        row.at, float(body["expires"]), body["uses"],
                    )
                )  # fmt: skip
            case "revoked" if body["id"] in self._all:
                self._all[body["id"]] = replace(self._all[body["id"]], revoked=row.at)
            case "outcome" if is_rotation(body) and body.get("at_once"):
                for key, each in list(self._leases.items()):
                    if each.name == body["name"] and each.version != body["version"]:
                        del self._leases[key]
            case "use" if body["grant"] in self._all:
                grant = self._all[body["grant"]]
                left = None if grant.uses_left is None else grant.uses_left - 1
                self._all[grant.id] = replace(grant, used=grant.used + 1, uses_left=left, last=row.at)
                self._lease(row.at, body)

    def _lease(self, now: float, body: dict[str, Any]) -> None:
        if len(self._leases) > LEASES:
            self._leases = {key: each for key, each in self._leases.items() if each.until > now}
        key = (body["principal"], body["name"])
        before = self.lease(*key, now)
        uses = before.uses + 1 if before is not None and before.version == body["version"] else 1
        self._leases[key] = Lease(body["name"], body["version"], body["until"], uses)

    def _add(self, grant: Grant) -> None:
        self._all[grant.id] = grant
        self._by_principal.setdefault(grant.principal, {}).setdefault(grant.place.host, []).append(grant.id)


def _skipped(grant: str) -> None:
    """A grant whose place cannot be read: nobody can use it. One of them must not stop a lab."""
    logger.warning("a grant cannot be read and is left out", grant=grant)


def _grant(row: tuple[Any, ...]) -> Grant:
    id, name, principal, place, methods, *rest = row
    return Grant(id, name, principal, place_of(place), frozenset(cast(list[str], json.loads(methods))), *rest)
