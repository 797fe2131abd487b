"""Keeps one bubblewrap sandbox: lays out its files, starts `bwrap`, outlives the core, writes down how it ended.

A program of its own (`python -I -S keeper.py`, with nothing of ours to import), because the sandbox must go on when
the core is killed, and somebody must be there to take the exit code. It is started in the folder of one sandbox and
told by one line of JSON what to do. The process that was started forks: it says on standard error why nothing runs and
ends with 1, or ends with 0 when the program runs; the other one stays.

    core ──▶ keeper ──▶ bwrap, its monitor ──▶ the program, first process of its own namespace
             lock file        dies with the keeper       dies with the monitor

- Whoever wants to know whether a sandbox lives asks the kernel who holds the lock on the file `keeper`: no id that was
  given to another process meanwhile, no record of a machine that was restarted since, is ever believed.
- SIGTERM ends the program. SIGKILL ends the keeper, and the kernel ends all the others: nothing is left either way.
- Files are laid out in a mount namespace that nobody else sees, and that goes with its last process. A root of layers
  that are read-only, memory file systems with a limit on bytes *and* files (bwrap's own have none on files), the door
  and the bundles. As root it gives its child to another user before bwrap begins, so bwrap never has a privilege;
  as any other user it takes a user namespace in which it may mount.
- What the program says goes through a pipe, of which the end is kept, and which is read no faster than RATE: a flood
  costs the flooder its time and nobody else.
"""

import ctypes
import fcntl
import json
import os
import re
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

LOCK, FIRST, ENDING, STAGE = "keeper", "first", "ending", "stage"  # in the folder of the sandbox
MEETING = "/tmp"  # noqa: S108  where bwrap, which is another user, finds what was laid out: in our namespace alone
WORDS = 16 * 1024  # of the program's last
CHUNK, RATE = 64 * 1024, 32 * 1024 * 1024  # bytes, and bytes a second
START_S = 30.0
LOOK_S = 0.001
NOSUID, NODEV, RDONLY, REMOUNT, BIND, REC, PRIVATE = 0x2, 0x4, 0x1, 0x20, 0x1000, 0x4000, 0x40000
NEWNS, NEWUSER = 0x20000, 0x10000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """The sandbox could not be started; the message says why."""


def main() -> None:
    given = json.loads(sys.stdin.buffer.readline())
    heard, ready = os.pipe()
    if os.fork() == 0:
        os.close(heard)
        os.setsid()
        keep(given, ready)
    os.close(ready)
    said = b""
    while part := os.read(heard, CHUNK):
        said += part
    if said != b"running":
        os.write(2, said or b"the keeper ended")
    os._exit(said != b"running")


