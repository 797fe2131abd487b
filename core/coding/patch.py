"""The patch of a run, made on the trusted side from the files that came out.

The diff is in git's own format, so that `git apply` takes it and a person can read it: full object ids, names quoted as
git does, binary files as `GIT binary patch`, and what is too big for that by name. What the sandbox's own git says is
never asked. The contents come from `changes.py`, the rules from `review.py`; here they become text.
"""

import zlib
from base64 import b85encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from core.coding.changes import Changes, Limits, Pair, Refusal, Side, open_changes, restored
from core.coding.lines import Effort, Same, matches, split
from core.coding.objects import EXECUTABLE, LINK, NULL
from core.coding.review import Flag, flags_of_line, flags_of_path, is_test, steers_tests
from core.coding.secrets import masked, secrets_in
from protos.treerules import escaped

__all__ = ["FileChange", "Flag", "Limits", "Patch", "Refusal", "compute", "render", "restored"]

BLOCK = 64 * 1024  # bytes compared at once
CONTEXT = 3  # lines around each change
HEADING_LINES, HEADING_BYTES = 200, 80  # how far up a hunk's heading is looked for, and how long it is
LINES = 200_000  # in which two texts may differ and be shown by lines
FLAGS = 500  # so many are listed
REPORTED, REPORTED_PATH = 100, 100  # files in a report, and characters of a path
LOOKED_BYTES = 32 * 1024**2  # of added text are looked through for secrets
NO_NEWLINE = b"\\ No newline at end of file\n"
ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}

Kind = Literal["added", "modified", "deleted", "mode"]


@dataclass(frozen=True)
class FileChange:
    """One file of a patch. Ids are git's, of forty zeros where there is no such version; a mode is 0 there."""

    path: str
    kind: Kind
    added: int  # lines
    removed: int
    binary: bool
    whole: bool  # whether the diff can bring it about; one that is too big is there by name only
    old_mode: int
    mode: int
    old_id: str
    new_id: str
    size: int  # bytes of the new version


@dataclass(frozen=True)
class Patch:
    """What a run changed."""

    diff: bytes
    files: list[FileChange]
    refused: list[Refusal]  # the first of them
    unlisted: int  # refused, too
    flags: list[Flag]  # with the secrets
    secrets: list[Flag]  # that it would add
    tests_changed: list[str]  # tests that were there and are modified or deleted
    steers_tests: list[str]  # files that can decide which tests run or what counts as passed, changed or added

    @property
    def added(self) -> int:
        """Lines."""
        return sum(each.added for each in self.files)

    @property
    def removed(self) -> int:
        """Lines."""
        return sum(each.removed for each in self.files)

    def report(self) -> dict[str, Any]:
        """Its first files and how many there are, ready for JSON, fit to be shown, and of bounded size."""
        return {
            "files": [
                {
                    "path": escaped(each.path, REPORTED_PATH),
                    "kind": each.kind,
                    "added": each.added,
                    "removed": each.removed,
                    "binary": each.binary,
                    "whole": each.whole,
                    "mode": f"{each.mode:06o}",
                    "size": each.size,
                }
                for each in self.files[:REPORTED]
            ],
            "count": len(self.files),
            "added": self.added,
            "removed": self.removed,
        }


def compute(
    source: Iterable[bytes], changes: Iterable[bytes], deleted: Sequence[str], limits: Limits | None = None
) -> Patch:
    """The patch from a tree to what a worker made of it; blocks, so call it from a thread.

    `source` and `changes` are packed trees as streams of bytes: the whole tree, and the files that are changed or new
    in it. `deleted` are the paths that are gone.

    Raises:
        TreeRefused: a stream is no packed tree, or no honest worker wrote it.
    """
    limits = limits or Limits()
    with open_changes(source, changes, deleted, limits) as found:
        return render(found, limits)


