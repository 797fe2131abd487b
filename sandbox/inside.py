"""What a sandbox looks like from inside: the program that `sandbox.probe` sends in, as text, to try the walls.

It needs nothing but Python. It does what a hostile program would do first, and says what came of it: one line of JSON
on standard output. It judges nothing; the judgement is made outside.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)

# Each with arguments that would succeed, or fail in another way, where it is not denied.
PARAMETERS = ctypes.create_string_buffer(4096)
CALLS: dict[str, tuple[int, int, tuple[Any, ...]]] = {  # name: (number on x86_64, number on aarch64, arguments)
    "io_uring_setup": (425, 425, (1, PARAMETERS)),
    "userfaultfd": (323, 282, (0x80001,)),
    "bpf": (321, 280, (0, PARAMETERS, 72)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (b"user", b"probe", b"x", 1, -2)),
    "request_key": (249, 218, (b"user", b"probe", 0, -2)),
    "perf_event_open": (298, 241, (PARAMETERS, 0, -1, -1, 0)),
    "ptrace": (101, 117, (0, 0, 0, 0)),
    "process_vm_readv": (310, 270, (os.getpid(), 0, 0, 0, 0, 0)),
    "process_vm_writev": (311, 271, (os.getpid(), 0, 0, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (-1, 0, 0)),
    "kcmp": (312, 272, (os.getpid(), os.getpid(), 2, 0, 0)),
    "unshare": (272, 97, (0x10000000,)),
    "setns": (308, 268, (-1, 0)),
    "mount": (165, 40, (b"none", b"/workspace", b"tmpfs", 0, 0)),
    "umount2": (166, 39, (b"/workspace", 0)),
    "pivot_root": (155, 41, (b"/workspace", b"/workspace")),
    "chroot": (161, 51, (b"/workspace",)),
    "fsopen": (430, 430, (b"tmpfs", 0)),
    "open_tree": (428, 428, (-100, b"/", 0)),
    "move_mount": (429, 429, (-1, b"", -1, b"", 0)),
    "mount_setattr": (442, 442, (-100, b"/", 0, PARAMETERS, 32)),
    "name_to_handle_at": (303, 264, (-100, b"/", PARAMETERS, PARAMETERS, 0)),
    "open_by_handle_at": (304, 265, (-100, PARAMETERS, 0)),
    "fanotify_init": (300, 262, (0, 0)),
    "io_setup": (206, 0, (1, PARAMETERS)),
    "memfd_secret": (447, 447, (0,)),
    "vmsplice": (278, 75, (-1, 0, 0, 0)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
    "init_module": (175, 105, (0, 0, b"")),
    "finit_module": (313, 273, (-1, b"", 0)),
    "syslog": (103, 116, (10, 0, 0)),
    "swapon": (167, 224, (b"/workspace/none", 0)),
    "sethostname": (170, 161, (b"probe", 5)),
    "settimeofday": (164, 170, (0, 0)),
    "iopl": (172, -1, (0,)),
    "modify_ldt": (154, -1, (0, PARAMETERS, 16)),
    "quotactl": (179, 60, (0x800001, 0, 0, 0)),
    "mbind": (237, 235, (0, 0, 0, 0, 0, 0)),
    "shmget": (29, 194, (0, 4096, 0o1600)),
    "msgget": (68, 186, (0, 0o1600)),
    "mq_open": (240, 180, (b"probe", 0o102, 0o600, 0)),
}


def system_call(number: int, arguments: tuple[Any, ...]) -> str:
    """The name of the error, or "done"."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if LIBC.syscall(ctypes.c_long(number), *words) >= 0:
        return "done"
    return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))


def in_child(act: Callable[[], str]) -> str:
    """What a child says that does `act`, or the name of the signal that ended it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, act().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said or "silent"


def plain_calls() -> str:
    index = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    here = {name: (numbers[index], arguments) for name, (*numbers, arguments) in CALLS.items() if numbers[index] >= 0}
    return json.dumps({name: system_call(number, arguments) for name, (number, arguments) in here.items()})


def calls() -> dict[str, str]:
    """What came of every call, made by children: one that is let through may end or change its caller."""
    said = in_child(plain_calls)
    found: dict[str, str] = json.loads(said) if said.startswith("{") else {"all of them": said}
    new_user = 0x10000000
    clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    found["clone of a user namespace"] = in_child(lambda: system_call(clone, (new_user | signal.SIGCHLD, 0, 0, 0, 0)))
    packed = struct.pack("11Q", new_user, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    found["clone3 of a user namespace"] = in_child(lambda: system_call(435, (packed, len(packed))))
    if platform.machine() == "x86_64":
        found["x32 getpid"] = in_child(lambda: system_call(0x40000000 | 39, ()))
        found["32-bit getpid"] = in_child(old_entry)
    return found


def old_entry() -> str:
    """getpid through `int 0x80`: the entry for 32-bit programs, which has numbers of its own."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return "done" if answer > 0 else errno.errorcode.get(-answer, str(answer))


def families() -> list[int]:
    found = []
    for family in range(64):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind, 0).close()
            except OSError:
                continue
            found.append(family)
            break
    return found


def attempt(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error)) if error.errno else str(error)
    return "done"


def connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        probe.connect(address)


def links() -> dict[str, bool]:
    with open("/proc/net/dev") as file:
        names = [line.partition(":")[0].strip() for line in file if ":" in line]
    up = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in names:
            request = struct.pack("16sh14x", name.encode(), 0)
            up[name] = bool(struct.unpack("16sh14x", fcntl.ioctl(probe, 0x8913, request))[1] & 1)
    return up


def routes() -> list[str]:
    """The ways out that the kernel knows."""
    with open("/proc/net/route") as file:
        return [line.split()[0] for line in file.read().splitlines()[1:] if line.strip()]


