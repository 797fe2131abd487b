"""An engine of its own is stopped and started again under a waiting sandbox.

The engine of the machine is left alone: this one has its own socket, its own containers and images, and no network.
"""

import gc
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, to_thread

from sandbox.engine import Exit, Program, SandboxError
from sandbox.engines.docker import engine as docker
from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.docker.images import Images
from sandbox.images.build import Workshop, default_cache, read
from sandbox.profile import Profile
from tests.docker_lab import built

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd"), reason="a second engine takes root and dockerd"
    ),
]

LAB = "0f0f0f0f"


class OwnEngine:
    """A second dockerd."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{directory}/docker.sock"

    def start(self) -> None:
        there = self._directory
        options = ["--host", self.host, "--data-root", there / "data", "--exec-root", there / "exec"]
        options += ["--pidfile", there / "pid", "--config-file", there / "daemon.json"]
        options += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--live-restore"]
        (there / "daemon.json").write_text("{}")
        with (there / "log").open("ab") as log:
            command = ["dockerd", *(str(option) for option in options)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(300):
            if self._process.poll() is not None:
                break
            command = ["docker", "--host", self.host, "info"]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return
        pytest.skip(f"a second engine does not start here: {(there / 'log').read_text()[-300:]}")

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def own_engine() -> Iterator[OwnEngine]:
    with TemporaryDirectory(prefix="madlab-engine-", ignore_cleanup_errors=True) as directory:
        engine = OwnEngine(Path(directory))
        engine.start()
        try:
            yield engine
        finally:
            engine.end()
            subprocess.run(["umount", "-l", f"{directory}/data"], check=True)  # an engine mounts its data on itself
            gc.collect()  # the SDK leaves sockets of refused connections to the collector, which must not warn later


@asynccontextmanager
async def away(engine: OwnEngine) -> AsyncIterator[None]:
    """While it is stopped; it is there again at the end, for the other test too."""
    await to_thread.run_sync(engine.end)
    try:
        yield
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(engine.start)


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    """With the base image, whose layers are in the cache."""
    built("base")
    with own_engine() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.host)
        Workshop(Images(LAB), default_cache(), print).build(read("base"))
        yield engine


async def test_waiting_survives_a_restart_of_the_engine(engine: OwnEngine, tmp_path: Path) -> None:
    sandboxes = DockerEngine(LAB)
    door = tmp_path / "door"
    door.mkdir()
    code = "import time, sys; time.sleep(4); print('still here'); sys.exit(5)"
    program = Program(Profile("base", ("python3", "-c", code)), b"token\n", door)
    seen: list[Exit] = []
    async with sandboxes.open("survivor", program) as sandbox:

        async def wait() -> None:
            seen.append(await sandbox.wait())

        with fail_after(60):
            async with create_task_group() as tasks:
                tasks.start_soon(wait)
                await sleep(0.5)
                async with away(engine):
                    with pytest.raises(SandboxError, match="no Docker engine answers"):
                        await sandboxes.names()
    assert [(each.code, each.reason) for each in seen] == [(5, "exited")]
    assert await sandboxes.names() == []


async def test_an_engine_that_stays_away_is_an_error_of_the_wait(
    engine: OwnEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(docker, "_GONE", 1.0)
    door = tmp_path / "door"
    door.mkdir()
    program = Program(Profile("base", ("python3", "-c", "import time; time.sleep(99)")), b"token\n", door)
    with fail_after(90):
        async with DockerEngine(LAB).open("lonely", program) as sandbox, away(engine):
            with pytest.raises(SandboxError, match="stayed away"):
                await sandbox.wait()
    assert await DockerEngine(LAB).names() == []
