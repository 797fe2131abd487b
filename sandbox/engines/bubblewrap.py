"""bubblewrap as an engine: for machines without Docker. The same walls, made by `bwrap` and a keeper for each sandbox.

    engine.open ──▶ keeper (`keeper.py`) ──▶ bwrap ──▶ the program
                        lays out the files, keeps the end of the log, writes down the exit

No service stands behind it. What a crashed core must find again is in one folder per sandbox, and who runs is asked of
the kernel: the keeper holds a lock on a file there for as long as it lives. Taking back, ending and reaping look at
nothing else, and the folder is one lab's own.

Root is needed for nothing, and changes two things. With it, the program is another user outside too, and its control
groups can be made anywhere. Without it, the program is the operator's own user outside its namespaces (uid 10001 is
what it sees), and limits on memory, processes and processor need groups that were delegated to the operator; where
there are none, the sandbox runs without these limits. Nothing of that is decided here: `sandbox.probe` sees which walls
hold, grades the engine by it, and a profile says what grade is the least it takes.

Images are the lab's own, unpacked layer by layer (`sandbox.images.unpacked`); nothing of a registry or of another
engine can be run here. RLIMIT_NPROC is not set: it counts a user's processes in all sandboxes together.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, move_on_after, to_thread, wait_readable

from sandbox.cgroup import oom_file, usage_in
from sandbox.engine import DOOR, Exit, Meter, Program, SandboxError, Usage
from sandbox.engines import keeper
from sandbox.groups import Limits, Places, entrances, remove
from sandbox.images.unpacked import Images
from sandbox.profile import BUNDLES, Profile
from sandbox.profiles import bpf

T = TypeVar("T")
logger = logging.getLogger(__name__)

UID = 10001
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CALLS = 4  # starts at once: more take longer together
_START = 40.0  # seconds; longer than the keeper's own patience
_DESTROY = 10.0
_STDIN = 32 * 1024  # bytes; what a program is told goes into a pipe before it starts
_MB = 1024 * 1024
_SMALL_MB = 8  # each of /tmp and /dev/shm
_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, process
_RLIMITS = {"RLIMIT_CORE": 0, "RLIMIT_MSGQUEUE": 0, "RLIMIT_NOFILE": 4096}
_MASKED = ("/proc/keys", "/proc/timer_list", "/proc/kcore")  # windows into the kernel that namespaces leave open
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Home:
    """The folder of one sandbox."""

    def __init__(self, path: Path, group: dict[str, Path]) -> None:
        self.path = path
        self.group = group  # empty where there can be none

    def keeper(self) -> int | None:
        """A handle of the process that keeps the sandbox, to be closed; None when it has ended or never came to be."""
        try:
            lock = os.open(self.path / keeper.LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return _held_by(lock)
        finally:
            os.close(lock)

    def ending(self) -> Exit:
        """How it ended, as the keeper wrote it down before it ended; killed, where the keeper was itself."""
        try:
            found = json.loads((self.path / keeper.ENDING).read_text())
        except FileNotFoundError:
            return Exit(None, "killed")
        return Exit(found["code"], found["reason"], found["log"])

    def signal(self, number: int) -> bool:
        """Whether there was a keeper to be told."""
        handle = self.keeper()
        if handle is None:
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def usage(self) -> Usage:
        """What is used now.

        Raises:
            OSError, ValueError, KeyError: it has ended.
        """
        if self.group:
            found = usage_in(self.group)
            return Usage(found.memory_bytes, found.cpu_seconds, max(found.pids - 1, 0))  # bwrap's monitor is in it
        return _usage_below(int((self.path / keeper.FIRST).read_text()))

    def bar(self) -> None:
        """From here on no keeper begins here, not even one that was started a moment ago; one that did is killed.

        A keeper that has the lock looks whether the file is still there. So it either sees that this one removed it,
        or is seen holding it; and with it the kernel ends what it keeps.
        """
        try:
            lock = os.open(self.path / keeper.LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            (self.path / keeper.LOCK).unlink(missing_ok=True)
            if (handle := _held_by(lock)) is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)
        finally:
            os.close(lock)


def _held_by(lock: int) -> int | None:
    """A handle of the process that holds the lock."""
    if not (holder := _holder(lock)):
        return None
    try:
        handle = os.pidfd_open(holder)
    except ProcessLookupError:
        return None
    # Whoever has the id now may be another; who still holds the lock afterwards was there all the time.
    if _holder(lock) == holder:
        return handle
    os.close(handle)
    return None


def _holder(lock: int) -> int:
    """The process that holds the lock; 0 when nobody does."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


