"""The seams on one screen: what a MAD is, and what it may call.

A MAD is any object with tools (`protos.tools`), or with `handle`, or both. It is given a `Context` of ports and cannot
reach further. The same class is served by the same loop (`protos.serve`) in the core's process, in a process beside
it, or in a sandbox. Whatever opens something implements `__asynccontextmanager__` (anyio's
`AsyncContextManagerMixin`); the loop enters it.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from protos.v1.message_pb2 import Blob, Message
from protos.v1.session_pb2 import OUTCOME_SUCCEEDED, Assignment, Outcome

if TYPE_CHECKING:
    from protos.llm import Llm
    from protos.secrets import Secrets
    from protos.web import Web


class Inbox(Protocol):
    """An open subscription."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """Messages in journal order: first what the cursor has not passed, then live. Ends when the session does."""
        ...

    async def acknowledge(self, sequence: int) -> None:
        """Moves the durable cursor: nothing up to `sequence` is delivered again."""
        ...


class Bus(Protocol):
    """The conversation bus, as one participant sees it."""

    async def publish(self, message: Message) -> int:
        """Makes `message` durable and delivers it; returns its sequence. The same id again returns the same sequence.

        Raises:
            InvalidArgument: over 16 KiB of text and data, no conversation, an unknown kind, too many hops.
            Denied: the conversation or the recipient is not the caller's to speak in or to.
            Unavailable: the journal is sealed.
        """
        ...

    async def ask(self, call: Message) -> Message:
        """Publishes a call, waits, and returns its one answer: a reply or a fault.

        The same id again waits for the same answer, and the callee is not asked twice: so whoever came back after a
        crash asks again with the id it had chosen.

        Raises:
            as `publish`.
            Conflict: the answer under that id is from somebody who was not asked.
        """
        ...

    async def report(self, events: Iterable[Message]) -> None:
        """Delivers progress, log and metric events at once; they become durable with the next commit.

        Events over the rate are dropped, and the lab counts them where people look.
        """
        ...

    def subscribe(self) -> AbstractAsyncContextManager[Inbox]:
        """Opens the caller's own inbox."""
        ...

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        """Messages of one conversation, oldest first.

        Raises:
            Denied: the conversation is not the caller's to read.
        """
        ...


class Files(Protocol):
    """Horace: content-addressed blobs."""

    async def put(self, chunks: AsyncIterable[bytes], *, name: str = "", media_type: str = "") -> Blob:
        """Stores a stream of bytes and returns its digest and size. Nothing is left behind if it fails half-way.

        Raises:
            Exhausted: the run's or the lab's quota is full.
        """
        ...

    def get(self, digest: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """Streams a blob in chunks of at most 256 KiB.

        Raises:
            NotFound: there is no such blob, or none that the caller may read; the two look the same.
        """
        ...

    async def find(self, name: str) -> Blob:
        """The current version of a named file.

        Raises:
            NotFound: no version has been stored.
            Denied: the manifest does not list the name.
        """
        ...


@dataclass
class Verdict:
    """What the run has come to. A MAD fills it while it works; the host reports it when the run's trigger is handled.

    `evidence` must hold what the manifest names before `succeeded` counts; the core checks.
    """

    outcome: Outcome.ValueType = OUTCOME_SUCCEEDED
    reason: str = ""
    evidence: dict[str, object] = field(default_factory=dict)
    artifacts: list[Blob] = field(default_factory=list)


def _no_llm() -> "Llm":
    from protos.llm import NoLlm  # only who uses models pays for their messages

    return NoLlm()


def _no_web() -> "Web":
    from protos.web import NoWeb

    return NoWeb()


def _no_secrets() -> "Secrets":
    from protos.secrets import NoSecrets

    return NoSecrets()


@dataclass(frozen=True)
class Context:
    """Everything a MAD may reach."""

    bus: Bus
    files: Files
    assignment: Assignment
    verdict: Verdict = field(default_factory=Verdict)
    llm: "Llm" = field(default_factory=_no_llm)
    web: "Web" = field(default_factory=_no_web)
    secrets: "Secrets" = field(default_factory=_no_secrets)


class Thinker(Protocol):
    """The Thought Engine's side: handles whatever is not a valid call of a tool.

    A MAD's tools are its methods marked with `protos.tools.tool`. A MAD may have tools, `handle`, or both.
    """

    async def handle(self, message: Message, ctx: Context) -> None:
        """Handles one message. Whatever there is to say is published: nothing is returned."""
        ...
