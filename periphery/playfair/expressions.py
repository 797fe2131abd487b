"""Which expressions of Vega a specification may hold: arithmetic, comparisons and pure functions over `datum`.

Vega turns expressions into JavaScript. Its own parser allows few names; this one allows fewer still, so that a mistake
there meets nothing to work with: no member but of `datum`, no call but by a name on the list, no name of an object's
inner workings even within a string. What it lets through runs in an engine without network or files, in the sandbox.
"""

import re
from collections.abc import Collection

from protos.errors import InvalidArgument

CHARACTERS = 500
_TOKEN = re.compile(
    r"\s+|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<string>'[^'\\\n]*'|\"[^\"\\\n]*\")"
    r"|(?P<name>[A-Za-z_$][\w$]*)|(?P<mark>===|!==|==|!=|<=|>=|&&|\|\||[-+*/%<>!?:,.()\[\]])"
)
_FUNCTIONS = frozenset(  # not `test`: a pattern can run for ever; not `now`: a chart comes out the same tomorrow
    str.split(
        "isValid isNaN isFinite isNumber isString isDate abs ceil floor round sqrt pow exp log min max clamp "
        "length replace upper lower trim substring slice indexof parseFloat parseInt toNumber toString format "
        "timeFormat utcFormat year month quarter week date day dayofyear hours minutes seconds utcyear "
        "utcmonth utcquarter utcweek utcdate utcday utchours utcminutes utcseconds time datetime utc if "
        "inrange"
    )
)
_NAMES = frozenset(("datum", "true", "false", "null", "NaN", "PI", "E", "undefined", "value", "width", "height"))
_INNER = re.compile(r"constructor|prototype|__|eval|function|import|window|document|global|process|Deno", re.I)


def check_expression(text: object, own: Collection[str] = ()) -> None:
    """`own` are the names of parameters that the specification declares.

    Raises:
        InvalidArgument: it holds more than is allowed.
    """
    if isinstance(text, bool | int | float):
        return
    if not isinstance(text, str) or len(text) > CHARACTERS:
        raise InvalidArgument(f"An expression is text of at most {CHARACTERS} characters.")
    if found := _INNER.search(text):
        raise _refused(found[0], text)
    at, before, member = 0, "", ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _refused(text[at], text)
        at = match.end()
        token = match[0]
        if not token.strip():
            continue
        if match["name"]:
            called = text[at:].lstrip().startswith("(")
            if before == "." and (member != "datum" or called):
                raise _refused(f".{token}", text)
            if before != "." and called and token not in _FUNCTIONS:
                raise _refused(f"{token}()", text)
            if before != "." and not called and token not in _NAMES and token not in own:
                raise _refused(token, text)
        elif token == "[" and (before.isidentifier() or before in ("]", ")")) and before != "datum":
            raise _refused("[…]", text)
        elif token == "(" and before in (")", "]", "datum"):
            raise _refused("(…)", text)
        if token == ".":
            member = before
        before = token


def _refused(what: str, text: str) -> InvalidArgument:
    return InvalidArgument(
        f"The expression {text[:80]!r} uses {what[:40]!r}, which is not allowed here.",
        next="Allowed are datum.FIELD, arithmetic, comparisons and functions such as round or year.",
    )
