"""Makes an image from an `image.toml`, on this machine, without a registry, the same bytes each time.

An image is a folder with an `image.toml`: `sandbox/images/NAME/`, or any folder given by path (an eMAD may bring its
own). The image is called like the folder. All fields are optional, an unknown one is an error:

    from     = "base"                    the image it stands on; without it, Debian packages alone
    debian   = ["git", "libpcre2-8-0"]   Debian packages (trixie), exactly these: nothing is added for them. They are
                                         unpacked, never configured: no maintainer script runs. Their versions are in
                                         `debian.lock` beside this file. "NAME [amd64]" is for that architecture alone.
                                         `python -m sandbox.images needed NAME` proposes what is missing
    npm      = ["left-pad@1.3.0"]        npm packages, exactly these, to usr/local/lib/node_modules; `npm.lock` beside
                                         this file has their integrity. The machine's own npm fetches them
    packages = ["protos"]                folders of this repository that go in as importable packages, without tests;
                                         "periphery/mcnamara" is importable as `periphery.mcnamara`. "./echo" is a
                                         folder beside image.toml, importable as `echo`
    remove   = ["usr/share/doc/**"]      what not to keep of the Debian packages and wheels (glob, ** crosses folders)
    check    = [["git", "--version"]]    commands that must end with 0 in the finished image, or it is refused
    [venvs]  "opt/python" = "repository"       a virtual environment there, with what `repository.txt` locks: for
                                               programs that must not see the worker's packages, nor it theirs
    [links]  "usr/bin/cc" = "gcc"              a symbolic link, as Debian's alternatives would make it
    [files]  "etc/gitconfig" = "gitconfig"     place in the image = file beside image.toml
    [env]    GIT_CONFIG_NOSYSTEM = "1"   added to the environment of everything that runs in it

Python packages come from `requirements.txt` beside it: a lock with hashes and without addresses, for **Python 3.13**
(what the image runs, not what the host runs), wheels only. Write what you want into `requirements.in` and let
`python -m sandbox.images lock NAME` make `requirements.txt` and all other locks. Wheels go to `SITE` with their
bytecode; console scripts go to /usr/local/bin with `#!/usr/bin/python3`.

The program in an image runs as uid 10001 on a read-only root, with / as its working directory. It writes to /workspace
(HOME and TMPDIR); /tmp has 8 MB for programs that know no better. There is no shell in `base`.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sandbox.engine import SandboxError
from sandbox.engines.docker import Images
from sandbox.images import debian as apt
from sandbox.images import npm, pulled, tree, wheels

ROOM = Path(__file__).parent
REPOSITORY = ROOM.parent.parent
UID = 10001
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ONLY = re.compile(r"(?P<name>\S+)(?: \[(?P<architecture>\w+)\])?")
_SKIPPED = ("__pycache__", "tests", "node_modules")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Refused(Exception):
    """The image cannot be made as asked; the message says what to change."""


def architecture() -> str:
    """This machine's, in Debian's and Docker's word."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def default_cache() -> Path:
    """Where the user's cache is."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "madlab" / "images"


@dataclass(frozen=True)
class Spec:
    """An `image.toml`, read. See the top of this file."""

    name: str
    folder: Path
    parent: "Spec | None" = None
    debian: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    check: tuple[tuple[str, ...], ...] = ()
    npm: tuple[str, ...] = ()
    venvs: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @property
    def requirements(self) -> Path:
        return self.folder / "requirements.txt"

    @property
    def debian_lock(self) -> Path:
        return self.folder / "debian.lock"

    @property
    def npm_lock(self) -> Path:
        return self.folder / "npm.lock"

    def pythons(self) -> list[tuple[Path, wheels.Home]]:
        """The locks of Python packages that exist, and where each one's go."""
        known = [(self.requirements, wheels.WORKER)]
        known += [(self.folder / f"{name}.txt", wheels.venv(place)) for place, name in self.venvs]
        return [(lock, home) for lock, home in known if lock.exists()]

    def packages_of_npm(self) -> list[tuple[str, str]]:
        """The npm packages for this machine, each with its integrity.

        Raises:
            Refused: the lock does not say which.
        """
        known = npm.read_lock(self.npm_lock)
        wanted = only(self.npm, architecture())
        if missing := [package for package in wanted if package not in known]:
            raise Refused(
                f"{self.npm_lock} does not name {', '.join(missing)}: run `python -m sandbox.images lock {self.name}`"
            )
        return [(package, known[package]) for package in wanted]

    def below(self) -> "list[Spec]":
        """The images that it stands on, nearest first."""
        return [self.parent, *self.parent.below()] if self.parent else []

    def environment(self) -> dict[str, str]:
        """The variables of everything that runs in it, its parent's first."""
        return (self.parent.environment() if self.parent else {}) | dict(self.env)

    def locked(self) -> list[apt.Package]:
        """The Debian packages for this machine's architecture.

        Raises:
            Refused: the lock does not say which version of one.
        """
        known = {p.name: p for p in apt.read_lock(self.debian_lock) if p.architecture == architecture()}
        wanted = only(self.debian, architecture())
        if missing := [name for name in wanted if name not in known]:
            raise Refused(
                f"{self.debian_lock} does not name {', '.join(missing)} for {architecture()}: "
                f"run `python -m sandbox.images lock {self.name}`"
            )
        return [known[name] for name in wanted]

    def sources(self) -> list[tuple[str, Path]]:
        """Our own files: their places in the image and where they are, in order."""
        found: list[tuple[str, Path]] = [(place, self.folder / source) for place, source in self.files]
        for package in self.packages:
            beside = package.startswith("./")
            base = self.folder if beside else REPOSITORY
            parts = Path(package).parts
            if not (base / package).is_dir():
                raise Refused(f"image {self.name} wants the package {package}, and there is no folder {base / package}")
            parents = [Path(*parts[:depth], "__init__.py") for depth in range(1, len(parts))]
            for source in [*(base / p for p in parents), *sorted((base / package).rglob("*"))]:
                inside = source.relative_to(base)
                within = inside.parts[len(parts) :]  # a package that is itself below tests/ was asked for by name
                skipped = any(part in _SKIPPED for part in within) or source.suffix in (".pyc", ".pyi", ".md")
                if source.is_file() and not skipped:
                    found.append((str(tree.SITE / inside), source))
        return sorted(found)


