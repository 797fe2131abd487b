"""The door's routes for what is said: messages go in, conversations come out, as pages or live."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from math import ceil

from anyio import move_on_after
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.callers import Caller, caller_of, may_see_conversation, may_speak_in, seen_blob
from core.grace.door.edge import PAGE, BlobBody, MessageBody, after_of, json_of, lab_of, number_of, wants_stream
from core.grace.door.events import Changes, EventStream, Item
from core.grace.door.metrics import came_in
from core.grace.door.routes import AFTER, Endpoint, number
from core.grace.door.shapes import message_json
from core.lab import Lab
from core.ports.bus import may_say, say
from core.router import Ephemeral
from protos.errors import Exhausted, InvalidArgument, NotFound, Unavailable
from protos.ids import id_from, is_uuid, new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Blob, Message, Terms

CLIENTS_SHARE = 4  # one client has this part of the queue, and all of them together leave as much to the operator
REQUESTED_S = 5.0  # the dispatcher hears of a message within a millisecond or so


class Said(Answer):
    """What was said is durable. `run` is the one that it started."""

    id: str
    conversation: str
    sequence: int
    run: str | None


class Messages(Answer):
    """A page of messages."""

    messages: list[answers.Message]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint(
        "POST", "/messages", _publish, "Says something to a MAD. The same id again is the same message.",
        body=MessageBody, answer=Said, status=202, clients=True,
    )  # fmt: skip
    yield Endpoint(
        "GET", "/conversations/{id:path}/messages", _messages, "What was said in a conversation, oldest first.",
        query=(
            AFTER,
            number("before", "instead: the last before this sequence, and the newest of all where it is great"),
            number("around", "instead: those about this sequence, half of them before it"),
            number("limit", "at most so many", default=100),
        ),
        answer=Messages, events=answers.Message, clients=True,
    )  # fmt: skip


async def _publish(request: Request) -> Response:
    lab, caller, body = lab_of(request), caller_of(request), await json_of(request, MessageBody)
    if body.id and not is_uuid(body.id):
        raise InvalidArgument("id: it must be a UUIDv7 in lower case", next="leave it out and one is made")
    id = body.id or new_id()
    message = Message(id=id, conversation=body.conversation or id_from(id, "conversation"), recipient=body.recipient)
    message.kind, message.tool = (KIND_CALL, body.tool) if body.kind == "call" else (KIND_PROSE, "")
    if body.terms.model_fields_set:
        message.terms.CopyFrom(Terms(**body.terms.model_dump(exclude_none=True)))
    await may_say(lab.services, caller.identity, message)  # or every refusal would tell of what is there
    lab.registry.mad(body.recipient)
    if body.conversation:
        await may_speak_in(lab, caller, body.conversation)
    message.blobs.extend([await _attached(lab, caller, each) for each in body.blobs])
    if message.kind == KIND_CALL:
        lab.registry.check_call(body.recipient, body.tool, body.arguments)
        message.data = json.dumps(body.arguments, ensure_ascii=False)
    elif not body.text.strip():
        raise InvalidArgument("text: there is nothing to say", next="write a sentence")
    else:
        message.text = body.text
    return await publish(request, message)


async def publish(request: Request, message: Message) -> Response:
    """Says it as whoever asks, and tells which run it started.

    Raises:
        Exhausted: it would start a run, and too many wait already, or a client's files are full.
        Denied, Unavailable, InvalidArgument, Conflict: as `say`.
    """
    lab, caller = lab_of(request), caller_of(request)
    if isinstance(lab.registry.destination(message.recipient), Ephemeral):
        _check_queue(lab, caller)
        if not caller.is_operator:
            await request.app.state.shares.check(caller.name)
    sequence = await say(lab.services, caller.identity, message, also=came_in(request, lab, caller, message))
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
    with move_on_after(REQUESTED_S, shield=True):  # whoever may say nothing any more still hears what it has to end
        while True:
            with changes.of(message.conversation) as changed:
                if await lab.runs.claims(run, message.recipient, message.id):
                    return run
                await changed.wait()
    raise Unavailable(f"the run {run} is not there after {REQUESTED_S:g} s", next="see: madlab runs, and core.log")


def _check_queue(lab: Lab, caller: Caller) -> None:
    """A client has a quarter of the queue, and the last quarter is the operator's: nobody locks out everybody else.

    Raises:
        Exhausted: too many runs wait already.
    """
    most = lab.config.runs.queue_max
    if not caller.is_operator:
        share = ceil(most / CLIENTS_SHARE)
        if lab.dispatcher.queued_by(caller.name) >= share:
            raise Exhausted(f"{share} runs of yours wait already", next="wait for one of them, or cancel it")
        most -= most // CLIENTS_SHARE
    if lab.dispatcher.counts()["queued"] >= most:
        raise Exhausted(f"{most} runs wait already", next="try again later, or raise runs.queue_max")


async def _attached(lab: Lab, caller: Caller, blob: BlobBody) -> Blob:
    """A link to a blob that is there, with the size that it has."""
    found = await seen_blob(lab, caller, blob.digest)
    return Blob(digest=found.digest, size=found.size, name=blob.name, media_type=blob.media_type)


async def _messages(request: Request) -> Response | EventStream:
    rogers, caller, conversation = lab_of(request).rogers, caller_of(request), request.path_params["id"]
    if not await may_see_conversation(lab_of(request), caller, conversation):
        raise _nowhere(conversation)
    after, limit = after_of(request), number_of(request, "limit", 100, PAGE, least=1)
    if wants_stream(request):

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[Item]]:
            with request.app.state.changes.followed_by(caller, rests=False):
                async with rogers.follow(conversation=conversation, after=after) as messages:
                    yield ((each.sequence, message_json(each)) async for each in messages)

        return EventStream(source, request.app.state.closing)
    before, around = (number_of(request, name, 0, 2**62) for name in ("before", "around"))
    page: Sequence[Message]
    if around:
        earlier = await rogers.history_before(conversation, around, limit=limit // 2)
        page = [*earlier, *await rogers.history(conversation, after=around - 1, limit=limit - len(earlier))]
    elif before:
        page = await rogers.history_before(conversation, before, limit=limit)
    else:
        page = await rogers.history(conversation, after=after, limit=limit)
    if not page and not after:
        raise _nowhere(conversation)
    return JSONResponse({"messages": [message_json(each) for each in page]})


def _nowhere(conversation: str) -> NotFound:
    return NotFound(f"there is no conversation {conversation[:64]!r}", next="see: madlab runs")
