"""The files of a program as they would stand after a power cut: only what was synced is sure to be there.

A killed process proves nothing about durability, because the page cache outlives it. So strace records what the program
writes and syncs, in order, and `Disk` replays it up to any moment. What was written and not synced is in doubt: it is
dropped, or each 512-byte sector of it is kept or dropped by chance, as a real disk might.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "openat,close,pwrite64,write,fdatasync,fsync,ftruncate,rename,unlink"
STRACE = ["strace", "-f", "-xx", "-s", "70000", "-e", f"trace={CALLS}", "-e", "signal=none"]
SECTOR = 512

_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")


@dataclass(frozen=True)
class Call:
    """One system call; `began` and `ended` are lines of the trace."""

    thread: str
    began: int
    ended: int
    name: str
    arguments: list[str]
    result: int

    def text(self, at: int) -> bytes:
        """An argument that is a string."""
        return bytes.fromhex(self.arguments[at].strip('"').replace("\\x", ""))


def read_trace(path: Path) -> Iterator[Call]:
    """The calls of a trace in the order of their ends; threads interleave, so one may begin and end on two lines."""
    begun: dict[str, tuple[int, str]] = {}
    for at, line in enumerate(path.read_text().splitlines()):
        thread, rest = line.split(None, 1)
        began = at
        if rest.endswith("<unfinished ...>"):
            begun[thread] = (at, rest.removesuffix("<unfinished ...>").rstrip())
            continue
        if rest.startswith("<..."):
            began, start = begun.pop(thread)
            rest = start + rest.split("resumed>", 1)[1]
        if found := _CALL.match(rest):
            name, arguments, result = found.groups()
            yield Call(thread, began, at, name, arguments.split(", "), int(result))


Write = tuple[int, bytes] | int  # data at an offset, or a new length


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    doubtful: list[Write] = field(default_factory=list)

    def apply(self, change: Write) -> None:
        _apply(self.synced, change)

    def sync(self) -> None:
        for change in self.doubtful:
            _apply(self.synced, change)
        self.doubtful.clear()


def _apply(content: bytearray, change: Write) -> None:
    if isinstance(change, int):
        del content[change:]
        content.extend(bytes(change - len(content)))
        return
    offset, data = change
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """The files in `directory`, fed with calls in order."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._names: dict[str, _File] = {}
        self._open: dict[int, _File] = {}

    def feed(self, call: Call) -> None:
        if call.result < 0:
            if call.name in ("fsync", "fdatasync") and (file := self._open.get(int(call.arguments[0]))):
                file.doubtful.clear()  # Linux marks the pages clean: no later sync writes them
            return
        match call.name:
            case "openat":
                self._open.pop(call.result, None)
                name = call.text(1).decode()
                if Path(name).parent == Path(self._directory) and not name.endswith(("-shm", ".lock")):
                    file = self._open[call.result] = self._names.setdefault(name, _File())
                    if "O_TRUNC" in call.arguments[2]:
                        file.doubtful.append(0)
            case "close":
                self._open.pop(int(call.arguments[0]), None)
            case "rename":
                old, new = call.text(0).decode(), call.text(1).decode()
                if old in self._names:
                    self._names[new] = self._names.pop(old)
            case "unlink":
                self._names.pop(call.text(0).decode(), None)
            case _:
                file_or_none = self._open.get(int(call.arguments[0]))
                if file_or_none is not None:
                    self._change(file_or_none, call)

    def _change(self, file: _File, call: Call) -> None:
        match call.name:
            case "pwrite64":
                file.doubtful.append((int(call.arguments[3]), call.text(1)))
            case "write":  # only the head is written so, from its start and at once
                file.doubtful.append((0, call.text(1)))
            case "ftruncate":
                file.doubtful.append(int(call.arguments[1]))
            case "fsync" | "fdatasync":
                file.sync()

    def build(self, directory: Path, chance: random.Random | None = None) -> None:
        """Writes the files as a power cut now would leave them; with `chance`, some sectors in doubt made it."""
        for name, file in self._names.items():
            content = bytearray(file.synced)
            if chance is not None:
                for change in file.doubtful:
                    for piece in _sectors(change):
                        if chance.random() < 0.5:
                            _apply(content, piece)
            (directory / Path(name).name).write_bytes(content)


def _sectors(change: Write) -> Iterator[Write]:
    if isinstance(change, int):
        yield change
    else:
        offset, data = change
        for at in range(0, len(data), SECTOR):
            yield offset + at, data[at : at + SECTOR]
