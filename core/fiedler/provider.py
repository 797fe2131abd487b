"""What a provider of models must do, and how it says that something went wrong."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from core.fiedler.keys import Key
from core.redaction.redactor import Redactor
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent

TEXT_CHARACTERS = 500  # of what a peer says about its trouble


async def _at_once() -> None:
    """Nothing to wait for."""


@dataclass(frozen=True)
class Ask:
    """One attempt at one request. `before_sending` is awaited after the request is made and before a byte leaves."""

    request: CompleteRequest
    model: str  # the provider's name for it
    max_tokens: int
    key: Key | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # the operator's own fields of the request's body
    before_sending: Callable[[], Awaitable[None]] = _at_once
    redactor: Redactor = field(default_factory=Redactor)  # takes the secrets out of what the peer says


@dataclass(frozen=True)
class Reported:
    """Usage as far as the provider has told it so far; None is what it did not tell, or what cannot be true."""

    input_tokens: int | None = None  # all of the prompt
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Embeddings:
    """One vector an input."""

    vectors: Sequence[Sequence[float]]
    reported: Reported


class Kind(StrEnum):
    """Why a provider did not answer."""

    KEY = "key"  # 401, 403: it does not take our key
    SPENT = "spent"  # 402, or its quota is used up
    REQUEST = "request"  # it will never take this request
    MODEL = "model"  # it has no such model
    BUSY = "busy"  # 429: too many requests
    OVERLOADED = "overloaded"  # 503, 529: not now
    BROKEN = "broken"  # any other fault of its own
    UNREACHABLE = "unreachable"  # no connection
    SLOW = "slow"  # no answer, or no more of it, in time
    CUT = "cut"  # the answer ended before its end
    NONSENSE = "nonsense"  # what came is not the protocol


FREE = frozenset({Kind.KEY, Kind.SPENT, Kind.REQUEST, Kind.MODEL, Kind.BUSY, Kind.OVERLOADED, Kind.UNREACHABLE})


class Trouble(Exception):
    """A provider did not answer. `text` is what it said, bounded, without secrets, and data in any case."""

    def __init__(self, kind: Kind, text: str = "", *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text[:TEXT_CHARACTERS]
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_free(self) -> bool:
        """Whether nobody bills for it. What may have been worked on before it failed counts as billed."""
        return self.kind in FREE or (self.kind is Kind.BROKEN and self.status >= 500)

    def __str__(self) -> str:
        status = f" ({self.status})" if self.status else ""
        return f"{self.kind}{status}: {self.text}" if self.text else f"{self.kind}{status}"


class Provider(Protocol):
    """One place that serves models. Enter it to open it. Nothing in it retries."""

    def complete(self, ask: Ask) -> AsyncIterator[CompletionEvent | Reported]:
        """Streams text, reasoning, refusal and tool call fragments as they come, usage as often as it is told, and
        one `finished` as the last event. The iterator may be used by several tasks, one after another.

        Raises:
            Trouble: and nothing else. A stream that ends early raises it after what came before.
        """
        ...

    async def embed(self, ask: Ask, inputs: Sequence[str], dimensions: int) -> Embeddings:
        """
        Raises:
            Trouble: and nothing else.
        """
        ...

    async def models(self, key: Key | None) -> Sequence[str]:
        """The names of the models it has.

        Raises:
            Trouble: and nothing else.
        """
        ...