def render(changes: Changes, limits: Limits | None = None) -> Patch:
    """The same from changes that are open already."""
    limits = limits or Limits()
    sections: list[bytes] = []
    files: list[FileChange] = []
    flags: list[Flag] = []
    secrets: list[Flag] = []
    size, effort = 0, _Effort()
    for pair in changes.pairs.values():
        made = _Section(changes, pair, limits, effort, by_name=size > limits.diff_bytes)
        sections.append(made.text)
        size += len(made.text)
        files.append(made.change)
        flags += [*made.flags, *made.secrets][: FLAGS - len(flags)]
        secrets += made.secrets[: FLAGS - len(secrets)]
    tests = [each.path for each in files if each.kind != "added" and is_test(each.path)]
    steering = [each.path for each in files if steers_tests(each.path)]
    return Patch(b"".join(sections), files, changes.refused, changes.unlisted, flags, secrets, tests, steering)


def is_binary(content: bytes) -> bool:
    """Whether lines mean nothing in it."""
    return b"\0" in content


def quoted(path: bytes) -> bytes:
    """A path as git writes it: between quotes, with escapes, where it has bytes that would not show."""
    if all(32 <= each < 127 and each not in b'"\\' for each in path):
        return path
    shown = "".join(
        f"\\{ESCAPES[each]}" if each in ESCAPES else chr(each) if 32 <= each < 127 else f"\\{each:03o}" for each in path
    )
    return b'"' + shown.encode("ascii") + b'"'


@dataclass
class _Effort:
    """What may still be done for one patch."""

    lines: Effort = field(default_factory=Effort)
    looked: int = LOOKED_BYTES


