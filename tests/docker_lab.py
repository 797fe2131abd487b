"""A lab of its own on the Docker engine, for the tests that start sandboxes: images in, everything out at the end."""

import atexit
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import anyio
import pytest

from sandbox.engine import Engine, SandboxError
from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.docker.images import Images
from sandbox.grades import grade, is_enough, missing
from sandbox.images.build import Refused, Workshop, default_cache, read
from sandbox.seen import Seen


@cache
def docker_lab() -> str:
    """The id of a lab that lives as long as this process of tests. Skips, with the reason, where no engine answers."""
    lab = secrets.token_hex(8)
    try:
        images = Images(lab)
    except SandboxError as error:
        pytest.skip(str(error))
    atexit.register(_remove, lab, images)
    return lab


@cache
def built(image: str) -> None:
    """Builds an image for that lab; nothing happens where the same was built before, by this lab or another."""
    try:
        Workshop(Images(docker_lab()), default_cache(), print).build(read(image))
    except Refused as error:
        pytest.skip(f"the image {image} cannot be built here: {error}")


@cache
def _why_not(runtime: str) -> str:
    return why_not(DockerEngine(docker_lab()), runtime)


def why_not(engine: Engine, runtime: str) -> str:
    """Why a runtime is no good for code that is not ours, as a core would see it; empty where it is."""
    seen = Seen(default_cache().parent / "seen")
    with ThreadPoolExecutor(1) as thread:  # the asking test may have a loop of its own
        checks = thread.submit(lambda: anyio.run(seen.checks, engine, runtime)).result()
    if is_enough(grade(checks), "container"):
        return ""
    return "; ".join(f"{each.name}: {each.detail}" for each in (*checks[:1], *missing(checks, "container")))


def need_runtime(runtime: str) -> str:
    """The lab, with the base image, where the probe accepts `runtime`; else skips with what the probe found."""
    lab = docker_lab()
    built("base")
    if reason := _why_not(runtime):
        pytest.skip(f"{runtime} is not accepted here: {reason}")
    return lab


def _remove(lab: str, images: Images) -> None:
    anyio.run(DockerEngine(lab).reap, ())
    images.forget()
