"""Docker as an engine: hardened containers by the API. Nothing outside this room imports `docker`.

The rules of this room:

1. Blocking calls run in threads, at most four at a time: the engine is a queue, and a hundred creations at once take
   it twice as long as four at a time. Waiting for an end takes no thread: it is a connection that becomes readable.
2. A container is created under a shield and the `try` begins on the next line, so that no cancellation leaks one.
   Leaving destroys it, shielded and bounded; what could not be destroyed is found by its label and reaped.
3. There is no exec and no archive call here, and there will be none: both have let containers write to the host.
4. What was asked of the engine is not taken for granted: `sandbox.probe` looks from inside.
"""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from anyio import (
    CancelScope,
    CapacityLimiter,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
    to_thread,
    wait_readable,
)

from sandbox.cgroup import starved
from sandbox.engine import Exit, Meter, Program, SandboxError, Usage
from sandbox.engines.docker import containers
from sandbox.engines.docker.client import open_client, speaking_plainly
from sandbox.engines.docker.config import SMALL_MB, container_config, image_of, tmpfs

T = TypeVar("T")
logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CALLS = 4  # in flight; see rule 1
_GONE = 60.0  # seconds an engine may be away, as when it restarts
_DESTROY = 30.0
_LOOK = 1.0  # between two looks at the memory of a sandbox that cannot tell by itself


class DockerSandbox:
    """One container."""

    def __init__(self, name: str, container: str, engine: "DockerEngine", *, own_kernel: bool = True) -> None:
        self.name = name
        self._container = container
        self._engine = engine
        self._exit: Exit | None = None
        self._own_kernel = own_kernel  # or may have one: of an adopted sandbox nobody has asked yet
        self._starved = False
        self.left = False

    async def wait(self) -> Exit:
        """See `Sandbox.wait`."""
        away_since: float | None = None
        while self._exit is None:
            try:
                if await self._over():
                    break
                away_since = None
            except SandboxError as error:
                away_since = away_since or current_time()
                if current_time() - away_since > _GONE:
                    raise SandboxError(f"the Docker engine went away and stayed away for {_GONE:.0f} s") from error
                await sleep(0.5)
        assert self._exit is not None
        return self._exit

    async def _over(self) -> bool:
        """Waits for the engine to say anything about the container's end, then looks for itself."""
        response = await self._engine.call(containers.open_wait, self._container)
        if response is not None:
            try:
                # The answer may have come with the headers: then it is in the buffer, and the socket stays silent.
                connection = containers.connection_of(response)
                connection.setblocking(False)
                if not response.raw._fp.fp.peek(1):
                    async with create_task_group() as tasks:
                        tasks.start_soon(self._end_when_starved)
                        await wait_readable(connection)
                        tasks.cancel_scope.cancel()
            finally:
                response.close()
        self._exit = await self._engine.call(containers.read_exit, self._container)
        if self._starved and self._exit is not None and self._exit.reason == "killed":
            self._exit = replace(self._exit, reason="out_of_memory")
        return self._exit is not None

    async def _end_when_starved(self) -> None:
        """Ends a sandbox of gVisor that ran out of memory.

        The host's kernel then kills a process that holds the sandbox's memory, often not gVisor's own kernel, which
        does not notice and waits for it for ever.
        """
        try:
            pid = await self._engine.call(containers.kernel, self._container) if self._own_kernel else 0
            while pid:
                await sleep(_LOOK)
                if starved(pid):
                    self._starved = True
                    await self.kill()
                    return
        except SandboxError as error:
            logger.debug("container %s cannot be watched: %s", self._container[:12], error)

    async def kill(self) -> None:
        """See `Sandbox.kill`."""
        await self._engine.call(containers.kill, self._container)

    async def usage(self) -> Usage:
        """See `Sandbox.usage`."""
        return await self._engine.call(containers.usage, self._container)

    async def meter(self) -> Meter:
        """See `Sandbox.meter`."""
        return await self._engine.call(containers.meter, self._container)

    def leave(self) -> None:
        """See `Sandbox.leave`."""
        self.left = True


