"""Acts that use something up: processes, memory, disk, descriptors, the log. They stop at many times the limit."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from anyio import sleep_forever, to_thread

MB = 1024 * 1024
MARK = "hostile-orphan-of-madlab"  # in the command line of what is left behind on purpose


async def in_process(function: str) -> Any:
    """What a function of this module says, or how its process ended. The MAD itself lives on to tell."""
    code = f"from tests.emads.hostile import bombs; print(bombs.{function}())"
    done = await to_thread.run_sync(
        partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    )
    return done.stdout.strip() or f"{done.returncode}: {done.stderr[-300:]}"


def processes() -> str:
    """Children without end, all alive at once."""
    children: list[int] = []
    try:
        while len(children) < 2000:
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError as error:
        return f"{len(children)} then {errno.errorcode[error.errno or 0]}"
    finally:
        for each in children:  # else nobody could hear how it went: they hold the pipe
            os.kill(each, signal.SIGKILL)
    return f"{len(children)}"


def threads() -> str:
    """Threads without end."""
    held: list[threading.Thread] = []
    try:
        while len(held) < 4000:
            one = threading.Thread(target=signal.pause, daemon=True)
            one.start()
            held.append(one)
    except RuntimeError as error:
        sys.stdout.write(f"{len(held)} then {error}\n")
        sys.stdout.flush()
        os._exit(0)
    return f"{len(held)}"


def disk() -> str:
    """One file without end."""
    return _fill("/workspace/fill", 4096)


def shared_memory() -> str:
    """The same where shared memory is."""
    return _fill("/dev/shm/fill", 1024)


def temporary() -> str:
    """The same in /tmp."""
    return _fill("/tmp/fill", 1024)


def _fill(name: str, most_mb: int) -> str:
    written, chunk = 0, b"x" * MB
    try:
        with open(name, "wb", buffering=0) as file:
            while written < most_mb * MB:
                written += file.write(chunk)
    except OSError as error:
        return f"{written // MB} then {errno.errorcode[error.errno or 0]}"
    finally:
        os.unlink(name)
    return f"{written // MB}"


def inodes() -> str:
    """Empty files without end."""
    count = 0
    try:
        while count < 200_000:
            os.close(os.open(f"/workspace/n{count}", os.O_CREAT | os.O_WRONLY, 0o600))
            count += 1
    except OSError as error:
        return f"{count} then {errno.errorcode[error.errno or 0]}"
    finally:
        for each in range(count):
            os.unlink(f"/workspace/n{each}")
    return f"{count}"


def descriptors() -> str:
    """Open files without end."""
    held: list[int] = []
    try:
        while len(held) < 100_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return f"{len(held)} then {errno.errorcode[error.errno or 0]}"
    return f"{len(held)}"


async def memory() -> Any:
    """Memory, touched, until the kernel ends it: in the MAD's own process."""
    held: list[bytearray] = []
    while len(held) < 4096:
        held.append(bytearray(b"\x01") * MB)
    return len(held)


async def log() -> Any:
    """Lines on standard output without end, one that drives a terminal, and a sudden end."""

    def write() -> None:
        line = b"x" * 1023 + b"\n"
        for _ in range(512):
            os.write(1, line * 128)
        os.write(2, b"\x1b]0;owned\x07" * 1000)
        os._exit(9)

    await to_thread.run_sync(write)


async def orphans() -> Any:
    """Children that leave their parent and their session, ignore every signal there is, and wait; so does the MAD."""
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                continue
    code = (
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(3600)\n"
        "        os._exit(0)\n"
        "time.sleep(3600)\n"
    )
    subprocess.Popen([sys.executable, "-c", code, MARK], start_new_session=True)
    await sleep_forever()


async def stubborn() -> Any:
    """Holds its only thread and ignores what it is told; only a kill ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        sum(range(1000))


ACTS: dict[str, Callable[[], Awaitable[Any]]] = {
    **{
        name: partial(in_process, name)
        for name in ("processes", "threads", "disk", "shared_memory", "temporary", "inodes", "descriptors")
    },
    "memory": memory,
    "log": log,
    "orphans": orphans,
    "stubborn": stubborn,
}
