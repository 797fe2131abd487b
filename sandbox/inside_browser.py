"""Runs inside a sandbox: starts Chromium, waits for a process that would hold a page, and says how that is walled in.

Only the standard library, and one line of JSON on standard output: `sandbox.browser` reads it as data.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = "/usr/lib/chromium/chromium-headless-shell"
FLAGS = ("--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=/workspace/probe", "--log-level=3")
PATIENCE_S = 40.0
SETTLED_S = 10.0


def look() -> dict[str, object]:
    """What holds for the process of a page; its absence is an answer, too."""
    into, commands = os.pipe()
    answers, out = os.pipe()
    with Path("/workspace/words").open("w+b") as words:
        browser = subprocess.Popen(
            # No shell to move descriptors with: a Python does, and becomes the browser.
            [sys.executable, "-c", _START, str(into), str(out), PROGRAM, *FLAGS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            pass_fds=(into, out),
            start_new_session=True,
        )
        try:
            until = time.monotonic() + PATIENCE_S
            found: dict[str, object] = {}
            while time.monotonic() < until and browser.poll() is None:
                if seen := _page():
                    if seen["filters"] != "1":
                        return seen
                    # It narrows its calls once it is up; a kernel of its own does not tell how often.
                    until = until if found else min(until, time.monotonic() + SETTLED_S)
                    found = seen
                time.sleep(0.1)
            words.seek(0)
            return found or {"said": words.read().decode(errors="replace")[:1000]}
        finally:
            if browser.poll() is None:
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            for each in (into, out, commands, answers):
                os.close(each)


_START = """import fcntl, os, sys
into, out, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
into, out = fcntl.fcntl(into, fcntl.F_DUPFD, 20), fcntl.fcntl(out, fcntl.F_DUPFD, 20)
os.dup2(into, 3)
os.dup2(out, 4)
os.execv(program, [program, "--remote-debugging-pipe", *sys.argv[4:], "about:blank"])
"""


def _page() -> dict[str, object]:
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{each}/cmdline").read_text()
            if not (words.startswith(PROGRAM) and "--type=renderer" in words):
                continue
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{each}/status").read_text().splitlines())
            return {
                "user": os.readlink(f"/proc/{each}/ns/user") != os.readlink("/proc/self/ns/user"),
                "seccomp": status.get("Seccomp", "").strip(),
                "filters": status.get("Seccomp_filters", "").strip(),
                "capabilities": status.get("CapEff", "").strip(),
            }
        except (OSError, ValueError):
            continue  # it ended in this moment, or is not ours to look at
    return {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()) + "\n")