class DockerEngine:
    """The containers of one lab."""

    name = "docker"

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._api: Any = None
        self._limiter = CapacityLimiter(_CALLS)

    async def call(
        self, function: Callable[..., T], *arguments: Any, image: str = "", runtime: str = "", foreign: bool = False
    ) -> T:
        """Runs `function(api, *arguments)` in a thread; its errors come back as SandboxError."""

        def run() -> T:
            if self._api is None:
                self._api = open_client()
            with speaking_plainly(image, runtime, foreign=foreign):
                return function(self._api, *arguments)

        return await to_thread.run_sync(run, limiter=self._limiter)

    async def aclose(self) -> None:
        """Closes the connections to the engine; a later call opens new ones."""
        api, self._api = self._api, None
        if api is not None:
            await to_thread.run_sync(api.close)

    def _container(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name!r} is no name for a sandbox: use a-z, 0-9 and -, at most 63")
        return f"madlab-{self._lab[:8]}-{name}"

    @asynccontextmanager
    async def open(self, name: str, program: Program) -> AsyncIterator[DockerSandbox]:
        """See `Engine.open`."""
        container = self._container(name)
        profile = program.profile
        image, runtime = image_of(self._lab, profile), profile.runtime
        config = container_config(self._lab, name, program)
        call = partial(self.call, image=image, runtime=runtime, foreign=profile.foreign)
        if profile.foreign:
            config["Image"], volumes = await call(containers.inspect_foreign, image)
            config["Env"].append("LD_PRELOAD=")  # what an image loads into its programs does not fit into the worker
            given = config["HostConfig"]
            taken = {*given["Tmpfs"], *(mount["Target"] for mount in given["Mounts"])}
            given["Tmpfs"] |= {place: tmpfs(SMALL_MB) for place in volumes if place not in taken}
        with CancelScope(shield=True):
            identity = await call(containers.create, container, config)
        sandbox = DockerSandbox(name, identity, self, own_kernel=runtime.startswith("runsc"))
        try:
            await call(containers.start, identity, program.stdin)
            yield sandbox
        finally:
            await self._leave(sandbox, identity)

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[DockerSandbox]:
        """See `Engine.adopt`."""
        identity = await self.call(containers.find, self._container(name), self._lab)
        if identity is None:
            raise SandboxError(f"lab {self._lab[:8]} has no sandbox {name!r}")
        sandbox = DockerSandbox(name, identity, self)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox, identity)

    async def _leave(self, sandbox: DockerSandbox, identity: str) -> None:
        if not sandbox.left:
            with move_on_after(_DESTROY, shield=True):
                await self._destroy(identity)

    async def _destroy(self, container: str) -> bool:
        try:
            await self.call(containers.remove, container)
        except SandboxError as error:
            logger.warning("container %s could not be removed and waits to be reaped: %s", container[:12], error)
            return False
        return True

    async def names(self) -> list[str]:
        """See `Engine.names`."""
        return sorted((await self.call(containers.list_all, self._lab)).values())

    async def reap(self, keep: Collection[str]) -> list[str]:
        """See `Engine.reap`."""
        found = await self.call(containers.list_all, self._lab)
        reaped: list[str] = []

        async def destroy(container: str, name: str) -> None:
            if await self._destroy(container):
                reaped.append(name)

        async with create_task_group() as tasks:
            for container, name in found.items():
                if name not in keep:
                    tasks.start_soon(destroy, container, name)
        return sorted(reaped)

    async def about(self, runtime: str) -> str:
        """See `Engine.about`."""
        info = await self.call(lambda api: api.info())
        said = {
            key: info.get(key) for key in ("ID", "ServerVersion", "KernelVersion", "SecurityOptions", "CgroupVersion")
        }
        return json.dumps([said, info["Runtimes"].get(runtime)], sort_keys=True)

    async def runtimes(self) -> list[str]:
        """The OCI runtimes that the engine says it has. Whether one can be trusted is for `sandbox.probe` to find out.

        Raises:
            SandboxError: the engine does not answer.
        """
        return sorted(await self.call(lambda api: list(api.info()["Runtimes"])))
