"""What a worker wrote, made fit for a model's context and a person's screen.

It is data. No character of it drives a terminal or hides (controls, directions, tags, zero widths: each is written as
its escape), no text is longer than it may be, and whoever shows it says whose it is. What is cut is said to be.
"""

import json
from typing import Any

TEXT_CHARACTERS = 20_000  # of one text
LINE_CHARACTERS = 200  # of a progress message
VALUE_CHARACTERS = 100_000  # of a whole value, as JSON
SHORTER = ((TEXT_CHARACTERS, 1_000), (4_000, 200), (500, 50), (100, 10), (20, 3))  # of texts and lists, tried in turn
DEPTH = 40
FIELDS = 200  # of an object, at least
WHOLE = 10**12


def plain(text: object, limit: int = TEXT_CHARACTERS, *, lines: bool = True) -> str:
    """`text` with what would drive a terminal, or hide, written as its escape; cut to `limit` characters."""
    kept = "\n\t" if lines else ""
    whole = str(text)
    shown = "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape", "surrogatepass").decode()
        for each in whole[:limit]
    )[:limit]
    return shown if len(whole) <= limit else f"{shown} … ({len(whole):,} characters, cut)"


def line(text: object) -> str:
    """The same as one short line."""
    return plain(str(text).strip(), LINE_CHARACTERS, lines=False)


def plain_value(value: Any, limit: int = VALUE_CHARACTERS) -> tuple[Any, bool]:
    """The same for a JSON value of at most about `limit` characters, whose shape it keeps; and whether it was cut."""
    shown: Any = None
    for characters, items in SHORTER:
        shown = _within(value, characters, items, DEPTH)
        if len(json.dumps(shown, ensure_ascii=False)) <= limit:
            break
    return shown, shown != _within(value, WHOLE, WHOLE, DEPTH)


def _within(value: Any, characters: int, items: int, depth: int) -> Any:
    if isinstance(value, str):
        return plain(value, characters)
    if isinstance(value, (dict, list)) and not depth:
        return None
    if isinstance(value, dict):
        fields = list(value.items())[: max(items, FIELDS)]
        return {plain(key, characters): _within(each, characters, items, depth - 1) for key, each in fields}
    if isinstance(value, list):
        return [_within(each, characters, items, depth - 1) for each in value[:items]]
    return value
