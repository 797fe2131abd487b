"""What all protocols share: which alias a name means, the ids of requests, and what was used.

A request has one id, made here. A client that repeats a request under the same `Idempotency-Key` gets the same id, so
that an answer which was kept is given again and costs nothing. Where an answer is lost, because it broke off or
because the core was restarted meanwhile, its id is of no use any more; as long as the client has seen nothing of it
there is one more try under a new id. That costs again, as it would at the real servers. A repeated request waits for
the first, whose client may just have gone.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic

from anyio import Lock

from protos.errors import Conflict, Exhausted, Unavailable
from protos.ids import new_id
from protos.llm import Llm
from protos.money import total
from protos.v1.llm_pb2 import CompleteRequest, CompletionEvent, EmbedReply, EmbedRequest, Model
from protos.v1.llm_pb2 import Usage as Used

FRESH_S = 30.0  # how long the list of models is taken for granted
KEPT = 256  # keys of requests that may be repeated


@dataclass
class Usage:
    """What went through the doors so far. What a provider did not tell is not in it: the core's ledger has it."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0  # in which at least one answer was awaited


@dataclass
class _Repeatable:
    """A request that may come again."""

    id: str
    answering: Lock = field(default_factory=Lock)


@dataclass
class Answer:
    """An answer that has begun."""

    events: AsyncIterator[CompletionEvent]
    most: int  # tokens it may have; 0: unknown


class Exchange:
    """`llm` for clients that know no aliases. `model` is what they mean by a name that is none; empty: the default."""

    def __init__(self, llm: Llm, model: str = "") -> None:
        self.usage = Usage()
        self.exhausted: Exhausted | None = None
        self._llm, self._model = llm, model
        self._models: Sequence[Model] = ()
        self._fresh_until = 0.0
        self._repeatable: OrderedDict[str, _Repeatable] = OrderedDict()
        self._awaited, self._since = 0, 0.0

    async def models(self) -> Sequence[Model]:
        """The aliases there are.

        Raises:
            Denied: this run may use none.
        """
        if monotonic() >= self._fresh_until:
            self._models = list(await self._llm.models())
            self._fresh_until = monotonic() + FRESH_S
        return self._models

    async def model(self, name: str, *, embeddings: bool = False) -> Model:
        """The model that a client means by `name`; one without an alias where the lab shall choose."""
        models = [each for each in await self.models() if (each.embeddings if embeddings else each.chat)]
        for alias in (name, self._model):
            for each in models:
                if each.alias == alias:
                    return each
        if embeddings:
            return models[0] if models else Model()
        if self._model:
            return Model(alias=self._model)
        return next((each for each in models if each.is_default), models[0] if models else Model())

    @asynccontextmanager
    async def complete(self, request: CompleteRequest, *, key: str = "") -> AsyncIterator[Answer]:
        """The answer to `request`, whose `model` is what the client called it; begun when it is entered.

        Raises:
            as `Llm.complete`, before the answer has begun.
        """
        model = await self.model(request.model)
        request.model = model.alias
        most = min((each for each in (request.sampling.max_tokens, model.max_tokens) if each), default=0)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._awaiting())
            known = self._known(key)
            await stack.enter_async_context(known.answering)
            events, first = await self._begin(request, known, stack)
            yield Answer(self._told(first, events), most)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """The vectors for `request`, whose `model` is what the client called it.

        Raises:
            as `Llm.embed`.
        """
        request.model = (await self.model(request.model, embeddings=True)).alias
        request.id = new_id()
        self.usage.requests += 1
        with self._awaiting():
            try:
                reply = await self._llm.embed(request)
            except Exhausted as error:
                self.exhausted = error
                raise
        self._count(reply.usage)
        return reply

    def key_of(self, header: str, path: str, content: bytes) -> str:
        """What makes two requests the same: the client's key and all that was sent."""
        return f"{header}\n{path}\n{sha256(content).hexdigest()}" if header else ""

    async def _begin(
        self, request: CompleteRequest, known: _Repeatable, stack: AsyncExitStack
    ) -> tuple[AsyncIterator[CompletionEvent], CompletionEvent]:
        self.usage.requests += 1
        for is_last in (False, True):
            request.id = known.id
            events = self._llm.complete(request)
            await stack.enter_async_context(aclosing(events))  # type: ignore[type-var]
            try:
                return events, await anext(events)
            except Conflict:
                known.id = new_id()
                if is_last:
                    raise
            except StopAsyncIteration:
                break
            except Exhausted as error:
                self.exhausted = error
                raise
        raise Unavailable("There was no answer.", next="Ask again.")

    async def _told(
        self, first: CompletionEvent, events: AsyncIterator[CompletionEvent]
    ) -> AsyncIterator[CompletionEvent]:
        yield first
        try:
            async for each in events:
                if each.HasField("usage") and not first.started.replayed:
                    self._count(each.usage)
                yield each
        except Exhausted as error:
            self.exhausted = error
            raise

    def _count(self, used: Used) -> None:
        self.usage.input_tokens += used.input_tokens
        self.usage.output_tokens += used.output_tokens
        self.usage.usd = total((self.usage.usd, used.usd))

    @contextmanager
    def _awaiting(self) -> Iterator[None]:
        """Counts the time in which somebody waits for a model."""
        if not self._awaited:
            self._since = monotonic()
        self._awaited += 1
        try:
            yield
        finally:
            self._awaited -= 1
            if not self._awaited:
                self.usage.seconds += monotonic() - self._since

    def _known(self, key: str) -> _Repeatable:
        if not key:
            return _Repeatable(new_id())
        known = self._repeatable.setdefault(key, _Repeatable(new_id()))
        self._repeatable.move_to_end(key)
        if len(self._repeatable) > KEPT:
            self._repeatable.popitem(last=False)
        return known
