"""Two changes of the same tree made into one, where they agree; where they do not, both are shown and neither is taken.

Text is merged by lines: the stretches that both sides share with the tree hold it together, and what lies between two
of them is taken from the side that changed it. If both did, differently, that is a conflict (diff3: Khanna, Kunal and
Pierce 2007; the way Bazaar's merge3 goes about it). A file that one side changes and the other deletes, binary files
changed twice and files that lie in each other's way are conflicts too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

from core.coding.changes import Changes, Limits, Pair, Side, open_changes
from core.coding.lines import Effort, matches, split
from core.coding.objects import LINK
from core.coding.patch import is_binary
from protos.treerules import escaped

MARK = 7  # characters of a conflict mark, as git has it


@dataclass(frozen=True)
class Handed:
    """What one worker handed back: the packed files that it changed or added, and the names of those that are gone."""

    changes: Iterable[bytes]
    deleted: Sequence[str]


@dataclass(frozen=True)
class Conflict:
    """One file that both sides changed, each in its own way."""

    path: str
    why: str  # a sentence with the file as its subject
    text: bytes = b""  # with git's conflict marks, where lines can show it


@dataclass(frozen=True)
class Merged:
    """What two changes come to. Files in conflict are in `conflicts` only; what was refused of either is left out."""

    changes: Changes
    conflicts: list[Conflict]


@contextmanager
def open_merge(
    source: Callable[[], Iterable[bytes]], ours: Handed, theirs: Handed, limits: Limits | None = None
) -> Iterator[Merged]:
    """Merges two changes of one packed tree, which `source` gives from its start as often as it is asked.

    The result is good within the block: `render` makes a patch of its changes, `pack` hands them on.

    Raises:
        TreeRefused: a stream is no packed tree, or no honest worker wrote it.
    """
    with ExitStack() as stack:
        left = stack.enter_context(open_changes(source(), ours.changes, ours.deleted, limits))
        right = stack.enter_context(open_changes(source(), theirs.changes, theirs.deleted, limits))
        merged = Merged(Changes(stack.enter_context(SpooledTemporaryFile(max_size=16 * 1024**2))), [])
        merged.changes.refused.extend([*left.refused, *right.refused])
        merged.changes.unlisted = left.unlisted + right.unlisted
        _Merging(left, right, merged).run()
        yield merged


def merge_text(base: bytes, ours: bytes, theirs: bytes, names: tuple[str, str]) -> tuple[bytes, int]:
    """Three versions of a text made into one, and how many conflicts stand marked in it, with the names of both."""
    old, left, right = split(base), split(ours), split(theirs)
    merged: list[bytes] = []
    conflicts = at = mine = yours = 0
    effort = Effort()
    for start, here, there, count in _shared(old, left, right, effort):
        before, one, two = old[at:start], left[mine:here], right[yours:there]
        if one == two or two == before:
            merged += one
        elif one == before:
            merged += two
        else:
            conflicts += 1
            merged += _marked(one, two, names)
        merged += old[start : start + count]
        at, mine, yours = start + count, here + count, there + count
    return b"".join(merged), conflicts


def _shared(
    old: list[bytes], left: list[bytes], right: list[bytes], effort: Effort
) -> Iterator[tuple[int, int, int, int]]:
    """Where all three are the same: from where on in each, and how many lines; an empty stretch at the end."""
    ours, theirs = matches(old, left, effort), matches(old, right, effort)
    one = two = 0
    while one < len(ours) and two < len(theirs):
        mine, yours = ours[one], theirs[two]
        start = max(mine.old, yours.old)
        end = min(mine.old + mine.count, yours.old + yours.count)
        if start < end:
            yield start, mine.new + start - mine.old, yours.new + start - yours.old, end - start
        if mine.old + mine.count < yours.old + yours.count:
            one += 1
        else:
            two += 1
    yield len(old), len(left), len(right), 0


def _marked(ours: list[bytes], theirs: list[bytes], names: tuple[str, str]) -> Iterator[bytes]:
    yield b"<" * MARK + b" " + names[0].encode() + b"\n"
    yield from _ended(ours)
    yield b"=" * MARK + b"\n"
    yield from _ended(theirs)
    yield b">" * MARK + b" " + names[1].encode() + b"\n"


def _ended(lines: list[bytes]) -> list[bytes]:
    """The lines, the last of which a mark can follow."""
    return [*lines[:-1], lines[-1].rstrip(b"\n") + b"\n"] if lines else lines


class _Merging:
    """Two changes on their way to one."""

    def __init__(self, ours: Changes, theirs: Changes, merged: Merged) -> None:
        self.ours, self.theirs, self.merged = ours, theirs, merged

    def run(self) -> None:
        for path in sorted({*self.ours.pairs, *self.theirs.pairs}):
            mine, yours = self.ours.pairs.get(path), self.theirs.pairs.get(path)
            if mine and yours:
                self._both(path, mine, yours)
            elif mine:
                self._one(self.ours, mine, self.theirs)
            elif yours:
                self._one(self.theirs, yours, self.ours)

    def _one(self, changes: Changes, pair: Pair, other: Changes) -> None:
        """A file that one side changed: taken, unless the other side has put something in its way."""
        if pair.new is not None:
            places = [pair.path[: at + 1] for at in range(len(pair.path)) if pair.path[at] == "/"]
            above = next((each[:-1] for each in places if _is_new(other.pairs.get(each[:-1]))), None)
            under = (each for each in other.pairs if each.startswith(pair.path + "/"))
            below = next((each for each in under if _is_new(other.pairs[each])), None)
            if way := above or below:
                self._conflict(pair.path, f"lies where the other side has '{escaped(way)}'")
                return
        self._take(changes, pair, pair.new)

    def _both(self, path: str, mine: Pair, yours: Pair) -> None:
        ours, theirs, base = mine.new, yours.new, mine.old
        if _same(ours, theirs):
            self._take(self.ours, mine, ours)
        elif ours is None or theirs is None:
            self._conflict(path, "is deleted by one side and changed by the other")
        elif base is None:
            self._texts(path, None, ours, theirs, "is added by both sides, each with its own content")
        elif _same_content(base, ours):  # that side changed the mode only
            self._take(self.theirs, yours, theirs, ours.mode if theirs.mode == base.mode else theirs.mode)
        elif _same_content(base, theirs):
            self._take(self.ours, mine, ours, theirs.mode if ours.mode == base.mode else ours.mode)
        else:
            self._texts(path, base, ours, theirs, "is changed by both sides in the same place")

    def _texts(self, path: str, base: Side | None, ours: Side, theirs: Side, why: str) -> None:
        sides = [each for each in (base, ours, theirs) if each is not None]
        if any(each.mode == LINK or not each.kept for each in sides):
            self._conflict(path, "is no text, and changed by both sides")
            return
        contents = self.ours.read(base), self.ours.read(ours), self.theirs.read(theirs)
        if any(is_binary(each) for each in contents):
            self._conflict(path, "is no text, and changed by both sides")
            return
        text, conflicts = merge_text(*contents, ("ours", "theirs"))
        if conflicts:
            self.merged.conflicts.append(Conflict(path, why, text))
            return
        mode = theirs.mode if base is None or ours.mode == base.mode else ours.mode
        new = self.merged.changes.keep(mode, len(text), [text], len(text))
        self._enter(path, base, new)

    def _take(self, changes: Changes, pair: Pair, new: Side | None, mode: int = 0) -> None:
        """Takes one side's version, with its mode or another."""
        if new is not None:
            content = [changes.read(new)] if new.kept else []
            new = self.merged.changes.keep(mode or new.mode, new.size, content, new.size)
        self._enter(pair.path, pair.old, new)

    def _enter(self, path: str, old: Side | None, new: Side | None) -> None:
        if old is not None and old.kept:
            source = self.ours if path in self.ours.pairs else self.theirs
            old = self.merged.changes.keep(old.mode, old.size, [source.read(old)], old.size)
        self.merged.changes.pairs[path] = Pair(path, old, new)

    def _conflict(self, path: str, why: str) -> None:
        self.merged.conflicts.append(Conflict(path, why))


def _is_new(pair: Pair | None) -> bool:
    """Whether there is a file where there was none."""
    return pair is not None and pair.old is None and pair.new is not None


def _same(one: Side | None, two: Side | None) -> bool:
    return one is two or (one is not None and two is not None and (one.mode, one.id) == (two.mode, two.id))


def _same_content(one: Side, two: Side) -> bool:
    return one.id == two.id and (one.mode == LINK) == (two.mode == LINK)
