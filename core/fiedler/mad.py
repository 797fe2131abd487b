"""Fiedler as a MAD: asking a model, asking several, what there is and what it cost, as tools over the port `llm`."""

import time
from contextlib import aclosing
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from core.fiedler.aloud import complete_aloud
from core.fiedler.panel import Panel, Voice, ask_panel
from protos.errors import Denied, InvalidArgument
from protos.llm import Completion, complete, prompt
from protos.tools import Call, tool
from protos.v1 import llm_pb2 as pb
from protos.v1.message_pb2 import Message

DAY_S = 86_400.0
PROMPT_BYTES = 4 << 20  # of one that is attached: more than any model reads


class Used(TypedDict):
    """What one answer took."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float
    assumed: bool


class Answered(TypedDict):
    """What a model said."""

    text: str
    model: str
    provider: str
    alias: str
    reason: str
    used: Used
    reasoning: NotRequired[str]


class Said(TypedDict):
    """What one model of a panel said, or why it did not."""

    model: str
    text: str
    usd: float
    error: str
    dissents: bool


class Compared(TypedDict):
    """What came of a panel."""

    voices: list[Said]
    agreement: float | None
    measured_by: str
    best: str
    reason: str
    groups: list[list[str]]
    usd: float


class Described(TypedDict):
    """A model, under the name that callers use."""

    alias: str
    provider: str
    model: str
    state: str
    note: str
    is_default: bool
    can: list[str]
    context_tokens: int
    max_tokens: int
    input_usd: float
    output_usd: float
    fallbacks: list[str]
    small: bool


class Known(TypedDict):
    """All models."""

    models: list[Described]


class Spent(TypedDict):
    """What was spent on one thing."""

    name: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float
    assumed: int
    failed: int
    children: NotRequired[list["Spent"]]  # of a run: the runs that it began, whose share is in its own figures


class Rest(TypedDict):
    """What was spent on all that is not told one by one."""

    more: int  # how many those are
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float
    assumed: int
    failed: int


class Capped(TypedDict):
    """An account and its caps."""

    name: str
    spent_usd: float
    held_usd: float
    spent_tokens: int
    cap_usd: float | None
    cap_tokens: int | None


class Booked(TypedDict):
    """What was spent, and what may still be."""

    by: str
    costs: list[Spent]
    others: Rest | None
    accounts: list[Capped]


class Fiedler:
    """Conducts the models: asks one or several, says what there is and what it cost."""

    concurrency = 16  # questions in hand at once, which wait for their models; and as many that only look something up

    @tool(effects="outward", idempotent=True)
    async def ask(
        self,
        call: Call,
        *,
        prompt: str = "",
        model: str = "",
        system: str = "",
        max_tokens: int | None = None,
        prompt_blob: str = "",
        live: bool = False,
    ) -> Answered:
        """Asks one model one thing. The answer to a repeated call is the one that was paid for.

        `prompt_blob` is, instead of `prompt`, the digest of an attached text. With `live` the answer's text is told as
        progress while it comes, with `what` "text", and `at`, the characters before.
        """
        request = _request(call.message.id, await _prompt_of(call, prompt, prompt_blob), model, system)
        if max_tokens is not None:
            if not 0 < max_tokens < 2**31:
                raise InvalidArgument("max_tokens is a positive number.", next="Leave it out for the model's own.")
            request.sampling.max_tokens = max_tokens
        return _answered(await (complete_aloud(call, request) if live else complete(call.ctx.llm, request)))

    @tool(effects="outward", idempotent=True)
    async def panel(
        self, call: Call, *, models: list[str], prompt: str = "", judge: str = "", prompt_blob: str = ""
    ) -> Compared:
        """Asks several models the same, measures how far they agree, and keeps who does not.

        `prompt_blob` is, instead of `prompt`, the digest of an attached text.
        """
        question = await _prompt_of(call, prompt, prompt_blob)
        return _compared(await ask_panel(call.ctx.llm, question, models, id=call.message.id, judge=judge))

    @tool(effects="read", idempotent=True)
    async def models(self, call: Call) -> Known:
        """Lists the models there are, the default first, with prices and how they fare."""
        return {"models": [described(each) for each in await call.ctx.llm.models()]}

    @tool(effects="read", idempotent=True)
    async def costs(
        self, call: Call, *, by: Literal["run", "mad", "model", "day"] = "model", days: float | None = None
    ) -> Booked:
        """Says what was spent on models, of the last days or ever."""
        _only_the_lab(call.message)
        since = 0.0 if days is None else time.time() - days * DAY_S
        reply = await call.ctx.llm.costs(by, since=since)
        return {
            "by": by,
            "costs": [spent(each) for each in reply.costs],
            "others": others(reply),
            "accounts": [
                {
                    "name": each.name,
                    "spent_usd": each.spent_usd,
                    "held_usd": each.held_usd,
                    "spent_tokens": each.spent_tokens,
                    "cap_usd": each.cap_usd if each.HasField("cap_usd") else None,
                    "cap_tokens": each.cap_tokens if each.HasField("cap_tokens") else None,
                }
                for each in reply.accounts
            ],
        }


def spent(cost: pb.Cost) -> Spent:
    """A cost as JSON."""
    told: Spent = {
        "name": cost.name,
        "calls": cost.calls,
        "input_tokens": cost.input_tokens,
        "cached_tokens": cost.cached_tokens,
        "output_tokens": cost.output_tokens,
        "usd": cost.usd,
        "assumed": cost.assumed,
        "failed": cost.failed,
    }
    if cost.children:
        told["children"] = [spent(each) for each in cost.children]
    return told


def others(reply: pb.CostsReply) -> Rest | None:
    """What is not among the costs of `reply`, as JSON; None where they are all there."""
    if not reply.more:
        return None
    rest = reply.others
    return {
        "more": reply.more,
        "calls": rest.calls,
        "input_tokens": rest.input_tokens,
        "cached_tokens": rest.cached_tokens,
        "output_tokens": rest.output_tokens,
        "usd": rest.usd,
        "assumed": rest.assumed,
        "failed": rest.failed,
    }


def _only_the_lab(asked: Message) -> None:
    """
    Raises:
        Denied: a client or a run asked, and would learn what others do.
    """
    if asked.run or asked.sender.startswith("client:"):
        raise Denied(
            "rule operator: what the lab spends is the operator's to know.",
            next="What a run of your own has cost stands with it.",
        )


async def _prompt_of(call: Call, prompt: str, digest: str) -> str:
    """What is asked: the words themselves, or those of an attached blob.

    Raises:
        InvalidArgument: nothing, both, or what is no text.
    """
    if digest:
        blob = next((each for each in call.blobs if each.digest == digest), None)
        if blob is None or prompt:
            raise InvalidArgument(
                "prompt_blob names an attached blob, and stands instead of prompt.", next="Attach the blob to the call."
            )
        content = bytearray()
        async with aclosing(call.ctx.files.get(digest)) as chunks:  # type: ignore[type-var]
            async for each in chunks:
                content += each
                if len(content) > PROMPT_BYTES:  # whoever attached it may have said another size
                    raise InvalidArgument(
                        f"The prompt has more than the {PROMPT_BYTES:,} bytes that are taken.", next="Ask for less."
                    )
        try:
            prompt = content.decode()
        except UnicodeDecodeError:
            raise InvalidArgument("The prompt is no text in UTF-8.", next="Save it as UTF-8.") from None
    if not prompt.strip():
        raise InvalidArgument("The prompt is empty.", next="Write a sentence.")
    return prompt


def _request(id: str, text: str, model: str, system: str) -> pb.CompleteRequest:
    request = prompt(text, model=model, system=system)
    request.id = id
    return request


def _answered(made: Completion) -> Answered:
    answer: Answered = {
        "text": made.text or made.refusal,
        "model": made.started.model,
        "provider": made.started.provider,
        "alias": made.started.alias,
        "reason": pb.FinishReason.Name(made.finished.reason).removeprefix("FINISH_").lower(),
        "used": {
            "input_tokens": made.usage.input_tokens,
            "cached_tokens": made.usage.cached_tokens,
            "output_tokens": made.usage.output_tokens,
            "usd": made.usage.usd,
            "assumed": made.usage.assumed,
        },
    }
    reasoning = "".join(each.text for each in made.reasoning)
    if reasoning:
        answer["reasoning"] = reasoning
    return answer


def _compared(panel: Panel) -> Compared:
    return {
        "voices": [_voice(each) for each in panel.voices],
        "agreement": panel.agreement,
        "measured_by": panel.measured_by,
        "best": panel.best,
        "reason": panel.reason,
        "groups": [list(each) for each in panel.groups],
        "usd": panel.usd,
    }


def _voice(voice: Voice) -> Said:
    return {
        "model": voice.model,
        "text": voice.text,
        "usd": voice.usd,
        "error": voice.error,
        "dissents": voice.dissents,
    }


def described(model: pb.Model) -> Described:
    """A model, as people and programs are told of it."""
    can = [name for name in ("chat", "tools", "images", "embeddings") if getattr(model, name)]
    return {
        "alias": model.alias,
        "provider": model.provider,
        "model": model.model,
        "state": model.state,
        "note": model.note,
        "is_default": model.is_default,
        "can": can,
        "context_tokens": model.context_tokens,
        "max_tokens": model.max_tokens,
        "input_usd": model.input_usd,
        "output_usd": model.output_usd,
        "fallbacks": list(model.fallbacks),
        "small": model.small,
    }
