"""One attempt at one model: begun, read piece by piece, and settled whatever happened.

It belongs to no task: the task that begins it may lose the race and another may read it on, so no cancel scope is
open between two pieces. Whoever makes one must `settle` it, once; a second time changes nothing.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from anyio import CancelScope, Event, current_time, fail_after, move_on_after

from core.fiedler.assembly import Assembly
from core.fiedler.ledger import Attempt, Ledger
from core.fiedler.money import Used, used_of
from core.fiedler.policy import Start
from core.fiedler.provider import Ask, Kind, Provider, Reported, Trouble
from protos.errors import Error
from protos.v1.llm_pb2 import Answer, CompletionEvent

CLOSE_S = 5.0  # to end a connection


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds; `deadline` by the loop's clock."""

    first_output_s: float
    idle_s: float
    deadline: float


@dataclass
class Performance:
    """An attempt that has its hold."""

    start: Start
    attempt: Attempt
    ledger: Ledger
    patience: Patience
    finished: bool = False
    is_settled: bool = False
    _assembly: Assembly | None = None
    _events: AsyncIterator[CompletionEvent | Reported] | None = None
    _reported: Reported | None = None
    _ready: deque[CompletionEvent] = field(default_factory=deque)
    _durable: Event = field(default_factory=Event)
    _refused: Error | None = None  # by the journal
    _is_journalled: bool = False
    _is_sent: bool = False

    async def begin(self, provider: Provider, ask: Ask, assembly: Assembly) -> None:
        """Asks, and reads until there is something to hand on.

        Raises:
            Trouble: there is nothing.
            Conflict, Unavailable: it could not be journalled, and nothing was sent.
        """
        self._assembly = assembly
        self._events = provider.complete(replace(ask, before_sending=self._before_sending))
        with _within(self.patience.first_output_s, self.patience.deadline, "There was no output in time."):
            while not self._ready:
                await self._read()
        self.ledger.spoke(self.attempt)

    async def events(self) -> AsyncIterator[CompletionEvent]:
        """What is handed on, to the end, `finished` included.

        Raises:
            Trouble: it broke.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self.finished:
                return
            with _within(self.patience.idle_s, self.patience.deadline, "The answer stopped in the middle."):
                while not self._ready and not self.finished:
                    await self._read()

    def count(self, *, free: bool = False) -> Used:
        """What it has used, as far as is known now; `free` where nobody bills for it."""
        if free or not self._is_sent or self._assembly is None:
            return Used()
        return used_of(self._reported, self.attempt.bound, self._assembly.shown)

    async def settle(self, outcome: str, reason: str = "", *, free: bool = False, answer: Answer | None = None) -> Used:
        """Ends it and makes its outcome and cost durable, once.

        Raises:
            Unavailable: the journal is sealed.
        """
        used = self.count(free=free)
        self.is_settled = True
        with CancelScope(shield=True):
            await self._close()
            if self._is_journalled:
                await self.ledger.settle(self.attempt, used, outcome, reason, answer=answer)
            else:
                self.ledger.release(self.attempt)
        return used

    async def journal(self) -> None:
        """Makes *started* durable, beside `begin`, which makes the request meanwhile and waits for this to send it."""
        self._is_journalled = True  # if it is cancelled now it may be durable all the same
        try:
            await self.ledger.start(self.attempt)
        except Error as error:
            self._is_journalled, self._refused = False, error
        self._durable.set()

    async def _before_sending(self) -> None:
        await self._durable.wait()
        if self._refused is not None:
            raise self._refused
        self._is_sent = True

    async def _close(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            with move_on_after(CLOSE_S):
                await close()

    async def _read(self) -> None:
        assert self._events is not None
        assert self._assembly is not None
        try:
            event = await anext(self._events)
        except StopAsyncIteration:
            raise Trouble(Kind.CUT, "The answer has no end.") from None
        if isinstance(event, Reported):
            self._reported = event
            return
        self._ready.extend(self._assembly.take(event))
        self.finished = event.HasField("finished")


@contextmanager
def _within(seconds: float, deadline: float, sentence: str) -> Iterator[None]:
    try:
        with fail_after(min(seconds, deadline - current_time())):
            yield
    except TimeoutError:
        raise Trouble(Kind.SLOW, sentence) from None