def keep(given: dict[str, Any], ready: int) -> NoReturn:
    """From here on it is on its own: no terminal, no output, nobody who waits for it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(nowhere, each)
    os.umask(0o077)
    asked, ask = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(ask)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        lock = os.open(LOCK, os.O_RDWR)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(LOCK).st_ino != os.fstat(lock).st_ino:  # or it is gone: somebody removed the sandbox meanwhile
            raise Failed("the sandbox was removed before it began")
        lay_out(given)
        program = Program(given)
        program.run(asked, ready)
        program.write_ending()
    except Exception as error:  # noqa: BLE001  whoever waits is told, whatever it is
        with suppress(OSError):  # nobody waits any more
            os.write(ready, f"{error}".encode())
    clear(given)
    os._exit(0)


class Program:
    """bwrap and what runs in it."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._log, said = os.pipe()
        self._status, status = os.pipe()
        for each in (self._log, self._status):
            os.set_blocking(each, False)
        words = given["stdin"].encode("latin-1")
        stdin, write = os.pipe()
        os.set_blocking(write, False)
        if os.write(write, words) != len(words):
            raise Failed("what the program is told is longer than a pipe holds")
        os.close(write)
        self._words, self._told = bytearray(), b""
        self._first: int | None = None  # a handle of the program's first process
        self._pid = 0  # and its id, while it cannot have been given to another
        filtered = os.memfd_create("seccomp", 0)
        os.write(filtered, bytes.fromhex(given["seccomp"]))
        os.lseek(filtered, 0, os.SEEK_SET)
        command = ["bwrap", *given["arguments"], "--seccomp", str(filtered), "--json-status-fd", str(status)]
        self._command = [*command, "--", *given["entry"]]
        self._code = 0
        self._bwrap = os.fork()
        if self._bwrap == 0:
            self._become(stdin, said, (filtered, status))
        for each in (stdin, said, status, filtered):
            os.close(each)

    def _become(self, stdin: int, said: int, kept: tuple[int, ...]) -> NoReturn:
        try:
            for file in self._given["entrances"]:
                with open(file, "w") as entrance:
                    entrance.write("0")
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("500")  # when the machine runs out of memory, a sandbox dies before the core
            for each, most in self._given["limits"].items():
                resource.setrlimit(getattr(resource, each), (most, most))
            for to, source in enumerate((stdin, said, said)):
                os.dup2(source, to)
            for each in kept:
                os.set_inheritable(each, True)
            if (uid := self._given["uid"]) is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            for each in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):  # which Python changes, and a child inherits
                signal.signal(each, signal.SIG_DFL)
            os.umask(0o022)
            os.execve(self._given["bwrap"], self._command, {"PATH": "/usr/bin:/bin"})
        except Exception as error:  # noqa: BLE001  it goes to the log, from which whoever waits is told
            os.write(said, f"{error}\n".encode())
        finally:
            os._exit(1)

    def run(self, asked: int, ready: int) -> None:
        """Until the end; says at `ready` that it runs.

        Raises:
            Failed: it never did.
        """
        running = False
        ending = False
        until = time.monotonic() + START_S
        wait = select.poll()
        for each in (asked, self._log, self._status):
            wait.register(each, select.POLLIN)
        ended = os.pidfd_open(self._bwrap)
        wait.register(ended, select.POLLIN)
        while True:
            events = dict(wait.poll(None if running else LOOK_S * 1000))
            if self._log in events and not self._listen():
                wait.unregister(self._log)
            if self._status in events and not self._learn():
                wait.unregister(self._status)
            if asked in events:
                os.read(asked, CHUNK)
                self.kill()
                ending = True
            if ended in events:
                _, status = os.waitpid(self._bwrap, 0)
                self._code = os.waitstatus_to_exitcode(status)
                break
            if not running and self._is_another():
                running = True
                os.write(ready, b"running")
                os.close(ready)
            if not running and (ending or time.monotonic() > until):
                self.kill()
        self._join()
        while self._listen() or self._learn():
            pass
        if not running and b'"exit-code"' in self._told:  # it was too quick to be seen: bwrap says so of programs alone
            running = True
            os.write(ready, b"running")
            os.close(ready)
        if not running:
            said = self._words.decode(errors="replace").strip()[-1000:]
            raise Failed(said or f"bwrap ended with {self._code} before the program began")

    def _listen(self) -> bool:
        """Takes what was said, and keeps the end of it; False when nobody is left to say anything."""
        try:
            said = os.read(self._log, CHUNK)
        except BlockingIOError:
            return False
        self._words += said
        del self._words[:-WORDS]
        if len(said) == CHUNK:
            time.sleep(CHUNK / RATE)
        return bool(said)

    def _learn(self) -> bool:
        """Takes what bwrap tells of its child; False when it tells no more."""
        try:
            told = os.read(self._status, CHUNK)
        except BlockingIOError:
            return False
        self._told += told
        if self._first is None and (found := re.search(rb'"child-pid": (\d+)\D', self._told)):
            with suppress(ProcessLookupError):  # it has ended already: bwrap will say how
                self._first, self._pid = os.pidfd_open(int(found[1])), int(found[1])
                with open(FIRST, "w") as file:
                    file.write(str(self._pid))
        return bool(told)

    def _is_another(self) -> bool:
        """Whether the first process has become the program, and is bwrap no more."""
        if self._first is None:
            return False
        try:
            with open(f"/proc/{self._pid}/cmdline", "rb") as file:
                words = file.read(CHUNK)
        except OSError:
            return False
        return bool(words) and not words.startswith(b"bwrap\0" + self._given["arguments"][0].encode() + b"\0")

    def kill(self) -> None:
        """Ends the program: its first process, and with it, in the kernel, all the others."""
        with suppress(ProcessLookupError):
            if self._first is not None:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            else:
                os.kill(self._bwrap, signal.SIGKILL)

    def _join(self) -> None:
        """Waits until no process of the sandbox is left."""
        if self._first is not None:
            self.kill()
            wait = select.poll()
            wait.register(self._first, select.POLLIN)
            wait.poll(START_S * 1000)

    def write_ending(self) -> None:
        code = 128 - self._code if self._code < 0 else self._code
        starved = code != 0 and killed_for_memory(self._given["oom_file"])
        reason = "out_of_memory" if starved else "killed" if code == 128 + signal.SIGKILL else "exited"
        ending = {
            "code": None if code == 128 + signal.SIGKILL else code,
            "reason": reason,
            "log": self._words.decode(errors="replace"),
        }
        with open(f"{ENDING}.new", "w") as file:
            json.dump(ending, file)
        os.rename(f"{ENDING}.new", ENDING)


