"""Checks a journal without trusting it, and says three things apart: the chain, the bodies, the tail.

- *Chain*: every header is there, in order, and hashes to what the next one stands on.
- *Bodies*: present and as they were; archived, or removed by policy, which the journal itself recorded with a proof
  (`proofs`) that must fit; or missing, an error.
- *Tail*: the journal reaches at least as far as the head noted beside it, with the same hash there.

What this cannot see alone: somebody who rewrites the journal *and* the head beside it. For that, heads are kept
somewhere else (`core.policy.checkpoints`) and given to `verify`: each must be in the chain where it says.
"""

import json
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from core.rogers import chain
from core.rogers.proofs import Removals
from core.rogers.segments import Header, checksum, unpack

MAX_PROBLEMS = 20  # told one by one; the rest are counted


@dataclass(frozen=True)
class Head:
    """How far the journal was known to reach at some moment."""

    entries: int
    hash: str  # of the last of them, hexadecimal
    at: float  # seconds since the epoch


@dataclass
class Verification:
    """What a check of the whole journal found."""

    entries: int = 0
    head: str = chain.GENESIS.hex()  # hash of the last entry
    chain_intact: bool = True
    bodies_present: int = 0
    bodies_archived: int = 0  # in archive files, which `madlab archive verify` checks
    bodies_removed: int = 0  # by policy, or because a person asked
    bodies_missing: int = 0
    bodies_altered: int = 0
    proofs_broken: int = 0  # proofs of deletion that do not fit the headers
    tail_intact: bool = True
    noted: int = 0  # entries that the head beside the journal knew of
    checkpoints: int = 0  # heads from elsewhere that were looked for
    checkpoints_met: int = 0  # and are in the chain where they say
    problems: list[str] = field(default_factory=list)  # sentences, the first few
    more_problems: int = 0

    @property
    def ok(self) -> bool:
        lost = self.bodies_missing or self.bodies_altered or self.proofs_broken
        return self.chain_intact and self.tail_intact and not lost

    def note(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1


def head_path(journal: Path) -> Path:
    return journal.with_name(journal.name + ".head")


def write_head(journal: Path, head: Head) -> None:
    """Notes how far the journal reaches; call it after the commit it speaks of."""
    target = head_path(journal)
    draft = target.with_name(target.name + ".new")
    with open(draft, "w") as file:
        json.dump(asdict(head), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, target)


def read_head(journal: Path) -> Head | None:
    """The noted head; None where none was noted yet.

    Raises:
        ValueError: what is there is no head.
    """
    try:
        text = head_path(journal).read_text()
    except FileNotFoundError:
        return None
    try:
        return Head(**json.loads(text))
    except TypeError as error:
        raise ValueError(str(error)) from error


def verify(path: Path, kept: Sequence[Head] = ()) -> Verification:
    """Reads the whole journal at `path` once, about 100,000 entries a second; writes nothing.

    `kept` are heads that were noted somewhere else.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    found = Verification()
    # First the head, then the journal: one that grows meanwhile must not look as if it had lost its tail.
    try:
        noted = read_head(path)
    except ValueError as error:
        found.tail_intact = False
        found.note(f"the head beside the journal cannot be read: {error}")
        noted = None
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA query_only = ON")
        db.text_factory = lambda text: text.decode(errors="replace")
        db.execute("BEGIN")
        try:
            _walk(db, found, noted, kept)
        except (sqlite3.DatabaseError, ValueError) as error:
            found.chain_intact = False
            found.note(f"the journal cannot be read beyond entry {found.entries}: {error}")
    finally:
        db.close()
    return found


def _walk(db: sqlite3.Connection, found: Verification, noted: Head | None, kept: Sequence[Head]) -> None:
    removals = Removals(db)
    last = chain.GENESIS
    at_noted: bytes | None = chain.GENESIS if noted and noted.entries == 0 else None
    wanted = {each.entries for each in kept}
    there = {0: chain.GENESIS.hex()}
    for header, stored, body in _read(db, found):
        expected = found.entries + 1
        if header.sequence != expected:
            found.chain_intact = False
            found.note(f"entries {expected} to {header.sequence - 1} are gone")
        try:
            words = chain.header(header.kind, header.id, header.conversation, header.sender, header.recipient)
            computed = chain.link(last, header.sequence, header.at, header.size, header.digest, words)
        except (TypeError, struct.error):  # a value of another type than was ever written
            computed = b""
        if computed != (stored or computed) or not computed:
            found.chain_intact = False
            found.note(f"entry {header.sequence} is not what was written, or not on what it stood on")
        last = stored if stored is not None else computed
        found.entries = header.sequence
        _check_body(header, body, removals, found)
        if noted and header.sequence == noted.entries:
            at_noted = last
        if header.sequence in wanted:
            there[header.sequence] = last.hex()
    for problem in removals.broken():
        found.proofs_broken += 1
        found.note(problem)
    found.checkpoints = len(kept)
    for head in kept:
        if there.get(head.entries) == head.hash:
            found.checkpoints_met += 1
        else:
            found.tail_intact = False
            gone = "are gone" if head.entries > found.entries else "were written anew"
            found.note(f"a checkpoint knows {head.entries} entries, the last of {head.hash[:16]}: some of them {gone}")
    found.head = last.hex()
    if noted is None:
        return
    found.noted = noted.entries
    if found.entries < noted.entries:
        found.tail_intact = False
        found.note(f"the tail is cut: {noted.entries} entries were known, {found.entries} are there")
    elif at_noted is None or at_noted.hex() != noted.hash:
        found.tail_intact = False
        found.note(f"entry {noted.entries} is not the one that was last noted")


def _read(db: sqlite3.Connection, found: Verification) -> Iterator[tuple[Header, bytes | None, bytes | None]]:
    """Every header with the hash stored beside it and its body; a sealed one has no hash of its own."""
    last = chain.GENESIS
    sql = (
        "SELECT first, last, CAST(anchor AS BLOB), CAST(head AS BLOB), checksum, CAST(headers AS BLOB)"
        " FROM segment ORDER BY first"
    )
    for first, end, anchor, head, check, packed in db.execute(sql):
        if checksum(first, end, anchor, head, packed) != check or anchor != last:
            found.chain_intact = False
            found.note(f"the sealed segment {first} to {end} is not what was sealed, or not on what it stood on")
        try:
            headers = unpack(packed)
        except ValueError as error:
            found.chain_intact = False
            found.note(f"the sealed segment {first} to {end} cannot be read: {error}")
            headers = []
        sql = "SELECT sequence, body FROM body WHERE sequence BETWEEN ? AND ?"
        bodies = dict(db.execute(sql, (first, end)))
        for header in headers:
            yield header, head if header.sequence == end else None, bodies.get(header.sequence)
        last = head
    sql = (
        "SELECT j.sequence, j.at, j.kind, j.id, j.conversation, j.sender, j.recipient, j.size, j.digest, j.hash, b.body"
        " FROM journal j LEFT JOIN body b USING (sequence) ORDER BY j.sequence"
    )
    for *values, stored, body in db.execute(sql):
        yield Header(*values), stored, body


def _check_body(header: Header, body: bytes | None, removals: Removals, found: Verification) -> None:
    if header.size == 0:
        return
    state = removals.state(header)
    if body is None:
        if state == "archived":
            found.bodies_archived += 1
        elif state == "removed":
            found.bodies_removed += 1
        else:
            found.bodies_missing += 1
            found.note(f"the body of entry {header.sequence} is missing, and no policy removed it")
    elif not isinstance(body, bytes) or sha256(body).digest() != header.digest:
        found.bodies_altered += 1
        found.note(f"the body of entry {header.sequence} is not what was written")
    else:
        found.bodies_present += 1
