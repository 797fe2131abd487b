"""A lab of its own for the tests that start bubblewrap sandboxes: an unpacked image in, its name out at the end."""

import atexit
import secrets
import tempfile
from functools import cache
from pathlib import Path

import pytest

from sandbox.engine import SandboxError
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.images.build import Refused, default_cache, read
from sandbox.images.unpack import Unpacker
from sandbox.images.unpacked import Images
from tests.docker_lab import why_not


@cache
def bubblewrap_lab(*images: str) -> str:
    """The id of a lab that lives as long as this process of tests, with `images`. Skips where there can be none."""
    lab = secrets.token_hex(8)
    atexit.register(Images(lab, default_cache()).forget)
    try:
        for each in images:
            Unpacker(lab, default_cache(), print).build(read(each))
    except (Refused, SandboxError) as error:
        pytest.skip(f"bubblewrap: {error}")
    return lab


def engine(lab: str, directory: Path) -> BubblewrapEngine:
    """The lab's engine, with its sandboxes in `directory`."""
    return BubblewrapEngine(lab, directory / lab, Images(lab, default_cache()))


@cache
def _why_not() -> str:
    with tempfile.TemporaryDirectory(prefix="madlab-") as directory:
        return why_not(engine(bubblewrap_lab("base"), Path(directory)), "bwrap")


def need_bubblewrap() -> str:
    """The lab, with the base image, where the probe accepts bubblewrap; else skips with what the probe found."""
    lab = bubblewrap_lab("base")
    if reason := _why_not():
        pytest.skip(f"bubblewrap is not accepted here: {reason}")
    return lab
