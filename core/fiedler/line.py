"""The core's end of a worker that serves a model: what it is asked goes out here, what it answers comes in.

The gate moves what is said over a line, a provider asks over it, and whoever keeps the worker closes it. No task and no
cancel scope belongs to it: an answer may be begun by one task and read on by another.

The worker reads what strangers wrote, so nothing it says is believed: what it was not asked is dropped, what nobody
reads is bounded, and what is no piece of an answer ends the answer.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from anyio import Event, Semaphore

from core.fiedler.provider import Kind, Trouble
from protos.errors import Conflict
from protos.llm import pieces
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, Served, Serving, ToServe

UNREAD_BYTES = 8 << 20  # of one answer
EVENT_BYTES = 200  # that an event takes beside its text
AT_ONCE = 64  # the most that a worker may say it answers side by side
FAULTS = {"request": Kind.REQUEST, "overloaded": Kind.OVERLOADED}


@dataclass
class _Answer:
    """What has come of one answer and is not read yet."""

    unread: deque[CompletionEvent] = field(default_factory=deque)
    size: int = 0
    trouble: Trouble | None = None
    ended: bool = False
    more: Event = field(default_factory=Event)

    def take(self, event: CompletionEvent) -> None:
        if self.ended:
            return
        self.size += event.ByteSize() + EVENT_BYTES
        if self.size > UNREAD_BYTES:
            self.end(Trouble(Kind.NONSENSE, f"More than {UNREAD_BYTES} bytes came at once."))
            return
        self.unread.append(event)
        self.ended = event.HasField("finished")
        self.more.set()

    def end(self, trouble: Trouble) -> None:
        if not self.ended:
            self.trouble, self.ended = trouble, True
            self.more.set()

    async def next(self) -> CompletionEvent:
        """
        Raises:
            Trouble: there is no more, and that was not the end.
        """
        while not self.unread:
            if self.trouble is not None:
                raise self.trouble
            self.more = Event()
            await self.more.wait()
        event = self.unread.popleft()
        self.size -= event.ByteSize() + EVENT_BYTES
        return event


class Line:
    """One worker that serves a model."""

    def __init__(self) -> None:
        self.serving: Serving | None = None  # what it says it serves
        self.ready = Event()  # it has said so
        self.closed = Event()
        self._why = ""
        self._outgoing: deque[ToServe] = deque()
        self._more = Event()
        self._answers: dict[str, _Answer] = {}
        self._count = 0
        self._slots = Semaphore(0)
        self._is_taken = False

    async def complete(
        self, request: CompleteRequest, before_sending: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[CompletionEvent]:
        """Asks, as soon as the worker has a hand free, and hands on what it answers up to `finished`.

        Raises:
            Trouble: the worker did not answer, or ended meanwhile.
        """
        await self._slots.acquire()
        try:
            self._check()
            self._count += 1
            id, answer = str(self._count), _Answer()
            await before_sending()
            self._check()
            self._answers[id] = answer
            try:
                for piece in pieces(request):
                    self._tell(ToServe(id=id, complete=piece))
                self._tell(ToServe(id=id, whole=True))
                while True:
                    event = await answer.next()
                    yield event
                    if event.HasField("finished"):
                        return
            finally:
                del self._answers[id]
                if not answer.ended:
                    self._tell(ToServe(id=id, cancel=True))
        finally:
            self._slots.release()

    def take(self) -> None:
        """Begins its one stream.

        Raises:
            Conflict: there is, or was, one.
        """
        if self._is_taken:
            raise Conflict("This worker has served its model on another stream.")
        self._is_taken = True

    async def outgoing(self) -> AsyncIterator[ToServe]:
        """What the worker is to be told, until the line closes."""
        while not self.closed.is_set():
            while self._outgoing:
                yield self._outgoing.popleft()
            self._more = Event()
            await self._more.wait()

    def hear(self, served: Served) -> None:
        """Takes what the worker says."""
        kind = served.WhichOneof("kind")
        if kind == "serving":
            if self.serving is None:
                self.serving = served.serving
                for _ in range(min(max(served.serving.at_once, 1), AT_ONCE)):
                    self._slots.release()
                self.ready.set()
            return
        answer = self._answers.get(served.id)
        if answer is None:
            return  # nobody waits for it any more
        match kind:
            case "event":
                answer.take(served.event)
            case "fault":
                answer.end(Trouble(FAULTS.get(served.fault.code, Kind.BROKEN), served.fault.text))
            case _:
                answer.end(Trouble(Kind.NONSENSE, "What came is no piece of an answer."))

    def close(self, why: str) -> None:
        """Ends it, once: whoever waits for an answer is told why there is none."""
        if self.closed.is_set():
            return
        self._why = why
        self.closed.set()
        self._more.set()
        for answer in self._answers.values():
            answer.end(Trouble(Kind.BROKEN, why))
        for _ in range(self._slots.statistics().tasks_waiting):
            self._slots.release()

    def _tell(self, told: ToServe) -> None:
        if not self.closed.is_set():
            self._outgoing.append(told)
            self._more.set()

    def _check(self) -> None:
        """
        Raises:
            Trouble: the worker is gone, and was not asked.
        """
        if self.closed.is_set():
            raise Trouble(Kind.UNREACHABLE, self._why)
