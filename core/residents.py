"""Keeps the residents going: in this process, in one of their own, or in a sandbox. One line of configuration decides.

A resident that raises answers with a fault and goes on. One that ends, blocks its thread, or is not heard of, is
restarted with a growing pause and shown with what it died of; the message it had in hand is answered by a fault and
not given again, so that no message can kill it for ever (of several in hand: the one that did, see `core.hands`). The
core and the other residents go on meanwhile.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import structlog
from anyio import TASK_STATUS_IGNORED, create_task_group, current_time, sleep
from anyio.abc import TaskStatus

from core.config import Resident
from core.hands import DEATHS, STEP_LIMIT_S, Fatal, Hands
from core.policy.capabilities import RESIDENT_PORTS, Identity
from core.ports.bus import LocalBus
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.steps import Blocked, in_steps
from core.waiting import first_of
from core.workers import Workers
from protos.errors import Error, InvalidArgument, Unavailable
from protos.mad import Context
from protos.serve import concurrency_of, serve
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from protos.v1.session_pb2 import Assignment
from sandbox.engine import SandboxError
from sandbox.profile import Profile

logger = structlog.get_logger()

FIRST_PAUSE_S, LAST_PAUSE_S = 0.2, 30.0
HEALTHY_S = 60.0  # who lived this long starts again with the first pause
MEMORY_MB, WORKSPACE_MB, PIDS = 256, 64, 128  # of a resident in a sandbox


class Ended(Exception):
    """A resident ended, which no resident should."""


@dataclass
class Kept:
    """One resident and how it fares."""

    name: str
    setting: Resident
    make: Callable[[], Any]
    state: str = "starting"
    restarts: int = 0
    last_error: str = ""
    context: Context | None = None
    hands: Hands | None = None  # where it takes several messages at once


def load_resident(name: str, setting: Resident) -> Callable[[], Any]:
    """The class that `residents.NAME.class` names. It is the operator's code: it may run in the core.

    Raises:
        InvalidArgument: there is no such module or class.
    """
    module, _, attribute = setting.class_.partition(":")
    try:
        made: Callable[[], Any] = getattr(import_module(module), attribute)
        return made
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(f"residents.{name}.class: {error}", next="Correct it in madlab.toml.") from None


class Residents:
    """All residents of one lab."""

    def __init__(self, services: Services, workers: Workers, made: Mapping[str, tuple[Resident, Callable[[], Any]]]):
        self._services, self._workers = services, workers
        self.kept = {name: Kept(name, setting, make) for name, (setting, make) in made.items()}

    async def serve(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Keeps them all. Ready at once: a message to one that starts slowly waits in its inbox."""
        async with create_task_group() as tasks:
            for each in self.kept.values():
                tasks.start_soon(self._keep, each)
            task_status.started()

    async def _keep(self, kept: Kept) -> None:
        pause = FIRST_PAUSE_S
        while True:
            began = current_time()
            try:
                await self._live(kept)
                kept.last_error = "It ended without being told to."
            except DEATHS as death:
                kept.last_error = _cause(death)
            except Exception as error:  # noqa: BLE001  whatever a resident dies of, the others must not
                kept.last_error = _cause(error)
            kept.state, kept.restarts = "waiting", kept.restarts + 1
            logger.warning("a resident died", mad=kept.name, reason=kept.last_error, restarts=kept.restarts)
            await self._bury(kept)
            if current_time() - began > HEALTHY_S:
                pause = FIRST_PAUSE_S
            await sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def _live(self, kept: Kept) -> None:
        kept.state = "starting"
        identity = Identity(participant=kept.name, ports=RESIDENT_PORTS)
        assignment = Assignment(participant=kept.name)
        kept.context = context_for(self._services, identity, assignment, unlimited())
        if kept.setting.home == "core":
            mad, apart = kept.make(), None
            if concurrency_of(mad) > 1:
                kept.hands = kept.hands or Hands(self._services, identity)
                kept.context, apart = kept.hands.context(), kept.hands.take
            kept.state = "running"
            await in_steps(serve(mad, kept.context, apart=apart), STEP_LIMIT_S)
            return
        async with self._workers.open(kept.name, self._profile(kept)) as worker:
            await worker.attached()
            worker.session.assign(kept.context)
            kept.state = "running"
            if await first_of(worker.sandbox.wait, worker.lapsed) == 0:
                exit = await worker.sandbox.wait()
                said = exit.last_words() or "none"
                raise Ended(f"Its process ended ({exit.reason}, code {exit.code}). Its last words: {said}")
            raise Ended(f"It was not heard of for {worker.session.lease_s:.0f} s.")

    def _profile(self, kept: Kept) -> Profile:
        setting = kept.setting
        host = ("-m", "protos.host", setting.class_)
        if setting.home == "process":
            entry = setting.command or (sys.executable, *host)
            return Profile(image="", entry=entry, runtime="process", least="none")  # it is the operator's own code
        return Profile(
            image=setting.image or kept.name,
            entry=("python3", *host),
            memory_mb=MEMORY_MB,
            workspace_mb=WORKSPACE_MB,
            pids=PIDS,
        )

    async def _bury(self, kept: Kept) -> None:
        """Answers the message it died with, and moves its inbox past it."""
        while kept.hands is not None and kept.hands.killers:
            await self._answer(kept, kept.hands.killers.pop(0))  # and the inbox moves when it is given again
        bus = kept.context.bus if kept.context is not None else None
        message = bus.in_hand if isinstance(bus, LocalBus) else None
        if message is not None and await self._answer(kept, message):
            self._services.journal.keep_cursor(kept.name, "", message.sequence)

    async def _answer(self, kept: Kept, message: Message) -> bool:
        """Whether a fault stands where its answer would, if it wants one."""
        sentence = f"{kept.name} ended while it handled this: {kept.last_error}"[:2000]
        try:
            if message.kind in (KIND_CALL, KIND_PROSE):
                await self._services.rogers.fault(message, "unavailable", sentence, next="Try again with a new id.")
        except Error as error:
            logger.error("a fault could not be published", mad=kept.name, reason=error.message)
            return False
        return True


def _cause(error: BaseException) -> str:
    """One line on why a resident died."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, Fatal) and error.__cause__ is not None:
        return _cause(error.__cause__)
    if isinstance(error, Blocked):
        return f"It kept the thread for more than {STEP_LIMIT_S:.0f} s."
    if isinstance(error, Ended | SandboxError):
        return str(error)
    if isinstance(error, Unavailable):
        return error.message
    return f"{type(error).__name__}: {error}"[:500]
