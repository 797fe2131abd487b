"""The seccomp profile as the program that the kernel runs: for an engine that takes bytes, as bubblewrap does.

libseccomp compiles it, which does so inside runc as well: what a name means, what a number is on this machine, how a
call of another architecture is caught, is its knowledge and not repeated here. It is a shared library of the system
(on Debian `libseccomp2`, which apt itself stands on) and is called through its C interface.
"""

import ctypes
import os
import tempfile
from functools import cache
from typing import Any

from sandbox.engine import SandboxError
from sandbox.profiles import seccomp

_LIBRARY = "libseccomp.so.2"
_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_ERRNO": 0x00050000}
_OPERATIONS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_OPTIMIZE, _BINARY_TREE = 8, 2  # an attribute and its value: finds a call in eight steps instead of two hundred
_UNKNOWN = -1  # a name that this libseccomp is too old for; the default answers such a call: ENOSYS


class _Comparison(ctypes.Structure):
    _fields_ = (("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@cache
def program(calls: str = "usual") -> bytes:
    """The filter for this machine's architecture, of the usual profile or a browser's.

    Raises:
        SandboxError: libseccomp is not there, or refuses the profile.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SandboxError(f"{_LIBRARY} is needed and not there: install libseccomp2 ({error})") from error
    library.seccomp_init.restype = ctypes.c_void_p
    profile: dict[str, Any] = seccomp.profile(calls)
    context = ctypes.c_void_p(library.seccomp_init(_action(profile["defaultAction"], profile["defaultErrnoRet"])))
    if not context:
        raise SandboxError("libseccomp makes no filter on this machine")
    try:
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)  # one that is too old for it makes a slower filter
        for rule in profile["syscalls"]:
            _add(library, context, rule)
        with tempfile.TemporaryFile() as file:
            _must(library.seccomp_export_bpf(context, file.fileno()))
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _add(library: Any, context: ctypes.c_void_p, rule: dict[str, Any]) -> None:
    arguments = [
        _Comparison(each["index"], _OPERATIONS[each["op"]], each["value"], each["valueTwo"])
        for each in rule.get("args", ())
    ]
    compared = (_Comparison * len(arguments))(*arguments)
    action = ctypes.c_uint32(_action(rule["action"], rule.get("errnoRet", 0)))
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN:
            _must(library.seccomp_rule_add_array(context, action, number, len(arguments), compared))


def _action(name: str, value: int) -> int:
    return _ACTIONS[name] | (value if name == "SCMP_ACT_ERRNO" else 0)


def _must(result: int) -> None:
    if result < 0:
        raise SandboxError(f"libseccomp refuses the profile: {os.strerror(-result)}")
