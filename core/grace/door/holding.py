"""Keeps the page's port while the core is away: a process that holds the socket which listens there, and nothing else.

To a browser a lab is an origin, and on loopback an origin is a number. Whoever takes that number while the core is
away is the lab to every page that is open: he gets its token, and may plant a service worker that answers in the lab's
name from then on. So the number is not given up while a session holds for it:

    core ──── starts it, hands the socket over (SCM_RIGHTS) ────▶ holder ──── `end`, or a lease without a core, or
     │                                                            ▲   │       no home any more: it ends, and with it
     │ killed, or told to stop                                    │   │       the origin, for good
    next core ──── take ──────────────────────────────────────────┘   ▼
     ▲──── the same socket, the same origin ──────────────────────────┘

While it waits it accepts nothing: who connects stands in the socket's queue until the next core takes it up. Beside the
socket it keeps the origin's id, which is random and what sessions are bound to: once it has ended, nobody, not even
the lab, can be that origin again.

It is run by its path (`python -I -S holding.py HOME SOCKET`), with a unix socket as standard input that says what to
hold, and imports little, since it is to be small: 11 MiB, most of it the interpreter's that others share.
"""

import os
import select
import socket
import struct
import sys
import time
from math import inf

HOLDER = "page.sock"  # its door, in the runtime directory
PATIENCE_S = 2.0  # with a line that was begun
LOOK_S = 0.2  # between two looks whether the home is still there, while there is no core
LINE_BYTES = 200


def told(line: socket.socket) -> tuple[list[str], list[int]]:
    """The words of the next line, and the descriptors that came with it; no words where the other end is gone."""
    said = b""
    came: list[int] = []
    try:
        while not said.endswith(b"\n"):
            piece, descriptors, _, _ = socket.recv_fds(line, LINE_BYTES, 1)
            for each in descriptors:
                os.set_inheritable(each, False)
                came.append(each)
            if not piece:
                return [], came
            said += piece
    except OSError:
        return [], came
    return said.decode("ascii", "replace").split(), came


def is_ours(line: socket.socket) -> bool:
    """Whether the other end of a unix socket is a program of our own user."""
    try:
        if hasattr(socket, "SO_PEERCRED"):  # Linux: pid, uid, gid
            owner = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        else:  # macOS, BSD: LOCAL_PEERCRED of SOL_LOCAL is a struct xucred, which begins with its version and the uid
            owner = struct.unpack_from("=II", line.getsockopt(0, 1, 76))[1]
    except OSError:
        return False
    return bool(owner == os.getuid())


def called(place: str) -> socket.socket | None:
    """A line to the holder that listens at `place`; None where there is none."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(PATIENCE_S)
    try:
        line.connect(place)
    except OSError:
        line.close()
        return None
    if not is_ours(line):
        line.close()
        return None
    return line


def end(place: str) -> bool:
    """Has the holder at `place` end, and waits for it; whether there was one."""
    line = called(place)
    if line is None:
        return False
    with line:
        bid_end(line)
    return True


def bid_end(line: socket.socket) -> None:
    """Has the holder at the other end of `line` end, and waits until it has, if it does so in time."""
    try:
        line.settimeout(PATIENCE_S)
        line.sendall(b"end\n")
        while line.recv(LINE_BYTES):
            pass
    except OSError:
        pass  # it has ended already


def listening(place: str) -> socket.socket:
    """A unix socket at `place` that only this user can open."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.lexists(place):
        os.unlink(place)
    os.umask(0o177)
    door.bind(place)
    door.listen(4)
    return door


def hold(home: str, place: str) -> None:
    """Holds what standard input hands over, until nobody needs it."""
    core: socket.socket | None = socket.socket(fileno=0)
    assert core is not None
    core.settimeout(PATIENCE_S)
    (_, origin, lease), (held,) = told(core)
    if os.fork():
        os._exit(0)  # whoever started this has no child to look after
    door = listening(place)
    mine = os.stat(place).st_ino
    core.sendall(b"held\n")
    until = inf
    try:
        while time.monotonic() < until:
            try:
                if os.stat(place).st_ino != mine or not os.path.exists(os.path.join(home, "lab")):
                    return
            except FileNotFoundError:
                return
            lines = [door] if core is None else [door, core]
            ready = select.select(lines, [], [], LOOK_S if core is None else None)[0]
            if core is not None and core in ready:
                if told(core)[0] == ["end"]:
                    return
                core.close()
                core, until = None, time.monotonic() + float(lease)
            if door in ready:
                caller = door.accept()[0]
                caller.settimeout(PATIENCE_S)
                words = told(caller)[0] if is_ours(caller) else []
                if words == ["end"]:
                    return
                if words[:1] == ["take"] and _handed(caller, origin, held):
                    if core is not None:
                        core.close()
                    core, until, lease = caller, inf, words[1]
                else:
                    caller.close()
    finally:
        if os.path.exists(place) and os.stat(place).st_ino == mine:
            os.unlink(place)


def _handed(caller: socket.socket, origin: str, held: int) -> bool:
    try:
        socket.send_fds(caller, [f"{origin}\n".encode()], [held])
    except OSError:
        return False
    return True


if __name__ == "__main__":
    hold(*sys.argv[1:])
