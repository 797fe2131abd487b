"""Ranks the runtimes of this machine by what they are seen to stop: each one is tried, now, from inside.

The order is that of the grades (`sandbox.grades`), and within a grade that of `RUNTIMES`. Host processes are named for
the sake of the picture and never tried: what the probe does would be done to this machine.

`python -m core.ranking` prints the runtimes that the profiles of a lab name, for deploy.sh.
"""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.config import Config, load
from core.home import Home
from core.manifest import load_manifest, profile_of
from protos.errors import Error
from sandbox.browser import probe_browser
from sandbox.engine import Engine, SandboxError
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.engines.docker.engine import DockerEngine
from sandbox.grades import WALLS, grade, missing
from sandbox.images.build import default_cache
from sandbox.images.unpacked import Images
from sandbox.probe import Check
from sandbox.profile import GRADES, Grade
from sandbox.seen import Seen

RUNTIMES = ("runsc", "runc", "bwrap", "process")


@dataclass(frozen=True)
class Rank:
    """One runtime: what it was seen to stop, and what of the next grade it was not."""

    runtime: str
    grade: Grade
    detail: str
    failed: tuple[str, ...] = ()  # walls of a container that did not hold
    mend: str = ""
    offered: bool = True  # False where it is not there, could not be tried, or did not start
    tried: bool = True  # here and now


def needed(config: Config | None) -> dict[str, Grade]:
    """The runtimes that profiles name, each with the most that one of them wants stopped."""
    found: dict[str, Grade] = {}
    for folder in config.emads if config else ():
        with suppress(Error):  # a manifest that cannot be read is another finding's
            manifest = load_manifest(folder)
            profile = profile_of(manifest, config.overrides(manifest.name) if config else {})
            found[profile.runtime] = max(found.get(profile.runtime, "none"), profile.least, key=GRADES.index)
    return found or {"runc": "container"}


async def ranks(lab: str) -> AsyncIterator[Rank]:
    """Every runtime, tried one after the other, as the images of that lab allow. Takes some seconds for each."""
    docker = DockerEngine(lab)
    seen = Seen(default_cache().parent / "seen")
    try:
        with tempfile.TemporaryDirectory(prefix="madlab-") as directory:
            bubblewrap = BubblewrapEngine(lab, Path(directory) / "b", Images(lab, default_cache()))
            for runtime in RUNTIMES[:-1]:
                yield await _rank(seen, bubblewrap if runtime == "bwrap" else docker, runtime)
    finally:
        await docker.aclose()
    detail = "nothing is between a host process and the machine, so nothing is tried: for residents of yours alone"
    yield Rank("process", "none", detail, tried=False)


async def try_browser(lab: str, runtime: str) -> Check:
    """Whether Chromium's own sandbox stands under a runtime, with that lab's image. Takes some seconds."""
    if runtime == "bwrap":
        with tempfile.TemporaryDirectory(prefix="madlab-") as directory:
            engine = BubblewrapEngine(lab, Path(directory) / "b", Images(lab, default_cache()))
            return await probe_browser(engine, runtime)
    docker = DockerEngine(lab)
    try:
        return await probe_browser(docker, runtime)
    finally:
        await docker.aclose()


async def _rank(seen: Seen, engine: Engine, runtime: str) -> Rank:
    try:
        if isinstance(engine, DockerEngine) and runtime not in await engine.runtimes():
            mend = "run ./deploy.sh as root, which offers gVisor where it can be had" if runtime == "runsc" else ""
            return Rank(
                runtime,
                "none",
                "the engine does not have it",
                mend=mend or "mend the engine",
                offered=False,
                tried=False,
            )
        checks = await seen.checks(engine, runtime, again=True)
    except SandboxError as error:
        return Rank(runtime, "none", str(error), offered=False, tried=False)
    if starts := [each for each in checks if each.name == "starts"]:
        return Rank(runtime, "none", starts[0].detail, mend=starts[0].mend, offered=False)
    found, failed = grade(checks), missing(checks, "container")
    if not failed:
        held = len(WALLS["container"])
        return Rank(runtime, found, f"all {held} walls held when they were tried from inside{_beyond(found)}")
    words = "; ".join(f"{each.name}: {each.detail}" for each in failed[:4])
    detail = f"{len(failed)} of {len(WALLS['container'])} walls do not hold: {words}"
    return Rank(runtime, found, detail, tuple(each.name for each in failed), failed[0].mend)


def _beyond(found: Grade) -> str:
    return ", and a kernel of its own is behind them" if found == "kernel" else ""


if __name__ == "__main__":
    try:
        sys.stdout.write(" ".join(needed(load(Home.open()))) + "\n")
    except Error as error:
        sys.exit(f"{error.message} {error.next}")
