"""Notices when an agent goes in circles: the same again with the same result, and nothing new for long.

A call brings something new when it, or what came of it, was not there before; figures that a clock makes do not count.
"""

import hashlib
import re
from collections import Counter

SAME = 3  # times the same call with the same result, and nothing changed between
STALE = 6  # calls in a row that brought nothing new
BROKEN = 8  # calls in a row that could not be used
SILENT = 3  # answers in a row without a call

_CLOCK = re.compile(r"\d+\.\d+|0x[0-9a-f]{6,}|\b\d{2}:\d{2}:\d{2}\b")


class Watch:
    """What was done so far, as far as it matters for noticing."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._same: Counter[str] = Counter()  # since the tree changed
        self._stale = 0
        self._broken = 0
        self._silent = 0
        self.stuck = ""  # why, once it is

    def knows(self, name: str, arguments: str, result: str) -> bool:
        """Whether the same call has come to the same before."""
        return _key(name, arguments, result) in self._seen

    def did(self, name: str, arguments: str, result: str, *, failed: bool, changed: bool) -> str:
        """Notes a call and what came of it; `changed`: the tree is one it has not been before. Returns a warning."""
        self._silent = 0
        self._broken = 0
        key = _key(name, arguments, result)
        if changed:
            self._same.clear()
        self._same[key] += 1
        self._stale = 0 if changed or key not in self._seen else self._stale + 1
        self._seen.add(key)
        if self._same[key] >= SAME:
            self.stuck = f"It did the same {SAME} times with the same result: {name} {arguments[:200]}"
        elif self._stale >= STALE:
            self.stuck = f"Its last {STALE} calls brought nothing new."
        elif self._same[key] == SAME - 1 or self._stale == STALE // 2:
            return "You have done this before and it came out the same. Do something else, or finish with done=false."
        return ""

    def broke(self, problem: str) -> None:
        """Notes a call that could not be used."""
        self._silent = 0
        self._broken += 1
        if self._broken >= BROKEN:
            self.stuck = f"Its last {BROKEN} calls could not be used. The last: {problem[:200]}"

    def said_only(self) -> None:
        """Notes an answer without a call."""
        self._silent += 1
        if self._silent >= SILENT:
            self.stuck = f"Its last {SILENT} answers called no tool."


def _key(name: str, arguments: str, result: str) -> str:
    said = f"{name}\0{arguments}\0{_CLOCK.sub('0', result)}"
    return hashlib.blake2b(said.encode("utf-8", "replace")).hexdigest()
