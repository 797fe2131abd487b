"""Commands without a cold start: forks of an interpreter that has imported what every command imports first.

Nine tenths of what a short command takes are those imports. What is forked is the command all the same: a process with
its own arguments, environment, directory, streams and exit code, which imports by itself whatever it needs beyond.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple, TextIO

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def command(arguments: Sequence[str], *, stdin: str, env: Mapping[str, str], cwd: Path | str, within_s: float) -> Ended:
    """Runs `madlab` with these arguments to its end.

    Raises:
        TimeoutError: it goes on, and was killed.
    """
    with TemporaryFile() as said, TemporaryFile() as out, TemporaryFile() as err:
        said.write(stdin.encode())
        said.seek(0)
        ours, theirs = socket.socketpair()
        with ours, ours.makefile() as answers:
            ours.settimeout(within_s)
            with theirs:
                _ask([theirs.fileno(), said.fileno(), out.fileno(), err.fileno()])
            ours.sendall(json.dumps([list(arguments), dict(env), str(cwd)]).encode())
            ours.shutdown(socket.SHUT_WR)
            pid = _number(answers)
            try:
                code = _number(answers)
            except BaseException as error:
                with suppress(ProcessLookupError):  # it has ended just now
                    os.kill(pid, signal.SIGKILL)
                if isinstance(error, TimeoutError):
                    raise TimeoutError(f"madlab {' '.join(arguments)}: {_whole(out)}{_whole(err)}") from None
                raise
        return Ended(code, _whole(out), _whole(err))


def _ask(files: list[int]) -> None:
    """Has the starter begin a command; a starter that somebody has ended is begun again."""
    try:
        socket.send_fds(_starter(), [b"1"], files)
    except OSError:
        _starter.cache_clear()
        socket.send_fds(_starter(), [b"1"], files)


def _number(answers: TextIO) -> int:
    line = answers.readline()
    if not line:
        raise RuntimeError("who starts the commands of the tests (tests.warm) has ended; see its words above")
    return int(line)


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@cache
def _starter() -> socket.socket:
    """The end that requests go to, of this process's own interpreter; it ends when that is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        starter = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("MADLAB_")}
            | {"PYTHONPATH": str(ROOT)},
        )
    atexit.register(starter.wait)
    atexit.register(ours.close)  # first
    return ours


def _serve(requests: socket.socket) -> None:
    """Forks a command for each request, and tells its pid and its exit code."""
    import core.grace.cli.main as madlab

    for each in ("pydantic", "rich.console", "rich.table", "typer._adapters"):  # which Typer itself leaves for later
        import_module(each)
    gc.freeze()
    begun: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor that tells of the end
    while True:
        readable, _, _ = select.select([requests.fileno(), *begun], [], [])
        for ended in [each for each in readable if each in begun]:
            pid, asker = begun.pop(ended)
            os.close(ended)
            _tell(asker, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            asker.close()
        if requests.fileno() in readable:
            word, files, _, _ = socket.recv_fds(requests, 1, 4)
            if not word:
                return
            pid = os.fork()
            if not pid:
                requests.close()
                for other, (_, theirs) in begun.items():  # whose end must be seen by others
                    os.close(other)
                    theirs.close()
                _become(*files)
                madlab.main()
            asker = socket.socket(fileno=files[0])
            for file in files[1:]:
                os.close(file)
            _tell(asker, pid)
            begun[os.pidfd_open(pid)] = pid, asker


def _become(asker: int, *streams: int) -> None:
    """Makes this process what was asked for, but for running it."""
    with open(asker) as file:
        arguments, environment, directory = json.load(file)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv[1:] = arguments


def _tell(asker: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # it waits no longer
        asker.sendall(b"%d\n" % number)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
