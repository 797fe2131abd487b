"""Pushes every wall of the sandbox from inside: `python -m tests.emads.hostile.walls JSON`.

An act says "done" where it was let through, the name of the error where it was not, else what it read.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE_S = 5.0
ROOM = ctypes.create_string_buffer(4096)
HERE = -100  # AT_FDCWD

# Arguments that would succeed, or fail in another way, where the call is not denied. x86_64, aarch64, arguments.
CALLS: dict[str, tuple[int, int, tuple[Any, ...]]] = {
    "io_uring": (425, 425, (8, ROOM)),
    "userfaultfd": (323, 282, (1,)),
    "bpf program": (321, 280, (5, ROOM, 120)),
    "perf counters": (298, 241, (ROOM, 0, -1, -1, 0)),
    "keyring of the session": (250, 219, (1, 0)),
    "key added": (248, 217, (b"user", b"hostile", b"x", 1, -3)),
    "ptrace of its parent": (101, 117, (16, os.getppid(), 0, 0)),
    "memory of its parent read": (310, 270, (os.getppid(), 0, 0, 0, 0, 0)),
    "descriptor of its parent taken": (438, 438, (-1, 0, 0)),
    "kexec": (246, 104, (0, 0, 0, 0)),
    "module loaded": (175, 105, (0, 0, b"")),
    "reboot": (169, 142, (0xFEE1DEAD, 672274793, 0, 0)),
    "clock set": (227, 112, (0, ROOM)),
    "hostname set": (170, 161, (b"hostile", 7)),
    "swap on": (167, 224, (b"/workspace/none", 0)),
    "quota": (179, 60, (0x800001, 0, 0, 0)),
    "input and output ports": (172, -1, (3,)),
    "kernel log read": (103, 116, (3, ROOM, 4096)),
    "every disk written out": (162, 81, ()),
    "file systems watched": (300, 262, (0, 0)),
    "accounting on": (163, 89, (b"/workspace/acct",)),
    "mount": (165, 40, (b"none", b"/workspace", b"tmpfs", 0, 0)),
    "remount writable": (165, 40, (b"", b"/", b"", 32, 0)),
    "bind mount of the door": (165, 40, (b"/workspace", b"/run/madlab", b"", 4096, 0)),
    "unmount": (166, 39, (b"/proc", 2)),
    "mount by descriptor": (430, 430, (b"tmpfs", 0)),
    "pivot_root": (155, 41, (b"/workspace", b"/workspace")),
    "chroot": (161, 51, (b"/workspace",)),
    "file handle made": (303, 264, (HERE, b"/", ROOM, ROOM, 0)),
    "file handle opened": (304, 265, (HERE, ROOM, 0)),
    "address space without randomness": (135, 92, (0x0040000,)),
    "secret memory": (447, 447, (0,)),
    "old shared memory": (29, 194, (0, 4096, 0o1600)),
    "message queue": (240, 180, (b"hostile", 0o102, 0o600, 0)),
    "local descriptor table": (154, -1, (0, ROOM, 16)),
    "memory spliced": (278, 75, (-1, 0, 0, 0)),
}
NAMESPACES = {
    "cgroup": 0x2000000,
    "ipc": 0x8000000,
    "mnt": 0x20000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "user": 0x10000000,
    "uts": 0x4000000,
}
FAMILIES = {"netlink": 16, "packet": 17, "bluetooth": 31, "alg": 38, "vsock": 40, "xdp": 44}
WRITTEN = (
    "/etc/passwd",
    "/usr/bin/python3",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/profiling",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory/cgroup.procs",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/release_agent",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
)
READ = (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/acpi/wakeup",
    "/dev/mem",
    "/dev/port",
    "/dev/kmsg",
    "/sys/firmware/acpi/tables/DSDT",
)
ENGINES = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/dbus/system_bus_socket",
)


def call(number: int, *arguments: Any) -> str:
    ctypes.set_errno(0)
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if LIBC.syscall(ctypes.c_long(number), *words) >= 0:
        return "done"
    return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))


def attempt(act: Callable[[], Any]) -> str:
    """What `act` returns as a word, or the error's name."""
    try:
        came = act()
    except socket.gaierror as error:
        return f"gaierror {error.errno}"
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done" if came is None else str(came)


