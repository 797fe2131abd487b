"""What a worker wrote, made fit for a model's context and a person's screen.

It is data. No character of it drives a terminal or hides (controls, directions, tags, zero widths: each is written as
its escape), no text is longer than it may be, and whoever shows it says whose it is. What is cut is said to be.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

TEXT_CHARACTERS = 20_000  # of one text
LINE_CHARACTERS = 200  # of a progress message
VALUE_CHARACTERS = 100_000  # of a whole value, as JSON
SHORTER = ((TEXT_CHARACTERS, 1_000), (4_000, 200), (500, 50), (100, 10), (20, 3))  # of texts and lists, tried in turn
DEPTH = 40
FIELDS = 200  # of an object, at least
ODD = re.compile(r"[^\x20-\x7e]")  # characters that are looked at one by one


def plain(text: object, limit: int = TEXT_CHARACTERS, *, lines: bool = True) -> str:
    """`text` with what would drive a terminal, or hide, written as its escape; cut to `limit` characters."""
    whole = str(text)
    shown = whole[:limit]
    if not shown.isprintable():
        shown = ODD.sub(_line_kept if lines else _line_escaped, shown)[:limit]
    return shown if len(whole) <= limit else f"{shown} … ({len(whole):,} characters, cut)"


def line(text: object) -> str:
    """The same as one short line."""
    return plain(str(text).strip(), LINE_CHARACTERS, lines=False)


def plain_value(value: Any, limit: int = VALUE_CHARACTERS) -> tuple[Any, bool]:
    """The same for a JSON value of at most about `limit` characters, whose shape it keeps; and whether it was cut."""
    for characters, items in SHORTER:
        cutter = _Cutter(characters, items)
        shown = cutter.shown(value, DEPTH)
        if len(json.dumps(shown, ensure_ascii=False)) <= limit:
            break
    return shown, cutter.cut


@dataclass
class _Cutter:
    """Copies a value with texts and lists of at most so much."""

    characters: int
    items: int
    cut: bool = False

    def shown(self, value: Any, depth: int) -> Any:
        """What is left of `value`."""
        if isinstance(value, str):
            self.cut |= len(value) > self.characters
            return plain(value, self.characters)
        if not isinstance(value, (dict, list)):
            return value
        most = self.items if isinstance(value, list) else max(self.items, FIELDS)
        self.cut |= len(value) > most or not depth
        if not depth:
            return None
        if isinstance(value, list):
            return [self.shown(each, depth - 1) for each in value[:most]]
        return {plain(key, self.characters): self.shown(each, depth - 1) for key, each in islice(value.items(), most)}


@lru_cache(4096)
def _escaped(character: str) -> str:
    printable = character.isprintable()
    return character if printable else character.encode("unicode_escape", "surrogatepass").decode()


def _line_kept(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escaped(found[0])


def _line_escaped(found: re.Match[str]) -> str:
    return _escaped(found[0])
