"""Images that are not ours, for tests: made from a handful of files, named in the engine, gone at the end."""

import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker

from sandbox.images.build import default_cache
from sandbox.images.layers import Layers
from sandbox.images.spec import read

BARE = Path(__file__).parent / "images/bare"


def bare_tree(directory: Path) -> None:
    """Fills `directory` with a static busybox and its names: no C library, no Python, nothing of ours."""
    for layer in Layers(default_cache(), lambda _: None).of(read(str(BARE))):
        subprocess.run(["tar", "-xf", str(layer), "-C", str(directory), "usr"], check=True)
    busybox = next(directory.rglob("busybox"))
    for link in directory.glob("usr/bin/python3*"):
        link.unlink()
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (busybox.parent / name).symlink_to("busybox")
    if not (directory / "bin").exists():
        (directory / "bin").symlink_to("usr/bin")


@contextmanager
def foreign_image(directory: Path, changes: Sequence[str] = ()) -> Iterator[str]:
    """The tree in `directory` as an image of the engine; yields its name."""
    name = f"somebodys/{secrets.token_hex(4)}"
    api = docker.APIClient(version="auto", timeout=120)
    api.trust_env = False
    try:
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(directory, ".")
            file.seek(0)
            api.import_image_from_data(file, repository=name, tag="1", changes=list(changes))
        yield f"{name}:1"
    finally:
        try:
            api.remove_image(f"{name}:1", force=True)
        finally:
            api.close()
