"""Keeps the workers that serve local models: started when first asked, ended when nobody asks, started again after a
crash.

    asleep ──claim──▶ loading ──the worker says what it serves──▶ ready ──nobody for idle_s──▶ asleep
                         └──────────── it ended, or the engine refused ──── told to who waits ────┘

A model is claimed for each request that is answered by it. All that is open belongs to one task a model, so a claim
is a count and a line (`core.fiedler.line`), and can be given back from anywhere. The weights are a bundle: mounted
read-only, checked when they were installed. The worker has no port at all; it reads what strangers wrote.

A run that waits for a model must not be waited for by it: a model takes its memory at once and counts as no run, so
that runs that begin later wait for the memory that is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from anyio import TASK_STATUS_IGNORED, Event, create_task_group, current_time, fail_after, move_on_after, sleep_forever
from anyio.abc import TaskGroup, TaskStatus

from core.admission import Admission
from core.fiedler.line import Line
from core.fiedler.provider import Kind, Trouble
from core.fiedler.store import Store, Weights, catalogue
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.waiting import first_of
from core.workers import Worker, Workers
from protos.errors import Error, Unavailable
from protos.v1.session_pb2 import Assignment
from sandbox.engine import SandboxError
from sandbox.profile import Bundle, Profile

logger = structlog.get_logger()

LLAMA = Path(__file__).resolve().parents[1] / "periphery" / "llama"
PLACE = "/bundle/model"
LOAD_S = 180.0  # from the engine's start to a model that answers
PATIENCE_S = 60.0  # then who asks is told that it still loads
AGAIN_S = 5.0  # and to come again
GRACE_S = 2.0


@dataclass
class _Kept:
    """One model and how it fares."""

    weights: Weights
    state: str = "asleep"
    since: float = 0.0
    line: Line | None = None
    claims: int = 0
    idle_s: float = 0.0
    is_kept: bool = False  # a task is about it
    trouble: Trouble | None = None  # why the last worker did not come up
    changed: Event = field(default_factory=Event)

    def becomes(self, state: str) -> None:
        self.state, self.since = state, current_time()
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = Event()


class LocalModels:
    """The models of one lab, with workers while `serve` runs. `profile` is a worker's, without weights."""

    def __init__(self, store: Store | None, profile: Profile) -> None:
        self._store, self._profile = store, profile
        self._kept: dict[str, _Kept] = {}
        self._tasks: TaskGroup | None = None

    async def serve(
        self,
        services: Services,
        workers: Workers,
        admission: Admission,
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Keeps whatever is claimed."""
        self._services, self._workers, self._admission = services, workers, admission
        async with create_task_group() as self._tasks:
            task_status.started()
            await sleep_forever()

    # --- what a provider asks: `core.fiedler.providers.hosted.Hosts`

    async def claim(self, model: str, idle_s: float) -> Line:
        kept = self._find(model)
        kept.idle_s = idle_s
        kept.claims += 1
        kept.tell()
        try:
            with move_on_after(PATIENCE_S):
                return await self._line(kept)
            raise Trouble(
                Kind.OVERLOADED,
                f"The local model is still {kept.state}, for {current_time() - kept.since:.0f} s now.",
                retry_after_s=AGAIN_S,
            )
        except BaseException:
            self.release(model)
            raise

    def release(self, model: str) -> None:
        kept = self._kept[model]
        kept.claims -= 1
        kept.tell()

    def state(self, model: str) -> tuple[str, str]:
        weights = catalogue().get(model)
        if weights is None or self._store is None or not self._store.has(weights):
            return "not installed", f"Get it with: madlab model install {model}"
        kept = self._kept.get(model)
        if kept is None or kept.line is not None:
            return "ready", ""
        if kept.trouble is not None:
            return "failed", f"Its worker did not come up the last time: {kept.trouble.text}"
        return ("ready", "") if kept.state == "asleep" else (kept.state, "")

    def models(self) -> Sequence[str]:
        return [each.name for each in self._store.installed()] if self._store is not None else []

    # --- the workers

    def _find(self, model: str) -> _Kept:
        """
        Raises:
            Trouble: it is not installed.
        """
        state, missing = self.state(model)
        if state == "not installed":
            raise Trouble(Kind.MODEL, f"{model} is not installed. {missing}")
        return self._kept.setdefault(model, _Kept(catalogue()[model]))

    async def _line(self, kept: _Kept) -> Line:
        """
        Raises:
            Trouble: the worker did not come up.
        """
        if self._tasks is None:
            raise Trouble(Kind.UNREACHABLE, "The lab is not ready yet.", retry_after_s=1)
        while kept.line is None or kept.line.closed.is_set():
            if not kept.is_kept:
                kept.is_kept, kept.trouble = True, None
                self._tasks.start_soon(self._keep, kept)
            await kept.changed.wait()
            if kept.trouble is not None:
                raise kept.trouble
        return kept.line

    async def _keep(self, kept: _Kept) -> None:
        """One worker, from its start to its end."""
        kept.becomes("loading")
        began = current_time()
        try:
            profile = self._profile_for(kept.weights)
            memory_mb = profile.memory_mb + profile.workspace_mb
            async with (
                self._admission.share(memory_mb, at_once=True, runs=0),
                self._workers.open("llama", profile) as worker,
            ):
                line = worker.session.line = Line()
                try:
                    await self._load(worker, line)
                    kept.line = line
                    kept.becomes("ready")
                    logger.info("a local model is ready", model=kept.weights.name, seconds=current_time() - began)
                    reason = await self._until_over(kept, worker, line)
                    logger.info("a local model ends", model=kept.weights.name, reason=reason)
                    line.close(f"The worker of the local model ended: {reason}")
                    await worker.end(reason, GRACE_S)
                finally:
                    kept.line = None
                    line.close("The lab stopped serving the local model.")
        except (SandboxError, Error) as error:
            said = error.message if isinstance(error, Error) else str(error)
            kept.trouble = Trouble(Kind.UNREACHABLE, said)
            logger.warning("a local model did not come up", model=kept.weights.name, reason=said)
        except Exception as error:  # a fault of ours must not take the lab with it
            kept.trouble = Trouble(Kind.UNREACHABLE, "The core failed to start its worker.")
            logger.exception("a local model did not come up", model=kept.weights.name, error=repr(error))
        finally:
            kept.is_kept = False
            kept.becomes("asleep")

    async def _load(self, worker: Worker, line: Line) -> None:
        """Waits until the worker says what it serves.

        Raises:
            Unavailable: it ended, or took too long.
        """
        await worker.attached()
        identity = Identity(participant="llama", ports=frozenset())
        assignment = Assignment(participant="llama")
        worker.session.assign(context_for(self._services, identity, assignment, unlimited()))
        try:
            with fail_after(LOAD_S):
                if await first_of(line.ready.wait, line.closed.wait, worker.sandbox.wait) == 0:
                    return
        except TimeoutError:
            raise Unavailable(f"The local model was not loaded within {LOAD_S:.0f} s.") from None
        raise Unavailable(f"The worker of the local model ended while it loaded: {await _last_words(worker)}")

    async def _until_over(self, kept: _Kept, worker: Worker, line: Line) -> str:
        """Why the worker is to end, or has ended."""

        async def idle() -> None:
            while True:
                while kept.claims:
                    await kept.changed.wait()
                with move_on_after(kept.idle_s):
                    await kept.changed.wait()
                    continue
                return

        match await first_of(idle, worker.sandbox.wait, line.closed.wait, worker.lapsed):
            case 0:
                return f"nobody asked it for {kept.idle_s:.0f} s"
            case 3:
                return "it was not heard of any more"
            case _:
                return await _last_words(worker)

    def _profile_for(self, weights: Weights) -> Profile:
        assert self._store is not None
        bundle = Bundle(self._store.folder(weights), PLACE, f"sha256:{weights.sha256}")
        return replace(self._profile, memory_mb=max(self._profile.memory_mb, weights.memory_mb), bundles=(bundle,))


async def _last_words(worker: Worker) -> str:
    """How a worker ended that is about to."""
    with move_on_after(GRACE_S):
        exit = await worker.sandbox.wait()
        words = exit.last_words() if exit.reason != "out_of_memory" else ""
        return f"{exit.reason.replace('_', ' ')}, code {exit.code}." + (f" Its last words: {words}" if words else "")
    return "its stream broke."
