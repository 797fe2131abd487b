"""A person at a terminal who presses Ctrl-C, and answers what they are asked."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable

from tests.commands import COMMAND, ROOT, Madlab, environment

LIMIT_S = 180


def on_a_terminal(
    madlab: Madlab, words: list[str], true: Callable[[], bool], *, prompt: str, answer: str
) -> tuple[int, str]:
    """Presses Ctrl-C once something is true and answers the prompt; the exit code, and all that was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *COMMAND, *words],  # see `Madlab.started`
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(madlab.home.path),
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    shown = b""

    def asked() -> bool:
        return prompt.encode() in shown

    left: list[tuple[Callable[[], bool], bytes]] = [(asked, answer.encode() + b"\n"), (true, b"\x03")]
    deadline = time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:
                    break  # it has ended, and so has its terminal
            if left and left[-1][0]():
                os.write(master, left.pop()[1])
        return process.wait(timeout=60), shown.decode(errors="replace")
    finally:
        process.kill()
        os.close(master)
