"""The loop that serves any MAD in any home: read a message, answer it, acknowledge it.

A valid call goes straight to its tool (the Action Engine); everything else goes to `handle` (the Thought Engine).
A MAD that has none answers prose with the fault `no_thought_engine`, which lists its tools.

There is one answer to a message: its id is made of the question's (`ID.reply`), so a second answer, by a replay after
a crash or by the core on behalf of a worker that died, is the same message and changes nothing.

Messages are handled one after the other, unless the MAD says that it takes several (`concurrency`) and its host can
give each a context of its own (`Apart`): what a message may do, and what is to be thought of what is said for it, hangs
on its context, so messages that share one do not overlap.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from errno import EDQUOT, ENOSPC
from functools import partial
from time import time
from typing import Any

from anyio import TASK_STATUS_IGNORED, fail_after
from anyio.abc import TaskStatus

from protos.blobs import store
from protos.errors import Error, InvalidArgument
from protos.mad import Context
from protos.several import side_by_side
from protos.tools import Call, Tool, tools_of
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_PROSE, KIND_REPLY, Kind, Message
from protos.v1.session_pb2 import OUTCOME_FAILED, OUTCOME_OUT_OF_DISK, Outcome

logger = logging.getLogger(__name__)

BODY_BYTES = 16 * 1024  # of text and data together; what is larger travels as a blob
PREVIEW_CHARACTERS = 400

# Has a message handled by what it is given, in a context for this message alone.
Apart = Callable[[Message, Callable[[Context], Coroutine[Any, Any, None]]], Awaitable[None]]


async def serve(
    mad: object, ctx: Context, *, apart: Apart | None = None, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
) -> None:
    """Serves `mad` until its inbox ends or, where the assignment names a trigger, until that message is handled.

    With `apart` a MAD that takes several messages is given them side by side; it is for those without a trigger.
    """
    async with AsyncExitStack() as stack:
        if hasattr(mad, "__aenter__"):
            await stack.enter_async_context(mad)  # type: ignore[arg-type]
        inbox = await stack.enter_async_context(ctx.bus.subscribe())
        task_status.started()
        if apart is not None and (many := concurrency_of(mad)) > 1:
            await side_by_side(
                inbox,
                lambda message: apart(message, partial(handle, mad, message)),
                many=many,
                only_reads=partial(_only_reads, tools_of(mad)),
            )
            return
        async for message in inbox:
            await handle(mad, message, ctx)
            await inbox.acknowledge(message.sequence)
            if message.id == ctx.assignment.trigger:
                return


def concurrency_of(mad: object) -> int:
    """How many messages `mad` takes at once: as many as it says, or one."""
    return int(getattr(mad, "concurrency", 1))


def _only_reads(tools: Mapping[str, Tool], message: Message) -> bool:
    """Whether it calls a tool that changes nothing."""
    return message.kind == KIND_CALL and message.tool in tools and tools[message.tool].effects == "read"


async def handle(mad: object, message: Message, ctx: Context) -> None:
    """Answers one message. Whatever the MAD raises becomes a fault, never an end of the loop."""
    try:
        with fail_after(message.deadline - time() if message.deadline else None):
            await _dispatch(mad, message, ctx)
    except TimeoutError:
        await _fail(ctx, message, "deadline_exceeded", "The deadline passed before there was an answer.", "")
    except Exception as raised:
        match only(raised):
            case Error() as error:
                await _fail(ctx, message, error.code.lower(), error.message, error.next, outcome_of(error))
            case error:
                logger.exception("%s failed", message.id)
                sentence = f"The tool failed: {type(error).__name__}: {error}"[:2000]
                await _fail(ctx, message, "internal", sentence, "", outcome_of(error))


def only(error: Exception) -> Exception:
    """The one error that a group holds, or the error itself: a task group wraps what its tasks raise."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def outcome_of(error: BaseException) -> Outcome.ValueType:
    """What an error makes of a run: a full workspace is an outcome of its own, whatever it was wrapped in."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (ENOSPC, EDQUOT):
            return OUTCOME_OUT_OF_DISK
        cause = cause.__cause__ or cause.__context__
    return OUTCOME_FAILED


async def _dispatch(mad: object, message: Message, ctx: Context) -> None:
    tools = tools_of(mad)
    think = getattr(mad, "handle", None)
    if message.kind == KIND_CALL and message.tool in tools:
        arguments = json.loads(message.data or "{}")
        if not isinstance(arguments, dict):
            raise InvalidArgument("The arguments of a call are a JSON object.")
        result = await getattr(mad, message.tool)(Call(message, ctx), **arguments)
        await answer(ctx, message, KIND_REPLY, result)
    elif think is not None:
        await think(message, ctx)
    elif message.kind in (KIND_PROSE, KIND_CALL):
        names = ", ".join(sorted(tools)) or "none"
        wrong = f"no tool {message.tool!r}" if message.kind == KIND_CALL else "no Thought Engine that reads prose"
        code = "unknown_tool" if message.kind == KIND_CALL else "no_thought_engine"
        await _fail(ctx, message, code, f"This MAD has {wrong}.", f"Call one of its tools: {names}.")


async def _fail(
    ctx: Context,
    message: Message,
    code: str,
    sentence: str,
    next: str,
    outcome: Outcome.ValueType = OUTCOME_FAILED,
) -> None:
    if message.id == ctx.assignment.trigger:
        ctx.verdict.outcome, ctx.verdict.reason = outcome, sentence
    if message.kind in (KIND_CALL, KIND_PROSE):
        await answer(ctx, message, KIND_FAULT, {"code": code, "message": sentence, "next": next}, text=sentence)


async def answer(ctx: Context, question: Message, kind: Kind.ValueType, data: object, *, text: str = "") -> None:
    """Publishes the one answer to `question`. Data over 16 KiB travels as the blob `result.json`, with a preview."""
    body = json.dumps(data, ensure_ascii=False)
    reply = answer_to(question, kind, data=body, text=text)
    if question.id == ctx.assignment.trigger:
        reply.blobs.extend(ctx.verdict.artifacts)
    if len(body.encode()) + len(text.encode()) > BODY_BYTES:
        reply.blobs.append(await store(ctx.files, body.encode(), name="result.json", media_type="application/json"))
        reply.data, reply.text = "", text[:PREVIEW_CHARACTERS] or body[:PREVIEW_CHARACTERS]
    await ctx.bus.publish(reply)


def answer_to(question: Message, kind: Kind.ValueType, *, data: str, text: str = "") -> Message:
    """The one answer to `question`, addressed as an answer must be."""
    return Message(
        id=answer_id(question),
        conversation=question.conversation,
        recipient=question.sender,
        kind=kind,
        in_reply_to=question.id,
        causation=question.id,
        hops=question.hops + 1,
        tool=question.tool,
        text=text,
        data=data,
    )


def answer_id(question: Message) -> str:
    """The id of the one answer that `question` can have."""
    return f"{question.id}.reply"