def loopback() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as there:
        here, _ = server.accept()
        with here:
            there.sendall(b"x")
            return here.recv(1) == b"x"


def door(question: bytes) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gate:
        gate.settimeout(5)
        gate.connect(os.path.join(os.environ["MADLAB_DOOR"], "probe.sock"))
        gate.sendall(question)
        return gate.recv(100).decode()


def mounts() -> list[str]:
    with open("/proc/self/mounts") as file:
        return sorted({line.split()[1] for line in file})


def writable() -> list[str]:
    """Every place, of all that is mounted and the usual ones besides, where a file can be made."""
    found = []
    usual = ("/", "/bin", "/dev", "/etc", "/home", "/opt", "/root", "/run", "/tmp", "/usr", "/var")  # noqa: S108
    for folder in {*usual, *mounts()}:
        name = os.path.join(folder, "probe.tmp")
        try:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        except OSError:
            continue
        found.append(os.path.realpath(folder))
        os.unlink(name)
    handles = ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname")
    found += [name for name in handles if attempt(partial(os.open, name, os.O_WRONLY)) == "done"]
    return sorted(set(found))


def readable() -> list[str]:
    """Of the kernel's windows that must be shut, those that show anything."""
    found = []
    kernel = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kallsyms")
    for name in (*kernel, "/sys/firmware", "/dev/mem", "/dev/kmsg", "/dev/port"):
        try:
            if os.path.isdir(name):
                shown = bool(os.listdir(name))
            else:
                with open(name, "rb") as file:
                    shown = bool(file.read(16).strip(b"0"))
        except OSError:
            continue
        if shown:
            found.append(name)
    return found


def devices() -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                found[path] = "block" if stat.S_ISBLK(mode) else "character"
    return found


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        pairs = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")
    return {key: pairs[key].strip() for key in wanted if key in pairs}


def bounding() -> list[int]:
    """The capabilities that could still be gained."""
    return [number for number in range(64) if LIBC.prctl(23, number, 0, 0, 0) == 1]


def spaces() -> dict[str, str]:
    found = {}
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        try:
            found[name] = os.readlink(f"/proc/self/ns/{name}")
        except OSError:
            continue
    return found


def fill(folder: str, limit: int) -> tuple[int, str]:
    """How many bytes a folder takes, up to `limit`, and how it says no."""
    name = os.path.join(folder, "probe.fill")
    written, chunk, said = 0, b"x" * 65536, ""
    try:
        descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600)
    except OSError as error:
        return 0, errno.errorcode.get(error.errno or 0, "")
    try:
        while written < limit:
            written += os.write(descriptor, chunk)
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, "")
    os.close(descriptor)
    os.unlink(name)
    return written, said


def thread() -> bool:
    """Whether a thread can be started: what is denied must not be what every program needs."""
    ran: list[bool] = []
    worker = threading.Thread(target=ran.append, args=(True,))
    worker.start()
    worker.join()
    return bool(ran)


def look(given: dict[str, Any]) -> dict[str, Any]:
    """All that can be looked at without breaking anything."""
    port, abstract, workspace = given["port"], given["abstract"], given["workspace_mb"] << 20
    return {
        "uid": [*os.getresuid(), *os.getresgid()],
        "status": status(),
        "bounding": bounding(),
        "no_new_privs": LIBC.prctl(39, 0, 0, 0, 0),
        "pid": os.getpid(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "release": os.uname().release,
        "hostname": os.uname().nodename,
        "spaces": spaces(),
        "environment": sorted(os.environ),
        "links": links(),
        "loopback": loopback(),
        "host_loopback": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
        "host_abstract": attempt(lambda: connect(socket.AF_UNIX, "\0" + abstract)),
        "routes": routes(),
        "thread": thread(),
        "door": door(given["nonce"].encode()),
        "calls": calls(),
        "families": families(),
        "mounts": mounts(),
        "writable": writable(),
        "readable": readable(),
        "devices": devices(),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_CORE", "RLIMIT_NOFILE")},
        "workspace": fill("/workspace", 2 * workspace),
        "tmp": fill("/tmp", 2 * workspace),  # noqa: S108
        "shm": fill("/dev/shm", 2 * workspace),  # noqa: S108
    }


def breed(given: dict[str, Any]) -> dict[str, Any]:
    """As many processes at once as there can be, up to four times the limit."""
    children: list[int] = []
    said = ""
    try:
        while len(children) < 4 * given["pids"]:
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, "")
    return {"children": len(children), "said": said}


def swallow(given: dict[str, Any]) -> dict[str, Any]:
    """Memory, touched, up to four times the limit."""
    held: list[bytearray] = []
    while len(held) < given["memory_mb"]:
        held.append(bytearray(b"\x01") * (4 << 20))
    return {"held_mb": len(held) * 4}


def crowd(given: dict[str, Any]) -> dict[str, Any]:
    """Empty files with long names, up to a hundred times the limit."""
    count, said, most = 0, "", 100 * 256 * given["workspace_mb"]
    try:
        while count < most:
            os.close(os.open(f"/workspace/{count:0250}", os.O_CREAT | os.O_WRONLY, 0o600))
            count += 1
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, "")
    return {"files": count, "said": said}


def spin(given: dict[str, Any]) -> dict[str, Any]:
    """Eight processes that want all the time there is; measured from outside, for a kernel of its own miscounts."""
    for _ in range(7):
        if os.fork() == 0:
            break
    while True:
        pass


ACTS = {"look": look, "breed": breed, "swallow": swallow, "crowd": crowd, "spin": spin}

if __name__ == "__main__":
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    asked = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps(ACTS[asked["act"]](asked)) + "\n")
    sys.stdout.flush()
    os._exit(0)
