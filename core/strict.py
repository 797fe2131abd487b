"""JSON from a worker, as strictly as the strictest of those who will read it again.

Python's parser takes what others, and Python's own writer, do not: NaN and infinities, half of a surrogate pair, and
nesting that fits on one stack and not on a deeper one. Whatever passes here can be written down, sent and read again.
"""

import json
import math
from typing import NoReturn

DEPTH = 64


def strict_json(text: str) -> object | None:
    """The value, or None where `text` is no JSON that everybody reads."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if _depth(value) <= DEPTH else None


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(word)
    return number


def _depth(value: object) -> int:
    """How many containers lie within each other."""
    depth, level = 0, [value]
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in ((each.values() if isinstance(each, dict) else each) or (None,))
    ]:
        depth += 1
    return depth
