"""From asking an engine for a sandbox to the first byte of its program: bubblewrap beside runc, in turns.

The program imports what a worker imports and says one byte through the socket in its door; image, limits and mounts are
an echo worker's. Then the same with a program that imports nothing, which is what the engine alone takes; and what the
keeper of a bubblewrap sandbox holds of memory while it waits, which Docker's daemons would.
"""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from anyio import fail_after

from core.manifest import load_manifest, profile_of
from protos.ids import new_id
from sandbox.engine import Engine, Program
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.engines.docker.engine import DockerEngine
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images
from sandbox.profile import Profile
from tests.bench.figure import Figure, in_turns
from tests.bench.plain import IMPORTS, SAY, SLEEPS
from tests.labs import EMADS, ROOT, a_home, build

IMAGES = ("base", "tests/emads/echo")
ROUNDS = 20
MIB = 1024 * 1024


async def run() -> list[Figure]:
    """Starts with and without a worker's imports; the memory of a keeper."""
    with a_home(EMADS, images=IMAGES) as home, TemporaryDirectory(prefix="bench") as directory:
        build(home.lab, IMAGES, unpacked=True)
        images = Images(home.lab, default_cache())
        docker, bubblewrap = DockerEngine(home.lab), BubblewrapEngine(home.lab, Path(directory), images)
        profile = profile_of(load_manifest(ROOT / "tests/emads/echo"), {})
        try:
            figures = []
            for name, code in (("start", IMPORTS), ("bare start", SAY)):
                of = await in_turns(
                    {
                        "bwrap": lambda code=code: start(bubblewrap, profile, code),  # type: ignore[misc]
                        "runc": lambda code=code: start(docker, profile, code),  # type: ignore[misc]
                    },
                    ROUNDS,
                )
                figures.append(Figure(f"{name}, bubblewrap", of["bwrap"], "ms", "runc by Docker", of["runc"]))
            figures.append(Figure("a keeper's memory", await keeper_memory(bubblewrap, profile), "MiB"))
            return figures
        finally:
            images.forget()
            await docker.aclose()


async def start(engine: Engine, profile: Profile, code: str) -> float:
    """Milliseconds until the program has said its byte."""
    host = profile.entry[: profile.entry.index("-m")]
    with TemporaryDirectory(prefix="door") as directory:
        Path(directory).chmod(0o711)
        async with await anyio.create_unix_listener(f"{directory}/gate.sock", mode=0o666) as listener:
            program = Program(replace(profile, entry=(*host, "-c", code)), b"", Path(directory))
            began = time.perf_counter()
            async with engine.open(f"bench-{new_id()[-8:]}", program):
                with fail_after(60):
                    async with await listener.accept() as stream:
                        await stream.receive(1)
                return (time.perf_counter() - began) * 1000


async def keeper_memory(engine: BubblewrapEngine, profile: Profile) -> float:
    """MiB that are the keeper's alone, of one sandbox that sleeps."""
    host = profile.entry[: profile.entry.index("-m")]
    with TemporaryDirectory(prefix="door") as directory:
        name = f"bench-{new_id()[-8:]}"
        sleeping = replace(profile, entry=(*host, "-c", SLEEPS.replace(SAY, "")))
        async with engine.open(name, Program(sleeping, b"", Path(directory))):
            for each in Path("/proc").glob("[0-9]*/cwd"):
                with suppress(OSError):
                    if each.readlink().name == name:
                        rollup = each.with_name("smaps_rollup").read_text()
                        kib = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private"))
                        return kib / 1024
    raise AssertionError("no process keeps the sandbox")