class _Section:
    """The part of a patch that is about one path."""

    def __init__(self, changes: Changes, pair: Pair, limits: Limits, effort: _Effort, *, by_name: bool) -> None:
        self._changes, self._pair, self._limits, self._by_name = changes, pair, limits, by_name
        self._effort = effort
        self._name = pair.path.encode("utf-8", "surrogateescape")
        self._added = self._removed = 0
        self._binary, self._whole = False, True
        self.flags = flags_of_path(pair.path)
        self.secrets: list[Flag] = []
        old, new = pair.old, pair.new
        if new and new.mode == EXECUTABLE and (old is None or old.mode != EXECUTABLE):
            self.flags.append(Flag(pair.path, 0, "becomes executable" if old else "is executable"))
        if old and new and (old.mode == LINK) != (new.mode == LINK):  # git takes it for two files
            self.text = b"".join((*self._part(old, None), *self._part(None, new)))
        else:
            self.text = b"".join(self._part(old, new))
        if self._binary and new and new.mode != LINK:
            unread = "is binary, and nobody can read it here" if self._whole else "is too big to be shown"
            self.flags.append(Flag(pair.path, 0, unread))
        self.change = FileChange(
            pair.path,
            self._kind(),
            self._added,
            self._removed,
            self._binary,
            self._whole,
            old.mode if old else 0,
            new.mode if new else 0,
            old.id if old else NULL,
            new.id if new else NULL,
            new.size if new else 0,
        )

    def _kind(self) -> Kind:
        old, new = self._pair.old, self._pair.new
        if old is None:
            return "added"
        if new is None:
            return "deleted"
        return "mode" if old.id == new.id else "modified"

    def _part(self, old: Side | None, new: Side | None) -> Iterator[bytes]:
        ours, theirs = quoted(b"a/" + self._name), quoted(b"b/" + self._name)
        yield b"diff --git %s %s\n" % (ours, theirs)
        if old is None and new:
            yield b"new file mode %06o\n" % new.mode
        elif new is None and old:
            yield b"deleted file mode %06o\n" % old.mode
        elif old and new and old.mode != new.mode:
            yield b"old mode %06o\nnew mode %06o\n" % (old.mode, new.mode)
        ids = (old.id if old else NULL), (new.id if new else NULL)
        if ids[0] == ids[1]:
            return
        mode = b" %06o" % new.mode if old and new and old.mode == new.mode else b""
        yield b"index %s..%s%s\n" % (ids[0].encode(), ids[1].encode(), mode)
        yield from self._content(old, new, ours, theirs)

    def _content(self, old: Side | None, new: Side | None, ours: bytes, theirs: bytes) -> Iterator[bytes]:
        left, right = (ours if old else b"/dev/null"), (theirs if new else b"/dev/null")
        if any(each and not each.kept for each in (old, new)) or self._by_name:
            yield from self._without_lines(old, new, b"", left, right)
            return
        before, after = self._changes.read(old), self._changes.read(new)
        window = None if is_binary(before) or is_binary(after) else _Window(before, after, self._limits.text_bytes)
        if window is None or window.too_big:
            if new:
                self._look([(0, after)], before)
            yield from self._without_lines(old, new, after, left, right)
            return
        hunks = list(self._hunks(window, before))
        if hunks:
            yield b"--- %s\n+++ %s\n" % (_ended(left), _ended(right))
            yield from hunks

    def _without_lines(
        self, old: Side | None, new: Side | None, after: bytes, left: bytes, right: bytes
    ) -> Iterator[bytes]:
        """A file that is not shown by lines: its new content whole, or, where it is too big for that, its name."""
        self._binary = True
        if new and (new.size > self._limits.binary_bytes or self._by_name or not new.kept):
            self._whole = False
            yield b"Binary files %s and %s differ\n" % (left, right)
            return
        yield b"GIT binary patch\n"
        yield from _literal(after)
        if old and old.kept and old.size <= self._limits.binary_bytes and not self._by_name:
            yield from _literal(self._changes.read(old))
        elif old is None:
            yield from _literal(b"")

    def _hunks(self, window: "_Window", before: bytes) -> Iterator[bytes]:
        added: list[tuple[int, bytes]] = []
        for hunk in _hunks(matches(window.old, window.new, self._effort.lines), len(window.old), len(window.new)):
            yield b"@@ -%s +%s @@%s\n" % (
                _range(window.line, hunk.old),
                _range(window.line, hunk.new),
                _heading(before, window.place(hunk.old.start)),
            )
            for sign, index in hunk.lines:
                line = window.new[index] if sign == b"+" else window.old[index]
                if sign == b"+":
                    self._added += 1
                    added.append((window.line + index + 1, line))
                elif sign == b"-":
                    self._removed += 1
                yield sign + line + (b"" if line.endswith(b"\n") else b"\n" + NO_NEWLINE)
        self._look(added, before)

    def _look(self, lines: list[tuple[int, bytes]], known: bytes) -> None:
        """Looks through what is added, numbered from where it is; what was `known` is not news."""
        text = b"".join(line for _, line in lines)
        self._effort.looked -= len(text)
        if self._effort.looked < 0:
            self.secrets.append(Flag(self._pair.path, 0, "was not looked through for secrets: it is too much"))
            return
        for number, line in lines:
            if len(self.flags) < FLAGS:
                self.flags += flags_of_line(self._pair.path, number, line)
        ends = list(accumulate(len(line) for _, line in lines))
        for value, what in secrets_in(text):
            if value not in known and len(self.secrets) < FLAGS:
                number = lines[bisect_right(ends, text.find(value))][0]
                self.secrets.append(Flag(self._pair.path, number, f"adds {masked(value, what)}"))


class _Window:
    """Where two texts differ, with some lines around it: large files are split into lines there only."""

    def __init__(self, before: bytes, after: bytes, most: int) -> None:
        start = _common_start(before, after)
        for _ in range(CONTEXT + 1):  # to the beginning of the line that differs, and of those above it
            start = before.rfind(b"\n", 0, max(start, 0)) + 1
            self.start = start  # bytes into both
            start -= 1
        end, there = _common_end(before, after, self.start)
        for _ in range(CONTEXT + 1):
            further = before.find(b"\n", end) + 1 or len(before)
            end, there = further, there + further - end
        lines = max(before.count(b"\n", self.start, end), after.count(b"\n", self.start, there))
        self.too_big = max(end, there) - self.start > most or lines > LINES
        self.line = 0 if self.too_big else before.count(b"\n", 0, self.start)  # lines above
        self.old = [] if self.too_big else split(before[self.start : end])
        self.new = [] if self.too_big else split(after[self.start : there])
        self._places = list(accumulate(map(len, self.old), initial=self.start))

    def place(self, line: int) -> int:
        """Where in the old text a line of the window begins."""
        return self._places[line]


