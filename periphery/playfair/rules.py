"""What a specification of somebody else's may hold: Vega-Lite's schema, and our own rules that come before it.

Our rules are about reach and size: no address of any kind, no picture, no expression beyond a short list, nothing
that multiplies. The renderer is told to load nothing as well, and the sandbox has no network; but what nobody needs
is not tried.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from periphery.playfair.expressions import check_expression
from periphery.playfair.limits import DEPTH, Limits
from periphery.playfair.tables import clean
from protos.errors import InvalidArgument

VIEWS = 24
_EXPRESSIONS = frozenset(("expr", "calculate", "labelExpr", "signal", "update", "init"))
_PREDICATES = frozenset(("filter", "test", "not", "and", "or"))
_REFUSED = {
    "url": "it would be fetched, and nothing is: give the data with the call",
    "href": "a chart leads nowhere",
    "graticule": "maps have no source of their own here",
    "sphere": "maps have no source of their own here",
    "bind": "a picture has no controls",
    "select": "a picture has nothing to select",
    "on": "nothing happens to a picture",
    "signals": "a picture does not change",
    "loader": "nothing is loaded",
}
_MOST = {"maxbins": 500, "steps": 1000, "columns": 50, "tickCount": 200, "step": 10_000, "bandwidth": 1e12}


def check_spec(spec: Any, limits: Limits) -> None:
    """Holds a specification against our rules, then against the schema.

    Raises:
        InvalidArgument: it breaks one; the sentence says where.
        Exhausted: it is over a cap.
    """
    if not isinstance(spec, dict):
        raise InvalidArgument(
            "A specification is a JSON object.", next="See: https://vega.github.io/vega-lite/docs/spec.html"
        )
    schema = spec.get("$schema", "")
    if not isinstance(schema, str) or (schema and "/vega-lite/v" not in schema):
        raise InvalidArgument("This is no Vega-Lite specification by its $schema.", next="Vega's own are not taken.")
    bare = _without_values(spec, limits)
    size = len(json.dumps(bare))
    limits.check("spec_bytes", size, f"The specification has {size:,} bytes without its data")
    own = [
        each["name"] for each in bare.get("params", []) if isinstance(each, dict) and isinstance(each.get("name"), str)
    ]
    views = 0
    for path, key, value in _walk(bare):
        where = "/".join(path)
        if key in _REFUSED:
            raise InvalidArgument(f"The specification holds {key!r} at {where}: {_REFUSED[key]}.", next="Leave it out.")
        if (key in ("mark", "type") and value == "image") or (key == "mark" and _type(value) == "image"):
            raise InvalidArgument(f"The specification holds a picture at {where}.", next="Leave it out.")
        if key in _EXPRESSIONS and not isinstance(value, dict):
            check_expression(value, own)
        if key in _PREDICATES:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str):
                    check_expression(each, own)
        if key in _MOST and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > _MOST[key]:
            raise InvalidArgument(f"{key} at {where} is over {_MOST[key]:,}.", next="Ask for less.")
        if key == "sequence":
            _check_sequence(value, limits)
        if key in ("width", "height") and isinstance(value, int | float) and not 0 < value <= 10_000:
            raise InvalidArgument(f"{key} at {where} is not between 1 and 10,000.")
        views += key in ("mark",)
        if (
            key in ("hconcat", "vconcat", "concat", "layer", "repeat")
            and isinstance(value, list)
            and len(value) > VIEWS
        ):
            raise InvalidArgument(f"{key} at {where} has {len(value)} views, and at most {VIEWS} are drawn.")
    if views > VIEWS:
        raise InvalidArgument(f"The specification has {views} views, and at most {VIEWS} are drawn.")
    for sentence in problems(bare):
        raise InvalidArgument(
            f"The specification is no Vega-Lite: {sentence}", next="Mend it, or leave the choice to us."
        )


def check_fields(spec: dict[str, Any], columns: Sequence[str]) -> None:
    """Whether each field that a specification shows is a column of the data that comes with it.

    One that computes fields, or has data further within, is believed.

    Raises:
        InvalidArgument: one is no column: Vega would draw it as if it were empty.
    """
    shown: list[str] = []
    parts: list[Any] = [{key: each for key, each in spec.items() if key not in ("data", "datasets", "usermeta")}]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            if "transform" in part or "data" in part:
                return
            parts += part.values()
            if isinstance(part.get("field"), str):
                shown.append(part["field"])
    for each in shown:
        plain = re.sub(r"\\(.)", r"\1", each)
        if plain not in columns and re.split(r"[.\[]", each)[0] not in columns:  # the second is a path into a value
            listed = ", ".join(repr(name[:60]) for name in columns[:20])
            raise InvalidArgument(
                f"The specification shows a column {plain[:60]!r}, which is not there.", next=f"There are: {listed}."
            )


def _type(mark: Any) -> Any:
    return mark.get("type") if isinstance(mark, dict) else mark


def _check_sequence(value: Any, limits: Limits) -> None:
    numbers = (
        {key: each for key, each in value.items() if isinstance(each, int | float)} if isinstance(value, dict) else {}
    )
    step = abs(numbers.get("step", 1)) or 1e-9
    limits.check(
        "marks", abs(numbers.get("stop", 0) - numbers.get("start", 0)) / step, "The sequence has too many steps"
    )


def _without_values(spec: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The specification with empty data, counted."""

    def bare(node: Any, depth: int) -> Any:
        if depth > DEPTH:
            raise InvalidArgument(f"The specification is nested over {DEPTH} levels deep.", next="Make it flatter.")
        if isinstance(node, list):
            return [bare(each, depth + 1) for each in node]
        if not isinstance(node, dict):
            return node
        made: dict[str, Any] = {}
        for key, value in node.items():
            if key == "values" and isinstance(value, list) and any(isinstance(each, dict) for each in value[:1]):
                limits.check("rows", len(value), f"The specification has {len(value):,} rows of data")
                made[key] = []
            elif key == "datasets" and isinstance(value, dict):
                limits.check("rows", sum(map(_length, value.values())), "The specification's data has too many rows")
                made[key] = {str(name): [] for name in value}
            else:
                made[key] = bare(value, depth + 1)
        return made

    found: dict[str, Any] = bare({key: value for key, value in spec.items() if key != "usermeta"}, 0)
    return found


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1


def _walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            here = (*path, clean(str(key), 40))
            yield here, key, value
            yield from _walk(value, here)
    elif isinstance(node, list):
        for at, each in enumerate(node):
            yield from _walk(each, (*path, str(at)))


def problems(bare: dict[str, Any]) -> list[str]:
    """What Vega-Lite's schema has against a specification without data: the deepest complaint, or nothing."""
    checks = _validator()
    if checks is None or checks[0](bare):
        return []
    error = checks[1](bare)
    where = "/".join(str(each) for each in error.absolute_path) or "the whole"
    return [f"{clean(where, 120)}: {clean(error.message, 200)}."]


@cache
def _validator() -> tuple[Callable[[Any], bool], Callable[[Any], Any]] | None:
    """The schema of the renderer's own version, which comes with Altair; None where that is not installed."""
    schema = schema_path()
    if schema is None:
        return None
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match

    validator = Draft7Validator(json.loads(schema.read_text()))
    return validator.is_valid, lambda bare: best_match(validator.iter_errors(bare))


def schema_path() -> Path | None:
    """Where the schema lies."""
    import sys

    for folder in sys.path:
        found = Path(folder, "altair/vegalite/v6/schema/vega-lite-schema.json")
        if found.exists():
            return found
    return None
