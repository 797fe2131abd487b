"""Control groups of our own, for an engine that has no service to make them: made, limited, emptied, removed.

They are made where the kernel lets us. Version 1: below the root of each hierarchy, for root. Version 2: for root below
the root of the one hierarchy, else in the highest group that was delegated to this user and holds no process itself (a
systemd user unit, `systemd-run --user --scope`). Where nowhere, `Places.find` says None, and nothing can be limited:
whoever asked must not pretend.

A group is given as `sandbox.cgroup` does: a folder for each controller, or one under the empty name (version 2).
Version 1 runs in the tests. Of version 2 the files are tried, and processes are moved and killed in a real hierarchy;
that its limits hold is **not verified**: no machine with its controllers was at hand.
"""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroup import ROOT

OURS = "madlab"  # the one folder below which all of ours are
_CONTROLLERS_1 = ("cpu", "cpuacct", "memory", "pids")
_CONTROLLERS_2 = ("cpu", "memory", "pids")
_PERIOD_US = 100_000
_GONE = 5.0  # seconds a group may take to become empty once its processes were killed


@dataclass(frozen=True)
class Limits:
    """What the processes of one group may have together."""

    memory_bytes: int  # without swap
    pids: int  # processes and threads
    cpus: float


@dataclass(frozen=True)
class Places:
    """Where groups can be made: a folder for each controller, or one under the empty name (version 2)."""

    folders: Mapping[str, Path]

    @staticmethod
    def find(root: Path = ROOT, own: str | None = None) -> "Places | None":
        """Where this process may make groups; None where nowhere. Makes the folder that ours are in."""
        try:
            lines = (own or Path("/proc/self/cgroup").read_text()).splitlines()
            hierarchies = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
            if (root / "cgroup.controllers").exists():
                return Places({"": _delegated(root, hierarchies[""])})
            folders = {
                each: root / controllers / OURS for controllers in hierarchies for each in controllers.split(",")
            }
            folders = {each: folders[each] for each in _CONTROLLERS_1}
            for each in folders.values():
                each.mkdir(exist_ok=True)
        except (OSError, KeyError):
            return None
        return Places(folders) if all(os.access(each, os.W_OK) for each in folders.values()) else None

    def group(self, name: str) -> dict[str, Path]:
        """The group of that name, whether or not it is there."""
        return {controller: folder / name for controller, folder in self.folders.items()}

    def make(self, name: str, limits: Limits) -> dict[str, Path]:
        """A new, empty group with limits.

        Raises:
            OSError: there is one of that name that does not go, or the kernel refuses.
        """
        group = self.group(name)
        remove(group)
        try:
            for each in dict.fromkeys(group.values()):
                each.mkdir()
            for file, value in _settings(group, limits).items():
                file.write_text(value)
        except OSError:
            remove(group)
            raise
        return group


def _settings(group: Mapping[str, Path], limits: Limits) -> dict[Path, str]:
    quota = max(int(limits.cpus * _PERIOD_US), 1000)  # the kernel takes no less
    if "" in group:
        only = group[""]
        swap = {only / "memory.swap.max": "0"} if (only / "memory.swap.max").exists() else {}
        return {
            only / "memory.max": str(limits.memory_bytes),
            **swap,
            only / "pids.max": str(limits.pids),
            only / "cpu.max": f"{quota} {_PERIOD_US}",
        }
    both = group["memory"] / "memory.memsw.limit_in_bytes"  # memory and swap, where the kernel counts swap
    return {
        group["memory"] / "memory.limit_in_bytes": str(limits.memory_bytes),
        **({both: str(limits.memory_bytes)} if both.exists() else {}),
        group["pids"] / "pids.max": str(limits.pids),
        group["cpu"] / "cpu.cfs_period_us": str(_PERIOD_US),
        group["cpu"] / "cpu.cfs_quota_us": str(quota),
    }


def entrances(group: Mapping[str, Path]) -> list[str]:
    """The files that a process writes "0" to in order to be in the group."""
    return [str(folder / "cgroup.procs") for folder in dict.fromkeys(group.values())]


def remove(group: Mapping[str, Path]) -> bool:
    """Kills whatever is in the group and removes it; returns whether it is gone. Blocks, some seconds at most."""
    until = time.monotonic() + _GONE
    while True:
        left = [folder for folder in dict.fromkeys(group.values()) if not _removed(folder)]
        if not left or time.monotonic() > until:
            return not left
        for folder in left:
            _kill(folder)
        time.sleep(0.005)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(folder: Path) -> None:
    with suppress(OSError):
        (folder / "cgroup.kill").write_text("1")
        return
    with suppress(OSError):  # version 1, and version 2 before Linux 5.14
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _delegated(root: Path, own: str) -> Path:
    """The folder for groups of version 2, with its controllers on.

    Raises:
        OSError: no group from the root down to our own is ours to divide.
    """
    here = root / own.strip("/")
    tried: OSError = PermissionError(f"{here} is not delegated to this user")
    for each in sorted({here, *here.parents} - set(root.parents), key=lambda path: len(path.parts)):
        if not os.access(each / "cgroup.subtree_control", os.W_OK) or not os.access(each / "cgroup.procs", os.W_OK):
            continue
        try:
            for folder in (each, each / OURS):
                folder.mkdir(exist_ok=True)
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in _CONTROLLERS_2))
            return each / OURS
        except OSError as error:  # processes are in it, or it lacks a controller: a lower one may do
            tried = error
    raise tried
