"""The door's routes for conversations as a whole: which there are, by when they were last spoken in or by tag, and one.

The list is of conversations that stand by themselves; what is said within one (`ID/1`) counts as said in it. Which were
spoken in last is kept in memory, a name and two numbers each, and follows every commit; what is older than those is
asked of the journal.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door.edge import PAGE, lab_of, number_of
from core.grace.door.routes import Endpoint, number, text
from core.lab import Lab
from core.rogers.entry import Row
from core.rogers.subscription import to_message
from core.rogers.tables import COLUMNS
from core.run import title_of
from protos.errors import NotFound

MOST = 5_000  # conversations that are kept in memory
INNER = 200  # conversations within one, and runs of one, that are told
TAGS_SHOWN = 20
FIRSTS = f"""
    SELECT {COLUMNS} FROM json_each(?1) n
    JOIN journal j ON j.sequence = (SELECT min(sequence) FROM journal f
        WHERE f.kind IN ('message', 'event') AND f.conversation = n.value)
    LEFT JOIN body b USING (sequence)"""
TAGS = """
    SELECT conversation, tag FROM tag WHERE conversation IN (SELECT value FROM json_each(?1))
    ORDER BY last DESC LIMIT ?2"""
RUNS = """
    SELECT r.id, r.mad, r.state, r.outcome, r.trigger, r.title FROM runs r WHERE r.trigger IN
      (SELECT id FROM journal WHERE conversation = ? AND kind = 'message' AND recipient <> ''
       ORDER BY sequence DESC LIMIT ?)
    ORDER BY r.trigger_sequence DESC"""


class Recent:
    """The conversations that were spoken in last, the newest at the end: the sequence and the time of the last word."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._whole = False  # whether the past is in it

    def committed(self, rows: Sequence[Row]) -> None:
        """For the journal to call after each commit."""
        last = self._last
        for row in rows:
            if row.kind in ("message", "event"):
                name = row.conversation.partition("/")[0]
                last[name] = row.sequence, row.at
                last.move_to_end(name)
        while len(last) > MOST:
            last.popitem(last=False)

    async def page(self, lab: Lab, limit: int, before: int) -> list[tuple[str, int, float]]:
        """Conversations last spoken in before a sequence, the last first."""
        if not self._whole:
            await self._load(lab)
        found = []
        for name in reversed(self._last):
            sequence, at = self._last[name]
            if sequence < before:
                found.append((name, sequence, at))
                if len(found) == limit:
                    return found
        if len(self._last) >= MOST:
            oldest = min(before, next(iter(self._last.values()))[0])
            older = await lab.rogers.conversations(limit=limit, before=oldest)
            found += [
                (each.id, each.last, each.updated) for each in older if not ("/" in each.id or each.id in self._last)
            ]
        return found[:limit]

    async def _load(self, lab: Lab) -> None:
        known = await lab.rogers.conversations(limit=4 * MOST)
        past: dict[str, tuple[int, float]] = {}
        for each in reversed(known):
            past[each.id.partition("/")[0]] = each.last, each.updated
        merged = sorted((past | self._last).items(), key=lambda item: item[1][0])[-MOST:]
        self._last, self._whole = OrderedDict(merged), True


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        *("GET", "/conversations", _conversations, "Conversations, the last spoken in first."),
        query=(
            number("limit", "at most so many", default=100),
            number("before", "go on behind this one's `last`"),
            text("tag", "only those in which this #tag was said", longest=41),
        ),
    )
    yield Endpoint(
        *("GET", "/conversations/{id:path}/about", _conversation, "One conversation: what it is about, who is in it."),
    )


async def _conversations(request: Request) -> Response:
    lab, limit = lab_of(request), number_of(request, "limit", 100, PAGE, least=1)
    before = number_of(request, "before", 0, 2**62) or 1 << 62
    tag = request.query_params.get("tag", "").removeprefix("#").lower()
    recent: Recent = request.app.state.recent
    if tag:
        sql = (
            "SELECT t.conversation, t.last, j.at FROM tag t JOIN journal j ON j.sequence = t.last"
            " WHERE t.tag = ? AND t.last < ? ORDER BY t.last DESC LIMIT ?"
        )
        found = [(name, last, at) for name, last, at in await lab.journal.query(sql, (tag, before, limit))]
    else:
        found = await recent.page(lab, limit, before)
    return JSONResponse({"conversations": await _told(lab, found)})


async def _told(lab: Lab, found: Sequence[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Conversations in a list, with what each is about; two questions to the journal, however many there are.

    `last` is the sequence by which the list is ordered.
    """
    names = json.dumps([name for name, _, _ in found])
    firsts = {row.conversation: row for row in [Row(*each) for each in await lab.journal.query(FIRSTS, (names,))]}
    tags: dict[str, list[str]] = {}
    for name, tag in await lab.journal.query(TAGS, (names, TAGS_SHOWN * len(found))):
        tags.setdefault(name, []).append(tag)
    return [
        _conversation_json(name, last, updated, firsts.get(name), tags.get(name, [])[:TAGS_SHOWN])
        for name, last, updated in found
    ]


def _conversation_json(name: str, last: int, updated: float, first: Row | None, tags: list[str]) -> dict[str, Any]:
    message = to_message(first) if first is not None else None
    return {
        "id": name,
        "first": first.sequence if first else last,
        "last": last,
        "started": first.at if first else updated,
        "updated": updated,
        "title": title_of(message) if message else "",
        "sender": first.sender if first else "",
        "recipient": first.recipient if first else "",
        "tags": tags,
    }


async def _conversation(request: Request) -> Response:
    lab, name = lab_of(request), request.path_params["id"]
    newest = await lab.rogers.history_before(name, 1 << 62, limit=1)
    if not newest:
        raise NotFound(f"There is no conversation {name[:64]!r}.", next="See: madlab runs")
    (about,) = await _told(lab, [(name, newest[0].sequence, newest[0].at)])
    runs = await lab.journal.query(RUNS, (name, INNER))
    keys = ("id", "mad", "state", "outcome", "trigger", "title")
    return JSONResponse(
        about
        | {
            "members": sorted(lab.rogers.members(name)),
            "inner": (await lab.rogers.inner(name))[:INNER],
            "runs": [dict(zip(keys, each, strict=True)) for each in runs],
        }
    )
