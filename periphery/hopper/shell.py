"""Runs commands in the tree: each in a session of its own, bounded in time and output, and gone when it is over.

Rules of the file
  1. A command ends when its shell does. Whatever it left running is killed then, so nothing holds a pipe open, no
     server of an earlier step answers a later one, and a test run starts from nothing.
  2. Killing means the whole process group, then everyone who left the group but kept the session or the mark in the
     environment. Who drops all three outlives the command, not the sandbox.
  3. In a sandbox the worker is the first process, so the dead that nobody waits for are its own to take: they count
     against the limit of processes.
  4. Output is read as fast as it comes and kept at both ends; memory is bounded by what is kept. Over `FLOOD_BYTES`
     the command is killed: it is a loop, not a log.
  5. The environment is made of a short list. The worker's own holds nothing secret either, but that is not for a
     command to find out.
  6. A command runs as the worker's user. So the worker closes its memory to it before the first: else what a tree's
     tests came to could be written there by the code under test.
"""

import ctypes
import os
import shutil
import signal
import time
from codecs import getincrementaldecoder
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio.abc import Process

from periphery.hopper.printable import printable, tail

KEPT = (
    *("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "ASAN_OPTIONS"),
    *("JAVA_HOME", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"),
)
HEAD_BYTES = 16 * 1024
TAIL_BYTES = 64 * 1024
FLOOD_BYTES = 64 * 2**20
TOLD_EVERY_S = 0.5
TOLD_BYTES = 1500
MARK = "HOPPER_COMMAND"
PR_SET_DUMPABLE = 4  # to 0: none but root may look into /proc/PID; what is started from here is as usual again
KILLED = -signal.SIGKILL

_running: set[int] = set()  # the shells of commands, which have somebody who waits for them

Tell = Callable[[str, dict[str, object]], Awaitable[None]]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    command: str
    exit_code: int  # negative: ended by that signal
    seconds: float
    output: str  # standard output and error as they came, printable; start and end where it was long
    timed_out: bool = False
    flooded: bool = False
    heard: frozenset[str] = frozenset()  # of the words that were listened for, those that it wrote anywhere

    @property
    def passed(self) -> bool:
        """Whether it came to its end and says that all is well."""
        return self.exit_code == 0 and not self.timed_out and not self.flooded

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.timed_out:
            return f"killed after {self.seconds:.0f} s: it took too long"
        if self.flooded:
            return f"killed: it wrote over {FLOOD_BYTES // 2**20} MiB"
        if self.exit_code < 0:
            return f"ended by signal {-self.exit_code} after {self.seconds:.1f} s"
        return f"exit {self.exit_code} after {self.seconds:.1f} s"


async def told_nobody(text: str, fields: dict[str, object]) -> None:
    """Where nobody listens."""


@dataclass
class Shell:
    """Runs commands in `root`, and remembers what it ran.

    `tell` hears of a command when it starts and when it ends (`what="command"`), and of its output (`what="output"`),
    at most twice a second. `environment` is added to every command's.
    """

    root: Path
    home: Path  # of the commands: HOME, with the place for temporary files below it
    tell: Tell = told_nobody
    environment: dict[str, str] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)

    async def run(
        self,
        command: str | Sequence[str],
        *,
        seconds: float,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        listed: bool = True,
        listen_for: Collection[str] = (),
    ) -> Ran:
        """Runs a line of shell, or a program with its arguments, for at most `seconds`.

        What is not `listed` is neither told nor remembered: the lab's own housekeeping. Words that are listened for
        are heard also where they stand in a part of the output that is not kept.

        Raises:
            OSError: it could not be started, because the program does not exist or there is no room.
        """
        _close_memory()
        line = printable(command if isinstance(command, str) else " ".join(command))
        tell = self.tell if listed else told_nobody
        await tell(f"$ {line[:1000]}", {"what": "command", "command": line[:1000]})
        mark = token_hex(8)
        started = time.monotonic()
        process = await anyio.open_process(
            [*_shell(), command] if isinstance(command, str) else list(command),
            stdin=PIPE if stdin else DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=self.root,
            env={**self.variables(), **(environment or {}), MARK: mark},
            start_new_session=True,
        )
        output = _Output(listen_for)
        in_time = False
        _running.add(process.pid)
        try:
            with anyio.move_on_after(seconds):
                await self._follow(process, output, stdin, tell)
                in_time = True
        finally:
            await _end(process, mark, output)
            _running.discard(process.pid)
        code = process.returncode if process.returncode is not None else KILLED
        ran = Ran(
            line,
            code,
            time.monotonic() - started,
            output.text(),
            timed_out=not in_time,
            flooded=output.flooded,
            heard=output.heard,
        )
        if listed:
            self.ran.append(ran)
        await tell(
            f"{line[:200]}: {ran.ending}",
            {"what": "command", "command": line[:1000], "exit_code": code, "seconds": round(ran.seconds, 3)},
        )
        return ran

    @property
    def seconds(self) -> float:
        """What all commands so far took together."""
        return sum(each.seconds for each in self.ran)

    async def _follow(self, process: Process, output: "_Output", stdin: bytes, tell: Tell) -> None:
        """Reads until the command has ended, which may be before everybody has closed its output."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, process, stdin)
            tasks.start_soon(self._read, process, output, tell)
            await process.wait()
            with anyio.move_on_after(0.05):  # what is in the pipe already
                await output.closed.wait()
            tasks.cancel_scope.cancel()

    async def _read(self, process: Process, output: "_Output", tell: Tell) -> None:
        assert process.stdout is not None
        told = time.monotonic()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                output.add(await process.stdout.receive(65536))
                if output.flooded:
                    _kill_group(process.pid)
                    return
                if tell is not told_nobody and time.monotonic() - told >= TOLD_EVERY_S:
                    told = time.monotonic()
                    if fresh := output.fresh():
                        await tell(fresh, {"what": "output"})
        output.closed.set()

    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        inherited = {name: value for name in KEPT if (value := os.environ.get(name))}
        temporary = self.home / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            "LANG": "C.UTF-8",
            **inherited,
            # Our image keeps the programs of a repository apart from the worker's: each has a path of its own.
            "PATH": os.environ.get("HOPPER_PATH") or inherited.get("PATH") or os.defpath,
            "HOME": str(self.home),
            "TMPDIR": str(temporary),
            "CI": "1",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "PAGER": "cat",
            "GIT_PAGER": "cat",
            "GIT_EDITOR": "true",
            "GIT_TERMINAL_PROMPT": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NPM_CONFIG_UPDATE_NOTIFIER": "false",
            **self.environment,
        }


class _Output:
    """The start and the end of what a command wrote."""

    def __init__(self, listen_for: Collection[str] = ()) -> None:
        self.closed = anyio.Event()
        self.size = 0
        self._head = b""
        self._tail = bytearray()
        self._told = 0
        self._awaited = {each.encode() for each in listen_for}
        self._heard: set[bytes] = set()
        self._overlap = b""  # a word may be cut by the border of two chunks

    @property
    def flooded(self) -> bool:
        return self.size > FLOOD_BYTES

    @property
    def heard(self) -> frozenset[str]:
        return frozenset(each.decode() for each in self._heard)

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._awaited:
            self._listen(chunk)
        if room := HEAD_BYTES - len(self._head):
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def _listen(self, chunk: bytes) -> None:
        said = self._overlap + chunk
        found = {each for each in self._awaited if each in said}
        self._heard |= found
        self._awaited -= found
        longest = max(map(len, self._awaited), default=1)
        self._overlap = said[-(longest - 1) :] if longest > 1 else b""

    def fresh(self) -> str:
        """The end of what has come since the last time."""
        new, self._told = self.size - self._told, self.size
        recent = (self._head + self._tail[-TOLD_BYTES:])[-min(new, TOLD_BYTES) :]
        return tail(printable(_decoded(recent)), TOLD_BYTES).strip("\n")

    def text(self) -> str:
        end = bytes(self._tail[-TAIL_BYTES:])
        missing = self.size - len(self._head) - len(end)
        if not missing:
            return printable(_decoded(self._head + end))
        note = f"\n[… {missing:,} bytes left out …]\n"
        return printable(_decoded(self._head)) + note + printable(_decoded(end))


def _decoded(content: bytes) -> str:
    return getincrementaldecoder("utf-8")("replace").decode(content)  # a character cut at the end is left out


@cache
def _close_memory() -> None:
    """Only where this process is the sandbox's first: a test of ours shares the machine with its debugger."""
    if os.getpid() == 1 and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the worker's memory cannot be closed to its commands")


def _shell() -> list[str]:
    return [shutil.which("bash") or "/bin/sh", "-c"]


async def _feed(process: Process, content: bytes) -> None:
    if process.stdin is not None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.send(content)
        await process.stdin.aclose()


async def _end(process: Process, mark: str, output: _Output) -> None:
    """Kills what is left of a command and waits for it, whatever happens around us."""
    with anyio.CancelScope(shield=True):
        _kill_group(process.pid)
        await anyio.to_thread.run_sync(_kill_strays, process.pid, mark)
        with anyio.move_on_after(5):
            await process.wait()
        await anyio.to_thread.run_sync(_reap)
        if process.stdout is not None:
            if not output.closed.is_set() and not output.flooded:
                with anyio.move_on_after(0.2), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while not output.flooded:
                        output.add(await process.stdout.receive(65536))
            await process.stdout.aclose()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill_strays(session: int, mark: str) -> None:
    """Kills who left the group: those of the session, and those that carry the command's mark."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(5):  # who is forking now is found the next time
        found = [pid for pid in _processes() if _belongs(pid, session, wanted)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    """Takes the dead that were left to the first process of the sandbox, where that is us: nobody else does."""
    if os.getpid() != 1:
        return
    for pid in _processes():
        with suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if status[0] == b"Z" and int(status[1]) == 1 and pid not in _running:
                os.waitpid(pid, os.WNOHANG)


def _processes() -> list[int]:
    own = os.getpid()
    with suppress(OSError):
        return [int(each) for each in os.listdir("/proc") if each.isdigit() and int(each) != own]
    return []


def _belongs(pid: int, session: int, wanted: bytes) -> bool:
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if status[0] == b"Z":
            return False
        if int(status[3]) == session:
            return True
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False