def in_child(act: Callable[[], Any]) -> str:
    """What a child says that does it; an act may break its process, its limits or its signals."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, (attempt(act) or "nothing").encode()[:4000])
        finally:
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], PATIENCE_S)
    said = os.read(read, 4096).decode() if ready else "hangs"
    os.close(read)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return said or (signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "silent")


# --- the kernel


def in_new_namespace(flag: int) -> str:
    """Three ways to the same: unshare, clone, and clone3, whose flags no filter can see."""
    index = 0 if platform.machine() == "x86_64" else 1
    packed = struct.pack("11Q", flag, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    said = {
        "unshare": in_child(lambda: call((272, 97)[index], flag)),
        "clone": in_child(lambda: call((56, 220)[index], flag | signal.SIGCHLD, 0, 0, 0, 0)),
        "clone3": in_child(lambda: call(435, packed, len(packed))),
    }
    return " ".join(f"{way}={came}" for way, came in said.items())


def of_another_namespace(name: str) -> str:
    """Goes where process 1 is."""
    with open(f"/proc/1/ns/{name}") as file:
        return call(308 if platform.machine() == "x86_64" else 268, file.fileno(), 0)


def thirty_two_bit() -> str:
    """getpid through `int 0x80`: the entry for 32-bit programs, which has numbers of its own."""
    if platform.machine() != "x86_64":
        return "ENOSYS"
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    came = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return "done" if came > 0 else errno.errorcode.get(-came, str(came))


def becomes_root() -> str:
    for way in (
        partial(os.setuid, 0),
        partial(os.setgid, 0),
        partial(os.setgroups, [0]),
        partial(os.setresuid, 0, 0, 0),
    ):
        came = attempt(way)
        if came not in ("EPERM", "EINVAL"):  # the latter where its namespace has no such user
            return f"{way.func.__name__} {came}"
    return "EPERM"


def capabilities_raised() -> str:
    """Asks for all of them, then whether one is there."""
    header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)
    return call(126 if platform.machine() == "x86_64" else 91, header, data)


def memory_file_run() -> str:
    """Runs a program that no file system holds. It may: what it is then is what counts."""
    with open(os.path.realpath(sys.executable), "rb") as file:
        program = file.read()
    memory = os.memfd_create("hostile", 0)
    os.write(memory, program)
    names = "Uid|CapEff|NoNewPrivs|Seccomp"
    code = f"import re; print(re.findall(r'(?:{names}):\\s+(\\w+)', open('/proc/self/status').read()))"
    done = subprocess.run(
        [f"/proc/self/fd/{memory}", "-I", "-c", code], pass_fds=[memory], capture_output=True, timeout=4
    )
    return done.stdout.decode().strip() or f"{done.returncode} {done.stderr.decode()[-200:]}"


def set_user_id() -> str:
    """A program of root's that gives its power to whoever runs it; then one of our own making."""
    found = []
    for folder, _, names in os.walk("/"):
        if folder.startswith(("/proc", "/sys")):
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                    found.append(path)
            except OSError:
                continue
    return "none" if not found else " ".join(found)


def terminal_typed_into() -> str:
    import fcntl

    fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI
    return "done"


def limits_raised() -> str:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_000_000, 1_000_000))
    except ValueError as error:  # Python's word for EPERM
        return str(error)
    return "done"


def more_important() -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return "done"


def real_time() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return "done"


def spared_when_memory_is_short() -> str:
    """Asks the kernel to kill anything else first: the core, say."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "done"


def device_made() -> str:
    """The host's first disk, as a node of our own."""
    os.mknod("/workspace/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    with open("/workspace/disk", "rb") as file:
        return f"read {len(file.read(16))}"


# --- the network


def connected(family: int, address: Any) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as out:
        out.settimeout(2)
        out.connect(address)
    return "done"


def sent(address: tuple[str, int], *, broadcast: bool = False) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        if broadcast:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.sendto(b"x", address)
    return "done"


def raw() -> str:
    for family, protocol in ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, 58)):
        try:
            socket.socket(family, socket.SOCK_RAW, protocol).close()
            return "done"
        except OSError as error:
            came = errno.errorcode[error.errno or 0]
    return came


def opened(family: int) -> str:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind, 0).close()
            return "done"
        except OSError as error:
            came = errno.errorcode[error.errno or 0]
    return came


def strangers() -> str:
    """Abstract sockets of others, as the network namespace lists them: a container shim listens on such."""
    with open("/proc/net/unix") as file:
        names = {line.split()[-1] for line in file.readlines()[1:] if line.split()[-1].startswith("@")}
    return " ".join(sorted(names)) or "none"


def links() -> str:
    with open("/proc/net/dev") as file:
        return " ".join(line.partition(":")[0].strip() for line in file if ":" in line)


# --- files


