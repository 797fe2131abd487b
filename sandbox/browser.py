"""Whether Chromium's own sandbox stands under a runtime: found out by starting it there and looking at its processes.

A browser has two walls: the sandbox that everything here has, and its own, which keeps what a page takes over from the
browser's files and from the door. The second is made of namespaces, which some kernels and engines do not let it have.
"""

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from anyio import fail_after

from sandbox import inside_browser
from sandbox.engine import Engine, Exit, Program, SandboxError
from sandbox.probe import Check
from sandbox.profile import Profile

NAME = "browser"
PROFILE = Profile(image="marco", entry=(), memory_mb=512, workspace_mb=128, cpus=2.0, pids=512, calls="browser")
_PATIENCE = 90.0  # seconds
_MEND = 'have pages opened under another runtime: [profile.marco] runtime = "runsc"'


async def probe_browser(engine: Engine, runtime: str) -> Check:
    """Starts a browser under `runtime`. Takes some two seconds, six with gVisor; leaves nothing behind.

    Does not raise: an engine that fails, and one that lacks the image, is a check that fails.
    """
    profile = replace(PROFILE, entry=("python3", "-c", _source()), runtime=runtime)
    try:
        with _door() as door, fail_after(_PATIENCE):
            async with engine.open(f"probe-{secrets.token_hex(4)}", Program(profile, b"\n", door)) as sandbox:
                return judged(await sandbox.wait())
    except SandboxError as error:
        return Check(NAME, False, str(error), "")
    except TimeoutError:
        return Check(NAME, False, f"no browser started within {_PATIENCE:.0f} s", _MEND)


def _sentence(said: object) -> str:
    """What it said first, without where in its source, and without its advice to do without a sandbox."""
    text = str(said)
    return (text.partition("] ")[2] or text).partition("!")[0][:200]


def _source() -> str:
    return Path(inside_browser.__file__).read_text(encoding="utf-8")


@contextmanager
def _door() -> Iterator[Path]:
    """An empty one: nobody is behind it."""
    with tempfile.TemporaryDirectory(prefix="madlab-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def judged(ended: Exit) -> Check:
    """What is to be said of what was seen inside."""
    try:
        seen = json.loads(ended.log.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Check(NAME, False, f"the browser's sandbox ended without an answer: {ended.last_words()}", _MEND)
    if "said" in seen:
        return Check(NAME, False, f"Chromium does not start with its own sandbox: {_sentence(seen['said'])!r}", _MEND)
    # A kernel of its own may not count filters; that each process has one, and no rights, it tells as well.
    apart = seen.get("user") is True and seen.get("seccomp") == "2" and not int(str(seen.get("capabilities") or 0), 16)
    twice = seen.get("filters") in ("", None) or int(seen["filters"]) > 1
    detail = "Chromium's own sandbox holds each page: namespaces and system calls of its own"
    return Check(NAME, True, detail) if apart and twice else Check(NAME, False, f"pages are held by: {seen}", _MEND)
