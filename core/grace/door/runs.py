"""The door's routes for runs: the list, one of them, its lines, and what a person may ask of it."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.again import said_again
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of, own_run, seen_run
from core.grace.door.edge import PAGE, Empty, RemarkBody, after_of, json_of, lab_of, number_of, wants_stream
from core.grace.door.events import Changes, EventStream, Item
from core.grace.door.messages import Said, publish
from core.grace.door.routes import AFTER, Endpoint, choice, number, text
from core.grace.door.shapes import message_json, packages_json, run_json
from core.lab import Lab
from core.ports.packages import Installed
from core.rogers.bus import Span
from core.run import Outcome, Run, State
from core.strict import strict_json
from protos.errors import Conflict
from protos.ids import id_from, new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, Message


class Runs(Answer):
    """A page of runs."""

    runs: list[answers.Run]


class Move(Answer):
    """When a run came to a state."""

    state: State
    at: answers.Moment


class Whole(answers.Run):
    """One run with all that is known of it."""

    evidence: dict[str, Any]
    artifacts: list[dict[str, Any]]
    packages: list[Installed]
    messages: list[answers.Message]
    moves: list[Move]
    resumes: Annotated[str | None, Field(description="the run that it goes on from, as its asker says")]
    resumed_as: Annotated[list[str], Field(description="the runs that went on from it, oldest first")]
    forgotten: Annotated[
        float | None, Field(description="when its conversation was: of the evidence figures are left, and no files")
    ]


class Lines(Answer):
    """Lines that runs wrote."""

    logs: list[answers.Message]


class Remarked(Answer):
    """A remark is said; `runs` has its message's id for each run that was told."""

    id: str
    sequence: int
    runs: dict[str, str]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "GET", "/runs", _runs, "Runs, the newest first.",
        query=(
            number("limit", "at most so many", default=50), text("before", "go on behind the run of this id"),
            text("mad", "of this MAD"), choice("state", "in this state; live: not over", "live", *State),
            choice("outcome", "that came to this", *Outcome), text("q", "with this in their titles", longest=200),
        ),
        answer=Runs, clients=True,
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
        "POST", "/runs/{id}/retry", _retry, "Asks for the same again: a new run, by whoever asks now.",
        body=Empty, answer=Said, status=202, clients=True,
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
    wanted = {name: request.query_params.get(name, "") for name in ("before", "mad", "state", "outcome")}
    limit, words = number_of(request, "limit", 50, PAGE), request.query_params.get("q", "").strip()
    caller = caller_of(request)
    asker = "" if caller.sees_all else caller.name
    if wanted["before"]:
        await seen_run(lab, caller, wanted["before"])
    newest = await lab.runs.newest(limit, text=words, asker=asker, **wanted)
    return JSONResponse({"runs": [run_json(lab, each) for each in newest]})


async def _run(request: Request) -> Response:
    lab = lab_of(request)
    run = await seen_run(lab, caller_of(request), request.path_params["id"])
    said = [message_json(each) for each in await lab.rogers.within([span_of(run)], limit=PAGE, events=False)]
    about: dict[str, Any] = {
        "evidence": run.evidence,
        "artifacts": run.artifacts,
        "packages": await packages_json(lab, run.id),
    }
    moves = [{"state": state, "at": at} for state, at in await lab.runs.moves(run.id)]
    about |= {"resumes": run.resumes or None, "resumed_as": await lab.runs.resumed(run.id)}
    about |= {"forgotten": run.forgotten or None}
    return JSONResponse(run_json(lab, run) | about | {"messages": said, "moves": moves})


async def _cancel(request: Request) -> Response:
    lab, caller = lab_of(request), caller_of(request)
    await json_of(request, Empty)
    run = await own_run(lab, caller, request.path_params["id"])
    run = await lab.dispatcher.cancel(run.id, f"{caller.name} asked for it")
    return JSONResponse(run_json(lab, run), 202)


