"""Fiedler conducts: he takes a request, follows the policy's word, and hands on what the winner says.

One request, from above:

    checked ─▶ a race ─────────────────────────────▶ the winner's answer ─▶ settled ─▶ usage, finished
               │ policy: start, wait, stop            │ piece by piece, no task between
               │ each attempt: hold ▸ journal ▸ send  │ broken off: settled, told, never asked again
               └ the losers are ended and settled     └ closed by the caller: ended and settled

The race has a task group and ends when somebody has spoken; what follows runs in the caller's own task, so that a
slow reader slows its provider and a reader that goes away ends it. Whatever way an attempt ends, it is settled under a
shield before the request ends: there is no path on which money is spent and not booked.

A request that was begun before is not begun again. Its answer is brought from the journal, where it was kept in the
transaction that settled it; an answer that was lost in a crash is told to be lost.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from time import time

import anyio.to_thread
import structlog
from anyio import (
    AsyncContextManagerMixin,
    CancelScope,
    Event,
    Lock,
    create_task_group,
    current_time,
    fail_after,
    move_on_after,
)

from core.fiedler.assembly import Assembly, Wanted
from core.fiedler.attempt import Patience, Performance
from core.fiedler.keys import Key, Keys
from core.fiedler.ledger import Attempt, Caller, Ledger
from core.fiedler.money import Used, bound_of_inputs, dollars, used_of
from core.fiedler.policy import Conduct, Leg, Policy, Start, Stop, Wait, error_of
from core.fiedler.provider import Ask, Kind, Provider, Trouble
from core.fiedler.providers.hosted import Hosts
from core.fiedler.providers.opening import make_provider
from core.fiedler.repertoire import Repertoire
from core.fiedler.requests import check_embed, check_request
from core.fiedler.settings import Model, Orchestra
from core.fiedler.settings import Provider as ProviderSettings
from core.redaction.redactor import Redactor
from protos.errors import Conflict, Denied, Error, Unavailable
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import Answer, CompletionEvent, Started

logger = structlog.get_logger()

ANSWER_BYTES = 512 << 10  # of an answer that is kept to be given again


@dataclass
class _Race:
    """What the attempts at one request have come to."""

    request: pb.CompleteRequest
    digest: str
    wanted: Wanted
    caller: Caller
    account: str
    conduct: Conduct
    deadline: float
    begun: int = 0  # attempts of the same request before this race
    performances: list[Performance] = field(default_factory=list)
    winner: Performance | None = None
    refused: Error | None = None  # by the journal: that counts for all attempts
    usd: int = 0  # of what is settled, in picodollars
    changed: Event = field(default_factory=Event)

    def tell(self) -> None:
        """Something happened: the policy is asked again."""
        self.changed.set()
        self.changed = Event()


class Fiedler(AsyncContextManagerMixin):
    """The orchestra of one lab. Entering settles what an earlier core left open; providers open when first used."""

    def __init__(
        self,
        ledger: Ledger,
        keys: Keys,
        *,
        orchestra: Orchestra,
        providers: Mapping[str, ProviderSettings],
        models: Mapping[str, Model],
        policy: Policy | None = None,
        hosts: Hosts | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self.ledger = ledger
        self._redactor = redactor or Redactor()
        self._hosts = hosts
        self.policy = policy or Policy(failures=orchestra.failures, rest_s=orchestra.rest_s)
        self.repertoire = Repertoire(orchestra, providers, models)
        self._keys = keys
        self._open: dict[str, Provider] = {}
        self._opening = Lock()
        self._in_flight: set[str] = set()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator["Fiedler"]:
        async with AsyncExitStack() as self._stack:
            lost = await self.ledger.load()
            if lost:
                logger.warning("calls of an earlier core were settled at their worst case", calls=lost)
            yield self

    def models(self) -> Sequence[pb.Model]:
        """Every alias, the default first."""
        return self.repertoire.describe(self.policy, self._keys, current_time(), self._hosts)

    async def complete(self, request: pb.CompleteRequest, caller: Caller) -> AsyncIterator[CompletionEvent]:
        """`protos.llm.Llm.complete`, for `caller`."""
        check_request(request)
        wanted = Wanted.by(request)
        route = self.repertoire.route(request)
        with self._once(request.id):
            async with self.ledger.account_of(caller) as account:
                race = self._race(request, wanted, caller, account, route)
                earlier: Answer | None = None
                try:
                    try:
                        await self._run(race)
                    except Conflict:
                        earlier = await self._earlier(race)
                        if earlier is None:
                            race = self._race(request, wanted, caller, account, route, begun=race.begun)
                            await self._run(race)
                    events = self._replay(earlier) if earlier is not None else self._perform(race)
                    async with aclosing(events):  # type: ignore[type-var]
                        async for each in events:
                            yield each
                finally:
                    await self._settle_rest(race, "cancelled", "nobody waited for it any more")

    async def embed(self, request: pb.EmbedRequest, caller: Caller) -> pb.EmbedReply:
        """`protos.llm.Llm.embed`, for `caller`. One attempt: another model's vectors would not fit to earlier ones."""
        check_embed(request)
        alias = self.repertoire.find(request.model, embeddings=True)
        settings = self.repertoire.models[alias]
        with self._once(request.id):
            async with self.ledger.account_of(caller) as account:
                attempt = Attempt(
                    id=f"{request.id}.1",
                    request=request.id,
                    number=1,
                    act="llm.embed",
                    caller=caller,
                    account=account,
                    leg=self.repertoire.leg(alias),
                    provider=settings.provider,
                    model=settings.model,
                    price=settings.price,
                    bound=bound_of_inputs(request, settings.bytes_per_token),
                    digest=_digest(request),
                )
                provider = await self._provider(settings.provider)
                key = self._key(settings.provider)
                ask = Ask(pb.CompleteRequest(), settings.model, 0, key, settings.extra, redactor=self._redactor)
                return await self._embed(request, attempt, provider, ask, settings.deadline_s)

    # --- the race

    def _race(
        self,
        request: pb.CompleteRequest,
        wanted: Wanted,
        caller: Caller,
        account: str,
        route: Sequence[Leg],
        *,
        begun: int = 0,
    ) -> _Race:
        repertoire, escrow = self.repertoire, self.ledger.escrow
        deadline = current_time() + repertoire.models[route[0].alias].deadline_s
        if request.deadline:
            deadline = min(deadline, current_time() + request.deadline - time())
        bounds = {leg: repertoire.bound(request, leg.alias) for leg in route}

        def shortage(leg: Leg) -> Error | None:
            return escrow.shortage(account, bounds[leg].worst(repertoire.models[leg.alias].price))

        conduct = self.policy.conduct(route, repertoire.rules(route), deadline=deadline, shortage=shortage)
        return _Race(request, _digest(request), wanted, caller, account, conduct, deadline, begun)

    async def _run(self, race: _Race) -> None:
        """Runs attempts until one has spoken.

        Raises:
            Error: none did; the policy says what to tell.
        """
        stopped: Error | None = None
        async with create_task_group() as tasks:
            while race.winner is None and race.refused is None and stopped is None:
                changed = race.changed
                match race.conduct.next(current_time()):
                    case Start() as start:
                        # Between the policy's word and the hold nothing waits: what could be paid still can.
                        race.performances.append(self._prepare(race, start))
                        tasks.start_soon(race.performances[-1].journal)
                        tasks.start_soon(self._try, race, race.performances[-1])
                    case Wait(until):
                        with move_on_after(until - current_time()):
                            await changed.wait()
                    case Stop(error):
                        stopped = error
            tasks.cancel_scope.cancel()
        await self._settle_rest(race, "abandoned", "another model was faster, or it was too late")
        failure = race.refused or stopped
        if race.winner is None and failure is not None:
            raise failure

    def _prepare(self, race: _Race, start: Start) -> Performance:
        alias = start.leg.alias
        settings = self.repertoire.models[alias]
        number = race.begun + start.number
        attempt = Attempt(
            id=f"{race.request.id}.{number}",
            request=race.request.id,
            number=number,
            act="llm.complete",
            caller=race.caller,
            account=race.account,
            leg=start.leg,
            provider=settings.provider,
            model=settings.model,
            price=settings.price,
            bound=self.repertoire.bound(race.request, alias),
            digest=race.digest,
        )
        self.ledger.hold(attempt)
        patience = Patience(settings.first_output_s, settings.idle_s, race.deadline)
        return Performance(start, attempt, self.ledger, patience)

    async def _try(self, race: _Race, performance: Performance) -> None:
        """One attempt, until its first output."""
        start = performance.start
        try:
            provider, ask = await self._ask(race.request, start.leg.alias)
            await performance.begin(provider, ask, Assembly(race.wanted, ask.redactor))
            if race.winner is None:
                race.winner = performance
                race.conduct.spoke(start)
        except Trouble as trouble:
            logger.info("a model did not answer", alias=start.leg.alias, attempt=start.number, trouble=str(trouble))
            await self._settle(race, performance, "failed", str(trouble), free=trouble.is_free)
            race.conduct.failed(start, trouble, current_time())
        except Error as error:
            race.refused = error
        race.tell()

    async def _ask(self, request: pb.CompleteRequest, alias: str) -> tuple[Provider, Ask]:
        """
        Raises:
            Trouble: there is no key that can be used.
        """
        settings = self.repertoire.models[alias]
        try:
            key = self._key(settings.provider)
        except Denied as error:
            raise Trouble(Kind.KEY, f"{error.message} {error.next}") from None
        ask = Ask(
            request=self.repertoire.with_defaults(request, alias),
            model=settings.model,
            max_tokens=self.repertoire.max_tokens(request, alias),
            key=key,
            extra=settings.extra,
            redactor=self._redactor,
        )
        return await self._provider(settings.provider), ask

    def _key(self, provider: str) -> Key | None:
        """The key of a provider, made known before it goes anywhere.

        Raises:
            Denied: it has one that cannot be used.
        """
        key = self._keys.find(provider)
        if key is not None and not self._redactor.scan(key.reveal().encode()):
            self._redactor.learn(f"key-of-{provider}", key.reveal().encode())
        return key

    # --- the answer

    async def _perform(self, race: _Race) -> AsyncIterator[CompletionEvent]:
        """What the winner says, to its end."""
        winner = race.winner
        assert winner is not None
        attempt = winner.attempt
        started = Started(
            model=attempt.model, provider=attempt.provider, alias=attempt.leg.alias, attempt=attempt.number
        )
        first = CompletionEvent(started=started)
        record, finished = _Record(first), CompletionEvent()
        yield first
        try:
            async with aclosing(winner.events()) as events:  # type: ignore[type-var]
                async for each in events:
                    if each.HasField("finished"):
                        finished = each
                    else:
                        record.take(each)
                        yield each
        except Trouble as trouble:
            await self._settle(race, winner, "broken", str(trouble))
            raise race.conduct.broke(winner.start, trouble, current_time()) from None
        used = winner.count()
        usage = CompletionEvent(usage=_usage(used, race.usd + attempt.price.of(used)))
        reason = pb.FinishReason.Name(finished.finished.reason).removeprefix("FINISH_").lower()
        await winner.settle("finished", reason, answer=record.answer(usage, finished))
        yield usage
        yield finished

    async def _earlier(self, race: _Race) -> Answer | None:
        """The answer to a request that was begun before; None if it never had any output and may be tried again.

        Raises:
            Conflict: it was another request, or its answer is lost.
        """
        found = await self.ledger.earlier(race.request.id)
        if found is None or (found.principal, found.digest) != (race.caller.principal, race.digest):
            raise Conflict("The id belongs to another request.", next="Give a new request a new id.")
        if found.answer is None and not found.is_without_output:
            raise Conflict(
                "This request was begun before, and its answer did not end or was not kept.",
                next="What it cost is booked. Ask again with a new id.",
            )
        race.begun = found.attempts
        return found.answer

    async def _replay(self, answer: Answer) -> AsyncIterator[CompletionEvent]:
        answer.events[0].started.replayed = True
        for each in answer.events:
            yield each

    # --- embeddings

    async def _embed(
        self, request: pb.EmbedRequest, attempt: Attempt, provider: Provider, ask: Ask, within_s: float
    ) -> pb.EmbedReply:
        self.ledger.hold(attempt)
        outcome, reason, used = "cancelled", "nobody waited for it any more", used_of(None, attempt.bound, 0)
        try:
            await self.ledger.start(attempt)
        except BaseException:
            self.ledger.release(attempt)
            raise
        try:
            try:
                with fail_after(within_s):
                    made = await provider.embed(ask, request.inputs, request.dimensions)
            except TimeoutError:
                raise Trouble(Kind.SLOW, "There were no vectors in time.") from None
            outcome, reason, used = "finished", "", used_of(made.reported, attempt.bound, 0)
        except Trouble as trouble:
            outcome, reason = "failed", str(trouble)
            used = Used() if trouble.is_free else used
            raise error_of(attempt.leg.alias, trouble) from None
        finally:
            with CancelScope(shield=True):
                await self.ledger.settle(attempt, used, outcome, reason)
        return pb.EmbedReply(
            vectors=[pb.Vector(values=each) for each in made.vectors],
            started=Started(model=attempt.model, provider=attempt.provider, alias=attempt.leg.alias, attempt=1),
            usage=_usage(used, attempt.price.of(used)),
        )

    # --- within

    async def _settle(
        self, race: _Race, performance: Performance, outcome: str, reason: str, *, free: bool = False
    ) -> None:
        """Settles an attempt that did not end well. A journal that cannot be written does not hide why it did not."""
        if performance.is_settled:
            return
        with CancelScope(shield=True):
            try:
                used = await performance.settle(outcome, reason, free=free)
                race.usd += performance.attempt.price.of(used)
            except Unavailable as error:
                logger.error("an attempt could not be settled", attempt=performance.attempt.id, why=error.message)

    async def _settle_rest(self, race: _Race, outcome: str, reason: str) -> None:
        """Settles every attempt that is still open, but not a winner that is still to be heard."""
        for each in race.performances:
            if not each.is_settled and (each is not race.winner or outcome == "cancelled"):
                race.conduct.abandoned(each.start)
                await self._settle(race, each, outcome, reason)

    async def _provider(self, name: str) -> Provider:
        if name not in self._open:
            async with self._opening:
                if name not in self._open:
                    settings = self.repertoire.providers[name]
                    made = await anyio.to_thread.run_sync(make_provider, name, settings, self._hosts)
                    self._open[name] = await self._stack.enter_async_context(made)
        return self._open[name]

    @contextmanager
    def _once(self, id: str) -> Iterator[None]:
        if id in self._in_flight:
            raise Conflict("This request is being answered.", next="Read that answer, or use a new id.")
        self._in_flight.add(id)
        try:
            yield
        finally:
            self._in_flight.discard(id)


