"""The door's routes for Dewey: searching, how the index fares, making it anew."""

from collections.abc import Iterator
from dataclasses import asdict
from time import perf_counter
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.dewey.library import MOST, Status
from core.dewey.query import HELP, KINDS, key
from core.dewey.search import Found, Hit
from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.callers import Caller, caller_of
from core.grace.door.edge import Empty, json_of, lab_of, number_of
from core.grace.door.routes import Endpoint, choice, number, text

FIELDS = {"kind": "kind", "sender": "from", "to": "to", "mad": "mad", "tag": "tag", "conversation": "conversation",
          "run": "run", "since": "after", "until": "before"}  # fmt: skip


class HitAnswer(Answer):
    """One thing that was found. `snippet` is text in pieces: what, and whether it is highlighted."""

    kind: Literal["message", "run", "finding", "act"]
    id: str
    conversation: str
    run: str
    sender: str
    recipient: str
    at: answers.Moment
    title: str
    snippet: list[tuple[str, bool]]
    rank: Annotated[float, Field(description="higher is better; it compares within one answer")]
    taint: list[str]
    sequence: int


class Answers(Answer):
    """One page of what was found, the best first; asked by filters alone, the newest first."""

    hits: list[HitAnswer]
    took_ms: float
    more: Annotated[str, Field(description="give it again for the next page; empty where there is none")]
    total: Annotated[int, Field(description="how many match; where not `exact`, of those that were ranked")]
    exact: bool
    counts: Annotated[dict[str, dict[str, int]], Field(description="of those that were ranked: by kind, by sender")]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/search", _search, "Finds what was said and done: messages, runs, findings, acts.",
        query=(
            text("q", HELP),
            choice("kind", "of one kind", *KINDS),
            text("sender", "who said or did it"),
            text("to", "whom it was said to"),
            text("mad", "who said it or whom it was said to; of a run, whose"),
            text("tag", "with that #tag"),
            text("conversation", "in that conversation, or one within it"),
            text("run", "of that run"),
            text("since", "not before: a day, a time, or so long ago (30m, 2h, 7d, 4w)"),
            text("until", "before that time"),
            number("limit", f"at most so many, up to {MOST}", default=20),
            text("more", "the next page: what the one before said"),
        ),
        answer=Answers, clients=True,
    )  # fmt: skip
    yield Endpoint("GET", "/index", _status, "How the index of the search fares.", answer=Status)
    yield Endpoint(
        "POST", "/index/rebuild", _rebuild, "Makes the index anew; searches go on with the old one meanwhile.",
        body=Empty, answer=Status, status=202,
    )  # fmt: skip


async def _search(request: Request) -> Response:
    began, lab, given = perf_counter(), lab_of(request), request.query_params
    fields = {field: [value] for name, field in FIELDS.items() if (value := given.get(name, ""))}
    found = await lab.library.search(
        given.get("q", ""),
        fields=fields,
        limit=number_of(request, "limit", 20, MOST, least=1),
        more=given.get("more", ""),
        sees=sees(caller_of(request)),
    )
    return JSONResponse(found_json(found) | {"took_ms": round((perf_counter() - began) * 1000, 2)})


def sees(caller: Caller) -> list[str] | None:
    """The keys of which a document must have one to be found by `caller`; None: it may find everything."""
    return None if caller.is_operator or caller.sees_all else [key("owner", caller.name)]


def found_json(found: Found) -> dict[str, Any]:
    """A page of hits."""
    return asdict(found) | {"hits": [hit_json(each) for each in found.hits]}


def hit_json(hit: Hit) -> dict[str, Any]:
    """One hit. What has no title of its own is named by who said it to whom."""
    title = hit.title or f"{hit.sender} to {hit.recipient or 'everybody'}"
    return asdict(hit) | {"title": title, "taint": list(hit.taint)}


async def _status(request: Request) -> Response:
    return JSONResponse(asdict(await lab_of(request).library.status()))


async def _rebuild(request: Request) -> Response:
    await json_of(request, Empty)
    library = lab_of(request).library
    await library.rebuild()
    return JSONResponse(asdict(await library.status()), 202)
