"""The index of known vulnerabilities: OSV records made small, and looked up by package.

An index is one SQLite file. Each package has one row with its advisories as compressed JSON, so that a database of
some hundred thousand records stays small enough to be sent into each sandbox that needs it.
"""

import json
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from periphery.mcnamara.findings import Level
from periphery.mcnamara.versions import affected, normal_name

ECOSYSTEMS = ("PyPI", "npm", "Go", "crates.io", "RubyGems", "Packagist", "Maven", "NuGet")
RECORD_BYTES = 8 * 2**20
ROW_BYTES = 16 * 2**20
LEVELS: dict[str, Level] = {
    "LOW": "low",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "HIGH": "high",
    "CRITICAL": "critical",
}
VERSION = 1
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE part (ecosystem TEXT, name TEXT, body BLOB);
CREATE TABLE package (ecosystem TEXT, name TEXT, body BLOB, PRIMARY KEY (ecosystem, name)) WITHOUT ROWID;
"""


class Counts(TypedDict):
    """What went into an index."""

    advisories: int
    packages: int
    withdrawn: int
    other: int  # for ecosystems that no lock file here names
    unreadable: int
    newest: str  # the date of the latest change, as in the records


@dataclass(frozen=True)
class Advisory:
    """One known vulnerability of one version of a package."""

    id: str
    aliases: tuple[str, ...]
    summary: str
    severity: Level
    cwe: str
    fixed: str  # the version to go to; empty: none is known


def build(records: Iterable[bytes | None], target: Path, tell: Callable[[int], None]) -> Counts:
    """Writes an index of OSV records, one JSON text each (None: one that could not be read)."""
    counts = Counts(advisories=0, packages=0, withdrawn=0, other=0, unreadable=0, newest="")
    with closing(sqlite3.connect(target)) as db:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;" + SCHEMA)
        for number, record in enumerate(records, 1):
            if number % 5000 == 0:
                tell(number)
            parts = _read(record, counts)
            db.executemany("INSERT INTO part VALUES (?, ?, ?)", parts)
        _gather(db, counts)
        about = {"version": str(VERSION), "newest": counts["newest"], "advisories": str(counts["advisories"])}
        db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        db.execute("DROP TABLE part")
        db.commit()
        db.execute("VACUUM")
    return counts


def _read(record: bytes | None, counts: Counts) -> list[tuple[str, str, bytes]]:
    try:
        if record is None:
            raise ValueError("not read")
        advisory = json.loads(record)
        parts = _parts(advisory)
        modified = str(advisory.get("modified", ""))[:32]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        counts["unreadable"] += 1
        return []
    if advisory.get("withdrawn"):
        counts["withdrawn"] += 1
        return []
    if not parts:
        counts["other"] += 1
        return []
    counts["advisories"] += 1
    if re.match(r"\d{4}-\d\d-\d\d", modified):
        counts["newest"] = max(counts["newest"], modified)
    return parts


def _parts(advisory: Mapping[str, Any]) -> list[tuple[str, str, bytes]]:
    """One row for each package that the advisory names."""
    specific = advisory.get("database_specific") or {}
    weaknesses = specific.get("cwe_ids") or [""]
    head = {
        "id": str(advisory["id"]),
        "aliases": [str(each) for each in advisory.get("aliases") or ()][:20],
        "summary": str(advisory.get("summary") or advisory.get("details") or "")[:300],
        "severity": level(advisory),
        "cwe": str(weaknesses[0]),
    }
    found = []
    for each in advisory.get("affected") or ():
        package = each.get("package") or {}
        ecosystem = str(package.get("ecosystem", "")).partition(":")[0]
        if ecosystem in ECOSYSTEMS:
            ranges = [{"events": one.get("events", [])} for one in each.get("ranges") or () if one.get("type") != "GIT"]
            body = {**head, "ranges": ranges, "versions": each.get("versions") or []}
            name = normal_name(ecosystem, str(package["name"]))
            found.append((ecosystem, name, json.dumps(body, separators=(",", ":")).encode()))
    return found


def _gather(db: sqlite3.Connection, counts: Counts) -> None:
    db.execute("CREATE INDEX by_package ON part (ecosystem, name)")
    writer = db.cursor()
    for ecosystem, name in db.execute("SELECT DISTINCT ecosystem, name FROM part").fetchall():
        bodies = [
            body for (body,) in db.execute("SELECT body FROM part WHERE ecosystem = ? AND name = ?", (ecosystem, name))
        ]
        packed = zlib.compress(b"[" + b",".join(bodies) + b"]", 9)
        writer.execute("INSERT INTO package VALUES (?, ?, ?)", (ecosystem, name, packed))
        counts["packages"] += 1


class Index:
    """An index, open for reading."""

    def __init__(self, place: Path) -> None:
        self._db = sqlite3.connect(f"file:{place}?mode=ro&immutable=1", uri=True)
        about = dict(self._db.execute("SELECT key, value FROM about"))
        if about.get("version") != str(VERSION):
            raise ValueError(f"an index of version {about.get('version')}, {VERSION} is read")
        self.newest = str(about.get("newest", ""))

    def find(self, ecosystem: str, name: str, version: str) -> Iterator[Advisory]:
        """The advisories that hold for one version of a package, each vulnerability once."""
        query = "SELECT body FROM package WHERE ecosystem = ? AND name = ?"
        row = self._db.execute(query, (ecosystem, normal_name(ecosystem, name))).fetchone()
        if row is None:
            return
        seen: set[str] = set()
        inner = zlib.decompressobj()
        for each in sorted(
            json.loads(inner.decompress(row[0], ROW_BYTES)), key=lambda each: not each["id"].startswith("GHSA")
        ):
            fixed = affected(ecosystem, version, each["ranges"], each["versions"])
            names = {each["id"], *each["aliases"]}
            if fixed is None or names & seen:
                continue
            seen |= names
            yield Advisory(each["id"], tuple(each["aliases"]), each["summary"], each["severity"], each["cwe"], fixed)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


def level(advisory: Mapping[str, Any]) -> Level:
    """How grave it is: malicious packages above all, then what the database says, then the CVSS vector."""
    if str(advisory["id"]).startswith("MAL-"):
        return "critical"
    said = str((advisory.get("database_specific") or {}).get("severity", "")).upper()
    if said in LEVELS:
        return LEVELS[said]
    vectors = [str(each.get("score", "")) for each in advisory.get("severity") or ()]
    scores = [score for score in map(cvss, vectors) if score is not None]
    if not scores:
        return "medium"
    score = max(scores)
    return "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low"


def cvss(vector: str) -> float | None:
    """The base score of a CVSS 3 vector, 0 to 10; None for any other."""
    if not vector.startswith("CVSS:3"):
        return None
    given = dict(part.split(":", 1) for part in vector.split("/")[1:] if ":" in part)
    try:
        changed = given["S"] == "C"
        rights = {"N": 0.85, "L": 0.68 if changed else 0.62, "H": 0.5 if changed else 0.27}[given["PR"]]
        reach = {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2}[given["AV"]]
        ease = {"L": 0.77, "H": 0.44}[given["AC"]] * {"N": 0.85, "R": 0.62}[given["UI"]]
        kept = 1.0
        for each in "CIA":
            kept *= 1 - {"H": 0.56, "L": 0.22, "N": 0.0}[given[each]]
    except KeyError:
        return None
    harm = 1 - kept
    impact = 7.52 * (harm - 0.029) - 3.25 * (harm - 0.02) ** 15 if changed else 6.42 * harm
    if impact <= 0:
        return 0.0
    total = (impact + 8.22 * reach * rights * ease) * (1.08 if changed else 1)
    return -(-round(min(total, 10) * 100000) // 10000) / 10  # rounded up to one decimal
