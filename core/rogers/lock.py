"""One process at a time has the journal open."""

import fcntl
import os
from pathlib import Path
from typing import IO

from protos.errors import Conflict


def lock(path: Path) -> IO[str]:
    """Takes the one lock there is; the system gives it back when the process ends, however it ends.

    Raises:
        Conflict: another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (path, f"{path}.lock"):  # what is said in a lab is its owner's; SQLite's other files follow the first
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    lock = open(f"{path}.lock", "a+")  # noqa: SIM115  held as long as the journal is
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Conflict(
            f"the journal {path} is already open, in process {holder}",
            next="one lab, one core: stop the other with `madlab down`, or use another data directory",
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