def killed_for_memory(file: str | None) -> bool:
    if file is None:
        return False
    try:
        with open(file) as counts:
            return any(int(line.split()[1]) > 0 for line in counts if line.startswith("oom_kill "))
    except OSError:
        return False


def clear(given: dict[str, Any]) -> None:
    """Removes the control groups, which are empty; the core does it where this comes too early."""
    for folder in given["groups"]:
        try:
            os.rmdir(folder)
        except OSError:
            continue


def lay_out(given: dict[str, Any]) -> None:
    """Makes the file systems of the sandbox, in a mount namespace of our own."""
    me, mine = os.geteuid(), os.getegid()
    if me == 0:
        call("unshare", LIBC.unshare(NEWNS))
    else:
        call("unshare (are user namespaces allowed on this machine?)", LIBC.unshare(NEWUSER | NEWNS))
        for file, text in (("setgroups", "deny"), ("uid_map", f"{me} {me} 1"), ("gid_map", f"{mine} {mine} 1")):
            with open(f"/proc/self/{file}", "w") as handle:
                handle.write(text)
    try:
        mount("", "/", "", REC | PRIVATE)
    except Failed as error:
        raise Failed(f"this machine lets nobody but root mount anything in a namespace of his own: {error}") from error
    stage = os.path.abspath(STAGE)
    mount("tmpfs", stage, "tmpfs", NOSUID | NODEV, "size=1m,nr_inodes=256,mode=0755")
    os.umask(0o022)
    for place in ("root", "bundle", *given["memory"], *given["folders"]):
        os.makedirs(f"{stage}/{place}", exist_ok=True)
    os.chdir(given["layers"])  # layers are named from here: the kernel takes one page of them
    mount("overlay", f"{stage}/root", "overlay", NOSUID | NODEV | RDONLY, f"lowerdir={':'.join(given['root'])}")
    os.chdir(os.path.dirname(stage))
    for place, options in given["memory"].items():
        mount("tmpfs", f"{stage}/{place}", "tmpfs", NOSUID | NODEV, options)
    for place, host in given["folders"].items():
        mount(host, f"{stage}/{place}", "", BIND)
        mount("", f"{stage}/{place}", "", BIND | REMOUNT | NOSUID | NODEV | RDONLY)
    mount(stage, MEETING, "", BIND | REC)
    os.umask(0o077)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = [each.encode() or None for each in (source, target, kind)]
    done = LIBC.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None)
    call(f"mounting {source or kind} at {target}", done)


def call(what: str, result: int) -> None:
    if result != 0:
        raise Failed(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
