"""The life of one run, from where it stands to its end.

A run is worked on by a *worker*: a sandbox that dialled in. Or, where its MAD is one of the core's own (the foreman),
by a task of this process, with the same ports, the same table and the same end. Either way:

- the outcome is fixed (collecting) while whoever worked still stands, and nothing changes it afterwards;
- its children, the runs it asked for, end before it does;
- however it ends, its caller hears: where there was no answer, the core gives a fault in its place, under the id that
  the answer would have had, so that there is exactly one.

A crash at any point is a replay. A run without a worker starts anew, and whatever was half made is reaped by its label.
A run with a worker is taken back: same door, same credential, and its worker dials in again. A run of the core's own
begins again from its message; what it asks of others it asks under the same ids, and so nothing is done twice.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import structlog
from anyio import CancelScope, Event, Lock, move_on_after, sleep, sleep_forever

from core.admission import Admission
from core.fiedler.money import dollars
from core.gate import Session
from core.policy.capabilities import CORE_PORTS, Identity, Purse
from core.ports.context import context_for
from core.ports.llm import open_purse
from core.ports.services import Allowance, Services, unlimited
from core.redaction.canaries import Who
from core.registry import RegisteredMad
from core.run import TAKEN_BACK, Outcome, Run, State
from core.runs import Runs
from core.usage import Sampling, usage_entry
from core.verdicts import Ending, ending_by_exit, ending_by_word
from core.waiting import Latch, Watermark, first_of
from core.workers import Worker, Workers
from protos.errors import Conflict, Error, NotFound
from protos.host import evidence_of
from protos.mad import Context
from protos.serve import answer_id, serve
from protos.v1.message_pb2 import KIND_CALL
from protos.v1.session_pb2 import Assignment, FinishRequest
from sandbox.engine import SandboxError
from sandbox.pool import Pool
from sandbox.profile import Profile

logger = structlog.get_logger()

GRACE_S = 2.0  # between asking a worker to end and ending it
WATCH_AFTER_S = 0.1  # what a worker has for its first words before the engine is asked to tell of its end
GREEN = frozenset({Outcome.SUCCEEDED, Outcome.PARTIAL})


@dataclass(frozen=True)
class Dispatchable:
    """A MAD that is started for a message: an eMAD with its profile, or one of the core's own with its class."""

    mad: RegisteredMad
    deadline_s: float
    profile: Profile | None = None
    make: Callable[[], Any] | None = None


@dataclass
class Live:
    """A run that is not over."""

    run: Run
    cancel: Latch = field(default_factory=Latch)
    early: CancelScope = field(default_factory=CancelScope)  # cancelled to end what has no worker yet
    worker: Worker | None = None
    settled: Event = field(default_factory=Event)  # its door listens again, or it needs none
    over: Event = field(default_factory=Event)
    closing: bool = False  # it works no more, and has no more children


