"""Gives the engine an image, made on this machine from its `image.toml`, without a registry, the same bytes each time.

`spec` says what an image is, `layers` makes what it is of; here they become one image, which must pass its checks.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sandbox.engine import SandboxError
from sandbox.engines.docker.images import Images
from sandbox.images import debian as apt
from sandbox.images import npm, pulled, tree, wheels
from sandbox.images.layers import Layers, digest_of
from sandbox.images.spec import ARCHITECTURES, UID, Refused, Spec, architecture, key, only, read

__all__ = ["Refused", "Workshop", "default_cache", "read"]


def default_cache() -> Path:
    """Where the user's cache is."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "madlab" / "images"


class Workshop:
    """Builds images for one lab, keeping what it fetched and packed in `cache`."""

    def __init__(self, images: Images, cache: Path, say: Callable[[str], None]) -> None:
        self._images = images
        self._cache = cache
        self._say = say
        self._layers = Layers(cache, say)

    def layers(self, spec: Spec) -> list[Path]:
        """See `Layers.of`."""
        return self._layers.of(spec)

    def build(self, spec: Spec) -> str:
        """Makes the image unless the engine has it, and returns its tag.

        Raises:
            Refused: its inputs are wrong, cannot be had, or a check failed.
            SandboxError: the engine does not answer.
        """
        started = time.monotonic()
        wanted = key(spec)
        if self._images.adopt(spec.name, wanted):
            self._say(f"image {spec.name}: unchanged ({wanted})")
            return self._images.tag(spec.name, wanted)
        with alone(self._cache):
            try:
                identity = self._assemble(spec, wanted)
            except apt.NoDebian as why:
                self._say(f"image {spec.name}: {why}; using a pulled image instead (this road is not verified)")
                identity = self._pull(spec, wanted)
            for command in spec.check:
                code, said = self._images.run(identity, command)
                if code:
                    self._images.remove(identity)
                    raise Refused(f"image {spec.name} fails its check `{' '.join(command)}`: {said.strip()[-2000:]}")
            self._images.name(identity, spec.name, wanted)
        self._say(f"image {spec.name}: built {identity[7:19]} in {time.monotonic() - started:.1f} s")
        return self._images.tag(spec.name, wanted)

    def _assemble(self, spec: Spec, wanted: str) -> str:
        """Gives the engine the image, put together from its layers; those that it has already are not sent again."""
        layers = self.layers(spec)
        digests = [digest_of(layer) for layer in layers]
        there = self._images.common(digests)
        archive = self._cache / f"{spec.name}.image.tar"
        try:
            for skipped in sorted({there, 0}, reverse=True):
                identity = self._write(spec, wanted, layers, digests, skipped, archive)
                self._say(f"image {spec.name}: giving it to the engine ({archive.stat().st_size / 1e6:.0f} MB)")
                try:
                    with archive.open("rb") as file:
                        self._images.load(file)
                    break
                except SandboxError:  # a store that wants every layer all the same: then it gets them
                    if not skipped:
                        raise
        finally:
            archive.unlink(missing_ok=True)
        return identity

    def _pull(self, spec: Spec, wanted: str) -> str:
        """Has the engine build on a pulled image; see `pulled`."""
        if spec.venvs or spec.npm or spec.links:
            raise Refused(f"image {spec.name} is made of Debian packages, and this machine's apt leads to no mirror")
        below = None
        if spec.parent:
            below = self._images.tag(spec.parent.name, key(spec.parent))
            if not self._images.find(spec.parent.name, key(spec.parent)):
                self._pull(spec.parent, key(spec.parent))
        labels = {"madlab.image": spec.name, "madlab.key": wanted}
        return self._images.build(pulled.context(spec, below), self._images.tag(spec.name, wanted), labels)

    def _write(
        self, spec: Spec, wanted: str, layers: Sequence[Path], digests: Sequence[str], skipped: int, to: Path
    ) -> str:
        """Writes the image as the engine reads it and returns its id: the digest of all that makes it.

        The first `skipped` layers are named and left out.
        """
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(tree.EPOCH))
        config = {
            "architecture": architecture(),
            "os": "linux",
            "created": when,
            "config": {
                "Env": [f"{name}={value}" for name, value in sorted(spec.environment().items())],
                "User": f"{UID}:{UID}",
                "WorkingDir": "/",
                "Cmd": ["/usr/bin/python3"],
                "Labels": {"madlab.image": spec.name, "madlab.key": wanted},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": when, "created_by": layer.stem} for layer in layers],
        }
        text = json.dumps(config, sort_keys=True).encode()
        identity = hashlib.sha256(text).hexdigest()
        names = [f"{digest}/layer.tar" for digest in digests]
        manifest = [{"Config": f"{identity}.json", "RepoTags": [self._images.tag(spec.name, wanted)], "Layers": names}]
        with tarfile.open(to, "w") as archive:
            for name, layer in list(zip(names, layers, strict=True))[skipped:]:
                archive.add(layer, name)
            for name, content in ((f"{identity}.json", text), ("manifest.json", json.dumps(manifest).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return f"sha256:{identity}"

    def lock(self, spec: Spec) -> None:
        """Writes `debian.lock` and `requirements.txt`: today's versions, for a person to review and commit."""
        if spec.debian:
            lines = []
            for kind in sorted(set(ARCHITECTURES.values())):
                self._say(f"image {spec.name}: asking the mirror for {kind}")
                mirror = apt.Apt(self._cache / "apt", kind)
                mirror.update()
                lines += [f"{package}\n" for package in mirror.resolve(only(spec.debian, kind))]
            spec.debian_lock.write_text("".join(lines))
        if spec.npm:
            self._say(f"image {spec.name}: asking for npm packages")
            everywhere = {name for kind in ARCHITECTURES.values() for name in only(spec.npm, kind)}
            spec.npm_lock.write_text(npm.lock(sorted(everywhere)))
        worker = spec.folder / "requirements.in"
        if worker.exists():
            self._say(f"image {spec.name}: resolving Python packages")
            spec.requirements.write_text(
                wheels.lock(worker, [each.requirements for each in spec.below() if each.requirements.exists()])
            )
        for _, name in spec.venvs:
            self._say(f"image {spec.name}: resolving Python packages ({name})")
            (spec.folder / f"{name}.txt").write_text(wheels.lock(spec.folder / f"{name}.in"))

    def needed(self, spec: Spec) -> list[str]:
        """The Debian packages that those of the image need, and neither it nor one below it names."""
        mirror = apt.Apt(self._cache / "apt", architecture())
        mirror.update()
        there = {name for each in (spec, *spec.below()) for name in only(each.debian, architecture())}
        return [name for name in mirror.needed(only(spec.debian, architecture())) if name not in there]


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """One build at a time on this cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
