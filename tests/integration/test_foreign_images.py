"""Images that are not ours: the worker comes along in a bundle, and the programs of the image do not notice."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import fail_after

from sandbox.engine import Exit, Program, SandboxError
from sandbox.engines.docker.engine import DockerEngine
from sandbox.images.build import default_cache
from sandbox.images.bundle import make_bundle, worker_entry
from sandbox.profile import Profile
from tests.docker_lab import docker_lab, need_runtime
from tests.foreign import bare_tree, foreign_image

pytestmark = pytest.mark.docker

# What an image may say of itself: settings for its own programs, and volumes.
CHANGES = [
    "ENV PATH=/usr/bin:/opt/own",
    "ENV LD_LIBRARY_PATH=/opt/own/lib",
    "ENV PYTHONPATH=/opt/own/python",
    "ENV PYTHONHOME=/opt/own",
    "ENV LD_PRELOAD=/opt/own/lib/faster.so",
    "ENV COLOUR=red",
    "VOLUME /data",
    "VOLUME /workspace",
    'ENTRYPOINT ["/bin/false"]',
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    docker_lab()
    tree = tmp_path_factory.mktemp("bare")
    bare_tree(tree)
    (tree / "data").mkdir()
    (tree / "data/kept").write_text("kept")
    with foreign_image(tree, CHANGES) as name:
        yield name


async def run(image: str, code: str, tmp_path: Path, runtime: str = "runc") -> Exit:
    door = tmp_path / "door"
    door.mkdir(mode=0o711, exist_ok=True)
    entry = worker_entry(("python3", "-c", code))
    profile = Profile(image, entry, runtime=runtime, foreign=True, bundles=(make_bundle(default_cache()),))
    async with DockerEngine(docker_lab()).open(f"t-{secrets.token_hex(4)}", Program(profile, b"\n", door)) as sandbox:
        with fail_after(120):
            return await sandbox.wait()


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
async def test_the_worker_runs_where_there_is_no_python_and_no_c_library(
    bare: str, tmp_path: Path, runtime: str
) -> None:
    need_runtime(runtime)
    ended = await run(
        bare,
        "import sys, grpc.aio, anyio, ssl, sqlite3, uvicorn, protos.host, periphery.doors, periphery.hopper\n"
        "print(sys.prefix, all(path.startswith('/bundle/worker/') for path in sys.path), sys.flags.isolated)",
        tmp_path,
        runtime,
    )
    assert ended.code == 0, ended.log
    assert "/bundle/worker/usr True 1" in ended.log


async def test_what_the_worker_starts_sees_the_image_as_it_is(bare: str, tmp_path: Path) -> None:
    ended = await run(
        bare,
        "import subprocess\n"
        "print(subprocess.run(['sh', '-c', 'env; readlink /proc/self/exe'],"
        " capture_output=True, text=True).stdout)",
        tmp_path,
    )
    assert ended.code == 0, ended.log
    lines = ended.log.splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    assert said["LD_LIBRARY_PATH"] == "/opt/own/lib"
    assert said["PATH"] == "/usr/bin:/opt/own"
    assert said["COLOUR"] == "red"
    assert not any(value.startswith("/bundle/worker") for value in said.values())
    assert "/usr/bin/busybox" in lines


async def test_a_volume_of_an_image_is_small_and_in_memory(bare: str, tmp_path: Path) -> None:
    ended = await run(
        bare,
        """
import os
for folder in ("/data", "/workspace", "/", "/bundle/worker", "/usr"):
    try:
        open(os.path.join(folder, "new"), "w").close()
        print(folder, "takes it")
    except OSError as error:
        print(folder, error.strerror)
for folder in ("/data", "/workspace"):
    print(os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize >> 20)
""",
        tmp_path,
    )
    assert ended.code == 0, ended.log
    assert ended.log.splitlines() == [
        "/data takes it",
        "/workspace takes it",
        "/ Read-only file system",
        "/bundle/worker Read-only file system",
        "/usr Read-only file system",
        "8",
        "64",
    ]


async def test_an_image_that_is_not_there_is_not_pulled(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="nothing is pulled"):
        await run("somebodys/nowhere:1", "", tmp_path)


def test_a_bundle_is_made_once_and_named_by_what_is_in_it() -> None:
    first, again = make_bundle(default_cache()), make_bundle(default_cache())
    assert first == again
    assert first.host.name == f"worker-{first.digest[7:23]}"


def test_only_a_worker_in_python_comes_along() -> None:
    with pytest.raises(ValueError, match="node"):
        worker_entry(("node", "echo.mjs"))