class BubblewrapSandbox:
    """One keeper and what it keeps."""

    def __init__(self, name: str, home: _Home) -> None:
        self.name = name
        self._home = home
        self._exit: Exit | None = None
        self.left = False

    async def wait(self) -> Exit:
        """See `Sandbox.wait`."""
        while self._exit is None:
            handle = self._home.keeper()
            if handle is None:
                self._exit = self._home.ending()
                break
            try:
                await wait_readable(handle)
            finally:
                os.close(handle)
        return self._exit

    async def kill(self) -> None:
        """See `Sandbox.kill`."""
        self._home.signal(signal.SIGTERM)

    async def usage(self) -> Usage:
        """See `Sandbox.usage`. Where there is no control group, what the living processes have used."""
        handle = self._home.keeper()
        if handle is None:
            raise SandboxError("the sandbox has ended: there is nothing to measure")
        os.close(handle)
        try:
            return self._home.usage()
        except (OSError, ValueError, KeyError) as error:
            raise SandboxError("the sandbox has ended: there is nothing to measure") from error

    async def meter(self) -> Meter:
        """See `Sandbox.meter`."""
        await self.usage()
        return self._home.usage

    def leave(self) -> None:
        """See `Sandbox.leave`."""
        self.left = True

    async def destroy(self) -> None:
        """Ends it and waits until nothing is left, then removes the folder."""
        self._home.signal(signal.SIGTERM)
        with move_on_after(_DESTROY / 2) as patience:
            await self.wait()
        if patience.cancelled_caught:
            self._home.signal(signal.SIGKILL)  # and the kernel ends the others
            await self.wait()
        self._home.bar()
        gone = await to_thread.run_sync(remove, self._home.group)
        if not gone:
            raise SandboxError(f"processes of {self.name} do not end")
        shutil.rmtree(self._home.path, ignore_errors=True)


def _usage_below(first: int) -> Usage:
    memory, ticks, count = 0, 0, 0
    for pid in _family(first):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            memory, ticks, count = memory + int(fields[21]), ticks + int(fields[11]) + int(fields[12]), count + 1
    if not count:
        raise ProcessLookupError(first)
    return Usage(memory * _PAGE, ticks / _TICKS, count)


def _family(first: int) -> Iterator[int]:
    """A process and all below it: in a namespace of their own, nobody is born elsewhere or adopted from outside."""
    yield first
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{first}/task"):
            for child in Path(f"/proc/{first}/task/{task}/children").read_text().split():
                yield from _family(int(child))


