"""Whether a runtime really isolates, found out by trying it: each wall is pushed from inside, and must hold.

Five sandboxes of the base image are opened with the hardening that every sandbox has. One looks around and tries each
door (`sandbox.inside`); the others take all the time they get, breed processes, swallow memory and crowd the workspace
with files. What held makes the runtime's grade (`sandbox.grades`); a check without an answer does not hold. Nothing is
concluded from a version, a name, or what the engine says about itself.

Never tried is the engine of host processes: without walls, the acts would be done to this machine.
"""

import json
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anyio import create_task_group, create_unix_listener, current_time, fail_after, sleep
from anyio.abc import SocketAttribute, SocketStream

from sandbox.engine import DOOR, Engine, Exit, Program, Sandbox, SandboxError
from sandbox.profile import Profile

PROFILE = Profile(image="base", entry=(), memory_mb=96, workspace_mb=16, cpus=2.0, pids=64)
_SPINNING = replace(PROFILE, memory_mb=192, cpus=0.25)
_BUSY = replace(PROFILE, memory_mb=64, workspace_mb=4)
_UID = 10001
_PATIENCE = 60.0  # seconds for one sandbox
_SETTLE, _MEASURE = 1.0, 1.5  # seconds until all eight spin, and while they do
_MB = 1024 * 1024
_SMALL_MB = 8  # /tmp and /dev/shm
_NO = {"EPERM", "ENOSYS", "SIGSYS"}
_NO_ENTRY = _NO | {"SIGSEGV", "SIGILL"}  # for the old entries that a kernel may lack altogether
_UNREACHED = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM", "EACCES"}
_FAMILIES = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
_PLACES_TO_WRITE = {"/workspace", "/tmp", "/dev/shm", "/dev/mqueue"}  # noqa: S108  allowed in a sandbox, not used here
_DEVICES = {f"/dev/{name}" for name in ("full", "null", "pts/ptmx", "random", "tty", "urandom", "zero")}
_DEVICES_OF_A_KERNEL_OF_ITS_OWN = {"/dev/fuse", "/dev/net/tun"}  # gVisor's are its own inventions
_VARIABLES = {"HOME", "HOSTNAME", "LANG", "LC_CTYPE", "MADLAB_DOOR", "PATH", "PWD", "TMPDIR"}
_MOUNTS = ("/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys", "/tmp", "/workspace", DOOR)  # noqa: S108

_LIMIT = (
    "nothing enforces this limit: bubblewrap needs control groups for it (as root, or systemd-run --user --scope); "
    "do not use another runtime without it for code you do not trust"
)
_ASK = "do not use this runtime for code you do not trust; please report it with the line above"


@dataclass(frozen=True)
class Check:
    """One wall: whether it held, what was seen, and what a person can do where it did not."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


async def probe(engine: Engine, runtime: str) -> list[Check]:
    """Tries every wall under `runtime`. Takes some three seconds, six with gVisor; leaves nothing behind.

    Does not raise: an engine that fails is a check that fails.
    """
    seen: dict[str, tuple[Exit, dict[str, Any]]] = {}
    shares: list[float] = []
    try:
        async with _surroundings(runtime) as (door, given):

            async def act(name: str) -> None:
                asked = json.dumps({"act": name, **given}).encode() + b"\n"
                profile = {"look": PROFILE, "spin": _SPINNING}.get(name, _BUSY)
                program = Program(replace(profile, entry=("python3", "-c", _source()), runtime=runtime), asked, door)
                with fail_after(_PATIENCE):
                    async with engine.open(f"probe-{secrets.token_hex(4)}", program) as sandbox:
                        if name == "spin":
                            shares.append(await _share(sandbox))
                            return
                        ended = await sandbox.wait()
                seen[name] = ended, _answer(ended)

            for names in (("look", "spin"), ("breed", "swallow", "crowd")):
                async with create_task_group() as tasks:
                    for name in names:
                        tasks.start_soon(act, name)
    except* (SandboxError, TimeoutError) as group:
        why = "; ".join(dict.fromkeys(str(error) or "it took too long" for error in _leaves(group)))
        failure = Check("starts", False, why, "mend what it says, then run this again")
    if len(seen) < 4 or not shares:
        return [failure]
    if not seen["look"][1]:
        ended, _ = seen["look"]
        return [Check("starts", False, f"the probe ended without an answer: {ended}", _ASK)]
    return _judge(seen, shares[0], given, runtime)


def _source() -> str:
    return Path(__file__).with_name("inside.py").read_text()


def _answer(ended: Exit) -> dict[str, Any]:
    lines = ended.log.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [leaf for e in group.exceptions for leaf in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


@asynccontextmanager
async def _surroundings(runtime: str) -> AsyncIterator[tuple[Path, dict[str, Any]]]:
    """What the sandbox must reach (a socket in its door) and what it must not (listeners of this machine)."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            peer = stream.extra(SocketAttribute.raw_socket).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            given["peer"] = struct.unpack("3i", peer)[1]  # its user, as this machine knows it
            await stream.send(await stream.receive())

    given = {
        "nonce": secrets.token_hex(16),
        "abstract": f"madlab-{secrets.token_hex(8)}",
        "workspace_mb": PROFILE.workspace_mb,
        "memory_mb": _BUSY.memory_mb + _BUSY.workspace_mb,
        "pids": replace(_BUSY, runtime=runtime).pids_limit,
    }
    with (
        tempfile.TemporaryDirectory(prefix="madlab-") as directory,
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hidden,
    ):
        hidden.bind(f"\0{given['abstract']}")
        hidden.listen()
        given["port"] = loopback.getsockname()[1]
        door = Path(directory)
        os.chmod(door, 0o755)
        async with await create_unix_listener(door / "probe.sock", mode=0o666) as gate, create_task_group() as tasks:
            tasks.start_soon(gate.serve, answer)
            try:
                yield door, given
            finally:
                tasks.cancel_scope.cancel()


