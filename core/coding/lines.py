"""Which lines of two texts are the same: a diff whose effort is bounded.

Rules of the file
  1. Any answer is a right one, as long as it names lines that are equal and in order: a poorer one only makes a longer
     patch. So there is a budget of steps, and what is left when it is spent counts as replaced.
  2. Common beginnings and endings first, then the lines that are there once on both sides (patience diff: Cohen 2008),
     and so on between them; what has no such line is compared by Myers' greedy algorithm (1986).

Why not difflib: it looks at every pair of equal lines, and a file of 20,000 similar lines takes it minutes.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STEPS = 2_000_000  # for a pair of texts; about a second
DIFFERENCES = 400  # the most that is looked for in one stretch: the memory for it grows with the square


@dataclass
class Effort:
    """How many steps may still be taken, for one pair of texts and for all."""

    each: int = STEPS
    all: int = 10 * STEPS


@dataclass(frozen=True)
class Same:
    """`count` lines from `old` on are those from `new` on."""

    old: int
    new: int
    count: int


def split(text: bytes) -> list[bytes]:
    """The lines with their ends. Only a newline ends a line."""
    lines = text.split(b"\n")
    last = lines.pop()
    return [each + b"\n" for each in lines] + ([last] if last else [])


def matches(old: Sequence[bytes], new: Sequence[bytes], effort: Effort | None = None) -> list[Same]:
    """The stretches of equal lines, in order, as long as they can be; adjacent ones are one."""
    effort = effort or Effort()
    steps = min(effort.each, effort.all)
    numbers: dict[bytes, int] = {}
    search = _Search(
        [numbers.setdefault(each, len(numbers)) for each in old],
        [numbers.setdefault(each, len(numbers)) for each in new],
        steps,
    )
    found: list[Same] = []
    for same in sorted(search.run(), key=lambda each: each.old):
        if found and (found[-1].old + found[-1].count, found[-1].new + found[-1].count) == (same.old, same.new):
            same = Same(found[-1].old, found[-1].new, found.pop().count + same.count)
        found.append(same)
    effort.all -= steps - search.steps
    return found


class _Search:
    """Two lists of numbers, one for each different line, and the steps that are left."""

    def __init__(self, old: list[int], new: list[int], steps: int) -> None:
        self.old, self.new, self.steps = old, new, steps

    def run(self) -> Iterator[Same]:
        waiting = [(0, len(self.old), 0, len(self.new))]
        while waiting:
            low, high, left, right = waiting.pop()
            start = low
            while low < high and left < right and self.old[low] == self.new[left]:
                low, left = low + 1, left + 1
            if low > start:
                yield Same(start, left - (low - start), low - start)
            end = high
            while low < high and left < right and self.old[high - 1] == self.new[right - 1]:
                high, right = high - 1, right - 1
            if end > high:
                yield Same(high, right, end - high)
            self.steps -= 3 * (high - low + right - left)
            if low == high or left == right or self.steps < 0:
                continue
            anchors = self._anchors(low, high, left, right)
            if not anchors:
                at, there, found = self._greedy(low, high, left, right)
                yield from found
                waiting.append((at, high, there, right))
                continue
            for at, there in anchors:
                waiting.append((low, at, left, there))
                yield Same(at, there, 1)
                low, left = at + 1, there + 1
            waiting.append((low, high, left, right))

    def _anchors(self, low: int, high: int, left: int, right: int) -> list[tuple[int, int]]:
        """Lines that are there once on both sides, as many as are in the same order on both."""
        ours, theirs = Counter(self.old[low:high]), Counter(self.new[left:right])
        places = {self.new[at]: at for at in range(left, right) if theirs[self.new[at]] == 1}
        pairs = [
            (at, places[self.old[at]]) for at in range(low, high) if ours[self.old[at]] == 1 and self.old[at] in places
        ]
        tails: list[int] = []  # the smallest end of an ascending run of each length
        ends: list[int] = []  # which pair that is
        before: list[int] = []  # the pair before each pair in its run
        for index, (_, there) in enumerate(pairs):
            length = bisect_left(tails, there)
            before.append(ends[length - 1] if length else -1)
            tails[length : length + 1], ends[length : length + 1] = [there], [index]
        chosen = []
        index = ends[-1] if ends else -1
        while index >= 0:
            chosen.append(pairs[index])
            index = before[index]
        return chosen[::-1]

    def _greedy(self, low: int, high: int, left: int, right: int) -> tuple[int, int, list[Same]]:
        """Myers' algorithm on the beginning of one stretch: how far it came, and what is equal up to there."""
        old, new = self.old[low:high], self.new[left:right]
        reach = {1: 0}  # how far into `old` each diagonal has come
        trace = []
        for differences in range(min(len(old) + len(new), DIFFERENCES) + 1):
            trace.append(dict(reach))
            for diagonal in range(-differences, differences + 1, 2):
                down = _is_down(reach, diagonal, differences)
                start = at = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
                while at < len(old) and at - diagonal < len(new) and old[at] == new[at - diagonal]:
                    at += 1
                self.steps -= 1 + at - start
                reach[diagonal] = at
                if at >= len(old) and at - diagonal >= len(new):
                    return high, right, list(_back(trace, low, left, at, at - diagonal))
        within = (each for each in range(-differences, differences + 1, 2) if reach[each] - each <= len(new))
        diagonal = max((each for each in within if reach[each] <= len(old)), key=lambda each: 2 * reach[each] - each)
        at, there = reach[diagonal], reach[diagonal] - diagonal
        return low + at, left + there, list(_back(trace, low, left, at, there))


def _is_down(reach: dict[int, int], diagonal: int, differences: int) -> bool:
    """Whether the best way to a diagonal is by a line that came, and not by one that went."""
    return diagonal == -differences or (diagonal != differences and reach[diagonal - 1] < reach[diagonal + 1])


def _back(trace: list[dict[int, int]], low: int, left: int, at: int, there: int) -> Iterator[Same]:
    """The equal lines on the way to a place, from its end to its beginning."""
    for differences in range(len(trace) - 1, -1, -1):
        reach, diagonal = trace[differences], at - there
        down = _is_down(reach, diagonal, differences)
        start = 0 if not differences else reach[diagonal + 1] if down else reach[diagonal - 1] + 1
        if at > start:
            yield Same(low + start, left + start - diagonal, at - start)
        if differences:
            at = reach[diagonal + 1] if down else reach[diagonal - 1]
            there = at - (diagonal + 1 if down else diagonal - 1)
