"""Runs one program that reads hostile files: bounded in time, memory, output and descendants, with nothing to inherit.

The program is started by a few lines of Python that set its limits and then become it, in its own session, with an
environment of our making and an empty directory as its home. Whatever it leaves running is killed with it.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import anyio
from anyio.abc import Process

MEMORY_MB = 900
OUTPUT_MB = 32
STDERR_CHARACTERS = 128 * 2**10
LAUNCHER = """
import json, os, resource, sys
for name, value in json.loads(sys.argv[1]).items():
    kind = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said."""

    code: int  # negative: killed by that signal
    output: bytes
    errors: str  # the tail of its standard error
    reason: Literal["exited", "timed_out"] = "exited"


def find_program(name: str) -> str | None:
    """Where a scanner's program is: beside the interpreter, beside an installed package, or on the path."""
    folders = [Path(sys.executable).parent, *(Path(each) / "bin" for each in sys.path if each)]
    folders += [Path(each) for each in os.environ.get("PATH", os.defpath).split(os.pathsep) if each]
    return next((str(each / name) for each in folders if os.access(each / name, os.X_OK)), None)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a Python module with our own import path: nothing of the scanned tree, no `.pth` file."""
    path = [each for each in sys.path if each]
    code = (
        f"import sys, runpy; sys.path[:0] = {path!r}; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-I", "-S", "-B", "-W", "ignore", "-c", code, *arguments]


async def run(command: Sequence[str], *, seconds: float, stdin: bytes = b"", memory_mb: int = MEMORY_MB) -> Ended:
    """Runs `command` to its end, or until `seconds` have passed.

    Raises:
        OSError: it could not be started.
    """
    limits = {
        "CORE": 0,
        "NOFILE": 1024,
        "DATA": memory_mb * 2**20,
        "FSIZE": OUTPUT_MB * 2**20,
        "CPU": int(seconds * 4) + 10,
    }
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, json.dumps(limits), *command]
    with TemporaryDirectory(prefix="scanner-") as folder:
        home, source, out, err = (Path(folder) / each for each in ("home", "in", "out", "err"))
        home.mkdir()
        source.write_bytes(stdin)
        with ExitStack() as files:
            process = await anyio.open_process(
                launch,
                stdin=files.enter_context(source.open("rb")),
                stdout=files.enter_context(out.open("wb")),
                stderr=files.enter_context(err.open("wb")),
                cwd=home,
                env=_environment(home),
                start_new_session=True,
            )
        in_time = False
        try:
            with anyio.move_on_after(seconds):
                await process.wait()
                in_time = True
        finally:
            await _end(process)
        code = process.returncode if process.returncode is not None else -signal.SIGKILL
        errors = err.read_bytes()[-STDERR_CHARACTERS:].decode("utf-8", "replace")
        return Ended(code, out.read_bytes(), errors, "exited" if in_time else "timed_out")


async def _end(process: Process) -> None:
    """Kills the process with everything in its session and waits for it, whatever happens around us."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True), anyio.move_on_after(5):
        await process.wait()


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONHASHSEED": "0",
    }
