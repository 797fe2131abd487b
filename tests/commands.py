"""The command `madlab` as a person or a program meets it: a process with arguments, output and an exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.grace.cli.client import Client
from core.home import Home
from tests import warm
from tests.labs import a_home
from tests.sizes import full

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "core.grace.cli.main")
LIMIT_S = 180
ECHO = 'emads = []\n[residents]\necho = { class = "tests.emads.echo:Echo" }\n'


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as the one JSON document it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error it told as JSON, on the last line of stderr."""
        error: dict[str, str] = json.loads(self.err.splitlines()[-1])["error"]
        assert set(error) == {"code", "message", "next"}
        return error


def environment(home: Path | str) -> dict[str, str]:
    """What a command sees of the machine: no settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MADLAB_") and name != "NO_COLOR"}
    return kept | {"MADLAB_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


@dataclass(frozen=True)
class Madlab:
    """The command, for one home."""

    home: Home
    limit_s: float = LIMIT_S

    def __call__(self, *arguments: object, cwd: Path | None = None, stdin: str = "") -> Result:
        """Runs it to its end; warm, but for the whole size and outside of tests, where its start may be measured."""
        words, env = [str(each) for each in arguments], environment(self.home.path)
        if "PYTEST_VERSION" in os.environ and not full():
            return Result(*warm.command(words, stdin=stdin, env=env, cwd=cwd or ROOT, within_s=self.limit_s))
        done = subprocess.run(
            [*COMMAND, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=self.limit_s,
            env=env,
            cwd=cwd or ROOT,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def started(self, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
        """Begins it; killed at the end if it has not ended."""
        process = subprocess.Popen(
            # Tests that run in the background ignore Ctrl-C, and so would their children; a person does not.
            ["env", "--default-signal=INT", *COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.home.path),
            cwd=ROOT,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def up(self) -> Result:
        """Starts the core."""
        done = self("up")
        assert done.code == 0, done.err
        return done

    def runs(self) -> list[dict[str, Any]]:
        """The runs of the lab, newest first, asked without a process for each question."""
        found: list[dict[str, Any]] = Client(self.home).get("/api/v1/runs")["runs"]
        return found

    def at_work(self) -> str:
        """Waits until a sandbox is there, and tells the latest run."""
        while not Client(self.home).get("/api/v1/status")["sandboxes"]:
            time.sleep(0.02)
        id: str = self.runs()[0]["id"]
        return id

    def kill_core(self) -> None:
        """Ends the core as a power cut would."""
        pid = self.home.holder()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.home.holder() is not None:
            time.sleep(0.005)


@contextmanager
def a_lab(
    settings: str = ECHO,
    *,
    images: Sequence[str] = (),
    limit_s: float = LIMIT_S,
    prepare: Callable[[Home], None] = lambda home: None,
) -> Iterator[Madlab]:
    """A running lab, and the command that talks to it. It is down at the end, and must go down in order.

    `prepare` puts into the home what must be there before the core starts.
    """
    with a_home(settings, images=images) as home:
        prepare(home)
        madlab = Madlab(home, limit_s)
        madlab.up()
        try:
            yield madlab
        finally:
            log = (home.path / "core.log").read_text()
            pid = home.holder()
            ended = madlab("down")
            if home.holder() is not None and pid is not None:
                os.kill(pid, signal.SIGKILL)
            assert ended.code == 0, ended.err + log
