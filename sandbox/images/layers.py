"""Makes the layers of an image: what was fetched by hash is unpacked, pruned, compiled, packed, the same bytes always.

An image's own packages make one layer, our own files another. The layers of packages lie below those of our files, for
all the images that stand on each other: a change of our code leaves what is large where it is.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.images import debian as apt
from sandbox.images import npm, tree, wheels
from sandbox.images.spec import UID, Refused, Spec, architecture, code_key, system_key


class Layers:
    """Makes layers, keeping what it fetched and packed in `cache`."""

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self._cache = cache
        self._say = say

    def of(self, spec: Spec) -> list[Path]:
        """The image's layers, lowest first, made where the cache lacks them.

        Raises:
            Refused: its inputs are wrong, or cannot be had.
            NoDebian: this machine's apt does not lead to a Debian mirror.
        """
        chain = [*reversed(spec.below()), spec]
        systems = [self._layer(each, "system", system_key(each), self._fill_system) for each in chain]
        codes = [self._layer(each, "code", code_key(each), self._fill_code) for each in chain]
        return [layer for found in (*systems, *codes) for layer in found]

    def _layer(self, spec: Spec, kind: str, wanted: str, fill: Callable[[Spec, Path], None]) -> list[Path]:
        folder = self._cache / "layers"
        folder.mkdir(parents=True, exist_ok=True)
        packed = folder / f"{spec.name}-{kind}-{wanted[:16]}.tar"
        if not packed.exists():
            with tempfile.TemporaryDirectory(dir=self._cache) as directory:
                root, unfinished = Path(directory) / "root", Path(directory) / "layer.tar"
                root.mkdir()
                fill(spec, root)
                _beside(packed).write_text(tree.pack(root, unfinished))
                unfinished.rename(packed)
            for old in folder.glob(f"{spec.name}-{kind}-" + "[0-9a-f]" * 16 + ".tar"):
                if old != packed:
                    old.unlink()
                    _beside(old).unlink(missing_ok=True)
        with packed.open("rb") as file:
            empty = not file.read(1).strip(b"\0")  # nothing but the end of an archive: such a layer is left out
        return [] if empty else [packed]

    def _fill_system(self, spec: Spec, root: Path) -> None:
        packages = self._fetch(spec, spec.locked())
        if packages:
            self._say(f"image {spec.name}: unpacking {len(packages)} Debian packages")
            apt.unpack(packages, self._cache / "debs", root)
        self._fill_modules(spec, root)
        for place, _ in spec.venvs:
            wheels.lay_venv(place, root)
        for lock, home in spec.pythons():
            self._say(f"image {spec.name}: fetching Python packages ({lock.name})")
            try:
                fetched = wheels.fetch(lock, self._cache / "wheels")
            except RuntimeError as error:
                raise Refused(f"the Python packages of image {spec.name} cannot be had: {error}") from error
            for wheel in fetched:
                wheels.unpack(wheel, root, home)
        tree.prune(root, spec.remove)
        for place, target in spec.links:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).unlink(missing_ok=True)
            (root / place).symlink_to(target)
        if spec.parent is None:
            _skeleton(root)
        if packages or spec.pythons():
            self._say(f"image {spec.name}: compiling")
            sites = [home.site for _, home in spec.pythons()]
            with self._ground(spec, root) as ground:
                tree.compile_all(root, [tree.STDLIB, Path("usr/lib/python3/dist-packages"), *sites], ground)

    def _fill_modules(self, spec: Spec, root: Path) -> None:
        wanted = spec.packages_of_npm()
        if wanted:
            self._say(f"image {spec.name}: fetching npm packages")
        try:
            for package, integrity in wanted:
                npm.unpack(package, npm.fetch(package, integrity, self._cache / "npm"), root)
        except RuntimeError as error:
            raise Refused(f"the npm packages of image {spec.name} cannot be had: {error}") from error

    def _fill_code(self, spec: Spec, root: Path) -> None:
        for place, source in spec.sources():
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        with self._ground(spec, None) as ground:
            tree.compile_all(root, [tree.SITE], ground)

    def _fetch(self, spec: Spec, packages: list[apt.Package]) -> list[apt.Package]:
        """Brings the packages into the cache, and returns those that came.

        A mirror drops a version when a newer one mends it. Then today's is taken, which Debian signed as well, and
        that is said: a machine set up from nothing must not fail because a library was made safer.
        """
        debs = self._cache / "debs"
        missing = [p for p in packages if not (debs / f"{p.sha256}.deb").exists()]
        if not missing:
            return packages
        self._say(f"image {spec.name}: fetching {len(missing)} Debian packages")
        mirror = apt.Apt(self._cache / "apt", architecture())
        mirror.update()  # where there is none, `build` knows another road
        try:
            today = {p.name: p for p in mirror.resolve(p.name for p in missing)}
            known = mirror.versions(p.name for p in missing)
            newer = {p.name: today[p.name] for p in missing if p.version not in known[p.name]}
            mirror.fetch([newer.get(p.name, p) for p in missing], debs)
        except apt.NoDebian as error:
            raise Refused(f"the Debian packages of image {spec.name} cannot be had: {error}") from error
        for p in missing:
            if p.name in newer:
                self._say(f"image {spec.name}: {p.name} {p.version} is gone, taking {newer[p.name].version}")
        if newer:
            self._say(
                f"image {spec.name}: run `python -m sandbox.images lock {spec.name}` and commit {spec.debian_lock}"
            )
        return [newer.get(p.name, p) for p in packages]

    @contextmanager
    def _ground(self, spec: Spec, own: Path | None) -> Iterator[Path]:
        """The tree with the image's Python: its own, when it stands on nothing, or that of the image it stands on."""
        lowest = spec
        while lowest.parent:
            lowest = lowest.parent
        if lowest is spec and own is not None:
            yield own
            return
        [system] = self._layer(lowest, "system", system_key(lowest), self._fill_system)
        with tempfile.TemporaryDirectory(dir=self._cache) as directory:
            subprocess.run(["tar", "-xf", str(system), "-C", directory, "usr"], check=True)
            yield Path(directory)


def _beside(layer: Path) -> Path:
    """Where the digest of a layer is kept."""
    return layer.with_suffix(".sha256")


def digest_of(layer: Path) -> str:
    """The SHA-256 of a layer's bytes, remembered beside it."""
    if not _beside(layer).exists():
        with layer.open("rb") as file:
            _beside(layer).write_text(hashlib.file_digest(file, "sha256").hexdigest())
    return _beside(layer).read_text()


def _skeleton(root: Path) -> None:
    """What every image has and no package brings: the one user, and the places where the engine mounts something."""
    for folder in ("dev", "etc", "proc", "root", "run/madlab", "sys", "tmp", "usr/bin", "workspace"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/none\nmadlab:x:{UID}:{UID}:madlab:/workspace:/none\n")
    (root / "etc/group").write_text(f"root:x:0:\nmadlab:x:{UID}:\n")
    (root / "usr/bin/python3").symlink_to("python3.13")
