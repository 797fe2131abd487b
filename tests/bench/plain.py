"""What a careful person would write with Docker's API and nothing else: the baseline of everything that starts."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import docker
from anyio import fail_after

from core.manifest import load_manifest, profile_of
from protos.ids import new_id
from sandbox.cgroup import groups_of, usage_of
from sandbox.engine import DOOR, Program
from sandbox.engines.docker.config import container_config
from sandbox.profile import Profile
from tests.labs import ROOT

MIB = 1024 * 1024
SAY = f"""
import socket
door = socket.socket(socket.AF_UNIX)
door.connect({DOOR + "/gate.sock"!r})
door.send(b"x")
"""
IMPORTS = "import protos.host, tests.emads.echo" + SAY  # what a worker of echo imports
SLEEPS = SAY + "import time\ntime.sleep(600)"


@dataclass(frozen=True)
class Plain:
    """Containers with the limits, mounts and image of an echo worker, running a Python program of a few lines."""

    api: Any
    lab: str
    profile: Profile

    @asynccontextmanager
    async def container(self, program: str) -> AsyncIterator[tuple[str, float]]:
        """A container whose program has said its byte, and after how many milliseconds."""
        host = self.profile.entry[: self.profile.entry.index("-m")]
        profile = replace(self.profile, entry=(*host, "-c", program))
        with TemporaryDirectory(prefix="plain") as directory:
            Path(directory).chmod(0o711)
            async with await anyio.create_unix_listener(f"{directory}/gate.sock", mode=0o666) as listener:
                config = container_config(self.lab, f"plain-{new_id()[-8:]}", Program(profile, b"", Path(directory)))
                began = time.perf_counter()
                container = await anyio.to_thread.run_sync(self._create_and_start, config)
                try:
                    with fail_after(60):
                        async with await listener.accept() as stream:
                            await stream.receive(1)
                    yield container, (time.perf_counter() - began) * 1000
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(lambda: self.api.remove_container(container, force=True))

    async def start(self) -> float:
        """Milliseconds from the request until the worker's imports are done."""
        async with self.container(IMPORTS) as (_, ms):
            return ms

    def containers(self) -> list[str]:
        """The ids of the lab's running containers."""
        return [each["Id"] for each in self.api.containers(filters={"label": f"madlab.lab={self.lab}"})]

    def memory(self, container: str) -> float:
        """MiB that the kernel counts for a container, without the page cache but with its memory file systems."""
        pid = self.api.inspect_container(container)["State"]["Pid"]
        usage = usage_of(pid)
        assert usage is not None, "the container's control group cannot be seen from here"
        groups = groups_of(pid)
        lines = (groups.get("memory") or groups[""]).joinpath("memory.stat").read_text().splitlines()
        stat = {name: int(value) for name, value in map(str.split, lines)}
        cache = stat.get("total_cache", stat.get("file", 0)) - stat.get("total_shmem", stat.get("shmem", 0))
        return (usage.memory_bytes - cache) / MIB

    def _create_and_start(self, config: dict[str, Any]) -> str:
        container: str = self.api.create_container_from_config(config)["Id"]
        self.api.start(container)
        return container


@contextmanager
def plain_docker(lab: str) -> Iterator[Plain]:
    """The engine without us; its containers carry the lab's label, so that they are found if this process dies."""
    api: Any = docker.APIClient(version="auto")
    api.trust_env = False
    try:
        yield Plain(api, lab, profile_of(load_manifest(ROOT / "tests/emads/echo"), {}))
    finally:
        api.close()
