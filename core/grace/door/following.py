"""The door's route for whoever looks: one stream of the topics that a page names."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.grace.door.callers import caller_of, may_see_conversation, may_see_run
from core.grace.door.edge import after_of, lab_of
from core.grace.door.feed import WHOLE, Feed
from core.grace.door.routes import Endpoint, number, text
from protos.errors import Denied, NotFound


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/events", _events, "What happens, as it happens: server-sent events of the topics that are named.",
        query=(
            text("topics", "attention, runs, lab, run:ID, conversation:ID; several with commas", longest=8000),
            number("after", "what happened past this sequence first; a stream that comes back has Last-Event-ID"),
        ),
        media="text/event-stream", clients=True,
    )  # fmt: skip


async def _events(request: Request) -> ASGIApp:
    """Without `after` and Last-Event-ID it begins now; its first event, `open`, says where that is."""
    feed: Feed = request.app.state.feed
    lab, caller = lab_of(request), caller_of(request)
    topics = [*dict.fromkeys(each for each in request.query_params.get("topics", "").split(",") if each)]
    for each in topics:
        kind, _, name = each.partition(":")
        if kind in WHOLE and kind != "runs" and not caller.is_operator:
            raise Denied(f"rule operator: {kind} is the operator's to follow.", next="Follow your own runs: runs.")
        if kind == "run" and name and not await may_see_run(lab, caller, await lab.runs.get(name)):
            raise NotFound(f"There is no run {name[:64]!r}.", next="See: madlab runs")
        if kind == "conversation" and not await may_see_conversation(lab, caller, name):
            raise NotFound(f"There is no conversation {name[:64]!r}.", next="See: madlab runs")
    comes_back = "after" in request.query_params or "last-event-id" in request.headers
    after = after_of(request) if comes_back else None
    sees = None if caller.sees_all else (lambda run: run.asker == caller.name)
    stream = await feed.answer(topics, after, sees)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        with request.app.state.changes.followed_by(caller, rests=False):
            await stream(scope, receive, send)

    return counted