async def _retry(request: Request) -> Response:
    """Says once more what the run was for: one's own words in the same conversation, those of somebody else in a new
    one. What nobody knows any more cannot be said."""
    lab, caller = lab_of(request), caller_of(request)
    await json_of(request, Empty)
    run = await own_run(lab, caller, request.path_params["id"])
    if run.live:
        raise Conflict(f"the run {run.id} has not ended", next=f"wait for it, or: madlab cancel {run.id}")
    if run.parent:
        raise Conflict(f"the run {run.id} was a part of {run.parent}", next=f"run that again: {run.parent}")
    asked = await lab.rogers.find(run.trigger)
    if asked is None or asked.kind == KIND_EVENT:  # what stands in the place of a body that is gone
        raise Conflict(
            f"what the run {run.id} was asked for is gone: the retention policy has removed it",
            next="ask anew; [journal] says how long messages are kept",
        )
    lab.registry.mad(asked.recipient)
    again = said_again(asked, new_id(), by=caller.name)
    for each in asked.blobs:
        await lab.horace.stat(each.digest)  # or it is refused here, and not by a run that fails
        again.blobs.append(each)
    if again.kind == KIND_CALL:
        lab.registry.check_call(again.recipient, again.tool, strict_json(again.data or "{}"))
    return await publish(request, again)


async def _remark(request: Request) -> Response:
    """Says something to a run that is at work, and to those that work for it. They read it at their next step."""
    lab, body = lab_of(request), await json_of(request, RemarkBody)
    run = await own_run(lab, caller_of(request), request.path_params["id"])
    if not run.live or run.state is State.COLLECTING:
        raise Conflict(f"the run {run.id} has ended", next=f"see: madlab show {run.id}")
    listening = [each for each in (run, *lab.dispatcher.children(run.id)) if await _listens(lab, each)]
    if not listening:
        raise Conflict(f"the run {run.id} reads no remarks while it works", next=f"stop it: madlab cancel {run.id}")
    id = new_id()
    said = [
        Message(
            id=id if each is listening[0] else id_from(id, each.id), conversation=each.conversation, kind=KIND_PROSE
        )
        for each in listening
    ]
    sequences = []
    for each in said:
        each.text, each.causation = body.text, id
        sequences.append(await lab.rogers.publish(each, sender=caller_of(request).name))
    ids = {run.id: message.id for run, message in zip(listening, said, strict=True)}
    return JSONResponse({"id": id, "sequence": sequences[0], "runs": ids}, 202)


async def _listens(lab: Lab, run: Run) -> bool:
    """Whether the run reads what is said to it while it works."""
    asked = await lab.rogers.find(run.trigger)
    tool = lab.registry.mad(run.mad).tools.get(asked.tool) if asked is not None else None
    return tool is not None and tool.schema.steerable


async def _logs(request: Request) -> Response | EventStream:
    lab = lab_of(request)
    run = await seen_run(lab, caller_of(request), request.path_params["id"])
    after, changes = after_of(request), request.app.state.changes
    if not wants_stream(request):
        limit = number_of(request, "limit", PAGE, PAGE, least=1)
        return JSONResponse({"logs": [message_json(each) for each in await _lines_of(lab, run, after, limit)]})

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[Item]]:
        with changes.followed_by(caller_of(request), rests=True):
            async with aclosing(_log_lines(lab, changes, run.id, after)) as lines:
                yield lines

    return EventStream(source, request.app.state.closing)


async def _log_lines(lab: Lab, changes: Changes, id: str, after: int) -> AsyncGenerator[Item, None]:
    """The run's lines, past and live. Ends when the run has ended and all it said has been read."""
    while True:
        with changes.of((await lab.runs.get(id)).conversation) as changed:
            run = await lab.runs.get(id)
            while lines := await _lines_of(lab, run, after, PAGE):
                for each in lines:
                    after = each.sequence
                    yield each.sequence, message_json(each)
            if not run.live:
                return
            await changed.wait()
        await changes.rest()


async def _lines_of(lab: Lab, run: Run, after: int, limit: int) -> list[Message]:
    """What the run and those that work for it have said past `after`, in the journal's order: the first `limit`."""
    upto = lab.journal.statistics().entries  # a child that begins while they are read is looked at the next time
    family = [run, *await lab.runs.children(run.id)]
    spans, names = [span_of(each) for each in family], {(each.conversation, each.mad) for each in family}
    found: list[Message] = []
    while len(found) < limit:
        page = await lab.rogers.within(spans, after=after, upto=upto, limit=PAGE)
        found += [each for each in page if _is_log(each) and (each.conversation, each.sender) in names]
        if len(page) < PAGE:
            break
        after = page[-1].sequence
    return found[:limit]


def _is_log(message: Message) -> bool:
    """Whether this is a line that a run wrote, or how far it said it was."""
    return message.kind == KIND_EVENT and message.tool in ("log", "progress")


def span_of(run: Run) -> Span:
    """What was said for a run: in its conversation from its trigger on, until it was over."""
    return Span(run.conversation, run.trigger_sequence, run.changed if not run.live else 1 << 62)
