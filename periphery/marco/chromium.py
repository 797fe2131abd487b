"""Starts one browser for one run: Chromium without a window, in its own sandbox, with nothing but a pipe to talk to.

It has no network but what `network.py` answers, a profile in the run's workspace, and no leave to ask a person
anything. Its own sandbox (namespaces and a seccomp filter for each process that touches a page) is required: where the
machine does not allow it, it does not start, and `madlab doctor` says what helps.
"""

import ctypes
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anyio import CancelScope, Event, to_thread
from anyio.abc import TaskGroup

from periphery.marco.pipe import BrowserGone, Pipe
from protos.errors import Unavailable

PROGRAM = Path("/usr/lib/chromium/chromium-headless-shell")
WIDTH, HEIGHT = 1280, 1024  # CSS pixels
_PIPE_BYTES = 1024 * 1024
_ABOVE = 10  # descriptors of ours stay above those that the browser wants as 3 and 4
_SET_DUMPABLE = 4  # prctl's
_NO_SANDBOX = "No usable sandbox"

FLAGS = (
    "--remote-debugging-pipe",
    f"--window-size={WIDTH},{HEIGHT}",
    "--disable-gpu",
    "--disable-3d-apis",  # drawn by a process that is walled in less than a page's
    "--disable-software-rasterizer",
    "--disable-dev-shm-usage",  # /dev/shm has 8 MB here
    "--hide-scrollbars",
    "--mute-audio",
    "--lang=en",
    # nobody is there to be asked
    "--block-new-web-contents",
    "--deny-permission-prompts",
    "--disable-notifications",
    "--no-default-browser-check",
    "--no-first-run",
    "--password-store=basic",
    # nothing of its own to fetch or to tell: there is no network, and each try would be a request that fails
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--no-pings",
    "--disable-features=MediaRouter,OptimizationHints,Translate",
    # a page that nobody looks at works all the same
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--log-level=3",  # last words only
)


@asynccontextmanager
async def open_browser(tasks: TaskGroup, folder: Path) -> AsyncIterator[Pipe]:
    """A running browser, whose profile is in `folder`. Leaving ends it, with all its processes.

    Raises:
        Unavailable: it did not start; the sentence says why.
    """
    words = folder / "last-words"
    _keep_to_ourselves()
    pid, reading, writing = _spawn(folder, words)
    pipe, ended = Pipe(reading, writing), Event()
    tasks.start_soon(_read, pipe, ended)
    try:
        try:
            await pipe.call("Browser.setDownloadBehavior", behavior="deny")
        except BrowserGone:
            raise _why_not(words) from None
        yield pipe
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with CancelScope(shield=True):
            await to_thread.run_sync(os.waitpid, pid, 0)
            await ended.wait()  # its end of the pipe closed with it
        os.close(writing)
        os.close(reading)


def _keep_to_ourselves() -> None:
    """Closes our memory to other processes of this user: the browser's are, and our session is in it."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0):
        raise OSError(ctypes.get_errno(), "prctl")


async def _read(pipe: Pipe, ended: Event) -> None:
    try:
        await pipe.run()
    finally:
        ended.set()


def _spawn(folder: Path, words: Path) -> tuple[int, int, int]:
    """Starts the program; returns its process id, and the ends to read from and to write to."""
    folder.mkdir(exist_ok=True)
    ends = (*os.pipe(), *os.pipe())
    commands, writing, reading, answers = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for each in ends)
    for each in ends:
        os.close(each)
    with suppress(OSError):  # larger is faster, and not more
        for each in (writing, reading):
            fcntl.fcntl(each, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    pid = os.posix_spawn(
        PROGRAM,
        [PROGRAM.name, f"--user-data-dir={folder}", *FLAGS, "about:blank"],
        {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "PATH": "/usr/bin"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(words), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, commands, 3),
            (os.POSIX_SPAWN_DUP2, answers, 4),
        ],
        setpgroup=0,
    )
    os.close(commands)
    os.close(answers)
    return pid, reading, writing


def _why_not(words: Path) -> Unavailable:
    said = words.read_text(errors="replace")
    if _NO_SANDBOX in said:
        return Unavailable(
            "Chromium's own sandbox does not work under this runtime, and without it there is no browsing.",
            next='See: madlab doctor. Where it accepts gVisor: [profile.marco] runtime = "runsc".',
        )
    return Unavailable(f"The browser did not start: {said.strip()[-300:] or 'it said nothing'}")
