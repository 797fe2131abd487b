"""Where a lab lives: its data directory, its id, its lock and its short-lived sockets.

A home is a directory that one user owns and nobody else can enter::

    $MADLAB_HOME/
      lab         eight random hex digits, made once: every container, image tag and socket of this lab carries them
      version     the layout's number; a newer one is refused
      lock        held by the one core; holds its pid
      runtime     the path of the runtime directory below
      madlab.toml what the operator wrote (core.config)

Unix sockets need paths of at most 108 bytes, so they live elsewhere, in `madlab-<lab>/` under `$XDG_RUNTIME_DIR`,
`/run` or the temporary folder. The path is chosen once and written down: a worker that outlives its core finds its
socket again at the same place, whatever the environment of the next core is.

Clients import this module: it is standard library only and makes nothing unless asked to.
"""

import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from protos.errors import Conflict, Denied, InvalidArgument, NotFound, Unavailable

VERSION = 1
SOCKET_BYTES = 100  # the kernel takes 108; the rest is for a suffix somebody may add
WRITTEN_BEFORE = ("madlab", "policy", "version", "lab")  # files an operator may have written before there was a lab
TRIES = 20
WORKER_BYTES = 50  # "/", a run's directory (a UUID and a few letters) and "/gate.sock"


@dataclass(frozen=True)
class Home:
    """One lab's place on this machine."""

    path: Path
    lab: str
    runtime: Path

    @property
    def api_socket(self) -> Path:
        """The HTTP door."""
        return self.runtime / "api.sock"

    @property
    def settings(self) -> Path:
        """The operator's file. It need not exist."""
        return self.path / "madlab.toml"

    def socket(self, *parts: str) -> Path:
        """A path in the runtime directory that a socket can have.

        Raises:
            InvalidArgument: it is over 100 bytes.
        """
        path = self.runtime.joinpath(*parts)
        if len(os.fsencode(path)) > SOCKET_BYTES:
            raise InvalidArgument(f"the socket path {path} is over {SOCKET_BYTES} bytes")
        return path

    @staticmethod
    def locate(path: str | os.PathLike[str] | None = None) -> Path:
        """`path`, else `$MADLAB_HOME`, else `.madlab/` beside `pyproject.toml`. It need not exist.

        Raises:
            NotFound: the code does not run from a checkout, and nothing says where the data is.
        """
        chosen = path or os.environ.get("MADLAB_HOME")
        if chosen:
            return Path(chosen).expanduser().absolute()
        checkout = Path(__file__).resolve().parents[1]
        if not (checkout / "pyproject.toml").exists():
            raise NotFound("nothing says where the lab's data is", next="set MADLAB_HOME or pass --home DIR")
        return checkout / ".madlab"

    @classmethod
    def find(cls, path: str | os.PathLike[str] | None = None) -> "Home":
        """An existing home, for a client: reads, and makes nothing.

        Raises:
            NotFound: there is none.
            Conflict: a newer version made it.
            Denied: it belongs to somebody else.
        """
        place = cls.locate(path)
        if _read(place / "lab") is None:
            raise NotFound(f"there is no lab in {place}", next="start one with: madlab up")
        _check_version(place)
        return cls(place, _lab(place), Path(_read(place / "runtime") or place))

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> "Home":
        """The home, made where it is missing, with a runtime directory that is there and private.

        Raises:
            InvalidArgument: the directory holds something else, or no socket path is short enough.
            Conflict: a newer version made it.
            Denied: it, or its runtime directory, belongs to somebody else.
            Unavailable: the disk is full or read-only.
        """
        place = cls.locate(path)
        try:
            _make(place)
            home = cls(place, _lab(place), Path())
            runtime = _runtime(home)
        except OSError as error:
            raise Unavailable(
                f"{error.filename or place}: {error.strerror}",
                next="make room there, or choose another place: --home DIR",
            ) from error
        return cls(place, home.lab, runtime)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the home for one core. The kernel lets go when the process ends, however it ends.

        The runtime directory is locked too, since a copied home has the same id and would share it.

        Raises:
            Conflict: another core has it; the message names its pid.
        """
        with ExitStack() as held:
            for place in (self.path, self.runtime):
                lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                held.callback(os.close, lock)
                if not _take(lock):
                    pid = _read(place / "lock") or "unknown"
                    raise Conflict(
                        f"another core (pid {pid}) runs on {place}", next="use it, or stop it with: madlab down"
                    )
                os.ftruncate(lock, 0)
                os.pwrite(lock, b"%d\n" % os.getpid(), 0)
            yield

    def holder(self) -> int | None:
        """The pid of the core that holds the home now, or None."""
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = _read(self.path / "lock") or ""
            return int(text) if text.isdigit() else None
        finally:
            os.close(lock)
        return None


def _take(lock: int) -> bool:
    """Takes the lock if no core has it. A client that looks (`holder`) has it for an instant: one refusal is none."""
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def _make(place: Path) -> None:
    """Makes the directory, its id and its version; or checks the ones that are there."""
    if _read(place / "lab") is None:
        if place.exists() and not place.is_dir():
            raise InvalidArgument(f"{place} is not a directory", next="choose another: --home DIR")
        inside = os.listdir(place) if place.exists() else []
        strangers = [each for each in inside if each.split(".")[0] not in WRITTEN_BEFORE]
        if strangers:
            raise InvalidArgument(
                f"{place} is no lab and holds something else ({strangers[0]!r})",
                next="choose an empty directory: --home DIR",
            )
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own(place)
        _write(place / "version", str(VERSION))
        _write(place / "lab", secrets.token_hex(4), once=True)
    _own(place)
    _check_version(place)


def _own(place: Path) -> None:
    """Makes sure that the directory is ours, and that nobody else can enter it."""
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Denied(
            f"{place} is not a directory of user {os.getuid()} (owner {found.st_uid})",
            next="run as its owner, or choose another place: --home DIR",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(place, 0o700)


def _check_version(place: Path) -> None:
    text = _read(place / "version") or "0"
    if not text.isdigit() or int(text) > VERSION:
        raise Conflict(
            f"{place} was made by a newer madlab (layout {text[:20]!r}, this one knows up to {VERSION})",
            next="use that version, or another data directory: --home DIR",
        )


def _lab(place: Path) -> str:
    lab = _read(place / "lab") or ""
    if not re.fullmatch("[0-9a-f]{8}", lab):
        raise Conflict(f"{place / 'lab'} is damaged: it should hold 8 hex digits", next="restore it from a backup")
    return lab


def _runtime(home: Home) -> Path:
    """The runtime directory: the one chosen before if it can be had, else the first that can."""
    name = f"madlab-{home.lab}"
    before = _read(home.path / "runtime")
    parents = [os.environ.get("XDG_RUNTIME_DIR"), "/run", tempfile.gettempdir()]
    candidates = [Path(before)] if before else []
    candidates += [Path(each).absolute() / name for each in parents if each]
    refused: list[str] = []
    for candidate in candidates:
        if len(os.fsencode(candidate)) + WORKER_BYTES > SOCKET_BYTES:
            refused.append(f"{candidate} is too long for a socket")
            continue
        try:
            candidate.mkdir(mode=0o700, exist_ok=True)
            _own(candidate)
        except Denied as error:
            refused.append(error.message)
            continue
        except OSError as error:
            refused.append(f"{candidate}: {error.strerror}")
            continue
        if str(candidate) != before:
            _write(home.path / "runtime", str(candidate))
        return candidate
    raise InvalidArgument(
        f"no place for sockets: {'; '.join(refused)}", next="set XDG_RUNTIME_DIR to a short directory of your own"
    )


def _read(path: Path) -> str | None:
    """A small file of ours as text, without the last newline; None where there is none.

    Raises:
        Denied: it may not be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise Denied(
            f"{path} belongs to another user", next="run as its owner, or choose another: --home DIR"
        ) from None


def _write(path: Path, text: str, *, once: bool = False) -> None:
    """Whole or not at all, also when the machine stops. With `once` the first of several writers wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not once:
            draft.replace(path)
        else:
            with suppress(FileExistsError):
                path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
