"""The dispatcher makes sure that somebody listens.

It carries no message. A call or prose for an eMAD is already in the journal when the dispatcher hears of it; it
requests a run for it, once (the run's id is made of the message's), and takes that run through the table of
`core.run`: a share of the machine, a worker, the assignment, the wait, the verdict, the end. The worker then reads
the message itself, from its inbox. So a crash at any point is a restart and a replay:

- a run without a worker (requested, admitted, starting) starts anew; whatever was half made is reaped by its label;
- a run with a worker (ready, running) is taken back: same door, same credential, and its worker dials in again;
- a run whose outcome is fixed (collecting) only has its sandbox destroyed.

One run at a time serves an eMAD in one conversation, in the order of their messages, since they share an inbox.
However a run ends, its caller hears: where the worker gave no answer, the core gives a fault in its place, under the
id that the answer would have had, so that there is exactly one.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import structlog
from anyio import TASK_STATUS_IGNORED, CancelScope, Event, Lock, create_task_group, sleep, sleep_forever
from anyio.abc import TaskGroup, TaskStatus

from core.admission import Admission
from core.gate import Session, check_evidence
from core.policy import Identity
from core.ports import Allowance, Services, context_for, may_read
from core.registry import RegisteredMad
from core.router import Ephemeral, Nobody
from core.run import Outcome, Run, State, judge, run_id
from core.runs import Runs
from core.waiting import Latch, first_of
from core.workers import Worker, Workers
from protos.errors import Conflict, Error, NotFound
from protos.mad import Context
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_PROSE, Message
from protos.v1.session_pb2 import Assignment
from protos.v1.session_pb2 import Outcome as WireOutcome
from sandbox.engine import Exit, SandboxError
from sandbox.pool import Pool
from sandbox.profile import Profile

logger = structlog.get_logger()

PEOPLE = frozenset({"operator"})  # recipients that are no MADs
GRACE_S = 2.0  # between asking a worker to end and ending it
WATCH_AFTER_S = 0.1  # what a worker has for its first words before the engine is asked to tell of its end
GIVE_UP_EXIT = 3  # a worker's own exit code when the core did not answer for a lease
SELF = "dispatcher"  # the participant whose durable cursor says how far the bus was read
TAKEN_BACK = frozenset({State.READY, State.RUNNING})  # states with a worker that outlives the core
GREEN = frozenset({Outcome.SUCCEEDED, Outcome.PARTIAL})


@dataclass
class Ending:
    """How a run ended, before it is written down."""

    outcome: Outcome
    reason: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    artifacts: list[dict[str, object]] = field(default_factory=list)


@dataclass
class Live:
    """A run that is not over."""

    run: Run
    cancel: Latch = field(default_factory=Latch)
    early: CancelScope = field(default_factory=CancelScope)  # cancelled to end what has no worker yet
    worker: Worker | None = None
    settled: Event = field(default_factory=Event)  # its door listens again, or it needs none


@dataclass(frozen=True)
class Dispatchable:
    """An eMAD as the dispatcher needs it."""

    mad: RegisteredMad
    profile: Profile
    deadline_s: float


class Dispatcher:
    """Starts, watches and ends the runs of eMADs."""

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
        self._live: dict[str, Live] = {}
        self._idle = Event()
        self._turns: WeakValueDictionary[tuple[str, str], Lock] = WeakValueDictionary()

    def place(self, run: str) -> int | None:
        """How many runs are in front of one that waits, from 1; None when it does not wait."""
        waiting = [each for each, live in self._live.items() if live.run.state is State.REQUESTED]
        return waiting.index(run) + 1 if run in waiting else None

    def counts(self) -> dict[str, int]:
        """How many runs are at work and how many wait."""
        waiting = sum(live.run.state is State.REQUESTED for live in self._live.values())
        return {"running": len(self._live) - waiting, "queued": waiting}

    def sandboxes(self) -> list[dict[str, object]]:
        """Every sandbox of the lab: at work for a run, waiting warm, or the home of a resident."""
        at_work = {live.worker.name: live.run for live in self._live.values() if live.worker is not None}
        return [
            {
                "name": name,
                "mad": mad,
                "run": at_work[name].id if name in at_work else None,
                "state": str(at_work[name].state) if name in at_work else "warm" if mad in self._pools else "resident",
            }
            for name, mad in self._workers.standing.items()
        ]

    async def cancel(self, run: str, reason: str) -> Run:
        """Asks a run to end; it becomes `cancelled` soon. The wish survives a restart of the core.

        Raises:
            NotFound: there never was such a run.
            Conflict: it has ended already.
        """
        live = self._live.get(run)
        if live is None:
            ended = await self._runs.get(run)
            raise Conflict(f"The run {run} has ended already: {ended.outcome}.", next=f"See: madlab show {run}")
        await self._runs.note(live.run, cancel=reason)
        live.run = replace(live.run, cancel=reason)  # it may have moved meanwhile
        live.cancel.set(reason)
        if live.worker is None:
            live.early.cancel()
        return live.run

    def leave_workers(self) -> None:
        """Before the core goes: its workers stay and wait for the next one."""
        for live in self._live.values():
            if live.worker is not None and live.run.state is State.RUNNING:
                live.worker.leave()

    async def cancel_all(self, reason: str) -> None:
        """Before the lab is stopped: ends every run and waits until all are gone."""
        for run in list(self._live):
            try:
                await self.cancel(run, reason)
            except (Conflict, NotFound):
                continue  # ended in between
        if self._live:
            self._idle = Event()
            await self._idle.wait()

    async def serve(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Takes back what an earlier core left, then follows the bus. Ready when every live run's door listens."""
        services = self._services
        async with create_task_group() as tasks:
            await self._reconcile(tasks)
            seen = await services.journal.cursor(SELF, "")
            head = services.journal.statistics().entries
            async with services.rogers.follow_messages(after=seen) as messages:
                task_status.started()
                async for message in messages:
                    try:
                        live = await self._consider(message, replayed=message.sequence <= head)
                    except Error as error:  # the journal is sealed: the message waits in it for the next core
                        logger.error("a message cannot be dispatched", message=message.id, reason=error.message)
                        continue
                    if live is not None:
                        tasks.start_soon(self._live_through, live)
                    services.journal.keep_cursor(SELF, "", message.sequence)

    async def _reconcile(self, tasks: TaskGroup) -> None:
        left = await self._runs.live()
        taken_back = {each.sandbox for each in left if each.state in TAKEN_BACK}
        try:
            gone = await self._workers.reap(taken_back)
        except SandboxError as error:
            logger.warning("the engine does not answer; what earlier cores left is reaped later", reason=str(error))
            gone = []
        if left or gone:
            logger.info("reconciled", runs=len(left), taken_back=len(taken_back), reaped=len(gone))
        for run in left:
            live = self._enter(run)
            tasks.start_soon(self._live_through, live)
            await live.settled.wait()

    async def _consider(self, message: Message, *, replayed: bool) -> Live | None:
        """Requests a run where the message waits for an eMAD; buries it where it waits for nobody."""
        if message.kind not in (KIND_CALL, KIND_PROSE) or not message.recipient:
            return None
        match self._services.registry.destination(message.recipient):
            case Ephemeral(name):
                run = Run(
                    id=run_id(name, message.id),
                    mad=name,
                    conversation=message.conversation,
                    trigger=message.id,
                    trigger_sequence=message.sequence,
                    state=State.REQUESTED,
                    created=time.time(),
                )
                if replayed and await self._runs.known(run.id):
                    return None
                live = self._enter(run)  # before anybody can hear of it: who hears may want to cancel it
                try:
                    await self._runs.request(run)
                except Error:
                    self._leave(live)
                    raise
                return live
            case Nobody() if message.recipient not in PEOPLE:
                await self._services.rogers.dead_letter(message, f"nobody is called {message.recipient}")
                await self._fault(message, "unknown_recipient", f"Nobody here is called {message.recipient[:64]!r}.")
        return None

    def _forget_inbox(self, run: Run) -> None:
        """Drops the place where an ended run was reading, before the next one in its conversation keeps its own."""
        self._services.journal.drop_cursor(run.mad, run.conversation)

    def _enter(self, run: Run) -> Live:
        live = self._live[run.id] = Live(run)
        if run.cancel:
            live.cancel.set(run.cancel)
        if run.state not in TAKEN_BACK:
            live.settled.set()
            if run.cancel:
                live.early.cancel()
        return live

    def _leave(self, live: Live) -> None:
        self._live.pop(live.run.id, None)
        if not self._live:
            self._idle.set()

    async def _live_through(self, live: Live) -> None:
        """One run, from where it stands to its end."""
        run = live.run
        turn = self._turns.setdefault((run.mad, run.conversation), Lock())
        try:
            if run.state is State.COLLECTING:
                self._forget_inbox(run)
            else:
                ending: Ending | None = None
                with live.early:
                    async with turn:
                        ending = await self._work(live)
                        self._forget_inbox(run)
                if live.run.state is not State.COLLECTING:
                    await self._collect(live, ending or Ending(Outcome.CANCELLED, live.cancel.reason))
            await self._settle(live.run)
            live.run = await self._runs.move(live.run, State.DESTROYED)
        except Error as error:
            # The journal is sealed: nothing more can be written down; the next core takes over from what is.
            logger.error("a run cannot go on", run=run.id, reason=error.message)
            await sleep_forever()
        finally:
            live.settled.set()
            self._leave(live)

    async def _work(self, live: Live) -> Ending | None:
        """Finds a worker, lets it work, fixes the outcome while the sandbox still stands."""
        emad = self._emads.get(live.run.mad)
        if emad is None:
            return Ending(Outcome.FAILED, f"There is no MAD called {live.run.mad} any more.")
        memory = emad.profile.memory_mb + emad.profile.workspace_mb
        resumed = live.run.state in TAKEN_BACK
        try:
            async with (
                self._admission.share(memory, at_once=resumed),
                self._adopted(live, emad) if resumed else self._worker(live, emad) as worker,
            ):
                live.worker = worker
                if not resumed:
                    await self._assign(live, emad, worker)
                live.settled.set()
                ending = await self._watch(live, worker)
                await self._collect(live, ending)
                return ending
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

    @asynccontextmanager
    async def _worker(self, live: Live, emad: Dispatchable) -> AsyncIterator[Worker]:
        """A worker that has attached: a warm one at once, or a new one."""
        pool = self._pools.get(live.run.mad)
        if pool is not None:
            async with pool.claim() as worker:
                yield worker
            return
        await self._move_up_to(live, State.STARTING)
        async with self._workers.open(live.run.mad, emad.profile) as worker:
            await worker.attached()
            yield worker

    def _adopted(self, live: Live, emad: Dispatchable) -> AbstractAsyncContextManager[Worker]:
        """The worker that an earlier core gave to this run."""
        run = live.run
        session = Session(
            lease_s=self._workers.lease_s,
            token=run.token,
            credential=run.credential,
            confirmed=run.confirmed,
        )
        session.assign(self._ports(live, emad))
        self._listen_for_proof(live, session)
        return self._workers.adopt(run.sandbox, run.mad, emad.profile.runtime, session)

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
            deadline=now + emad.deadline_s,
        )
        self._listen_for_proof(live, session)
        session.assign(self._ports(live, emad))

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

    def _ports(self, live: Live, emad: Dispatchable) -> Context:
        run, manifest = live.run, emad.mad.manifest
        assert manifest is not None
        identity = Identity(
            participant=run.mad, ports=frozenset(manifest.ports), run=run.id, conversation=run.conversation
        )
        assignment = Assignment(
            participant=run.mad,
            run=run.id,
            conversation=run.conversation,
            trigger=run.trigger,
            deadline=run.deadline,
        )
        budget = manifest.budget
        allowance = Allowance(budget.bytes_in, budget.bytes_out, budget.bytes_said)
        return context_for(self._services, identity, assignment, allowance)

    async def _watch(self, live: Live, worker: Worker) -> Ending:
        """Waits until the worker has finished, ended, been cancelled, or overstayed."""
        session, run = worker.session, live.run

        async def deadline() -> None:
            await sleep(max(0.0, run.deadline - time.time()))

        async def sandbox_ended() -> None:
            await sleep(WATCH_AFTER_S)
            await worker.sandbox.wait()

        first = await first_of(session.done.wait, sandbox_ended, live.cancel.wait, deadline, worker.lapsed)
        if session.finished is not None:
            return await self._verdict(live, worker)
        if first == 1:
            return ending_of(await worker.sandbox.wait())
        if first == 2:
            await worker.end(live.cancel.reason, GRACE_S)
            return Ending(Outcome.CANCELLED, live.cancel.reason)
        if first == 3:
            await worker.end("The deadline has passed.", GRACE_S)
            return Ending(Outcome.TIMED_OUT, f"It was not done after {run.deadline - run.started:.0f} s.")
        return Ending(Outcome.LOST, f"The worker was not heard of for {session.lease_s:.0f} s.")

    async def _verdict(self, live: Live, worker: Worker) -> Ending:
        """What the worker says it came to, as far as it can be believed."""
        finished = worker.session.finished
        manifest = self._emads[live.run.mad].mad.manifest
        assert finished is not None
        assert manifest is not None
        evidence = check_evidence(finished.evidence)
        name = WireOutcome.Name(finished.outcome).removeprefix("OUTCOME_").lower()
        claimed = Outcome(name) if name in set(Outcome) else Outcome.FAILED
        outcome, doubt = judge(claimed, evidence, manifest.evidence)
        artifacts: list[dict[str, object]] = []
        for each in finished.artifacts[:100]:
            try:
                await may_read(self._services, _identity(live, manifest.ports), each.digest)
                blob = await self._services.horace.stat(each.digest)
            except NotFound:
                outcome, doubt = Outcome.FAILED, "The worker named an artifact that it never stored."
                continue
            artifacts.append(
                {"digest": blob.digest, "size": blob.size, "name": each.name[:255], "media_type": each.media_type[:255]}
            )
        return Ending(outcome, doubt or finished.reason, evidence, artifacts)

    async def _collect(self, live: Live, ending: Ending) -> None:
        """Fixes the outcome, while the sandbox still stands."""
        run = live.run
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
            await self._fault(trigger, code, sentence, next=f"See: madlab show {run.id}")

    async def _cost(self, live: Live) -> dict[str, object]:
        cost: dict[str, object] = {"wall_s": round(time.time() - live.run.started, 3) if live.run.started else 0.0}
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

    async def _fault(self, question: Message, code: str, sentence: str, *, next: str = "") -> None:
        """The core's own answer where nobody else can give one."""
        await self._services.rogers.publish(
            Message(
                id=answer_id(question),
                conversation=question.conversation,
                recipient=question.sender,
                kind=KIND_FAULT,
                in_reply_to=question.id,
                causation=question.id,
                hops=question.hops + 1,
                tool=question.tool,
                text=sentence,
                data=json.dumps({"code": code, "message": sentence, "next": next}),
            ),
            sender="core",
        )


def ending_of(exit: Exit) -> Ending:
    """What it means that a worker ended before it reported."""
    words = f" Its last words: {exit.log[-600:]!r}" if exit.log else ""
    if exit.reason == "out_of_memory":
        return Ending(Outcome.OUT_OF_MEMORY, "It used more memory than its profile allows." + words)
    if exit.reason == "killed":
        return Ending(Outcome.KILLED, "Something outside the lab killed its sandbox." + words)
    if exit.code == GIVE_UP_EXIT:
        return Ending(Outcome.LOST, "The core was away for longer than the worker's lease." + words)
    return Ending(Outcome.FAILED, f"The worker ended with code {exit.code} before it reported." + words)


def _identity(live: Live, ports: tuple[str, ...]) -> Identity:
    return Identity(
        participant=live.run.mad, ports=frozenset(ports), run=live.run.id, conversation=live.run.conversation
    )
