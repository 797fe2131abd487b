"""Finds and ranks: the newest part first, until there is enough to choose from.

A *pool* is the newest documents that match, at most 1,000 of them. They are ranked by BM25 (a word in the title counts
four times), times what kind of thing it is (an answer before a question, a question before an act), times how young
it is (at most twice), times whether the words stand side by side. Who reads on beyond a pool gets the next one, so
everything that matches is reached, and none of it twice; `more` is the place, and does not move while new things come.
What is asked by filters alone comes as it was said, the newest first.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from core.dewey.index import PART_BITS, parts
from core.dewey.query import Query
from core.dewey.snippet import Snippet, snippet
from core.dewey.words import Term, fold
from protos.errors import InvalidArgument

POOL = 1000
LOOKED_AT = 50  # of a pool, the best: whether the words stand side by side there
TITLE, BODY, KEYS = 4.0, 1.0, 0.0  # what a word counts for in each column
HALF_LIFE_S = 14 * 86_400.0
DAWDLING_S = 2.0  # beyond, what was found so far is given
COUNTED = 10  # of each facet, the most frequent


@dataclass(frozen=True)
class Hit:
    """One thing that was found."""

    kind: str
    id: str
    conversation: str
    run: str
    sender: str
    recipient: str
    at: float
    title: str
    snippet: Snippet
    rank: float  # higher is better; it compares within one answer
    taint: tuple[str, ...] = ()
    sequence: int = 0  # of the entry in the journal


@dataclass(frozen=True)
class Found:
    """One page of an answer."""

    hits: list[Hit]
    more: str = ""  # what to ask with for the next page; empty where there is none
    total: int = 0  # of the pool
    exact: bool = True  # whether `total` is all there is
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # of the pool: kinds, senders


class _Match(NamedTuple):
    """One document of a pool, before it is ranked."""

    id: int
    score: float  # BM25 within its part
    at: float
    kind: str
    weight: float
    sender: str


class _Candidate(NamedTuple):
    id: int
    score: float


def find(db: sqlite3.Connection, query: Query, *, limit: int, more: str = "", now: float) -> Found:
    """One page of what `query` finds.

    Raises:
        InvalidArgument: `more` is not what an answer said.
    """
    head, offset = _place(more)
    pool, low = _pool(db, query, head)
    if query.has_words:
        ranked = _side_by_side(db, query, sorted((_weigh(each, now) for each in pool), key=lambda each: -each.score))
    else:
        ranked = [_Candidate(each.id, 0.0) for each in sorted(pool, key=lambda each: (-each.at, -each.id))]
    page = ranked[offset : offset + limit]
    next_place = ""
    if offset + limit < len(ranked):
        top = head or (max(each.id for each in pool) + 1)
        next_place = f"{top}.{offset + limit}"
    elif low:
        next_place = f"{low}.0"
    return Found(
        _hits(db, page, query.terms),
        next_place,
        len(pool),
        not low,
        {"kind": _count(each.kind for each in pool), "sender": _count(each.sender for each in pool)},
    )


def _place(more: str) -> tuple[int, int]:
    """
    Raises:
        InvalidArgument: it is not what an answer said.
    """
    if not more:
        return 0, 0
    if not re.fullmatch(r"[0-9]{1,15}\.[0-9]{1,6}", more):
        raise InvalidArgument("more: it is not what an answer said", next="leave it out for the first page")
    head, _, offset = more.partition(".")
    return int(head), int(offset)


def _pool(db: sqlite3.Connection, query: Query, head: int) -> tuple[list[_Match], int]:
    """The newest documents that match below `head`, and where the next pool begins; 0 where there is none."""
    weighed = f"-bm25(p, {TITLE}, {BODY}, {KEYS})" if query.has_words else "0.0"
    since = query.since if query.since is not None else -1e300
    until = query.until if query.until is not None else 1e300
    found: list[_Match] = []
    began = perf_counter()
    for number, earliest, latest in parts(db):
        if head and number << PART_BITS >= head:
            continue
        if latest < since or earliest >= until:
            continue
        left = POOL - len(found)
        rows = db.execute(
            f"SELECT p.rowid, {weighed.replace('(p,', f'(part_{number},')}, d.at, d.kind, d.weight, d.sender"
            f" FROM part_{number} p JOIN doc d ON d.id = p.rowid"
            f" WHERE part_{number} MATCH ? AND p.rowid < ? AND d.at >= ? AND d.at < ?"
            " ORDER BY p.rowid DESC LIMIT ?",
            (query.match, head or 1 << 62, since, until, left),
        )
        found += [_Match(*row) for row in rows]
        if len(found) >= POOL:
            return found, found[-1].id
        if perf_counter() - began > DAWDLING_S:
            return found, number << PART_BITS
    return found, 0


def _weigh(match: _Match, now: float) -> _Candidate:
    age = max(0.0, now - match.at)
    # Every word being there at all is worth something: FTS5 gives a word next to nothing that half of a part has.
    return _Candidate(match.id, (match.score + 0.05) * match.weight * (1 + 0.5 ** (age / HALF_LIFE_S)))


def _side_by_side(db: sqlite3.Connection, query: Query, ranked: list[_Candidate]) -> list[_Candidate]:
    """Those of the best in which the words stand side by side, as they were asked for, go up by half."""
    words = [word for term in query.terms for word in term.words]
    if len(query.terms) < 2:
        return ranked
    beside = re.compile(r"[\W_]+".join(map(re.escape, words)))
    best = []
    for each in ranked[:LOOKED_AT]:
        title, body = db.execute("SELECT title, substr(body, 1, 4000) FROM text WHERE id = ?", (each.id,)).fetchone()
        factor = 1.5 if beside.search(fold(f"{title}\n{body}")) else 1.0
        best.append(_Candidate(each.id, each.score * factor))
    return sorted(best, key=lambda each: -each.score) + ranked[LOOKED_AT:]


def _hits(db: sqlite3.Connection, page: Sequence[_Candidate], terms: tuple[Term, ...]) -> list[Hit]:
    hits = []
    for each in page:
        kind, id, conversation, run, sender, recipient, at, title, body, taint, sequence = db.execute(
            "SELECT d.kind, d.ref, d.conversation, d.run, d.sender, d.recipient, d.at, t.title, t.body, d.taint,"
            " d.sequence FROM doc d JOIN text t USING (id) WHERE d.id = ?",
            (each.id,),
        ).fetchone()
        shown = snippet(body or title, terms)
        labels = tuple(taint.split(",")) if taint else ()
        score = round(each.score, 4)
        hits.append(Hit(kind, id, conversation, run, sender, recipient, at, title, shown, score, labels, sequence))
    return hits


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(each for each in values if each).most_common(COUNTED))
