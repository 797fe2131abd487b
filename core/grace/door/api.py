"""The HTTP door: `/api/v1`, JSON in and out, for the command line and every later face of the lab.

Rules of the file
  1. The door decides nothing that the ports and services behind it do not. It turns JSON into their calls, checks the
     shape of what comes in strictly, and turns what they raise into `{"error": {code, message, next}}`.
  2. Everything that can be long is a stream: blobs go in and out in chunks, followers get server-sent events.
  3. Whoever can open the socket (mode 0600) is the operator: messages from here are sent as `operator`. Nothing a
     client writes can name another sender.
  4. It ends at once: a stream in progress never holds up a shutdown, since its reader can take it up again.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

from anyio import Event, move_on_after
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.grace.door.alarms import routes as alarm_routes
from core.grace.door.edge import (
    Answers,
    BlobBody,
    Empty,
    MessageBody,
    NameBody,
    RemarkBody,
    ShutdownBody,
    after_of,
    json_of,
    number_of,
    refuse,
    refuse_http,
)
from core.grace.door.events import Changes, EventStream, Item
from core.grace.door.oversight import routes as oversight_routes
from core.grace.door.shapes import (
    blob_json,
    conversation_json,
    mads_json,
    message_json,
    packages_json,
    run_json,
    status_json,
    version_json,
)
from core.grace.door.streams import BlobStream
from core.grace.door.trail import Trail
from core.grace.door.vault import routes as vault_routes
from core.lab import Lab
from core.policy.capabilities import Identity
from core.ports.bus import say
from core.router import Ephemeral
from core.run import Run, State
from protos.errors import Conflict, Error, Exhausted, InvalidArgument, NotFound, Unavailable
from protos.ids import id_from, is_uuid, new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_EVENT, KIND_PROSE, Blob, Message, Terms

OPERATOR = "operator"
OPERATOR_IDENTITY = Identity(OPERATOR, frozenset(), outside=True)
PAGE = 1000
REQUESTED_S = 5.0  # the dispatcher hears of a message within a millisecond or so


def door(lab: Lab) -> Starlette:
    """The application. `app.state.closing`, once set, ends its streams."""
    app = Starlette(
        routes=list(_routes()),
        middleware=[Middleware(Answers, lease_s=lab.config.runs.lease_s)],
        exception_handlers={Error: refuse, HTTPException: refuse_http},  # type: ignore[dict-item]
    )
    app.state.lab = lab
    app.state.closing = Event()
    app.state.changes = Changes()
    app.state.trail = Trail(lab.journal)
    lab.journal.on_commit(app.state.changes.committed)
    return app


def _routes() -> Iterator[Route]:
    for method, path, endpoint in (
        ("GET", "/status", _status),
        ("GET", "/tools", _tools),
        ("GET", "/mads", _mads),
        ("POST", "/messages", _publish),
        ("GET", "/conversations", _conversations),
        ("GET", "/conversations/{id}/messages", _messages),
        ("GET", "/runs", _runs),
        ("GET", "/runs/{id}", _run),
        ("POST", "/runs/{id}/cancel", _cancel),
        ("GET", "/runs/{id}/logs", _logs),
        ("POST", "/runs/{id}/remarks", _remark),
        ("POST", "/blobs", _put_blob),
        ("GET", "/blobs/{digest}", _get_blob),
        ("GET", "/files/{name}", _get_file),
        ("PUT", "/files/{name}", _put_file),
        ("GET", "/journal/verify", _verify),
        ("POST", "/shutdown", _shutdown),
    ):
        yield Route("/api/v1" + path, endpoint, methods=[method])
    yield from vault_routes()
    yield from oversight_routes()
    yield from alarm_routes()


async def _status(request: Request) -> Response:
    return JSONResponse(await status_json(_lab(request)))


async def _tools(request: Request) -> Response:
    tools = _lab(request).registry.tools(request.query_params.get("mad"))
    return JSONResponse(
        {
            "tools": [
                {
                    "name": f"{each.mad}.{each.schema.name}",
                    "description": each.schema.description,
                    "input_schema": each.schema.input_schema,
                    "output_schema": each.schema.output_schema,
                }
                for each in tools
            ]
        }
    )


async def _mads(request: Request) -> Response:
    return JSONResponse({"mads": mads_json(_lab(request))})


async def _publish(request: Request) -> Response:
    lab, body = _lab(request), await json_of(request, MessageBody)
    if body.id and not is_uuid(body.id):
        raise InvalidArgument("id: it must be a UUIDv7 in lower case", next="leave it out and one is made")
    lab.registry.mad(body.recipient)
    message = Message(
        id=body.id or new_id(),
        conversation=body.conversation or new_id(),
        recipient=body.recipient,
        blobs=[await _attached(lab, each) for each in body.blobs],
    )
    if body.terms.model_fields_set:
        message.terms.CopyFrom(Terms(**body.terms.model_dump(exclude_none=True)))
    if body.kind == "call":
        lab.registry.check_call(body.recipient, body.tool, body.arguments)
        message.kind, message.tool, message.data = KIND_CALL, body.tool, json.dumps(body.arguments, ensure_ascii=False)
    elif not body.text.strip():
        raise InvalidArgument("text: there is nothing to say", next="write a sentence")
    else:
        message.kind, message.text = KIND_PROSE, body.text
    _check_queue(lab, body.recipient)
    sequence = await say(lab.services, OPERATOR_IDENTITY, message)
    answer = {"id": message.id, "conversation": message.conversation, "sequence": sequence}
    return JSONResponse(answer | {"run": await _run_for(lab, request.app.state.changes, message)}, 202)


async def _run_for(lab: Lab, changes: Changes, message: Message) -> str | None:
    """The run that `message` starts, once it is there; None where no run is needed.

    Raises:
        Unavailable: nobody has taken the message up. It is said all the same, and saying it again does no harm.
    """
    if not isinstance(lab.registry.destination(message.recipient), Ephemeral):
        return None
    run = lab.runs.id_of(message.recipient, message.id)
    with move_on_after(REQUESTED_S):
        while True:
            with changes.of(message.conversation) as changed:
                if await lab.runs.claims(run, message.recipient, message.id):
                    return run
                await changed.wait()
    raise Unavailable(f"the run {run} is not there after {REQUESTED_S:g} s", next="see: madlab runs, and core.log")


def _check_queue(lab: Lab, recipient: str) -> None:
    """
    Raises:
        Exhausted: the message would start a run, and too many wait already.
    """
    most = lab.config.runs.queue_max
    if isinstance(lab.registry.destination(recipient), Ephemeral) and lab.dispatcher.counts()["queued"] >= most:
        raise Exhausted(f"{most} runs wait already", next="try again later, or raise runs.queue_max")


async def _attached(lab: Lab, blob: BlobBody) -> Blob:
    """A link to a blob that is there, with the size that it has."""
    found = await lab.horace.stat(blob.digest)
    return Blob(digest=found.digest, size=found.size, name=blob.name, media_type=blob.media_type)


async def _conversations(request: Request) -> Response:
    limit, before = number_of(request, "limit", 100, PAGE), number_of(request, "before", 0, 2**62)
    found = await _lab(request).rogers.conversations(limit=limit, before=before or None)
    return JSONResponse({"conversations": [conversation_json(each) for each in found]})


async def _messages(request: Request) -> Response | EventStream:
    rogers, conversation = _lab(request).rogers, request.path_params["id"]
    after, limit = after_of(request), number_of(request, "limit", 100, PAGE, least=1)
    if _wants_stream(request):

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[Item]]:
            async with rogers.follow(conversation=conversation, after=after) as messages:
                yield ((each.sequence, message_json(each)) async for each in messages)

        return EventStream(source, request.app.state.closing)
    page = await rogers.history(conversation, after=after, limit=limit)
    if not page and not after:
        raise NotFound(f"there is no conversation {conversation[:64]!r}", next="see: madlab runs")
    return JSONResponse({"messages": [message_json(each) for each in page]})


async def _runs(request: Request) -> Response:
    lab = _lab(request)
    newest = await lab.runs.newest(number_of(request, "limit", 50, PAGE))
    return JSONResponse({"runs": [run_json(lab, each) for each in newest]})


async def _run(request: Request) -> Response:
    lab = _lab(request)
    run = await lab.runs.get(request.path_params["id"])
    said = await _some(_said_in(lab, run), lambda each: each.kind != KIND_EVENT, PAGE)
    about = {"evidence": run.evidence, "artifacts": run.artifacts, "packages": await packages_json(lab, run.id)}
    return JSONResponse(run_json(lab, run) | about | {"messages": said})


async def _cancel(request: Request) -> Response:
    lab = _lab(request)
    await json_of(request, Empty)
    run = await lab.dispatcher.cancel(request.path_params["id"], "the operator asked for it")
    return JSONResponse(run_json(lab, run), 202)


async def _remark(request: Request) -> Response:
    """Says something to a run that is at work, and to those that work for it. They read it at their next step."""
    lab, body = _lab(request), await json_of(request, RemarkBody)
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
        sequence = await lab.rogers.publish(each, sender=OPERATOR)
    ids = {run.id: message.id for run, message in zip(listening, said, strict=True)}
    return JSONResponse({"id": id, "sequence": sequence, "runs": ids}, 202)


async def _logs(request: Request) -> Response | EventStream:
    lab = _lab(request)
    run = await lab.runs.get(request.path_params["id"])
    after, changes = after_of(request), request.app.state.changes
    if not _wants_stream(request):
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


async def _put_blob(request: Request) -> Response:
    lab, query = _lab(request), request.query_params
    name, media_type = query.get("name", "")[:255], query.get("media_type", "")[:255]
    async with aclosing(_pieces(request)) as chunks:
        blob = await lab.horace.put(chunks, name=name, media_type=media_type)
    return JSONResponse(blob_json(blob), 201)


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it comes, without the empty piece at its end."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _get_blob(request: Request) -> BlobStream:
    horace, digest = _lab(request).horace, request.path_params["digest"]
    blob = await horace.stat(digest)
    return BlobStream(horace.get(digest), blob.size)


async def _get_file(request: Request) -> Response:
    horace, name = _lab(request).horace, request.path_params["name"]
    await horace.find(name)
    return JSONResponse(version_json((await horace.versions(name, limit=1))[0]))


async def _put_file(request: Request) -> Response:
    body = await json_of(request, NameBody)
    version = await _lab(request).horace.set_name(request.path_params["name"], body.digest, sender=OPERATOR)
    return JSONResponse(version_json(version))


async def _verify(request: Request) -> Response:
    found = await _lab(request).journal.verify()
    return JSONResponse({"ok": found.ok} | asdict(found))


async def _shutdown(request: Request) -> Response:
    body = await json_of(request, ShutdownBody)
    _lab(request).stop(keep_runs=body.runs == "keep")
    return JSONResponse({"stopping": True}, 202)


def _lab(request: Request) -> Lab:
    lab: Lab = request.app.state.lab
    return lab


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")
