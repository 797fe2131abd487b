"""A diff that `patch.py` wrote, read back as data for a page: files, hunks, numbered lines, what changed within one.

What stands in the lines was written by nobody trusted. It is given as text of bounded size, with secrets covered; how
to show a control character is whoever shows it to decide. Lines are counted by the hunks' own headings, so that no line
of a file is taken for a heading of the diff.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from core.coding.secrets import covered
from protos.treerules import escaped

DIFF_BYTES = 8 * 1024**2  # of a diff are read; the rest is in the file
LINES, FILE_LINES = 4_000, 20_000  # shown at once: of all files together, of one that is asked for by itself
LINE_CHARACTERS = 1_000
PATH_CHARACTERS = 300
PAIRS, PAIR_CHARACTERS, TOKENS = 400, 400, 160  # lines that are set against each other, and how long they may be
ALIKE = 0.4  # of two lines is the same, or one is not the other with a change in it

HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)")
TOKEN = re.compile(r"\w+|\s+|.")
OCTAL = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
UNESCAPED = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}

Part = tuple[str, bool]  # a piece of a line, and whether it differs from the other side


@dataclass
class Line:
    """One line. A number is None where that side does not have it."""

    sign: str  # " ", "+" or "-"
    old: int | None
    new: int | None
    text: str
    parts: list[Part] | None = None  # the same text, where a part of it only has changed
    ended: bool = True  # with a line break

    def as_json(self) -> dict[str, Any]:
        """For the door."""
        told: dict[str, Any] = {"sign": self.sign, "old": self.old, "new": self.new, "text": self.text}
        if self.parts is not None:
            told["parts"] = self.parts
        return told if self.ended else told | {"ended": False}


@dataclass
class Hunk:
    """A stretch with changes in it."""

    old: int  # the first line
    new: int
    heading: str
    lines: list[Line] = field(default_factory=list)


@dataclass
class File:
    """One file of a diff."""

    path: str
    kind: str = "modified"  # "added", "modified", "deleted", "mode"
    old_mode: str = ""
    mode: str = ""
    added: int = 0
    removed: int = 0
    binary: bool = False
    whole: bool = True  # else it is too big, and there by name only
    shown: bool = False  # its lines are here
    cut: bool = False  # some of them are not
    hunks: list[Hunk] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the door."""
        told = {name: value for name, value in vars(self).items() if name != "hunks"}
        hunks = [
            {
                "old": each.old,
                "new": each.new,
                "heading": each.heading,
                "lines": [line.as_json() for line in each.lines],
            }
            for each in self.hunks
        ]
        return told | {"hunks": hunks}


def read_diff(diff: bytes, only: int | None = None) -> list[File]:
    """The files of a diff, with their lines as long as there is room; or the lines of file number `only` alone.

    Never raises: a diff that breaks off ends there.
    """
    return _Reading(covered(diff), only).files