async def _share(sandbox: Sandbox) -> float:
    """How many processors' time a sandbox gets that wants all of it, once it has begun."""
    await sleep(_SETTLE)
    begun, before = current_time(), await sandbox.usage()
    await sleep(_MEASURE)
    after = await sandbox.usage()
    return (after.cpu_seconds - before.cpu_seconds) / (current_time() - begun)


def _judge(
    seen: dict[str, tuple[Exit, dict[str, Any]]], share: float, given: dict[str, Any], runtime: str
) -> list[Check]:
    look = seen["look"][1]
    own_kernel = look["release"] != os.uname().release
    return [check(look, given, own_kernel) for check in _CHECKS] + [
        _processor(share),
        _processes(*seen["breed"], own_kernel, runtime),
        _memory(*seen["swallow"]),
        _files(*seen["crowd"], own_kernel),
    ]


def _network(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    """Only loopback, up, and of its own: what listens on the machine's is not there."""
    strangers = {name: look[name] for name in ("host_loopback", "host_abstract")}
    own = own_kernel or look["spaces"].get("net") not in (None, os.readlink("/proc/self/ns/net"))
    alone = look["links"] == {"lo": True} and look["routes"] in ([], ["lo"]) and look["loopback"]
    ok = alone and own and set(strangers.values()) <= _UNREACHED
    detail = f"links {look['links']}, own namespace: {own}, " + ", ".join(f"{k}: {v}" for k, v in strangers.items())
    return Check("network", ok, detail, _ASK)


def _door(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    ok = look["door"] == given["nonce"]
    detail = "a socket in the door answers" if ok else f"a socket in the door does not answer: {look['door']}"
    return Check("door", ok, detail, "gVisor needs --host-uds=open among its runtime arguments")


def _calls(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    old = {"32-bit getpid", "x32 getpid"}
    let = {name: said for name, said in look["calls"].items() if said not in (_NO_ENTRY if name in old else _NO)}
    ok = not let and len(look["calls"]) >= 40
    detail = f"{len(look['calls'])} denied" if ok else f"let through: {let}"
    return Check("system calls", ok, detail, "gVisor needs --oci-seccomp among its runtime arguments")


def _families(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    extra = set(look["families"]) - _FAMILIES
    ok = not extra and socket.AF_UNIX in look["families"]
    detail = "UNIX, INET and INET6 alone" if ok else f"families {sorted(extra)} can be opened"
    return Check("socket families", ok, detail, _ASK)


def _threads(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    return Check("threads", look["thread"], "threads start" if look["thread"] else "no thread starts", _ASK)


def _places(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    """Read-only but for the workspace and its kin; nothing mounted that we did not ask for."""
    extra = set(look["writable"]) - _PLACES_TO_WRITE
    strange = [m for m in look["mounts"] if m != "/" and not any(m == k or m.startswith(f"{k}/") for k in _MOUNTS)]
    ok = not extra and not strange and "/workspace" in look["writable"]
    detail = f"writable: {look['writable']}" + (f", mounted besides: {strange}" if strange else "")
    return Check("read-only root", ok, detail, _ASK)


def _identity(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    ok = look["uid"] == [_UID] * 6 and set(look["status"].get("Groups", "0").split()) <= {str(_UID)}
    return Check("user", ok, f"uid and gid {look['uid'][0]}, groups {look['status'].get('Groups')!r}", _ASK)


def _another_user(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    """Whoever gets out of the namespaces is not the operator yet. gVisor's program is no process of this machine."""
    peer = given.get("peer")
    ok = own_kernel or peer not in (None, 0, os.geteuid())
    detail = "no process of this machine" if own_kernel else f"outside it is user {peer}"
    mend = "run the lab as root, which gives its sandboxes another user, or with Docker"
    return Check("another user", ok, detail, "" if ok else mend)


def _own_kernel(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    """Not a wall that is missing where it is not: what `kernel` has beyond `container`."""
    detail = f"system calls reach {'a kernel of its own, ' if own_kernel else ''}Linux {look['release']}"
    return Check("own kernel", own_kernel, detail, "" if own_kernel else 'set runtime = "runsc", where it is accepted')


def _capabilities(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    sets = {name: look["status"].get(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")}
    sets["CapAmb"] = look["status"].get("CapAmb", "0" if own_kernel else None)
    held = {name: value for name, value in sets.items() if value is None or int(value, 16)}
    ok = not held and look["bounding"] == []
    return Check("capabilities", ok, "none" if ok else f"{held}, could gain {look['bounding']}", _ASK)


def _privileges(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    ok = look["no_new_privs"] == 1 and look["status"].get("Seccomp") == "2"
    detail = f"no_new_privs {look['no_new_privs']}, seccomp {look['status'].get('Seccomp')}"
    return Check("no new privileges", ok, detail, _ASK)


def _spaces(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    """Sees no process, name, queue or mount of the machine."""
    names = () if own_kernel else ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    shared = [name for name in names if look["spaces"].get(name) in (None, os.readlink(f"/proc/self/ns/{name}"))]
    ok = not shared and look["pid"] == 1 and look["processes"] == [1] and look["hostname"] != os.uname().nodename
    detail = (
        "a kernel of its own" if own_kernel else "all its own" if not shared else f"shared with the machine: {shared}"
    )
    return Check("namespaces", ok, f"{detail}; processes {look['processes']}", _ASK)


def _kernel_files(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    allowed = _DEVICES | (_DEVICES_OF_A_KERNEL_OF_ITS_OWN if own_kernel else set())
    extra = sorted(set(look["devices"]) - allowed)
    ok = not extra and not look["readable"]
    detail = "only the harmless ones" if ok else f"devices {extra}, kernel files {look['readable']}"
    return Check("devices", ok, detail, _ASK)


def _environment(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    extra = [name for name in look["environment"] if name not in _VARIABLES and not name.startswith("PYTHON")]
    return Check("environment", not extra, f"besides what is ours: {extra}" if extra else "only ours", _ASK)


def _rlimits(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    core, files = look["limits"]["RLIMIT_CORE"], look["limits"]["RLIMIT_NOFILE"]
    return Check("process limits", core == [0, 0] and 0 < files[1] <= 4096, f"core {core}, open files {files}", _ASK)


def _space(look: dict[str, Any], given: dict[str, Any], own_kernel: bool) -> Check:
    took, said = look["workspace"]
    ok = took <= PROFILE.workspace_mb * _MB and said == "ENOSPC"
    ok = ok and all(look[name][0] <= _SMALL_MB * _MB and look[name][1] == "ENOSPC" for name in ("tmp", "shm"))
    detail = f"{took} bytes then {said}; /tmp {look['tmp']}, /dev/shm {look['shm']}"
    return Check("workspace size", ok, detail, _ASK)


_CHECKS: tuple[Callable[[dict[str, Any], dict[str, Any], bool], Check], ...] = (
    _network,
    _door,
    _calls,
    _families,
    _threads,
    _places,
    _identity,
    _another_user,
    _own_kernel,
    _capabilities,
    _privileges,
    _spaces,
    _kernel_files,
    _environment,
    _rlimits,
    _space,
)


def _processor(share: float) -> Check:
    """No more than allowed, and not nothing: what is not counted is not limited either."""
    detail = f"{share:.2f} processors, {_SPINNING.cpus} allowed"
    return Check("processor", 0.02 < share <= 1.5 * _SPINNING.cpus, detail, _LIMIT)


def _processes(ended: Exit, answer: dict[str, Any], own_kernel: bool, runtime: str) -> Check:
    """The kernel refuses one more; or, where they are processes of a kernel of its own, that one dies of them."""
    limit = replace(_BUSY, runtime=runtime).pids_limit
    if answer:
        ok = answer["children"] < limit and answer["said"] == "EAGAIN"
        return Check("processes", ok, f"{answer['children']} of at most {limit}, then {answer['said']!r}", _LIMIT)
    seen = f"the sandbox died of them: {ended.reason}, code {ended.code}"
    return Check("processes", own_kernel and _died(ended), seen, _LIMIT)


def _memory(ended: Exit, answer: dict[str, Any]) -> Check:
    """Too much memory ends the program, and is told as such."""
    ok = not answer and _died(ended) and ended.reason == "out_of_memory"
    seen = f"held {answer['held_mb']} MB" if answer else f"ended: {ended.reason}"
    return Check("memory", ok, f"{seen}, {_BUSY.memory_mb + _BUSY.workspace_mb} MB allowed", _LIMIT)


def _files(ended: Exit, answer: dict[str, Any], own_kernel: bool) -> Check:
    """The workspace takes no more files; or, where a kernel of its own keeps them, they are memory and have its end."""
    limit = _BUSY.workspace_mb * 256
    if answer:
        ok = answer["files"] <= limit and answer["said"] == "ENOSPC"
        return Check("workspace files", ok, f"{answer['files']} of at most {limit}, then {answer['said']!r}", _ASK)
    seen = f"the sandbox died of them: {ended.reason}"
    return Check("workspace files", own_kernel and _died(ended), seen, _ASK)


def _died(ended: Exit) -> bool:
    """It had begun, and did not get to its answer."""
    return ended.log.startswith("begun") and (ended.reason != "exited" or ended.code != 0)
