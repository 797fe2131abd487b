"""Finds and ranks: the newest part first, until there is enough to choose from.

A *pool* is the newest documents that match, at most 400 of them. They are ranked (`ranking`) by BM25, a word in the
title counting four times, times what kind of thing it is (an answer before a question, a question before an act),
times how young it is (at most twice), times whether the words stand side by side. Who reads on beyond a pool gets the
next one, so everything that matches is reached, and none of it twice; `more` is the place, and does not move while new
things come. What is asked by filters alone comes as it was said, the newest first. How rare a word is counts for those
alone who see everything: the ranks of a client's own messages would tell what others write about.

What it costs is bounded by the pool and by the size of a part, not by how much there is: `tests/bench/search.py`.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from core.dewey.index import PART_BITS, parts
from core.dewey.query import Query, said
from core.dewey.ranking import Density, Ranking
from core.dewey.snippet import Snippet, snippet
from core.dewey.words import Term
from protos.errors import InvalidArgument

POOL = 400
WEIGHED_CHARACTERS = 4000  # of a text, its beginning
SAMPLED = 50  # documents that have a word: enough to tell how rare it is
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
    at: float
    kind: str
    weight: float
    sender: str
    title: str
    body: str


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
    if query.groups:
        ranked = _ranked(db, query, pool, now)
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
    since = query.since if query.since is not None else -1e300
    until = query.until if query.until is not None else 1e300
    texts = f"t.title, substr(t.body, 1, {WEIGHED_CHARACTERS})" if query.groups else "'', ''"
    found: list[_Match] = []
    began = perf_counter()
    for number, earliest, latest in parts(db):
        if head and number << PART_BITS >= head:
            continue
        if latest < since or earliest >= until:
            continue
        rows = db.execute(
            f"SELECT p.rowid, d.at, d.kind, d.weight, d.sender, {texts} FROM part_{number} p"
            " CROSS JOIN doc d ON d.id = p.rowid CROSS JOIN text t ON t.id = p.rowid"
            f" WHERE part_{number} MATCH ? AND p.rowid < ? AND d.at >= ? AND d.at < ? ORDER BY p.rowid DESC LIMIT ?",
            (query.match, head or 1 << 62, since, until, POOL - len(found)),
        )
        found += [_Match(*row) for row in rows]
        if len(found) >= POOL:
            return found, found[-1].id
        if perf_counter() - began > DAWDLING_S:
            return found, number << PART_BITS
    return found, 0


def _ranked(db: sqlite3.Connection, query: Query, pool: Sequence[_Match], now: float) -> list[_Candidate]:
    if not pool:
        return []
    # The rarity of a single word is the same for all; in what others wrote it is nobody's to know.
    is_equal = len(query.terms) == 1 or query.is_narrowed
    ranking = Ranking(
        [[(term, Density(1, 1) if is_equal else _density(db, term)) for term in group] for group in query.groups]
    )
    scored = [
        _Candidate(each.id, ranking.score(each.title, each.body, weight=each.weight, age_s=now - each.at))
        for each in pool
    ]
    return sorted(scored, key=lambda each: (-each.score, -each.id))


def _density(db: sqlite3.Connection, term: Term) -> Density:
    """How dense a term lies among the newest documents."""
    having, newest, oldest = 0, 0, 0
    for number, _, _ in parts(db):
        sql = f"SELECT rowid FROM part_{number} WHERE part_{number} MATCH ? ORDER BY rowid DESC LIMIT ?"
        rows = db.execute(sql, (f"{{title body}} : {said(term)}", SAMPLED)).fetchall()
        newest = newest or ((number + 1) << PART_BITS) - 1
        having += len(rows)
        oldest = rows[-1][0] if len(rows) == SAMPLED else number << PART_BITS
        if having >= SAMPLED:
            break
    last = int(db.execute("SELECT max(id) FROM doc").fetchone()[0])
    return Density(having, max(having, min(newest, last) - oldest + 1))


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