def only(packages: Sequence[str], architecture: str) -> list[str]:
    """The names of those that are for every architecture, or for this one.

    Raises:
        Refused: one is not written as `NAME` or `NAME [ARCHITECTURE]`.
    """
    found = []
    for package in packages:
        meant = _ONLY.fullmatch(package)
        if meant is None:
            raise Refused(f"{package!r} is no package: write NAME, or NAME [amd64] for one architecture alone")
        if meant["architecture"] in (None, architecture):
            found.append(meant["name"])
    return found


def read(name: str) -> Spec:
    """The image called `name`, or the one whose folder is `name`.

    Raises:
        Refused: there is none, or its image.toml is wrong.
    """
    folder = Path(name).resolve() if "/" in name or name.startswith(".") else ROOM / name
    file = folder / "image.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in ROOM.glob("*/image.toml")))
        raise Refused(f"there is no image {name!r}: no file {file}. Images here: {known}; or give the path of a folder")
    if not _NAME.fullmatch(folder.name):
        raise Refused(f"an image is called like its folder, and {folder.name!r} is no image name: use a-z, 0-9 and -")
    try:
        given = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{file} is not TOML: {error}") from error
    allowed = {field.name for field in fields(Spec)} - {"name", "folder", "parent"} | {"from"}
    if unknown := sorted(given.keys() - allowed):
        raise Refused(f"{file} has a field {unknown[0]!r}, which means nothing; known are {', '.join(sorted(allowed))}")
    parent = given.pop("from", None)
    lists: dict[str, Any] = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    lists["check"] = tuple(tuple(command) for command in given.get("check", ()))
    tables: dict[str, Any] = {
        key: tuple(sorted(value.items())) for key, value in given.items() if isinstance(value, dict)
    }
    return Spec(folder.name, folder, read(parent) if parent else None, **lists, **tables)


def _hash(*parts: str | bytes | Path) -> str:
    """One digest for many inputs; a path counts by its content."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else part.read_bytes()
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def _builder() -> str:
    """What the builder itself would do to the bytes."""
    return _hash(*(ROOM / name for name in ("build.py", "debian.py", "npm.py", "tree.py", "wheels.py")), architecture())


def system_key(spec: Spec) -> str:
    """Tells apart what the system layer would hold: packages, wheels, and how they are treated."""
    inputs = [[str(p) for p in spec.locked()], spec.packages_of_npm(), spec.venvs, spec.links, spec.remove]
    treated = json.dumps([*inputs, spec.parent is None])
    return _hash(_builder(), treated, *(lock for lock, _ in spec.pythons()))


def code_key(spec: Spec) -> str:
    """Tells apart what the code layer would hold: our own files."""
    return _hash(_builder(), *(part for place, source in spec.sources() for part in (place, source)))


def key(spec: Spec) -> str:
    """Tells apart whole images: the same key, the same content."""
    above = key(spec.parent) if spec.parent else ""
    return _hash(above, system_key(spec), code_key(spec), json.dumps([spec.env, spec.check]))[:16]


class Workshop:
    """Builds images for one lab, keeping what it fetched and packed in `cache`."""

    def __init__(self, images: Images, cache: Path, say: Callable[[str], None]) -> None:
        self._images = images
        self._cache = cache
        self._say = say

    def build(self, spec: Spec) -> str:
        """Makes the image unless the engine has it, and returns its tag.

        Raises:
            Refused: its inputs are wrong, cannot be had, or a check failed.
            SandboxError: the engine does not answer.
        """
        started = time.monotonic()
        wanted = key(spec)
        if found := self._images.find(spec.name, wanted):
            self._images.name(found, spec.name, wanted)
            self._say(f"image {spec.name}: unchanged ({wanted})")
            return self._images.tag(spec.name, wanted)
        with self._alone():
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
        digests = [_digest(layer) for layer in layers]
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

    def layers(self, spec: Spec) -> list[Path]:
        """The image's layers, lowest first, made where the cache lacks them."""
        below = self.layers(spec.parent) if spec.parent else []
        system = self._layer(spec, "system", system_key(spec), self._fill_system)
        code = self._layer(spec, "code", code_key(spec), self._fill_code)
        return [*below, *system, *code]

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

    @contextlib.contextmanager
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
            for kind in sorted(set(_ARCHITECTURES.values())):
                self._say(f"image {spec.name}: asking the mirror for {kind}")
                mirror = apt.Apt(self._cache / "apt", kind)
                mirror.update()
                lines += [f"{package}\n" for package in mirror.resolve(only(spec.debian, kind))]
            spec.debian_lock.write_text("".join(lines))
        if spec.npm:
            self._say(f"image {spec.name}: asking for npm packages")
            everywhere = {name for kind in _ARCHITECTURES.values() for name in only(spec.npm, kind)}
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
    def _alone(self) -> Iterator[None]:
        """One build at a time on this cache."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _beside(layer: Path) -> Path:
    """Where the digest of a layer is kept."""
    return layer.with_suffix(".sha256")


def _digest(layer: Path) -> str:
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
