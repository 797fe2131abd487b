"""What an image is made of: its `image.toml`, read, and the digests that tell when something of it changed.

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

import hashlib
import json
import platform
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sandbox.images import debian as apt
from sandbox.images import npm, tree, wheels

ROOM = Path(__file__).parent
REPOSITORY = ROOM.parent.parent
UID = 10001
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ONLY = re.compile(r"(?P<name>\S+)(?: \[(?P<architecture>\w+)\])?")
_SKIPPED = ("__pycache__", "tests", "node_modules")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Refused(Exception):
    """The image cannot be made as asked; the message says what to change."""


def architecture() -> str:
    """This machine's, in Debian's and Docker's word."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


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
    return _hash(
        *(ROOM / name for name in ("build.py", "debian.py", "layers.py", "npm.py", "tree.py", "wheels.py")),
        architecture(),
    )


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