def _digest(request: pb.CompleteRequest | pb.EmbedRequest) -> str:
    return sha256(request.SerializeToString(deterministic=True)).hexdigest()


def _usage(used: Used, usd: int) -> pb.Usage:
    return pb.Usage(
        input_tokens=used.input,
        cached_tokens=used.cached,
        cache_write_tokens=used.cache_write,
        output_tokens=used.output,
        reasoning_tokens=used.reasoning,
        usd=dollars(usd),
        assumed=used.assumed,
    )


class _Record:
    """An answer as it is kept: what came in pieces made whole, what was only to look at left out, nothing too large."""

    def __init__(self, started: CompletionEvent) -> None:
        self._events = [started]
        self._text: list[str] = []
        self._thought: list[str] = []
        self._size = 0

    def take(self, event: CompletionEvent) -> None:
        """Adds what was handed on."""
        kind = event.WhichOneof("kind")
        self._size += event.ByteSize()
        if self._size > ANSWER_BYTES or kind == "tool_call_fragment":
            return
        if kind == "text":
            self._join_thought()
            self._text.append(event.text)
        elif kind == "reasoning" and not (event.reasoning.signature or event.reasoning.opaque):
            self._join_text()
            self._thought.append(event.reasoning.text)
        else:
            self._join_text()
            self._join_thought()
            self._events.append(event)

    def answer(self, *ending: CompletionEvent) -> Answer | None:
        """All of it, or None if that is too much to keep."""
        self._join_text()
        self._join_thought()
        return Answer(events=[*self._events, *ending]) if self._size <= ANSWER_BYTES else None

    def _join_text(self) -> None:
        if self._text:
            self._events.append(CompletionEvent(text="".join(self._text)))
            self._text = []

    def _join_thought(self) -> None:
        if self._thought:
            self._events.append(CompletionEvent(reasoning=pb.Reasoning(text="".join(self._thought))))
            self._thought = []
