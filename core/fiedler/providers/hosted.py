"""The provider of kind "local": models that a worker of the lab serves, in a sandbox, without a network or a key."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from anyio import AsyncContextManagerMixin

from core.fiedler.keys import Key
from core.fiedler.line import Line
from core.fiedler.provider import Ask, Embeddings, Kind, Reported, Trouble
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, Usage

OUTPUT = frozenset({"text", "reasoning", "refusal", "tool_call_fragment", "finished"})


class Hosts(Protocol):
    """Whoever keeps the workers."""

    async def claim(self, model: str, idle_s: float) -> Line:
        """A line to a worker that serves `model`, started where there is none. It stays until `release`, and ends
        when nobody has claimed it for `idle_s`.

        Raises:
            Trouble: there is no such model here, or its worker does not come up.
        """
        ...

    def release(self, model: str) -> None:
        """Gives one claim back."""
        ...

    def state(self, model: str) -> tuple[str, str]:
        """How a model fares: "ready", or another word with a sentence on what is missing."""
        ...

    def models(self) -> Sequence[str]:
        """The models there are."""
        ...


class HostedProvider(AsyncContextManagerMixin):
    """Asks workers of the lab."""

    def __init__(self, hosts: Hosts, *, idle_s: float) -> None:
        self._hosts, self._idle_s = hosts, idle_s

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["HostedProvider"]:
        yield self

    async def complete(self, ask: Ask) -> AsyncIterator[CompletionEvent | Reported]:
        request = CompleteRequest()
        request.CopyFrom(ask.request)
        request.model = ask.model
        request.sampling.max_tokens = ask.max_tokens
        line = await self._hosts.claim(ask.model, self._idle_s)
        try:
            async with aclosing(line.complete(request, ask.before_sending)) as events:  # type: ignore[type-var]
                async for event in events:
                    kind = event.WhichOneof("kind")
                    if kind == "usage":
                        yield _reported(event.usage)
                    elif kind in OUTPUT:
                        yield event
                    else:
                        raise Trouble(Kind.NONSENSE, "What came is no piece of an answer.")
        finally:
            self._hosts.release(ask.model)

    async def embed(self, ask: Ask, inputs: Sequence[str], dimensions: int) -> Embeddings:
        raise Trouble(Kind.REQUEST, "A local model makes no embeddings.")

    async def models(self, key: Key | None) -> Sequence[str]:
        return self._hosts.models()


def _reported(usage: Usage) -> Reported:
    """Usage as its worker tells it; none of it where it tells nothing."""
    if not usage.input_tokens and not usage.output_tokens:
        return Reported()
    return Reported(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
