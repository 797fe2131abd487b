"""Proof of deletion: what the journal says of each removal, so that a verifier can tell it from loss.

A "retention" entry is written before anything goes. For each kind of entry it has a proof:

    {"kind", "after", "upto", "count", "digest"}                every body of the kind in that range that was left
    {"kind", "sequences": "5-9,12", "count", "digest"}          these bodies

`digest` is SHA-256 over the digests of the removed bodies, in their order. The headers stay, and with them each body's
digest: so anybody can compute it again, and whoever still has a body can show that it was among them. What is set
apart (`apart`) is never counted to the first form. Entries of before proofs were written have only {"removed"}: per
kind the sequence up to which bodies are gone.
"""

import json
import sqlite3
from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from core.rogers.ranges import parse_ranges
from core.rogers.segments import Header, unpack
from protos.errors import Error

KINDS = ("retention", "archive")


@dataclass
class _Claim:
    """One proof, and what is found of it while the headers are read."""

    entry: int  # sequence of the entry that holds it
    kind: str
    after: int
    upto: int
    count: int
    digest: str
    found: int = 0
    hashed: Any = field(default_factory=sha256)


class Removals:
    """All that the journal says of bodies that are not there.

    Raises:
        ValueError: an entry that should say it says something else.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        try:
            self._read(db)
        except (KeyError, TypeError, AttributeError, IndexError, Error) as error:
            raise ValueError(f"what was removed cannot be told: {error!r}") from None

    def _read(self, db: sqlite3.Connection) -> None:
        self._upto: dict[str, int] = {}
        self._claims: list[_Claim] = []
        self._by_kind: dict[str, tuple[list[int], list[_Claim]]] = {}  # of ranges: where each ends
        archives: dict[str, tuple[str, bool]] = {}  # the sequences of each, and whether it is one now
        alone: list[tuple[int, int, _Claim]] = []
        for sequence, kind, body in _entries(db):
            told = json.loads(body)
            if kind == "archive":
                known = archives.get(told["archive"], ("", False))[0]
                archives[told["archive"]] = told.get("sequences", known), told["step"] == "archived"
                continue
            for id in told.get("archives", ()):
                archives[id] = archives[id][0], False
            self._upto |= {str(name): int(upto) for name, upto in told.get("removed", {}).items()}
            for each in told.get("proofs", ()):
                claim = _Claim(
                    *(sequence, each["kind"], each.get("after", 0), each.get("upto", 0), each["count"], each["digest"])
                )
                self._claims.append(claim)
                if "sequences" in each:
                    alone += [(low, high, claim) for low, high in parse_ranges(each["sequences"])]
                else:
                    ends, claims = self._by_kind.setdefault(claim.kind, ([], []))
                    ends.append(claim.upto)
                    claims.append(claim)
        self._alone = _Ranges([(low, high) for low, high, _ in alone], [claim for _, _, claim in alone])
        now = [pair for ranges, is_one in archives.values() if is_one for pair in parse_ranges(ranges)]
        ever = [pair for ranges, _ in archives.values() for pair in parse_ranges(ranges)]
        self._archived = _Ranges(now, now)
        ever = _merged(ever)
        self._ever = _Ranges(ever, ever)

    def state(self, header: Header) -> str:
        """Of a body that the headers name: "kept", "archived" or "removed"; call it once for each, in order."""
        claim = self._alone.at(header.sequence)
        if claim is None and self._ever.at(header.sequence) is None:
            claim = self._of_kind(header)
            if claim is None:
                return "removed" if header.sequence <= self._upto.get(header.kind, 0) else "kept"
        elif claim is None:
            return "archived" if self._archived.at(header.sequence) is not None else "kept"
        if claim.kind != header.kind:
            return "kept"
        claim.found += 1
        claim.hashed.update(header.digest)
        return "removed"

    def broken(self) -> list[str]:
        """Sentences about proofs that do not fit the headers; after all of them were read."""
        return [
            f"the proof of deletion in entry {each.entry} does not fit: it speaks of {each.count} bodies of {each.kind}"
            f" entries, and {each.found} headers are meant"
            for each in self._claims
            if each.found != each.count or each.hashed.hexdigest() != each.digest
        ]

    def _of_kind(self, header: Header) -> _Claim | None:
        ends, claims = self._by_kind.get(header.kind, ([], []))
        at = bisect_right(ends, header.sequence - 1)
        return claims[at] if at < len(claims) and claims[at].after < header.sequence else None


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


class _Ranges:
    """Ranges of which each has a value; none overlaps another one."""

    def __init__(self, ranges: list[tuple[int, int]], values: list[Any]) -> None:
        order = sorted(range(len(ranges)), key=lambda each: ranges[each])
        self._starts = [ranges[each][0] for each in order]
        self._ends = [ranges[each][1] for each in order]
        self._values = [values[each] for each in order]

    def at(self, sequence: int) -> Any:
        """The value of the range that holds `sequence`; None where none does."""
        place = bisect_right(self._starts, sequence) - 1
        return self._values[place] if place >= 0 and self._ends[place] >= sequence else None


def _entries(db: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
    """The entries that speak of removals, oldest first, sealed or not."""
    found: list[tuple[int, str, bytes]] = []
    for (packed,) in db.execute("SELECT CAST(headers AS BLOB) FROM segment ORDER BY first"):
        try:
            headers = [each for each in unpack(packed) if each.kind in KINDS]
        except ValueError:
            continue  # whoever reads the headers says so
        for each in headers:
            body = db.execute("SELECT body FROM body WHERE sequence = ?", (each.sequence,)).fetchone()
            found += [(each.sequence, each.kind, body[0])] if body else []
    sql = f"SELECT j.sequence, j.kind, b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind IN {KINDS}"
    return found + db.execute(f"{sql} ORDER BY j.sequence").fetchall()
