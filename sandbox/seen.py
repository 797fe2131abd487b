"""What runtimes were seen to stop on this machine, remembered, because to see it takes seconds.

A look is worth nothing any more once something changed that it depends on: the machine was started again, the engine or
the runtime is another or has other arguments, or the code that makes or tries the walls is another. All of that is in
the name under which it is kept. What was good is looked at again after a day, what was not after a minute, and what
could not be tried at all is not kept. One process at a time looks; the others wait for what it finds.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

from anyio import sleep, to_thread

from sandbox.engine import Engine, SandboxError
from sandbox.grades import KERNEL, grade, is_enough
from sandbox.probe import Check, probe

logger = logging.getLogger(__name__)

_ROOM = Path(__file__).parent
_GOOD_S, _BAD_S = 24 * 3600.0, 60.0
_AGAIN_S = 0.2  # between two tries to be the one who looks
_NOISY = {"starts", "processor", "processes", "memory"}  # what a busy machine can spoil: that alone is tried twice


class Seen:
    """What was seen, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def checks(self, engine: Engine, runtime: str, *, again: bool = False) -> list[Check]:
        """The checks of a runtime: what is remembered, or a new look, which is made in any case when `again`.

        Raises:
            SandboxError: the engine does not answer.
        """
        name = f"{runtime}-{await _identity(engine, runtime)}.json"
        if not again and (found := await to_thread.run_sync(self._recall, name)):
            return found
        async with self._alone():
            if not again and (found := await to_thread.run_sync(self._recall, name)):
                return found
            looked = await probe(engine, runtime)
            if {check.name for check in looked if not check.ok} - {"own kernel"} <= _NOISY and not _is_good(looked):
                looked = await probe(engine, runtime)
            if {check.name for check in looked} >= KERNEL:
                await to_thread.run_sync(self._keep, runtime, name, looked)
            return looked

    def _recall(self, name: str) -> list[Check]:
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads((self._folder / name).read_text())
            checks = [Check(**each) for each in found["checks"]]
            if 0 <= time.time() - found["at"] < (_GOOD_S if _is_good(checks) else _BAD_S):
                return checks
        return []

    def _keep(self, runtime: str, name: str, checks: Sequence[Check]) -> None:
        try:
            unfinished = self._folder / f".{name}.{os.getpid()}"
            unfinished.write_text(json.dumps({"at": time.time(), "checks": [asdict(each) for each in checks]}))
            unfinished.rename(self._folder / name)
            for old in self._folder.glob(f"{runtime}-*.json"):
                if old.name != name:
                    old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("what %s was seen to stop cannot be kept: %s", runtime, error)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Several at once would spoil each other's look at what a processor gives."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SandboxError(f"{self._folder} is needed to remember what was seen: {error}") from error
        try:
            while not _locked(lock):  # noqa: ASYNC110  another process tells nobody when it is done
                await sleep(_AGAIN_S)
            yield
        finally:
            os.close(lock)


def _is_good(checks: Sequence[Check]) -> bool:
    return is_enough(grade(checks), "container")


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _identity(engine: Engine, runtime: str) -> str:
    """A digest of all that a look depends on."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()  # noqa: ASYNC240  from memory
    parts = (boot, os.uname().release, str(os.geteuid()), runtime, engine.name, await engine.about(runtime), _code())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """A digest of the code that makes walls and tries them."""
    files = sorted([*_ROOM.glob("*.py"), *_ROOM.glob("engines/**/*.py"), *_ROOM.glob("profiles/*.py")])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
