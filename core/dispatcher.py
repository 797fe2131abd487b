"""The dispatcher makes sure that somebody listens.

It carries no message. A call or prose for an eMAD is already in the journal when the dispatcher hears of it; it
requests a run for it, once (the run's id is made of the message's), and `core.lives` takes that run through the table:
a share of the machine, a worker, the assignment, the wait, the verdict, the end. The worker then reads the message
itself, from its inbox. So a crash at any point is a restart and a replay.

One run at a time serves an eMAD in one conversation, in the order of their messages, since they share an inbox. What a
run asks of others it asks in conversations within its own (`ID/1`): those are its children, as many side by side as
the machine admits.
"""

import time
from collections.abc import Mapping

import structlog
from anyio import TASK_STATUS_IGNORED, create_task_group
from anyio.abc import TaskGroup, TaskStatus

from core.lives import Live, Lives
from core.ports.services import Services
from core.router import Ephemeral, Nobody
from core.run import TAKEN_BACK, Run, State, resumed_by, title_of
from core.runs import Runs
from core.usage import Series
from core.workers import Worker, Workers
from protos.errors import Error
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from sandbox.engine import SandboxError
from sandbox.pool import Pool

logger = structlog.get_logger()

ENDED = "The run that asked for it has ended."
PEOPLE = frozenset({"operator"})  # recipients that are no MADs
SELF = "dispatcher"  # the participant whose durable cursor says how far the bus was read


class Dispatcher:
    """Starts the runs that messages wait for."""

    def __init__(
        self, services: Services, runs: Runs, workers: Workers, lives: Lives, pools: Mapping[str, Pool[Worker]]
    ) -> None:
        self._services, self._runs, self._workers, self._lives, self._pools = services, runs, workers, lives, pools

    def place(self, run: str) -> int | None:
        """How many runs are in front of one that waits, from 1; None when it does not wait."""
        return self._lives.place(run)

    def counts(self) -> dict[str, int]:
        """How many runs are at work and how many wait."""
        waiting = sum(live.run.state is State.REQUESTED for live in self._lives.all.values())
        return {"running": len(self._lives.all) - waiting, "queued": waiting}

    def queued_by(self, asker: str) -> int:
        """How many runs wait that one has asked for."""
        return sum(each.asker == asker for each in self._lives.waiting())

    def sandboxes(self) -> list[dict[str, object]]:
        """Every sandbox of the lab: at work for a run, waiting warm, or the home of a resident."""
        at_work = {live.worker.name: live.run for live in self._lives.all.values() if live.worker is not None}
        return [
            {
                "name": name,
                "mad": mad,
                "run": at_work[name].id if name in at_work else None,
                "state": str(at_work[name].state) if name in at_work else "warm" if mad in self._pools else "resident",
            }
            for name, mad in self._workers.standing.items()
        ]

    def live(self) -> list[Run]:
        """The runs that are not over."""
        return [each.run for each in self._lives.all.values()]

    def usage(self, run: str) -> Series | None:
        """What a run at work has used until now; None where nobody looks."""
        return self._lives.sampling.series(run)

    def children(self, run: str) -> list[Run]:
        """The runs at work for another one."""
        return [each.run for each in self._lives.all.values() if each.run.parent == run]

    async def cancel(self, run: str, reason: str) -> Run:
        """As `Lives.cancel`."""
        return await self._lives.cancel(run, reason)

    async def cancel_all(self, reason: str) -> None:
        """Before the lab is stopped: ends every run and waits until all are gone."""
        await self._lives.cancel_all(reason)

    def leave_workers(self) -> None:
        """Before the core goes: its workers stay and wait for the next one."""
        for live in self._lives.all.values():
            if live.worker is not None and live.run.state is State.RUNNING:
                live.worker.leave()

    async def serve(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Takes back what an earlier core left, then follows the bus. Ready when every live run's door listens."""
        services = self._services
        async with create_task_group() as tasks:
            tasks.start_soon(self._lives.sampling.serve)
            await self._reconcile(tasks)
            seen = await services.journal.cursor(SELF, "")
            async with services.rogers.follow_messages(after=seen) as messages:
                task_status.started()
                self._lives.heard.raise_to(seen)
                async for message in messages:
                    try:
                        live = await self._consider(message)
                    except Error as error:  # the journal is sealed: the message waits in it for the next core
                        logger.error("a message cannot be dispatched", message=message.id, reason=error.message)
                    else:
                        if live is not None:
                            tasks.start_soon(self._lives.go_on, live)
                        services.journal.keep_cursor(SELF, "", message.sequence)
                    self._lives.heard.raise_to(message.sequence)

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
        entered = [self._lives.enter(run) for run in left]  # all before any goes on: a run looks for its children
        for live in entered:
            if self._lives.is_orphan(live.run):
                await self._lives.cancel(live.run.id, ENDED)
            tasks.start_soon(self._lives.go_on, live)
            await live.settled.wait()

    async def _consider(self, message: Message) -> Live | None:
        """Requests a run where the message waits for an eMAD; buries it where it waits for nobody."""
        if message.kind not in (KIND_CALL, KIND_PROSE) or not message.recipient:
            return None
        rogers = self._services.rogers
        match self._services.registry.destination(message.recipient):
            case Ephemeral(name):
                return await self._request(name, message)
            case Nobody() if message.recipient not in PEOPLE:
                await rogers.dead_letter(message, f"nobody is called {message.recipient}")
                await rogers.fault(message, "unknown_recipient", f"Nobody here is called {message.recipient[:64]!r}.")
        return None

    async def _request(self, mad: str, message: Message) -> Live | None:
        """Requests the run of `mad` that the message starts. A message that has started its run starts no other."""
        lives, parent = self._lives, self._parent(message)
        run = Run(
            id=self._runs.id_of(mad, message.id),
            mad=mad,
            conversation=message.conversation,
            trigger=message.id,
            trigger_sequence=message.sequence,
            state=State.REQUESTED,
            created=time.time(),
            parent=parent,
            terms=terms_of(message),
            title=title_of(message),
            resumes=resumed_by(message),
            asker=lives.all[parent].run.asker if parent in lives.all else message.sender,
        )
        claims = await self._runs.claims(run.id, mad, message.id)
        if any(trigger == message.id for _, trigger in claims):
            return None
        if claims or run.id in lives.all:
            self._services.children.close(parent, message.id)
            sentence = f"Another message has started the run {run.id}, whose name this one would have."
            await self._services.rogers.fault(message, "conflict", sentence, next="Ask again with a new id.")
            return None
        live = lives.enter(run)  # before anybody can hear of it: who hears may want to cancel it
        try:
            await self._runs.request(run)
        except Error:
            lives.leave(live)
            raise
        if lives.is_orphan(run):
            await lives.cancel(run.id, ENDED)
        return live

    def _parent(self, message: Message) -> str:
        """The run that said it, as the core wrote into it then; not empty where a run has said it."""
        said_by_a_run = isinstance(self._services.registry.destination(message.sender), Ephemeral)
        return message.run or (message.sender if said_by_a_run else "")


def terms_of(message: Message) -> dict[str, float | str | list[str]]:
    """What whoever asks has set for the run: `usd`, `tokens`, `seconds`, `image`, `web`, as far as it did."""
    given = message.terms.ListFields()
    return {field.name: list(value) if field.name == "web" else value for field, value in given}
