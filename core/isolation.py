"""Whether a runtime was seen to stop what a profile wants stopped. Who asks for more than was seen is refused.

When the core starts it tries the runtimes that its profiles use, in the background, unless what was seen before still
counts (`sandbox.seen`). A sandbox is not opened before its runtime was tried. A core lives long, and an engine may be
updated or set up anew beneath it: after an hour it asks again whether what was seen still counts. Nothing is ever run
on less than asked: neither on another runtime, nor with a wall fewer.
"""

from collections.abc import Collection, Mapping, Sequence

import structlog
from anyio import TASK_STATUS_IGNORED, Lock, current_time
from anyio.abc import TaskStatus

from protos.errors import Denied
from sandbox.engine import Engine, SandboxError
from sandbox.grades import grade, is_enough, missing
from sandbox.probe import Check
from sandbox.profile import Profile
from sandbox.seen import Seen

logger = structlog.get_logger()

AGAIN_S = 60.0  # what was too little is looked at again, since somebody may have mended it
COUNTS_S = 3600.0  # what was enough counts so long, then `sandbox.seen` is asked again: cheap while nothing changed


class Isolation:
    """What the runtimes of one lab were seen to stop."""

    def __init__(self, engines: Mapping[str, Engine], seen: Seen) -> None:
        self._engines, self._seen = engines, seen
        self._checks: dict[str, tuple[float, Sequence[Check]]] = {}
        self._locks: dict[str, Lock] = {}

    async def serve(self, runtimes: Collection[str], *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Tries the runtimes, one after the other. Ready at once: who needs one waits for it."""
        task_status.started()
        for runtime in runtimes:
            try:
                found = grade(await self.checks(runtime))
                logger.info("runtime", name=runtime, grade=found)
            except SandboxError as error:
                logger.warning("a runtime cannot be tried", name=runtime, reason=str(error))

    async def require(self, profile: Profile) -> None:
        """Returns when the runtime of `profile` was seen to stop the least that it wants.

        Raises:
            Denied: it stops less.
            SandboxError: it cannot be tried.
        """
        if profile.least == "none":
            return
        checks = await self.checks(profile.runtime)
        if is_enough(grade(checks), profile.least):
            return
        began, checks = self._checks[profile.runtime]
        if current_time() - began > AGAIN_S:
            del self._checks[profile.runtime]
            checks = await self.checks(profile.runtime)
            if is_enough(grade(checks), profile.least):
                return
        walls = missing(checks, profile.least)
        raise Denied(
            f"rule isolation: the profile wants at least {profile.least!r}, and on this machine the runtime "
            f"{profile.runtime} was seen to stop {grade(checks)!r}: "
            + "; ".join(f"{each.name}: {each.detail}" for each in walls[:3])
            + (f"; and {len(walls) - 3} more" if len(walls) > 3 else "")
            + ".",
            next="See madlab doctor. Choose another runtime, or set `least` in [profile.NAME] if you accept it.",
        )

    async def checks(self, runtime: str) -> Sequence[Check]:
        """What became of each wall.

        Raises:
            SandboxError: it cannot be tried.
        """
        async with self._locks.setdefault(runtime, Lock()):
            known = self._checks.get(runtime)
            if known is None or current_time() - known[0] > COUNTS_S:
                known = self._checks[runtime] = current_time(), await self._look(runtime)
            return known[1]

    async def _look(self, runtime: str) -> Sequence[Check]:
        if runtime == "process":
            return ()  # nothing is between it and the machine, which is why nothing is tried either
        if runtime not in self._engines:
            raise SandboxError(f"There is no engine for the runtime {runtime!r}: choose {', '.join(self._engines)}.")
        found = await self._seen.checks(self._engines[runtime], runtime)
        if failed := [each for each in found if each.name == "starts"]:
            raise SandboxError(f"The runtime {runtime} cannot be tried: {failed[0].detail}")
        return found
