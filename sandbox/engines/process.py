"""Host processes as an engine: a program in a process group of its own, with no isolation whatever.

For residents of ours in a process beside the core, and for tests of lifetimes. Never for code that is not ours: it
sees what the user sees. The profile's limits and image are not looked at; its entry runs on this host as it is. Its
bundles are links in a folder that MADLAB_BUNDLES names: there, too, nothing keeps the program from writing but the
host's own permissions.

What a crashed core must find again lies in one directory per sandbox: who runs (written by the child itself before it
becomes the program, so that there is no moment in which it runs unrecorded), and what it wrote. A process is known by
its id *and* the time of its start, so that a recycled id is never killed.
"""

import logging
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anyio import CancelScope, move_on_after, sleep, to_thread, wait_readable

from sandbox.engine import Exit, Meter, Program, SandboxError, Usage
from sandbox.profile import Profile

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RECORD = """set -e
read -r boot </proc/sys/kernel/random/boot_id
read -r stat <"/proc/$$/stat"
echo "$boot $stat" >"$0"
exec "$@"
"""
_INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "XDG_RUNTIME_DIR")
_LOG_BYTES = 16 * 1024  # of a program's last words
_LOG_LIMIT = 4 * 1024 * 1024  # of the file, looked at every few seconds
_LOG_EVERY = 5.0
_DESTROY = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Stat:
    """A line of /proc/PID/stat."""

    def __init__(self, line: str) -> None:
        self.pid = int(line.split(" ", 1)[0])
        fields = line.rpartition(")")[2].split()
        self.state = fields[0]
        self.session = int(fields[3])
        self.cpu_seconds = (int(fields[11]) + int(fields[12])) / _TICKS
        self.started = int(fields[19])  # in ticks since the machine started
        self.memory_bytes = int(fields[21]) * _PAGE


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> _Stat | None:
    """What runs under an id now; None when nothing does, or only a corpse."""
    try:
        found = _Stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if found.state in "ZX" else found


def _members(session: int) -> Iterator[_Stat]:
    """The living processes of a session."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := _stat(int(name))) and found.session == session:
            yield found


class _Home:
    """The directory of one sandbox."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.record = path / "process"
        self.bundles = path / "bundle"

    def link(self, profile: Profile) -> dict[str, str]:
        """Lays the profile's bundles where the program finds them, and returns the variable that says where."""
        if not profile.bundles:
            return {}
        self.bundles.mkdir()
        for bundle in profile.bundles:
            (self.bundles / Path(bundle.place).name).symlink_to(bundle.host)
        return {"MADLAB_BUNDLES": str(self.bundles)}

    def recorded(self) -> _Stat | None:
        """The program's process as it was at its start; None when it never came to be in this boot of the machine."""
        try:
            boot, _, line = self.record.read_text().partition(" ")
        except FileNotFoundError:
            return None
        return _Stat(line) if line and boot == _boot() else None

    def leader(self) -> _Stat | None:
        """The program's process, if it still runs."""
        was = self.recorded()
        now = _stat(was.pid) if was else None
        return now if was and now and now.started == was.started else None

    def kill(self) -> bool:
        """Kills all of the group; returns whether nothing was left to kill."""
        was = self.recorded()
        if was is None:
            return True
        # While members of a group live, its id is not given to a new process: a stranger under it means they are gone.
        if (now := _stat(was.pid)) and now.started != was.started:
            return True
        left = [member for member in _members(was.pid) if member.started >= was.started]
        for member in left:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        return not left

    def last_words(self) -> str:
        """The end of what it wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def bound_log(self) -> None:
        """Empties the log when it has grown too long: the program appends, so it goes on at the start."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT:
                os.truncate(self.log, 0)


