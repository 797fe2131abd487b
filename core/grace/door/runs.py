"""The door's routes for runs: the list, one of them, its lines, and what a person may ask of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.callers import caller_of
from core.grace.door.edge import PAGE, Empty, RemarkBody, after_of, json_of, lab_of, number_of, wants_stream
from core.grace.door.events import Changes, EventStream, Item
from core.grace.door.routes import AFTER, Endpoint, number
from core.grace.door.shapes import message_json, packages_json, run_json
from core.lab import Lab
from core.ports.packages import Installed
from core.run import Run, State
from protos.errors import Conflict
from protos.ids import id_from, new_id
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Message


class Runs(BaseModel):
    """A page of runs."""

    runs: list[answers.Run]


class Whole(answers.Run):
    """One run with all that is known of it."""

    evidence: dict[str, Any]
    artifacts: list[dict[str, Any]]
    packages: list[Installed]
    messages: list[answers.Message]


class Lines(BaseModel):
    """Lines that runs wrote."""

    logs: list[answers.Message]


class Remarked(BaseModel):
    """A remark is said; `runs` has its message's id for each run that was told."""

    id: str
    sequence: int
    runs: dict[str, str]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/runs", _runs, "Runs, the newest first.",
        query=(number("limit", "at most so many", default=50),), answer=Runs, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/runs/{id}", _run, "One run, with evidence, artifacts and its first 1,000 messages.",
        answer=Whole, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/runs/{id}/cancel", _cancel, "Asks that a run end.",
        body=Empty, answer=answers.Run, status=202, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/runs/{id}/logs", _logs, "The lines of a run and of those that work for it.",
        query=(AFTER, number("limit", "at most so many", default=PAGE)),
        answer=Lines, events=answers.Message, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/runs/{id}/remarks", _remark, "Says something to a run at work, which reads it at its next step.",
        body=RemarkBody, answer=Remarked, status=202, clients=True,
    )  # fmt: skip


async def _runs(request: Request) -> Response:
    lab = lab_of(request)
    newest = await lab.runs.newest(number_of(request, "limit", 50, PAGE))
    return JSONResponse({"runs": [run_json(lab, each) for each in newest]})


async def _run(request: Request) -> Response:
    lab = lab_of(request)
    run = await lab.runs.get(request.path_params["id"])
    said = await _some(_said_in(lab, run), lambda each: each.kind != KIND_EVENT, PAGE)
    about = {"evidence": run.evidence, "artifacts": run.artifacts, "packages": await packages_json(lab, run.id)}
    return JSONResponse(run_json(lab, run) | about | {"messages": said})


async def _cancel(request: Request) -> Response:
    lab = lab_of(request)
    await json_of(request, Empty)
    run = await lab.dispatcher.cancel(request.path_params["id"], f"{caller_of(request).name} asked for it")
    return JSONResponse(run_json(lab, run), 202)


async def _remark(request: Request) -> Response:
    """Says something to a run that is at work, and to those that work for it. They read it at their next step."""
    lab, body = lab_of(request), await json_of(request, RemarkBody)
    run = await lab.runs.get(request.path_params["id"])
    if not run.live or run.state is State.COLLECTING:
        raise Conflict(f"the run {run.id} has ended", next=f"see: madlab show {run.id}")
    id, listening = new_id(), [run, *lab.dispatcher.children(run.id)]
    said = [
        Message(id=id_from(id, each.id) if each is not run else id, conversation=each.conversation, kind=KIND_PROSE)
        for each in listening
    ]
    for each in said:
        each.text, each.causation = body.text, id
        sequence = await lab.rogers.publish(each, sender=caller_of(request).name)
    ids = {run.id: message.id for run, message in zip(listening, said, strict=True)}
    return JSONResponse({"id": id, "sequence": sequence, "runs": ids}, 202)


async def _logs(request: Request) -> Response | EventStream:
    lab = lab_of(request)
    run = await lab.runs.get(request.path_params["id"])
    after, changes = after_of(request), request.app.state.changes
    if not wants_stream(request):
        limit = number_of(request, "limit", PAGE, PAGE, least=1)
        lines = await _lines_of(lab, run, after)
        return JSONResponse({"logs": [message_json(each) for each in lines[:limit]]})

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[Item]]:
        async with aclosing(_log_lines(lab, changes, run.id, after)) as lines:
            yield lines

    return EventStream(source, request.app.state.closing)


async def _log_lines(lab: Lab, changes: Changes, id: str, after: int) -> AsyncGenerator[Item, None]:
    """The run's lines, past and live. Ends when the run has ended and all it said has been read."""
    while True:
        with changes.of((await lab.runs.get(id)).conversation) as changed:
            run = await lab.runs.get(id)
            for each in await _lines_of(lab, run, after):
                after = each.sequence
                yield each.sequence, message_json(each)
            if not run.live:
                return
            await changed.wait()


async def _lines_of(lab: Lab, run: Run, after: int) -> list[Message]:
    """What the run and those that work for it have said past `after`, in the journal's order."""
    head = lab.journal.statistics().entries  # what comes while they are read one by one is left for the next time
    found = [
        message
        for each in (run, *await lab.runs.children(run.id))
        async for message in _said_in(lab, each, after)
        if _is_log(message, each) and message.sequence <= head
    ]
    return sorted(found, key=lambda each: each.sequence)


def _is_log(message: Message, run: Run) -> bool:
    """Whether this is a line that the run wrote, or how far it said it was."""
    return message.kind == KIND_EVENT and message.sender == run.mad and message.tool in ("log", "progress")


async def _said_in(lab: Lab, run: Run, after: int = 0) -> AsyncGenerator[Message, None]:
    """What was said in the run's conversation since `after`, from its trigger until it ended."""
    after = max(after, run.trigger_sequence - 1)
    while page := await lab.rogers.history(run.conversation, after=after, limit=PAGE):
        for each in page:
            if run.ended and each.at > run.ended:
                return
            yield each
        after = page[-1].sequence


async def _some(
    messages: AsyncGenerator[Message, None], wanted: Callable[[Message], bool], limit: int
) -> list[dict[str, Any]]:
    """The first `limit` that are wanted, as JSON."""
    found: list[dict[str, Any]] = []
    async with aclosing(messages):
        async for each in messages:
            if wanted(each):
                found.append(message_json(each))
            if len(found) == limit:
                break
    return found
