"""Files and folders that a person names: an empty name is none, and what would keep us waiting is not opened."""

import stat
from pathlib import Path

from protos.errors import InvalidArgument

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def named(path: str | Path) -> Path:
    """A path as it is written, for typer's `parser`.

    Raises:
        InvalidArgument: it is empty, as where a script's variable is unset; that would be the current folder.
    """
    if not str(path):
        raise InvalidArgument("the path is empty", next="name a path; the current folder is .")
    return Path(path)


def check_regular(path: Path, *, streams: bool = False) -> None:
    """Looks at a file before it is opened: a named pipe, for one, would keep the reader waiting for ever.

    With `streams`, for what is read once, the streams that this process was given are fine: `/dev/stdin`, and what
    a shell makes of `<(command)`.

    Raises:
        InvalidArgument: it is no regular file.
        OSError: it cannot be looked at.
    """
    mode = path.stat().st_mode
    given = path.is_relative_to("/dev/fd") or path.is_relative_to("/proc/self/fd") or str(path) == "/dev/stdin"
    if stat.S_ISREG(mode) or (streams and given):
        return
    kind = KINDS.get(stat.S_IFMT(mode), "of an unusual kind")
    pipes = "; what comes by a pipe, save first" if stat.S_ISFIFO(mode) else ""
    raise InvalidArgument(f"{path} is {kind}, and no regular file", next=f"name a file{pipes}")