class BubblewrapEngine:
    """The bubblewrap sandboxes of one lab."""

    name = "bubblewrap"

    def __init__(self, lab: str, directory: Path, images: Images) -> None:
        self._lab = lab
        self._directory = directory  # this lab's own; on a file system that a restart of the machine empties, at best
        self._images = images
        self._limiter = CapacityLimiter(_CALLS)
        self._known_places: list[Places | None] = []

    def _places(self) -> Places | None:
        if not self._known_places:
            self._known_places.append(Places.find())
        return self._known_places[0]

    def _home(self, name: str) -> _Home:
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name!r} is no name for a sandbox: use a-z, 0-9 and -, at most 63")
        places = self._places()
        return _Home(self._directory / name, places.group(f"{self._lab}-{name}") if places else {})

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)

    async def about(self, runtime: str) -> str:
        """See `Engine.about`."""
        return await to_thread.run_sync(self._about)

    def _about(self) -> str:
        program = Path(_bwrap())
        places = self._places()
        groups = sorted(str(each) for each in places.folders.values()) if places else []
        return json.dumps([str(program), program.stat().st_mtime, groups])

    @asynccontextmanager
    async def open(self, name: str, program: Program) -> AsyncIterator[BubblewrapSandbox]:
        """See `Engine.open`."""
        home = self._home(name)
        with CancelScope(shield=True):
            await self._call(self._start, home, program)
        sandbox = BubblewrapSandbox(name, home)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox)

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[BubblewrapSandbox]:
        """See `Engine.adopt`."""
        home = self._home(name)
        if not home.path.is_dir():
            raise SandboxError(f"lab {self._lab[:8]} has no sandbox {name!r}")
        sandbox = BubblewrapSandbox(name, home)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox)

    async def _leave(self, sandbox: BubblewrapSandbox) -> None:
        if sandbox.left:
            return
        try:
            with move_on_after(_DESTROY, shield=True) as scope:
                await sandbox.destroy()
            if not scope.cancelled_caught:
                return
            reason = f"it did not end within {_DESTROY:.0f} s"
        except SandboxError as error:
            reason = str(error)
        logger.warning("sandbox %s could not be removed and waits to be reaped: %s", sandbox.name, reason)

    async def names(self) -> list[str]:
        """See `Engine.names`."""
        return await to_thread.run_sync(self._names)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._directory.iterdir()) if self._directory.is_dir() else []

    async def reap(self, keep: Collection[str]) -> list[str]:
        """See `Engine.reap`."""
        doomed = [name for name in await self.names() if name not in keep]
        for name in doomed:
            await self._leave(BubblewrapSandbox(name, self._home(name)))
        left = await self.names()
        return [name for name in doomed if name not in left]

    def _start(self, home: _Home, program: Program) -> None:
        """Everything from the folder to the running program, in a thread. What fails leaves nothing."""
        told = self._told(home, program)
        try:
            home.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise SandboxError(f"lab {self._lab[:8]} has a sandbox {home.path.name!r} already") from None
        try:
            (home.path / keeper.STAGE).mkdir()
            (home.path / keeper.LOCK).touch(0o600)
            if places := self._places():
                places.make(home.group[next(iter(home.group))].name, _limits(program.profile))
            started = subprocess.run(
                # The folder is for whoever looks at a list of processes.
                [sys.executable, "-I", "-S", keeper.__file__, str(home.path)],
                input=json.dumps(told).encode() + b"\n",
                cwd=home.path,
                env={},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_START,
            )
            if started.returncode != 0:
                raise SandboxError(f"bubblewrap could not start it: {started.stderr.decode(errors='replace')[-1000:]}")
        except BaseException as error:
            home.bar()
            remove(home.group)
            shutil.rmtree(home.path, ignore_errors=True)
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise SandboxError(f"bubblewrap could not start it: {error}") from error
            raise

    def _told(self, home: _Home, program: Program) -> dict[str, Any]:
        """What the keeper is told. Every wall of a sandbox is here or in `arguments`."""
        profile = program.profile
        if profile.foreign:
            raise SandboxError(f"bubblewrap runs the lab's own images, and {profile.image} is none: that needs Docker")
        if len(program.stdin) > _STDIN:
            raise SandboxError(f"a program is told {_STDIN} bytes at most")
        image = self._images.find(profile.image)
        folders = {"door": program.door}
        folders |= {f"bundle/{Path(bundle.place).name}": bundle.host for bundle in profile.bundles}
        if gone := [str(host) for host in folders.values() if not host.is_dir()]:
            raise SandboxError(f"there is no folder {gone[0]} to be mounted")
        owner = UID if os.geteuid() == 0 else os.geteuid()
        group = home.group
        return {
            "bwrap": _bwrap(),
            "uid": UID if os.geteuid() == 0 else None,
            "arguments": arguments(profile, image.environment),
            "entry": profile.entry,
            "stdin": program.stdin.decode("latin-1"),
            "seccomp": bpf.program(profile.calls).hex(),
            "limits": _RLIMITS,
            "entrances": entrances(group),
            "groups": [str(folder) for folder in dict.fromkeys(group.values())],
            "oom_file": str(oom_file(group)) if group else None,
            "layers": str(image.folder),
            "root": image.layers,
            "memory": {
                "workspace": _tmpfs(profile.workspace_mb, owner),
                "tmp": _tmpfs(_SMALL_MB, owner),
                "shm": _tmpfs(_SMALL_MB, owner),
            },
            "folders": {place: str(host.resolve()) for place, host in folders.items()},
        }


def _bwrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError("bubblewrap is not installed: install the package bubblewrap (./deploy.sh does, as root)")
    return found


def arguments(profile: Profile, environment: dict[str, str]) -> list[str]:
    """What bwrap is asked for."""
    stage = keeper.MEETING
    variables = environment | {"HOME": "/workspace", "TMPDIR": "/workspace", "MADLAB_DOOR": DOOR}
    if profile.bundles:
        variables["MADLAB_BUNDLES"] = BUNDLES
    return [
        # Each by name: "all" would do without the one that this kernel has not.
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup"),
        *("--uid", str(UID), "--gid", str(UID), "--hostname", "sandbox"),
        *("--cap-drop", "ALL"),
        *(() if profile.calls == "browser" else ("--disable-userns",)),  # a browser's own sandbox is made of them
        *("--new-session", "--die-with-parent", "--as-pid-1"),
        *("--ro-bind", f"{stage}/root", "/"),
        *("--proc", "/proc"),
        *(word for window in _MASKED if os.path.exists(window) for word in ("--ro-bind", "/dev/null", window)),
        *("--dev", "/dev", "--bind", f"{stage}/shm", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108  in a sandbox
        *("--bind", f"{stage}/workspace", "/workspace", "--bind", f"{stage}/tmp", "/tmp"),  # noqa: S108
        *("--ro-bind", f"{stage}/door", DOOR),
        *(("--ro-bind", f"{stage}/bundle", BUNDLES) if profile.bundles else ()),
        *("--chdir", "/"),  # read-only: Python must never find a module in a workspace that others fill
        "--clearenv",
        *(word for name, value in sorted(variables.items()) for word in ("--setenv", name, value)),
    ]


def _limits(profile: Profile) -> Limits:
    # One more process: bwrap's monitor is in the group too.
    return Limits((profile.memory_mb + profile.workspace_mb) * _MB, profile.pids_limit + 1, profile.cpus)


def _tmpfs(mb: int, owner: int) -> str:
    return f"size={mb}m,nr_inodes={mb * 256},mode=0700,uid={owner},gid={owner}"