class _Reading:
    """Goes through a diff once."""

    def __init__(self, diff: bytes, only: int | None) -> None:
        self._diff, self._at, self._only = diff, 0, only
        self._room = LINES if only is None else FILE_LINES
        self._pairs = PAIRS
        self._in_key = False
        self.files: list[File] = []
        while (line := self._next()) is not None:
            if line.startswith(b"diff --git "):
                self._in_key = False
                self.files.append(File(_path(line[11:])))
            elif self.files:
                self._head(self.files[-1], line)

    def _next(self) -> bytes | None:
        if self._at >= len(self._diff):
            return None
        end = self._diff.find(b"\n", self._at)
        end = len(self._diff) if end < 0 else end
        line, self._at = self._diff[self._at : end], end + 1
        return line

    def _head(self, file: File, line: bytes) -> None:
        """One line between the hunks."""
        word, _, rest = line.partition(b" mode ")
        if word == b"new file":
            file.kind, file.mode = "added", rest.decode("ascii", "replace")
        elif word == b"deleted file":
            file.kind, file.old_mode = "deleted", rest.decode("ascii", "replace")
        elif word in (b"old", b"new"):
            file.kind = "mode" if file.kind == "modified" else file.kind
            setattr(file, "old_mode" if word == b"old" else "mode", rest.decode("ascii", "replace"))
        elif line.startswith(b"index "):
            file.kind = "modified" if file.kind == "mode" else file.kind
            if len(words := line.split(b" ")) > 2:
                file.old_mode = file.mode = words[2].decode("ascii", "replace")
        elif line.startswith(b"GIT binary patch"):
            file.binary = True
        elif line.startswith(b"Binary files "):
            file.binary, file.whole = True, False
        elif found := HUNK.fullmatch(line):
            self._hunk(file, found)

    def _hunk(self, file: File, found: "re.Match[bytes]") -> None:
        old, new = int(found[1]), int(found[3])
        left, come = (int(found[each]) if found[each] else 1 for each in (2, 4))
        hunk = Hunk(old, new, _text(found[5]))
        shown = self._only is None or self._only == len(self.files) - 1
        while left > 0 or come > 0:
            line = self._next()
            if line is None:
                break
            sign = line[:1].decode("ascii", "replace")
            if sign == "\\":
                _unended(hunk)
                continue
            left, come = left - (sign in " -"), come - (sign in " +")
            file.added += sign == "+"
            file.removed += sign == "-"
            if shown and self._room > 0:
                self._room -= 1
                numbers = (old if sign in " -" else None), (new if sign in " +" else None)
                hunk.lines.append(Line(sign, *numbers, self._line(line[1:])))
            else:
                file.cut = True
            old, new = old + (sign in " -"), new + (sign in " +")
        if self._diff.startswith(b"\\ ", self._at):
            self._next()
            _unended(hunk)
        if hunk.lines:
            file.shown = True
            self._compare(hunk)
            file.hunks.append(hunk)

    def _line(self, content: bytes) -> str:
        """One line of a file. Those of a private key are told of and not shown."""
        if b"-----BEGIN " in content and b"PRIVATE KEY" in content:
            self._in_key = True
        elif b"-----END " in content:
            self._in_key = False
        elif self._in_key:
            return "(a line of a private key)"
        return _text(content)

    def _compare(self, hunk: Hunk) -> None:
        """Sets each line that goes against the one that comes in its place."""
        for gone, come in _stretches(hunk.lines):
            if len(gone) != len(come):
                continue
            for old, new in zip(gone, come, strict=True):
                if self._pairs <= 0:
                    return
                self._pairs -= 1
                parts = compared(old.text, new.text)
                if parts is not None:
                    old.parts, new.parts = parts


def _stretches(lines: list[Line]) -> Iterator[tuple[list[Line], list[Line]]]:
    """Lines that go, with the lines right behind them that come."""
    at = 0
    while at < len(lines):
        start = at
        while at < len(lines) and lines[at].sign == "-":
            at += 1
        middle = at
        while at < len(lines) and lines[at].sign == "+":
            at += 1
        if start < middle < at:
            yield lines[start:middle], lines[middle:at]
        elif at == start:
            at += 1


def compared(old: str, new: str) -> tuple[list[Part], list[Part]] | None:
    """Both lines in parts, where they differ in some of them only; None where too little is the same."""
    if max(len(old), len(new)) > PAIR_CHARACTERS:
        return None
    before, after = TOKEN.findall(old), TOKEN.findall(new)
    if max(len(before), len(after)) > TOKENS:
        return None
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    blocks = matcher.get_opcodes()
    same = sum(len("".join(before[a:b]).strip()) for tag, a, b, _, _ in blocks if tag == "equal")
    if same < ALIKE * max(len(old.strip()), len(new.strip()), 1):
        return None
    left = [("".join(before[a:b]), tag != "equal") for tag, a, b, _, _ in blocks if b > a]
    right = [("".join(after[a:b]), tag != "equal") for tag, _, _, a, b in blocks if b > a]
    return left, right


def _unended(hunk: Hunk) -> None:
    if hunk.lines:
        hunk.lines[-1].ended = False


def _text(content: bytes) -> str:
    text = content[: 4 * LINE_CHARACTERS].decode("utf-8", "backslashreplace")
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + "…"


def _path(names: bytes) -> str:
    """The path in a heading, `a/PATH b/PATH` or both in quotes."""
    half = names[: len(names) // 2]
    if names.startswith(b'"'):
        half = OCTAL.sub(_unescaped, half[1:-1])
    return escaped(half[2:].decode("utf-8", "surrogateescape"), PATH_CHARACTERS)


def _unescaped(found: "re.Match[bytes]") -> bytes:
    code = found[1]
    return bytes([UNESCAPED[code] if code in UNESCAPED else int(code, 8) & 255])
