"""What a program's control group has used, read from the kernel's own files, of version 1 and 2.

An engine's own statistics can take a second, since it samples once a second and answers with the next sample. The
files say it now. They can be read where the program runs on this machine and its group is visible from here; where
not, the answer is None and the engine is asked.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from sandbox.engine import Usage

ROOT = Path("/sys/fs/cgroup")
LOG = "/dev/kmsg"  # the kernel's: each read gives one record (its source, Documentation/ABI/testing/dev-kmsg)
RECORD_BYTES = 8192  # at most


def usage_of(pid: int) -> Usage | None:
    """The usage of the control group that process `pid` is in; None where it cannot be seen from here."""
    try:
        return usage_in(groups_of(pid))
    except (OSError, ValueError, KeyError):
        return None


def usage_in(groups: Mapping[str, Path]) -> Usage:
    """The usage of a group, given by controller as `groups_of` does.

    Raises:
        OSError, ValueError, KeyError: it is gone, or cannot be seen from here.
    """
    if "memory" in groups:
        memory, cpu, pids = (groups[each] for each in ("memory", "cpuacct", "pids"))
        return Usage(
            memory_bytes=_number(memory / "memory.usage_in_bytes"),
            cpu_seconds=_number(cpu / "cpuacct.usage") / 1e9,
            pids=_number(pids / "pids.current"),
        )
    group = groups[""]
    times = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return Usage(
        memory_bytes=_number(group / "memory.current"),
        cpu_seconds=int(times["usage_usec"]) / 1e6,
        pids=_number(group / "pids.current"),
    )


def starved(pid: int) -> bool:
    """Whether the kernel has killed a process of the group that `pid` is in because its memory was used up."""
    try:
        counted = dict(line.split() for line in oom_file(groups_of(pid)).read_text().splitlines())
        return int(counted.get("oom_kill", 0)) > 0
    except (OSError, ValueError, KeyError):
        return False


def starved_by_log(group: str, log: str = LOG) -> bool:
    """Whether the kernel's log tells that the memory of the group called `group` was used up.

    That is there when the group is gone. False where the log cannot be read, or does not reach back so far.
    """
    try:
        records = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        while record := _next_record(records):
            _, found, killed_in = record.partition(b"oom_memcg=")
            if found and group.encode() in killed_in.partition(b",")[0]:
                return True
        return False
    finally:
        os.close(records)


def _next_record(log: int) -> bytes:
    """Empty at the end."""
    while True:
        try:
            return os.read(log, RECORD_BYTES)
        except BrokenPipeError:
            continue  # the record was overwritten before it was read; the next read is of the oldest there is
        except BlockingIOError:
            return b""


def oom_file(groups: Mapping[str, Path]) -> Path:
    """Where the kernel counts, as `oom_kill`, the processes of a group that it killed for want of memory."""
    memory = groups.get("memory")
    return memory / "memory.oom_control" if memory else groups[""] / "memory.events"


def groups_of(pid: int) -> dict[str, Path]:
    """The directory of each controller's group; version 2 has one group, under the empty name.

    Raises:
        OSError: there is no such process.
    """
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if path == "/":
            continue  # everybody's group: the program has none of its own there, or we cannot see it
        for each in controllers.split(","):
            groups[each] = ROOT / controllers / path.lstrip("/")
    return groups


def _number(file: Path) -> int:
    return int(file.read_text())
