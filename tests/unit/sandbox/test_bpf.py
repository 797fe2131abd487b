"""The compiled filter, run over calls one by one, says what the profile says: here in Python, as the kernel would."""

import ctypes
import errno
import platform
import struct

import pytest

from sandbox.engine import SandboxError
from sandbox.profiles import bpf, seccomp

ALLOW, TRACE, KILL = 0x7FFF0000, 0x7FF00000, 0x00000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
I386 = 0x40000003


@pytest.fixture(scope="module")
def filter() -> bytes:
    try:
        return bpf.program()
    except SandboxError as error:
        pytest.skip(str(error))


def number(name: str) -> int:
    found: int = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name(name.encode())
    return found


def verdict(filter: bytes, call: int, *arguments: int, architecture: int = ARCHITECTURE) -> int:
    """What the filter says of one call: the few instructions of classic BPF that compilers use for it."""
    data = struct.pack("iIQ6Q", call, architecture, 0, *arguments, *(0,) * (6 - len(arguments)))
    at, held = 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("HBBI", filter, at * 8)
        at += 1
        match code:
            case 0x20:  # load a word
                (held,) = struct.unpack_from("I", data, k)
            case 0x54:
                held &= k
            case 0x15 | 0x25 | 0x35 | 0x45:  # equal, greater, greater or equal, a bit in common
                at += yes if {0x15: held == k, 0x25: held > k, 0x35: held >= k, 0x45: bool(held & k)}[code] else no
            case 0x05:
                at += k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def test_what_is_allowed_is_let_through_and_what_is_denied_is_refused(filter: bytes) -> None:
    here = {name: number(name) for name in seccomp.names(seccomp.ALLOWED) | seccomp.names(seccomp.DENIED)}
    known = {name: call for name, call in here.items() if call >= 0}  # the others are of other machines
    assert len(known) > 250
    for name in known.keys() & seccomp.names(seccomp.ALLOWED):
        assert verdict(filter, known[name]) == ALLOW, name
    for name in known.keys() & seccomp.names(seccomp.DENIED):
        assert verdict(filter, known[name]) == EPERM, name


def test_a_call_that_stands_nowhere_is_missing(filter: bytes) -> None:
    for call in (600, 5000, 0x3FFFFFFF):
        assert verdict(filter, call) == ENOSYS
    assert verdict(filter, number("clone3")) == TRACE  # nobody traces: the kernel then says ENOSYS


def test_arguments_decide_where_the_profile_says_so(filter: bytes) -> None:
    clone, socket, pair = number("clone"), number("socket"), number("socketpair")
    assert verdict(filter, clone, 0x11) == ALLOW
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000):
        assert verdict(filter, clone, flag | 0x11) == ENOSYS
    allowed = [family for family in range(64) if verdict(filter, socket, family, 1) == ALLOW]
    assert allowed == sorted(seccomp.FAMILIES.values())
    assert [family for family in range(64) if verdict(filter, pair, family, 1) == ALLOW] == [1]
    assert verdict(filter, socket, 1 | 1 << 32, 1) != ALLOW  # the kernel looks at half of it, and so must nobody less


def test_calls_of_another_architecture_end_the_caller(filter: bytes) -> None:
    assert verdict(filter, 20, architecture=I386) == KILL
    if platform.machine() == "x86_64":
        assert verdict(filter, 0x40000000 | 39) in (KILL, ENOSYS)  # x32


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_LIBRARY", "libnone.so.9")
    bpf.program.cache_clear()
    try:
        with pytest.raises(SandboxError, match="install libseccomp2"):
            bpf.program()
    finally:
        bpf.program.cache_clear()
