"""A worker: one sandbox, one door, one session. Opened for a run, for a resident outside the core, or to wait warm.

The order matters and is the same for all: first the door listens, then the sandbox starts and dials in. On the way
out the worker is told, waited for, destroyed, and then its door closes and its directory goes.
"""

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from anyio import current_time, move_on_after, sleep, to_thread

from core.gate import Session, hash_of, open_door
from core.isolation import Isolation
from core.redaction.canaries import Decoy
from core.redaction.redactor import Redactor
from core.waiting import first_of
from protos.errors import InvalidArgument, Unavailable
from sandbox.engine import Engine, Program, Sandbox, SandboxError
from sandbox.profile import Profile

logger = structlog.get_logger()

NEXT_STEP = "See madlab doctor."
START_LIMIT_S = 60.0  # from the engine's start to the worker's attach


@dataclass
class Worker:
    """One worker of the lab."""

    name: str
    session: Session
    sandbox: Sandbox

    async def attached(self) -> None:
        """Waits until the worker has attached.

        Raises:
            Unavailable: it ended first, or did not attach in time; the message holds the tail of what it wrote.
        """
        with move_on_after(START_LIMIT_S):
            if await first_of(self.session.attached.wait, self.sandbox.wait) == 0:
                return
            words = (await self.sandbox.wait()).last_words() or "none"
            raise Unavailable(f"The worker ended before it attached. Its last words: {words}", next=NEXT_STEP)
        raise Unavailable(f"The worker did not attach within {START_LIMIT_S:.0f} s.", next=NEXT_STEP)

    def leave(self) -> None:
        """Hands the worker over to the next core: leaving its context will not end it."""
        self.session.left = True
        self.sandbox.leave()

    async def lapsed(self) -> None:
        """Returns when the worker has not been heard of for a whole lease."""
        session = self.session
        while (left := session.heard + session.lease_s - current_time()) > 0:  # noqa: ASYNC110  it moves on
            await sleep(left)

    async def end(self, reason: str, grace_s: float) -> None:
        """Asks the worker to end, waits for the grace, then ends it."""
        self.session.tell_end(reason, grace_s)
        with move_on_after(grace_s):
            await self.sandbox.wait()
            return
        await self.sandbox.kill()


@dataclass
class Workers:
    """Opens workers for one lab."""

    lab: str  # the lab's id, eight hex digits
    directory: Path  # where socket directories go; short
    engines: Mapping[str, Engine]  # by runtime: "runc", "runsc", "bwrap", "process"
    isolation: Isolation
    lease_s: float
    redactor: Redactor = field(default_factory=Redactor)
    standing: dict[str, str] = field(default_factory=dict)  # sandboxes that exist now, each with the MAD it is for

    async def with_image(self, profile: Profile, image: str) -> Profile:
        """`profile` with another image: `lab:NAME` is one of this lab's, anything else a local one of the engine.

        The latter need not hold anything of ours: the worker is mounted into it.

        Raises:
            InvalidArgument: the eMAD cannot run in an image that is not ours.
            Unavailable: the worker for such images cannot be made here.
        """
        if image.startswith("lab:"):
            return replace(profile, image=image.removeprefix("lab:"))
        from sandbox.images.build import Refused, default_cache
        from sandbox.images.bundle import make_bundle, worker_entry  # the builder, which a core seldom needs

        try:
            bundle = await to_thread.run_sync(make_bundle, default_cache())
            entry = worker_entry(profile.entry)
        except Refused as error:
            raise Unavailable(f"The worker for other images cannot be made: {error}", next=NEXT_STEP) from None
        except ValueError as error:
            raise InvalidArgument(str(error), next="Leave the image out.") from None
        return replace(profile, image=image, foreign=True, entry=entry, bundles=(*profile.bundles, bundle))

    @asynccontextmanager
    async def open(self, mad: str, profile: Profile) -> AsyncIterator[Worker]:
        """Starts a worker, unattached. Leaving ends it without a trace, unless its sandbox was told to be left.

        Raises:
            Denied: its runtime was not seen to stop what the profile wants stopped.
            SandboxError: the engine could not start it.
        """
        await self.isolation.require(profile)
        name = f"{mad[:20]}-{secrets.token_hex(4)}"
        token = secrets.token_urlsafe(32)
        session = Session(lease_s=self.lease_s, token=hash_of(token), redactor=self.redactor)
        async with self._door(name, session) as directory:
            program = Program(profile=profile, stdin=token.encode() + b"\n", door=directory)
            async with self._engine(profile.runtime).open(name, program) as sandbox:
                with self._standing(name, mad):
                    yield Worker(name, session, sandbox)

    @asynccontextmanager
    async def adopt(self, name: str, mad: str, runtime: str, session: Session) -> AsyncIterator[Worker]:
        """Takes back a worker that an earlier core left: the same socket at the same path, the same session.

        Raises:
            SandboxError: its sandbox is gone.
        """
        session.restored = True
        async with self._door(name, session), self._engine(runtime).adopt(name) as sandbox:
            with self._standing(name, mad):
                yield Worker(name, session, sandbox)

    async def reap(self, keep: set[str]) -> list[str]:
        """Destroys what earlier cores left and nobody takes back: sandboxes, then socket directories."""
        gone: list[str] = []
        for engine in {id(each): each for each in self.engines.values()}.values():
            try:
                gone += await engine.reap(keep)
            except SandboxError as error:  # one that is not there must not keep the others from theirs
                logger.warning("an engine does not answer", engine=engine.name, reason=str(error))
        if self.directory.exists():
            for each in self.directory.iterdir():
                if each.name not in keep:
                    await to_thread.run_sync(lambda path=each: shutil.rmtree(path, ignore_errors=True))  # type: ignore[misc]
        return gone

    def lay(self, name: str, decoys: Sequence[Decoy]) -> None:
        """Puts decoys beside the socket of a worker, where whoever looks around finds them."""
        for each in decoys:
            file = self.directory / name / each.file
            file.write_bytes(each.content)
            os.chmod(file, 0o644)  # past the umask: the worker is another user

    @contextmanager
    def _standing(self, name: str, mad: str) -> Iterator[None]:
        self.standing[name] = mad
        try:
            yield
        finally:
            del self.standing[name]

    def _engine(self, runtime: str) -> Engine:
        if runtime not in self.engines:
            raise SandboxError(f"There is no engine for the runtime {runtime!r}: choose {', '.join(self.engines)}.")
        return self.engines[runtime]

    @asynccontextmanager
    async def _door(self, name: str, session: Session) -> AsyncIterator[Path]:
        directory = self.directory / name
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chmod(directory, 0o755)  # past the umask: the worker is another user, and may look what is there
        try:
            async with open_door(directory, session):
                yield directory
        finally:
            if not session.left:
                shutil.rmtree(directory, ignore_errors=True)


def opener(workers: Workers, mad: str, profile: Profile) -> AbstractAsyncContextManager[Worker]:
    """A worker that has attached: what the warm pool keeps."""

    @asynccontextmanager
    async def attached() -> AsyncIterator[Worker]:
        async with workers.open(mad, profile) as worker:
            await worker.attached()
            yield worker

    return attached()
