"""The worker that runs in images that are not ours: a folder, mounted read-only, that brings all it needs.

It holds the tree of the image `worker`: Python, its C library, the contract, Hopper and the doors. Its loader starts
its Python, both by path, so nothing is taken from the image around it, whose C library may be another or none. Nothing
is told by environment variables either: what the worker starts sees the image as it is.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from sandbox.images.build import alone
from sandbox.images.debian import NoDebian
from sandbox.images.layers import Layers, digest_of
from sandbox.images.spec import Refused, read
from sandbox.profile import Bundle

PLACE = "/bundle/worker"
_LIBRARIES = f"usr/lib/{platform.machine()}-linux-gnu"
_LOADER = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}.get(platform.machine(), "")
_KEPT = 4  # older bundles that may be mounted somewhere still


def make_bundle(cache: Path, say: Callable[[str], None] = lambda _: None) -> Bundle:
    """The worker as it is now, made unless it lies in `cache`: 4 s, from nothing 10 s, else some milliseconds.

    Raises:
        Refused: its packages cannot be had, as where this machine's apt does not lead to a Debian mirror.
    """
    with alone(cache):
        try:
            layers = Layers(cache, say).of(read("worker"))
        except NoDebian as error:
            raise Refused(f"the worker for other images cannot be made: {error}") from error
        digest = hashlib.sha256("".join(digest_of(layer) for layer in layers).encode()).hexdigest()
        bundles = cache / "bundles"
        host = bundles / f"worker-{digest[:16]}"
        if host.is_dir():
            os.utime(host)
        else:
            say("worker: unpacking")
            bundles.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=bundles) as directory:
                unfinished = Path(directory) / "worker"
                unfinished.mkdir(mode=0o755)
                for layer in layers:
                    subprocess.run(["tar", "-xf", str(layer), "-C", str(unfinished)], check=True)
                unfinished.chmod(0o755)
                unfinished.rename(host)
            others = sorted(bundles.glob("worker-*"), key=lambda path: path.stat().st_mtime)
            for old in others[:-_KEPT]:
                shutil.rmtree(old)
    return Bundle(host, PLACE, f"sha256:{digest}")


def worker_entry(program: tuple[str, ...]) -> tuple[str, ...]:
    """How `program`, which begins with "python3", is started from the bundle.

    Raises:
        ValueError: it is no Python program: only those can be run in any image.
    """
    if program[:1] != ("python3",):
        raise ValueError(f"only a worker in Python runs in an image that is not ours, not {program[0]!r}")
    libraries = f"{PLACE}/{_LIBRARIES}"
    loader = (f"{libraries}/{_LOADER}", "--inhibit-cache", "--library-path", libraries)
    # Isolated: what the image says about Python in its environment is meant for its own, and so are its folders.
    return (*loader, f"{PLACE}/usr/bin/python3.13", "-I", "-u", *program[1:])