def written(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return "done"


def read(path: str) -> str:
    with open(path, "rb") as file:
        return "read " + file.read(64).hex()


def own_program_overwritten() -> str:
    """What runs us, through /proc: once this was the way out of runc."""
    return written("/proc/1/exe")


def linked(target: str) -> str:
    os.symlink(target, "/workspace/link")
    return read("/workspace/link")


def folders(path: str) -> str:
    return " ".join(sorted(os.listdir(path))) or "none"


def taught_a_module() -> str:
    """Plants a module where the next program of this image would import it from."""
    import protos

    name = os.path.join(os.path.dirname(protos.__file__ or ""), "hostile.py")
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    return "done"


# --- the door

DOOR = os.environ.get("MADLAB_DOOR", "/run/madlab")
GATE = f"{DOOR}/gate.sock"


def gate_replaced() -> str:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("/workspace/own.sock")
    os.rename("/workspace/own.sock", GATE)
    return "done"


def listens_in_the_door() -> str:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(f"{DOOR}/own.sock")
    return "done"


def make(path: str) -> str:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    return "done"


def acts(given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Every act by name. `given` says what of the host there is to be found."""
    index = 0 if platform.machine() == "x86_64" else 1
    kernel: dict[str, Callable[[], Any]] = {
        f"kernel: {name}": partial(call, numbers[index], *arguments)
        for name, (*numbers, arguments) in CALLS.items()
        if numbers[index] >= 0
    }
    return {
        **kernel,
        **{f"kernel: new {name} namespace": partial(in_new_namespace, flag) for name, flag in NAMESPACES.items()},
        **{
            f"kernel: into the {name} namespace of 1": partial(of_another_namespace, name)
            for name in ("mnt", "net", "pid")
        },
        "kernel: 32-bit entry": thirty_two_bit,
        "kernel: becomes root": becomes_root,
        "kernel: raises capabilities": capabilities_raised,
        "kernel: runs a program from memory": memory_file_run,
        "kernel: set-user-id programs": set_user_id,
        "kernel: types into a terminal": terminal_typed_into,
        "kernel: raises its limits": limits_raised,
        "kernel: goes before all others": more_important,
        "kernel: real-time scheduling": real_time,
        "kernel: spared when memory is short": spared_when_memory_is_short,
        "kernel: makes a device": device_made,
        "network: links": links,
        "network: loopback of the host": partial(connected, socket.AF_INET, ("127.0.0.1", given["port"])),
        "network: IPv6 loopback of the host": partial(connected, socket.AF_INET6, ("::1", given["port"])),
        "network: bridge of the engine": partial(connected, socket.AF_INET, ("172.17.0.1", given["port"])),
        "network: metadata of the cloud": partial(connected, socket.AF_INET, ("169.254.169.254", 80)),
        "network: somewhere": partial(connected, socket.AF_INET, ("192.0.2.1", 443)),
        "network: somewhere by IPv6": partial(connected, socket.AF_INET6, ("2001:db8::1", 443)),
        "network: a name": lambda: str(socket.getaddrinfo("example.com", 443)),
        "network: a name server": partial(sent, ("192.0.2.53", 53)),
        "network: broadcast": partial(sent, ("255.255.255.255", 9), broadcast=True),
        "network: raw packets": raw,
        "network: abstract socket of the host": partial(connected, socket.AF_UNIX, "\0" + given["abstract"]),
        "network: abstract sockets of others": strangers,
        **{f"network: family {name}": partial(opened, number) for name, number in FAMILIES.items()},
        **{f"engine: {path}": partial(connected, socket.AF_UNIX, path) for path in ENGINES},
        **{f"files: writes {path}": partial(written, path) for path in WRITTEN},
        **{f"files: reads {path}": partial(read, path) for path in READ},
        "files: a file of the host": partial(read, given["marker"]),
        "files: through the root of 1": partial(read, f"/proc/1/root{given['marker']}"),
        "files: through its working directory": partial(read, f"/proc/self/cwd/../../../..{given['marker']}"),
        "files: through a link": partial(linked, given["marker"]),
        "files: data of the lab": partial(read, given["journal"]),
        "files: shadow": partial(read, "/etc/shadow"),
        "files: overwrites the program of 1": own_program_overwritten,
        "files: plants a module": taught_a_module,
        "files: other processes": lambda: " ".join(sorted(n for n in os.listdir("/proc") if n.isdigit())),
        "files: environment": lambda: " ".join(sorted(os.environ)),
        "door: what is in it": partial(folders, DOOR),
        "door: what is beside it": partial(folders, os.path.join(DOOR, "..")),
        "door: unlinks the gate": partial(os.unlink, GATE),
        "door: replaces the gate": gate_replaced,
        "door: makes a file": partial(make, f"{DOOR}/own"),
        "door: listens there": listens_in_the_door,
        "door: opens it to all": partial(os.chmod, DOOR, 0o777),
        "door: closes the gate": partial(os.chmod, GATE, 0),
        "door: removes it": partial(os.rmdir, DOOR),
    }


def here(act: Callable[[], Any]) -> str:
    """Does it in this process, but not for ever."""

    def enough(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, enough)
    signal.alarm(int(PATIENCE_S))
    try:
        return attempt(act)
    finally:
        signal.alarm(0)


# A child each for what would end or change this process if it were let through: forks are dear in gVisor.
APART = ("32-bit entry", "chroot", "becomes root", "raises its limits", "namespace of 1", "real-time")

if __name__ == "__main__":
    every = acts(json.loads(sys.argv[1]))
    apart = {name for name in every if any(each in name for each in APART)}
    print(json.dumps({name: (in_child if name in apart else here)(act) for name, act in every.items()}))