def _common_start(before: bytes, after: bytes) -> int:
    """How many bytes at the beginning are equal."""
    at, most = 0, min(len(before), len(after))
    while at < most:
        size = min(BLOCK, most - at)
        if before[at : at + size] != after[at : at + size]:
            while size > 1:
                half = size // 2
                if before[at : at + half] == after[at : at + half]:
                    at, size = at + half, size - half
                else:
                    size = half
            return at
        at += size
    return at


def _common_end(before: bytes, after: bytes, start: int) -> tuple[int, int]:
    """Where the equal end begins in both, not before `start`."""
    end, there = len(before), len(after)
    while (size := min(BLOCK, end - start, there - start)) > 0:
        if before[end - size : end] != after[there - size : there]:
            while size > 1:
                half = size // 2
                if before[end - half : end] == after[there - half : there]:
                    end, there, size = end - half, there - half, size - half
                else:
                    size = half
            break
        end, there = end - size, there - size
    return end, there


@dataclass(frozen=True)
class _Hunk:
    """A stretch with changes in it: which lines of both sides, and how they are told."""

    old: range
    new: range
    edits: list[tuple[range, range]]

    @property
    def lines(self) -> Iterator[tuple[bytes, int]]:
        """Each line's sign, and its index on the new side for `+`, on the old side else."""
        at = self.old.start
        for gone, come in self.edits:
            yield from ((b" ", index) for index in range(at, gone.start))
            yield from ((b"-", index) for index in gone)
            yield from ((b"+", index) for index in come)
            at = gone.stop
        yield from ((b" ", index) for index in range(at, self.old.stop))


def _hunks(same: list[Same], old: int, new: int) -> Iterator[_Hunk]:
    """What is not the same, grouped where it is near."""
    edits: list[tuple[range, range]] = []
    at = there = 0
    for each in [*same, Same(old, new, 0)]:
        if each.old > at or each.new > there:
            edit = range(at, each.old), range(there, each.new)
            if edits and at - edits[-1][0].stop > 2 * CONTEXT:
                yield _hunk(edits, old, new)
                edits = []
            edits.append(edit)
        at, there = each.old + each.count, each.new + each.count
    if edits:
        yield _hunk(edits, old, new)


def _hunk(edits: list[tuple[range, range]], old: int, new: int) -> _Hunk:
    (first, first_new), (last, last_new) = edits[0], edits[-1]
    above, below = min(CONTEXT, first.start), min(CONTEXT, old - last.stop)
    return _Hunk(
        range(first.start - above, last.stop + below), range(first_new.start - above, last_new.stop + below), edits
    )


def _range(above: int, lines: range) -> bytes:
    """Where a hunk is, as its heading has it; an empty one is where the line above it is."""
    if len(lines) == 1:
        return b"%d" % (above + lines.start + 1)
    return b"%d,%d" % (above + lines.start + (1 if lines else 0), len(lines))


def _heading(before: bytes, place: int) -> bytes:
    """The nearest line above a hunk that looks as if something began there."""
    for _ in range(HEADING_LINES):
        if place <= 0:
            return b""
        end, place = place - 1, before.rfind(b"\n", 0, place - 1) + 1
        line = before[place : min(end, place + HEADING_BYTES)]
        if line[:1].isalpha() or line[:1] in (b"_", b"$"):
            return b" " + line.rstrip()
    return b""


def _ended(name: bytes) -> bytes:
    """A name in front of hunks; one with a space in it ends with a tab."""
    return name + b"\t" if b" " in name else name


def _literal(content: bytes) -> Iterator[bytes]:
    """A whole content as `git apply` takes it."""
    yield b"literal %d\n" % len(content)
    packed = zlib.compress(content)
    for at in range(0, len(packed), 52):
        line = packed[at : at + 52]
        length = len(line) + (64 if len(line) <= 26 else 70)
        yield bytes([length]) + b85encode(line, pad=True) + b"\n"
    yield b"\n"
