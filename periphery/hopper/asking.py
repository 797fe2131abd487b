"""Asking a model, and booking what it took: used by the agents of our own."""

import time
from contextlib import aclosing

from anyio import sleep

from periphery.hopper.agent import Task
from protos.errors import Denied, Exhausted, Unavailable
from protos.ids import new_id
from protos.llm import Completion, Llm
from protos.v1.llm_pb2 import CompleteRequest, Model

TRIES = 3
SHORT_TOKENS = 1000  # of an answer, when the budget does not cover a longer one any more
PAUSE_S = 1.0  # before the second try; doubled before the third


async def model_of(llm: Llm, alias: str) -> Model:
    """What there is to know of a model; an empty description of one that is not listed."""
    try:
        listed = await llm.models()
    except Denied:
        return Model(alias=alias)
    for each in listed:
        if each.alias == alias or (not alias and each.is_default):
            return each
    return Model(alias=alias)


async def ask(task: Task, request: CompleteRequest) -> Completion:
    """The whole answer to `request`, each try under its own id: one that broke off is asked for from its start. Where
    nothing came at all the lab has tried already, and trying again would be blind.

    Raises:
        Exhausted: the budget does not cover it.
        Unavailable: no answer came, or none came whole.
        InvalidArgument, Denied: as `Llm.complete`.
    """
    for attempt in range(TRIES):
        request.id = new_id()
        started = time.monotonic()
        completion = Completion()
        try:
            async with aclosing(task.llm.complete(request)) as events:  # type: ignore[type-var]
                async for each in events:
                    completion.take(each)
        except Exhausted:
            if attempt == TRIES - 1 or request.sampling.max_tokens <= SHORT_TOKENS:
                raise
            request.sampling.max_tokens = SHORT_TOKENS  # what is left may do for less than the worst case
            continue
        except Unavailable as error:
            came = completion.text or completion.reasoning
            if not came or attempt == TRIES - 1 or 0 < request.deadline <= time.time():
                raise
            await task.call.progress(f"The model broke off, asking again: {error.message[:200]}", what="note")
            await sleep(PAUSE_S * 2**attempt)
            continue
        finally:
            task.ledger.model_seconds += time.monotonic() - started
        book(task, completion)
        return completion
    raise AssertionError("the last try returns or raises")


def book(task: Task, completion: Completion) -> None:
    """Puts into the ledger what an answer took."""
    usage = completion.usage
    task.ledger.book(tokens_in=usage.input_tokens, tokens_out=usage.output_tokens, usd=usage.usd)
    task.ledger.model = completion.started.model or task.ledger.model


async def tell_model(task: Task, text: str = "") -> None:
    """Tells people how far it is and what it took so far."""
    ledger = task.ledger
    tokens = ledger.tokens_in + ledger.tokens_out
    cost = f", ${ledger.usd:.4f}" if ledger.usd else ""
    await task.call.progress(
        text or f"Step {ledger.steps}: {tokens:,} tokens{cost}",
        what="model",
        steps=ledger.steps,
        tokens=tokens,
        tokens_in=ledger.tokens_in,
        tokens_out=ledger.tokens_out,
        usd=ledger.usd,
        model=ledger.model,
    )