class Lives:
    """The runs that are not over, each a task that takes it through the table of `core.run`."""

    def __init__(
        self,
        services: Services,
        runs: Runs,
        workers: Workers,
        admission: Admission,
        emads: Mapping[str, Dispatchable],
        pools: Mapping[str, Pool[Worker]],
    ) -> None:
        self._services, self._runs, self._workers, self._admission = services, runs, workers, admission
        self._emads, self._pools = emads, pools
        self._turns: WeakValueDictionary[tuple[str, str], Lock] = WeakValueDictionary()
        self.sampling = Sampling()
        self.heard = Watermark()  # sequence up to which the dispatcher has considered every message
        self.all: dict[str, Live] = {}

    def enter(self, run: Run) -> Live:
        """From here on it is live: it can be cancelled, and `go_on` takes it to its end."""
        live = self.all[run.id] = Live(run, closing=run.state is State.COLLECTING)
        if run.parent:
            self._services.children.count(run.parent, run.trigger)
        if run.cancel:
            live.cancel.set(run.cancel)
        if run.state is not State.REQUESTED:  # an earlier core has heard some of what it said, nobody knows how much
            self._services.children.said(run.id, self._services.rogers.newest)
        if run.state not in TAKEN_BACK:
            live.settled.set()
            if run.cancel:
                live.early.cancel()
        return live

    def leave(self, live: Live) -> None:
        """The run is over, or was never durable."""
        self._services.children.close(live.run.parent, live.run.trigger)
        self._services.children.forget(live.run.id)
        if self.all.get(live.run.id) is live:
            self._services.canaries.lift(live.run.id)
            del self.all[live.run.id]
        live.settled.set()
        live.over.set()

    def waiting(self) -> Sequence[Run]:
        """The runs that have not begun, in the order in which they were asked for."""
        return [each.run for each in self.all.values() if each.run.state is State.REQUESTED]

    def place(self, run: str) -> int | None:
        """How many runs begin before one that waits, itself included; None when it does not wait."""
        waiting = self.waiting()
        which = next((number for number, each in enumerate(waiting) if each.id == run), None)
        return None if which is None else self._admission.ahead([each.asker for each in waiting], which) + 1

    def is_orphan(self, run: Run) -> bool:
        """Whether another run asked for it, and has ended or is about to."""
        parent = self.all.get(run.parent)
        return run.parent != "" and (parent is None or parent.closing)

    async def cancel(self, run: str, reason: str) -> Run:
        """Asks a run to end; it becomes `cancelled` soon. The wish survives a restart of the core.

        Raises:
            NotFound: there never was such a run.
            Conflict: it has ended already.
        """
        live = self.all.get(run)
        if live is None:
            ended = await self._runs.get(run)
            raise Conflict(f"The run {run} has ended already: {ended.outcome}.", next=f"See: madlab show {run}")
        await self._runs.note(live.run, cancel=reason)
        live.run = replace(live.run, cancel=reason)  # it may have moved meanwhile
        live.cancel.set(reason)
        if live.worker is None and live.settled.is_set():  # else it has a worker that is being taken back
            live.early.cancel()
        return live.run

    def who(self, sender: str, conversation: str) -> Who | None:
        """The live run that has this id, or speaks in this conversation under this name."""
        for each in self.all.values():
            run = each.run
            if sender == run.id or (sender, conversation) == (run.mad, run.conversation):
                emad = self._emads.get(run.mad)
                return Who(run.mad, run.conversation, run.id, guest=emad is not None and emad.make is None)
        return None

    def put_down(self, run: str, reason: str) -> None:
        """Ends a run for what it did; it becomes `killed` soon, in the next core where this one dies first."""
        live = self.all.get(run)
        if live is None or live.run.killed:
            return
        live.run = self._runs.note_soon(live.run, cancel=reason, killed=True)
        live.cancel.set(reason)
        if live.worker is None:
            live.early.cancel()

    async def cancel_all(self, reason: str, *, of: str | None = None) -> None:
        """Ends every run, or the children `of` one, and waits until they are gone."""
        chosen = [each for each in self.all.values() if of is None or each.run.parent == of]
        for each in chosen:
            try:
                await self.cancel(each.run.id, reason)
            except (Conflict, NotFound):
                continue  # ended in between
        for each in chosen:
            await each.over.wait()

    async def _end_children(self, live: Live) -> None:
        """A child that has answered is about to end by itself; the others are told to, once all of them are known."""
        run = live.run
        live.closing = True
        live.settled.set()
        await self.heard.reached(self._services.children.last(run.id))
        with move_on_after(0 if live.cancel.is_set() else GRACE_S):
            for each in [each for each in self.all.values() if each.run.parent == run.id]:
                await each.over.wait()
        await self.cancel_all(f"The run that asked for it, {run.id}, has ended.", of=run.id)

    async def go_on(self, live: Live) -> None:
        """One run, from where it stands to its end."""
        run = live.run
        turn = self._turns.setdefault((run.mad, run.conversation), Lock())
        async with AsyncExitStack() as held:
            await self._to_the_end(live, turn, held)

    async def _to_the_end(self, live: Live, turn: Lock, held: AsyncExitStack) -> None:
        run = live.run
        try:
            if run.state is State.COLLECTING:
                self._forget_inbox(run)
                await self._end_children(live)
            else:
                ending: Ending | None = None
                with live.early:
                    await held.enter_async_context(turn)  # until the end: its children are told from the next run's
                    ending = await self._work(live)
                    self._forget_inbox(run)
                await self._end_children(live)
                if live.run.state is not State.COLLECTING:
                    await self._collect(live, ending or _cancelled(live))
            await self._settle(live.run)
            live.run = await self._runs.move(live.run, State.DESTROYED)
        except Error as error:
            # The journal is sealed: nothing more can be written down; the next core takes over from what is.
            logger.error("a run cannot go on", run=run.id, reason=error.message)
            await sleep_forever()
        finally:
            self.leave(live)
            if self._services.egress is not None:
                await self._services.egress.forget(f"run:{run.id}")

    async def _work(self, live: Live) -> Ending | None:
        """Has the run worked on, and fixes its outcome while whoever worked still stands."""
        emad = self._emads.get(live.run.mad)
        if emad is None:
            return Ending(Outcome.FAILED, f"There is no MAD called {live.run.mad} any more.")
        resumed = live.run.state in TAKEN_BACK
        try:
            if emad.make is not None:
                return await self._work_here(live, emad, emad.make)
            return await self._work_outside(live, emad, await self._profile(live, emad), resumed=resumed)
        except SandboxError as error:
            return (
                Ending(Outcome.LOST, f"Its sandbox is gone: {error}") if resumed else Ending(Outcome.FAILED, str(error))
            )
        except Error as error:
            if live.run.state is State.COLLECTING:
                raise
            return Ending(Outcome.FAILED, f"{error.message} {error.next}".strip())
        except Exception as error:  # one run's trouble, even if it is our mistake, is not the lab's
            logger.exception("a run failed in the core", run=live.run.id)
            if live.run.state is State.COLLECTING:
                return None
            return Ending(Outcome.FAILED, f"The core failed: {type(error).__name__}. It has logged why.")
        finally:
            live.worker = None

    async def _work_here(self, live: Live, emad: Dispatchable, make: Callable[[], Any]) -> Ending:
        """Serves a MAD of the core's own, from its message on, also when an earlier core had begun."""
        if live.run.state not in TAKEN_BACK:
            now = time.time()
            await self._move_up_to(live, State.RUNNING, started=now, deadline=self._deadline(live.run, emad, now))
        live.settled.set()
        self._services.journal.keep_cursor(live.run.mad, live.run.conversation, live.run.trigger_sequence - 1)
        ports, identity = self._ports(live, emad)
        await open_purse(self._services, identity)
        deadline = self._deadline_of(live.run)
        first = await first_of(lambda: serve(make(), ports), live.cancel.wait, deadline)
        if first == 1:
            return _cancelled(live)
        if first == 2:
            return _overstayed(live.run)
        verdict = ports.verdict
        said = FinishRequest(outcome=verdict.outcome, reason=verdict.reason, evidence=evidence_of(verdict))
        said.artifacts.extend(verdict.artifacts)
        return await ending_by_word(self._services, identity, said, ())

    async def _work_outside(self, live: Live, emad: Dispatchable, profile: Profile, *, resumed: bool) -> Ending:
        """Finds a worker and lets it work."""
        parent = self.all.get(live.run.parent)
        holds_one = parent is not None and parent.worker is not None  # which would wait for this one for ever
        async with (
            self._admission.share(
                profile.memory_mb + profile.workspace_mb,
                asker=live.run.asker,
                is_guest=live.run.asker.startswith("client:") and not holds_one,
                at_once=resumed,
            ),
            self._adopted(live, emad, profile) if resumed else self._worker(live, emad, profile) as worker,
        ):
            live.worker = worker
            if not resumed:
                await self._assign(live, emad, worker)
            live.settled.set()
            with self.sampling.watching(live.run.id, worker.sandbox):
                ending = await self._watch(live, worker)
                await self._collect(live, ending)
            return ending

    @asynccontextmanager
    async def _worker(self, live: Live, emad: Dispatchable, profile: Profile) -> AsyncIterator[Worker]:
        """A worker that has attached: a warm one at once, or a new one."""
        pool = self._pools.get(live.run.mad)
        if pool is not None and profile == emad.profile:
            async with pool.claim() as worker:
                yield worker
            return
        await self._move_up_to(live, State.STARTING)
        async with self._workers.open(live.run.mad, profile) as worker:
            await worker.attached()
            yield worker

    def _adopted(self, live: Live, emad: Dispatchable, profile: Profile) -> AbstractAsyncContextManager[Worker]:
        """The worker that an earlier core gave to this run."""
        run = live.run
        self._services.canaries.lay(run.id)  # they lie there
        session = Session(
            lease_s=self._workers.lease_s,
            redactor=self._services.redactor,
            token=run.token,
            credential=run.credential,
            confirmed=run.confirmed,
        )
        session.assign(self._ports(live, emad)[0])
        self._listen_for_proof(live, session)
        return self._workers.adopt(run.sandbox, run.mad, profile.runtime, session)

    async def _assign(self, live: Live, emad: Dispatchable, worker: Worker) -> None:
        now = time.time()
        session = worker.session
        await self._move_up_to(
            live,
            State.RUNNING,
            sandbox=worker.name,
            token=session.token,
            credential=session.credential,
            confirmed=session.confirmed,
            started=now,
            deadline=self._deadline(live.run, emad, now),
        )
        self._listen_for_proof(live, session)
        self._workers.lay(worker.name, self._services.canaries.lay(live.run.id))
        ports, identity = self._ports(live, emad)
        self._services.taints.fresh(identity)
        if any(each.startswith("call:") for each in identity.ports):
            await open_purse(self._services, identity)  # before its children draw from it
        session.assign(ports)

    def _listen_for_proof(self, live: Live, session: Session) -> None:
        async def renewed(credential: str) -> None:
            await self._runs.note(live.run, credential=credential)
            live.run = replace(live.run, credential=credential)

        def confirmed() -> None:
            live.run = self._runs.note_soon(live.run, confirmed=True)

        session.on_credential, session.on_confirmed = renewed, confirmed
        # The inbox of a run begins with its trigger, whatever else was said to its MAD in the conversation before.
        self._services.journal.keep_cursor(live.run.mad, live.run.conversation, live.run.trigger_sequence - 1)

    async def _move_up_to(self, live: Live, state: State, **changes: object) -> None:
        """Takes the run through every state up to `state` in one durable step."""
        order = (State.ADMITTED, State.STARTING, State.READY, State.RUNNING)
        start = order.index(live.run.state) + 1 if live.run.state in order else 0
        steps = order[start : order.index(state) + 1] or (state,)
        live.run = await self._runs.move(live.run, *steps, **changes)

    def _deadline(self, run: Run, emad: Dispatchable, now: float) -> float:
        """When the run must be done: by its MAD's limit, its asker's wish, and before the run that asked for it."""
        latest = now + float(_least(emad.deadline_s, run.terms.get("seconds")))
        parent = self.all.get(run.parent)
        return min(latest, parent.run.deadline) if parent is not None and parent.run.deadline else latest

    async def _profile(self, live: Live, emad: Dispatchable) -> Profile:
        """The limits of the run's sandbox, with the image its asker may have wished for."""
        assert emad.profile is not None
        image = live.run.terms.get("image", "")
        return await self._workers.with_image(emad.profile, image) if image else emad.profile

    def _ports(self, live: Live, emad: Dispatchable) -> tuple[Context, Identity]:
        run, manifest = live.run, emad.mad.manifest
        budget = None if manifest is None else manifest.budget
        purse = Purse(
            usd=_least(None if budget is None else budget.usd, run.terms.get("usd")),
            tokens=_least(None if budget is None else budget.tokens, run.terms.get("tokens")),
            under=f"run:{run.parent}" if run.parent else "",
        )
        identity = Identity(
            participant=run.mad,
            ports=CORE_PORTS if manifest is None else frozenset(manifest.ports),
            run=run.id,
            conversation=run.conversation,
            core=manifest is None,
            purse=purse,
            web=tuple(run.terms["web"]) if run.terms.get("web") else None,
        )
        assignment = Assignment(
            participant=run.mad,
            run=run.id,
            conversation=run.conversation,
            trigger=run.trigger,
            deadline=run.deadline,
        )
        allowance = unlimited() if budget is None else Allowance(budget.bytes_in, budget.bytes_out, budget.bytes_said)
        return context_for(self._services, identity, assignment, allowance), identity

    async def _watch(self, live: Live, worker: Worker) -> Ending:
        """Waits until the worker has finished, ended, been cancelled, or overstayed."""
        session, run = worker.session, live.run

        async def sandbox_ended() -> None:
            await sleep(WATCH_AFTER_S)
            await worker.sandbox.wait()

        first = await first_of(
            session.done.wait, sandbox_ended, live.cancel.wait, self._deadline_of(run), worker.lapsed
        )
        if session.finished is not None and not live.run.killed:
            return await self._believed(live, worker)
        if first == 1:
            return ending_by_exit(await worker.sandbox.wait())
        if first == 2:
            await worker.end(live.cancel.reason, 0 if live.run.killed else GRACE_S)
            return _cancelled(live)
        if first == 3:
            await worker.end("The deadline has passed.", GRACE_S)
            return _overstayed(run)
        return Ending(Outcome.LOST, f"The worker was not heard of for {session.lease_s:.0f} s.")

    def _deadline_of(self, run: Run) -> Callable[[], Any]:
        async def passed() -> None:
            await sleep(max(0.0, run.deadline - time.time()))

        return passed

    async def _believed(self, live: Live, worker: Worker) -> Ending:
        emad = self._emads[live.run.mad]
        assert worker.session.finished is not None
        assert emad.mad.manifest is not None
        identity = self._ports(live, emad)[1]
        return await ending_by_word(self._services, identity, worker.session.finished, emad.mad.manifest.evidence)

    async def _collect(self, live: Live, ending: Ending) -> None:
        """Fixes the outcome, while whoever worked still stands."""
        run = live.run
        said = json.dumps([ending.reason, dict(ending.evidence), ending.artifacts]).encode()
        if hits := self._services.redactor.scan(said):
            speaker = self.who(run.id, run.conversation) or Who(run.mad, run.conversation, run.id)
            self._services.canaries.seen(speaker, "what it says it came to", hits)
        if live.run.killed:
            ending = _cancelled(live)
        if (series := await self.sampling.finish(run.id)) is not None:
            self._services.journal.append_soon(usage_entry(run.id, series, run.conversation))  # with the next commit
        live.run = await self._runs.move(
            run,
            State.COLLECTING,
            outcome=ending.outcome,
            reason=ending.reason,
            ended=time.time(),
            evidence=dict(ending.evidence),
            artifacts=ending.artifacts,
            cost=await self._cost(live),
        )
        if live.worker is not None:
            live.worker.session.recorded.set()

    async def _settle(self, run: Run) -> None:
        """Makes sure that the caller of an ended run was answered."""
        trigger = await self._services.rogers.find(run.trigger)
        if trigger is None:
            return
        answered = await self._services.rogers.find(answer_id(trigger))
        if answered is None and (trigger.kind == KIND_CALL or run.outcome not in GREEN):
            code = "no_answer" if run.outcome in GREEN else str(run.outcome)
            sentence = run.reason or f"The run ended without an answer: {run.outcome}."
            await self._services.rogers.fault(trigger, code, sentence, next=f"See: madlab show {run.id}")

    async def _cost(self, live: Live) -> dict[str, object]:
        cost: dict[str, object] = {"wall_s": round(time.time() - live.run.started, 3) if live.run.started else 0.0}
        cost |= await self._spent(live.run)
        worker = live.worker
        if worker is None:
            return cost
        ports = worker.session.context
        if ports is not None and isinstance(allowance := getattr(ports.files, "allowance", None), Allowance):
            cost |= {"bytes_in": allowance.used_in, "bytes_out": allowance.used_out, "dropped": allowance.dropped}
        try:
            usage = await worker.sandbox.usage()
            cost |= {"cpu_s": round(usage.cpu_seconds, 3), "memory_bytes": usage.memory_bytes}
        except SandboxError:
            pass  # it has ended: what it used is not known any more
        return cost

    async def _spent(self, run: Run) -> dict[str, object]:
        """What models have cost it and its children, where it may ask any."""
        fiedler = self._services.fiedler
        if fiedler is None:
            return {}
        account = await fiedler.ledger.account(f"run:{run.id}")
        return {"tokens": account.spent.tokens, "usd": dollars(account.spent.usd)} if account.parent else {}

    def _forget_inbox(self, run: Run) -> None:
        """Drops the place where an ended run was reading, before the next one in its conversation keeps its own."""
        self._services.journal.drop_cursor(run.mad, run.conversation)


def _least(*caps: float | None) -> Any:
    """The lowest of the caps that there are, None where there is none."""
    return min((each for each in caps if each is not None), default=None)


def _cancelled(live: Live) -> Ending:
    return Ending(Outcome.KILLED if live.run.killed else Outcome.CANCELLED, live.cancel.reason)


def _overstayed(run: Run) -> Ending:
    return Ending(Outcome.TIMED_OUT, f"It was not done after {run.deadline - run.started:.0f} s.")