class ProcessSandbox:
    """One process group."""

    def __init__(self, name: str, home: _Home, child: int | None) -> None:
        self.name = name
        self._home = home
        self._child = child  # None for an adopted one: its exit code belongs to a parent that is no more
        self._exit: Exit | None = None
        self.left = False

    async def wait(self) -> Exit:
        """See `Sandbox.wait`. An adopted program's exit code is not to be had: it is None."""
        while self._exit is None:
            if self._child is not None:
                await self._until_ended(self._child)
                self._collect(self._child)
            elif leader := self._home.leader():
                await self._until_ended(leader.pid)
            else:
                self._exit = Exit(None, "exited", self._home.last_words())
        return self._exit

    def _collect(self, child: int) -> None:
        """Takes the exit code of our own child; it can be taken once."""
        if self._exit is not None:
            return
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            killed = code == -signal.SIGKILL
            self._exit = Exit(None if killed else code, "killed" if killed else "exited", self._home.last_words())

    async def _until_ended(self, pid: int) -> None:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            with CancelScope() as ended:
                while True:
                    with move_on_after(_LOG_EVERY):
                        await wait_readable(handle)
                        ended.cancel()
                        break
                    self._home.bound_log()
        finally:
            os.close(handle)

    async def kill(self) -> None:
        """See `Sandbox.kill`."""
        await to_thread.run_sync(self._kill_all)

    def _kill_all(self) -> bool:
        if self._child is not None and self._exit is None:  # until it is collected, its id is nobody else's
            with suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)
        return self._home.kill()

    async def usage(self) -> Usage:
        """See `Sandbox.usage`."""
        try:
            return self._measured()
        except ProcessLookupError as error:
            raise SandboxError("the sandbox has ended: there is nothing to measure") from error

    async def meter(self) -> Meter:
        """See `Sandbox.meter`."""
        await self.usage()
        return self._measured

    def _measured(self) -> Usage:
        leader = self._home.leader()
        if leader is None:
            raise ProcessLookupError
        members = list(_members(leader.pid))
        return Usage(
            memory_bytes=sum(member.memory_bytes for member in members),
            cpu_seconds=sum(member.cpu_seconds for member in members),
            pids=len(members),
        )

    def leave(self) -> None:
        """See `Sandbox.leave`."""
        self.left = True

    async def destroy(self) -> None:
        """Kills the group until nothing is left, then removes the directory."""
        while not await to_thread.run_sync(self._kill_all):  # noqa: ASYNC110  the kernel tells of the leader's end only
            await sleep(0.01)
        if self._child is not None:
            await self.wait()
        shutil.rmtree(self._home.path, ignore_errors=True)


class ProcessEngine:
    """The process groups of one lab."""

    name = "process"

    def __init__(self, lab: str, directory: Path) -> None:
        self._lab = lab
        self._directory = directory  # this lab's own; on a file system that a restart of the machine empties, at best

    def _home(self, name: str) -> _Home:
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name!r} is no name for a sandbox: use a-z, 0-9 and -, at most 63")
        return _Home(self._directory / name)

    async def about(self, runtime: str) -> str:
        """See `Engine.about`."""
        return "no isolation"

    @asynccontextmanager
    async def open(self, name: str, program: Program) -> AsyncIterator[ProcessSandbox]:
        """See `Engine.open`."""
        home = self._home(name)
        with CancelScope(shield=True):
            child = await to_thread.run_sync(self._spawn, home, program)
        sandbox = ProcessSandbox(name, home, child)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox)

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[ProcessSandbox]:
        """See `Engine.adopt`."""
        home = self._home(name)
        if not home.path.is_dir():
            raise SandboxError(f"lab {self._lab[:8]} has no sandbox {name!r}")
        sandbox = ProcessSandbox(name, home, None)
        try:
            yield sandbox
        finally:
            await self._leave(sandbox)

    async def _leave(self, sandbox: ProcessSandbox) -> None:
        if sandbox.left:
            return
        with move_on_after(_DESTROY, shield=True) as scope:
            await sandbox.destroy()
        if scope.cancelled_caught:
            logger.warning("the processes of %s do not die, and wait to be reaped", sandbox.name)

    async def names(self) -> list[str]:
        """See `Engine.names`."""
        return await to_thread.run_sync(self._names)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._directory.iterdir()) if self._directory.is_dir() else []

    async def reap(self, keep: Collection[str]) -> list[str]:
        """See `Engine.reap`."""
        doomed = [name for name in await self.names() if name not in keep]
        for name in doomed:
            await self._leave(ProcessSandbox(name, self._home(name), None))
        left = await self.names()
        return [name for name in doomed if name not in left]

    def _spawn(self, home: _Home, program: Program) -> int:
        entry = program.profile.entry
        if not shutil.which(entry[0]):
            raise SandboxError(f"there is no program {entry[0]!r} on this machine")
        try:
            home.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise SandboxError(f"lab {self._lab[:8]} has a sandbox {home.path.name!r} already") from None
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ} | home.link(program.profile)
        reading, writing = os.pipe()
        try:
            with home.log.open("ab") as log, os.fdopen(writing, "wb") as stdin:
                actions = [
                    (os.POSIX_SPAWN_DUP2, source, to) for source, to in ((reading, 0), (log.fileno(), 1), (1, 2))
                ]
                child = os.posix_spawn(
                    "/bin/sh",
                    ["/bin/sh", "-c", _RECORD, str(home.record), *entry],
                    environment | {"MADLAB_DOOR": str(program.door)},
                    file_actions=actions,
                    setsid=True,  # out of reach of the terminal's signals, and a group that can be killed
                )
                with suppress(BrokenPipeError):
                    stdin.write(program.stdin)
                    stdin.flush()
        except OSError as error:
            shutil.rmtree(home.path, ignore_errors=True)
            raise SandboxError(f"{entry[0]} could not be started: {error}") from error
        finally:
            os.close(reading)
        for _ in range(1000):  # a few milliseconds: whoever looks at the directory now finds it recorded
            if home.recorded() or os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.002)
        return child
