"""Cores that kill themselves with SIGKILL when a run has reached a state: `python -m tests.fault.dying_core`.

It reads lines `[HOME, STATE]`, forks a core for each, so that a life does not begin with the import of the libraries,
and says two numbers: the core's pid, and later how it ended. `Cores` is who asks it. With HOME and STATE as arguments
it is that one core itself. STATE is a state of the run table, or `up`: as soon as the core itself is ready; empty: it
does not kill itself.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import anyio

from core.home import Home
from core.lab import Lab
from core.rogers.entry import Row
from tests.labs import ROOT, opened


@dataclass(frozen=True)
class Core:
    """A core that was forked."""

    pid: int
    _cores: "subprocess.Popen[bytes]"

    def ended(self, within_s: float) -> int | None:
        """How it ended; None: it has not, so far. To be asked until it has, and then no more."""
        assert self._cores.stdout is not None
        if not select.select([self._cores.stdout], [], [], within_s)[0]:
            return None
        return int(self._cores.stdout.readline())


@dataclass(frozen=True)
class Cores:
    """Starts cores, one after the other."""

    _process: "subprocess.Popen[bytes]"

    def start(self, home: Home, state: str = "") -> Core:
        """Forks one; the one before it must have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(home.path), state]).encode() + b"\n")
        return Core(int(self._process.stdout.readline()), self._process)


@contextmanager
def cores() -> Iterator[Cores]:
    """Who forks them, in a process that has no thread and no loop."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MADLAB_")}
    command = [sys.executable, "-m", "tests.fault.dying_core"]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # unbuffered: a line that is read ahead would be hidden from `select`
        command, cwd=ROOT, env=kept, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True
    ) as process:
        try:
            yield Cores(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and with it a core that did not die


def main() -> None:
    if sys.argv[1:]:
        home, state = sys.argv[1:]
        anyio.run(live, home, state, time.time())
    end_with_parent()
    for line in sys.stdin:
        home, state = json.loads(line)
        began = time.time()
        core = os.fork()
        if core == 0:
            end_with_parent()
            live_and_die(home, state, began)
        print(core, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(core, 0)[1]), flush=True)


def end_with_parent() -> None:
    """Whatever becomes of the tests, nothing of this stays behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, see prctl(2)


def live_and_die(home: str, state: str, began: float) -> NoReturn:
    """The whole life of a core; its words go to where a core's go."""
    try:
        words = os.open(Path(home, "core.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for each in (1, 2):
            os.dup2(words, each)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        anyio.run(live, home, state, began)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)  # never back into who forks


def dies_at(state: str, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.kind == "run" and json.loads(row.body or b"{}").get("state") == state:
            os.kill(os.getpid(), signal.SIGKILL)


async def live(home: str, state: str, began: float) -> None:
    async with opened(Home.open(home)) as lab:
        await until_dead(lab, state, began)


async def until_dead(lab: Lab, state: str, began: float) -> None:
    if state == "up":
        os.kill(os.getpid(), signal.SIGKILL)
    lab.journal.on_commit(lambda rows: dies_at(state, rows))
    # A run may have come so far, and a little further, while the lab opened.
    sql = "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'run' AND j.at >= ?"
    if any(json.loads(body).get("state") == state for (body,) in await lab.journal.query(sql, (began,))):
        os.kill(os.getpid(), signal.SIGKILL)
    await anyio.sleep_forever()


if __name__ == "__main__":
    main()
