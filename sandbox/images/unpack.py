"""Makes unpacked images of the same layers that a Docker engine is given, and lets them pass the same checks.

A layer is unpacked once, under the digest of its bytes, and never changed. One that no lab's image has, and that was
not used for a week, goes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import anyio

from sandbox.engine import Exit, Program, SandboxError
from sandbox.engines.bubblewrap import BubblewrapEngine
from sandbox.images.build import alone
from sandbox.images.debian import NoDebian
from sandbox.images.layers import Layers, digest_of
from sandbox.images.spec import Refused, Spec, key
from sandbox.images.unpacked import Images, Unpacked
from sandbox.profile import Profile

_KEEP_S = 7 * 24 * 3600.0
_GROUND_FILES = {  # what Docker mounts into a container, so that programs find a name for themselves and the loopback
    "etc/hostname": "sandbox\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 sandbox\n",
    "etc/resolv.conf": "",
}
_GROUND_FOLDERS = ("bundle", "dev", "proc", "run/madlab", "sys", "tmp", "workspace")


class Unpacker:
    """Unpacks images for one lab, below `cache`."""

    def __init__(self, lab: str, cache: Path, say: Callable[[str], None]) -> None:
        self._lab, self._cache, self._say = lab, cache, say
        self._images = Images(lab, cache)

    def build(self, spec: Spec) -> Unpacked:
        """Makes the image unless the lab has it.

        Raises:
            Refused: its inputs are wrong, cannot be had, or a check failed.
            SandboxError: bubblewrap does not work here, so that the image could not be checked.
        """
        started = time.monotonic()
        wanted = key(spec)
        try:
            if (found := self._images.find(spec.name)).key == wanted:
                self._say(f"image {spec.name}: unchanged ({wanted})")
                return found
        except SandboxError:
            pass  # it is made now
        with alone(self._cache):
            try:
                layers = Layers(self._cache, self._say).of(spec)
            except NoDebian as error:
                raise Refused(f"image {spec.name} cannot be made without Docker: {error}") from error
            folders = [self._unpack(layer, digest_of(layer)[:32]) for layer in layers]
            image = Unpacked(wanted, self._images.folder, (*reversed(folders), self._lay_ground()), spec.environment())
            self._sweep({*image.layers})
        checked = self._cache / "checked" / wanted  # the same key is the same content and the same checks
        if not checked.exists():
            self._check(spec, image)
            checked.parent.mkdir(exist_ok=True)
            checked.touch()
        self._images.keep(spec.name, image)
        self._say(f"image {spec.name}: unpacked in {time.monotonic() - started:.1f} s")
        return image

    def _check(self, spec: Spec, image: Unpacked) -> None:
        tried = f"{spec.name[:40]}-check-{os.getpid()}"
        self._images.keep(tried, image)
        try:
            # Whoever asks for an image may have a loop of its own in this thread.
            with tempfile.TemporaryDirectory(prefix="madlab-") as place, ThreadPoolExecutor(1) as thread:
                for command in spec.check:
                    ended = thread.submit(anyio.run, self._run, tried, command, Path(place)).result()
                    if ended.code != 0:
                        raise Refused(f"image {spec.name} fails its check `{' '.join(command)}`: {ended.log[-2000:]}")
        finally:
            self._images.drop(tried)

    async def _run(self, image: str, command: tuple[str, ...], place: Path) -> Exit:
        profile = Profile(image, command, runtime="bwrap", memory_mb=1024, workspace_mb=64, pids=256, cpus=2)
        engine = BubblewrapEngine(self._lab, place / "sandboxes", self._images)
        async with engine.open("check", Program(profile, b"", place)) as sandbox:
            return await sandbox.wait()

    def _unpack(self, layer: Path, name: str) -> str:
        place = self._images.folder / name
        if place.is_dir():
            os.utime(place)
            return name
        self._say(f"unpacking {layer.stem}")
        self._fill(place, lambda root: subprocess.run(["tar", "-xpf", str(layer), "-C", str(root)], check=True))
        return name

    def _lay_ground(self) -> str:
        """The lowest layer."""
        told = repr((_GROUND_FILES, _GROUND_FOLDERS)).encode()
        name = f"ground-{hashlib.sha256(told).hexdigest()[:16]}"

        def fill(root: Path) -> None:
            for folder in _GROUND_FOLDERS:
                (root / folder).mkdir(parents=True)
            for file, text in _GROUND_FILES.items():
                (root / file).parent.mkdir(exist_ok=True)
                (root / file).write_text(text)
                (root / file).chmod(0o644)

        if not (self._images.folder / name).is_dir():
            self._fill(self._images.folder / name, fill)
        return name

    def _fill(self, place: Path, fill: Callable[[Path], object]) -> None:
        """Makes a folder that is there whole or not at all."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as directory:
            unfinished = Path(directory) / "layer"
            unfinished.mkdir()
            fill(unfinished)
            for folder, _, _ in os.walk(unfinished):
                os.chmod(folder, 0o755)  # past the umask: the program is another user
            unfinished.rename(place)

    def _sweep(self, used: set[str]) -> None:
        """Removes layers that nobody has and nobody used for long."""
        for path in self._cache.glob("labs/*/*.json"):
            with suppress(FileNotFoundError):  # a lab that is gone since
                used |= set(json.loads(path.read_text())["layers"])
        for place in self._images.folder.iterdir():
            if place.name not in used and time.time() - place.stat().st_mtime > _KEEP_S:
                shutil.rmtree(place, ignore_errors=True)
