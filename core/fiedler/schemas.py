"""Checks what a model wrote against a schema that a stranger wrote, and does not let either cost the core its time.

A JSON Schema is a program: patterns can take for ever, references can double the work at each step, and an address
can be fetched. So a check here has a budget of steps, follows references within the schema only, and leaves `pattern`,
`patternProperties` and the `unevaluated` keywords to the provider and to whoever runs the tool.
"""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from core.strict import strict_json
from protos.errors import InvalidArgument

SCHEMA_BYTES = 64 * 1024
STEPS = 10_000  # keywords that one check may look at: under half a second
NO_JSON = "it is no JSON, or none that everybody reads"
LEFT_OUT = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "format", "propertyNames")

Check = Callable[[str], str]  # the JSON text → what is wrong with it, empty if nothing is


class _TooMuch(Exception):
    """A check took too many steps."""


class _Steps:
    """How many are left of the check that runs: there is one at a time, and it does not wait."""

    left = 0


def _counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def count(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _Steps.left -= 1
        if _Steps.left < 0:
            raise _TooMuch
        yield from keyword(validator, value, instance, schema) or ()

    return count


def _ignored(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    return iter(())


def _unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if value and isinstance(instance, list):
        seen = {json.dumps(each, sort_keys=True) for each in instance}
        if len(seen) < len(instance):
            yield jsonschema.ValidationError("has the same item twice")


_Bounded = extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {name: _counted(keyword) for name, keyword in jsonschema.Draft202012Validator.VALIDATORS.items()}
    | dict.fromkeys(LEFT_OUT, _ignored)
    | {"uniqueItems": _counted(_unique)},
)


def check_of(schema: str, *, what: str) -> Check:
    """A check for a schema; `what` names it in errors. No schema takes any object.

    Raises:
        InvalidArgument: it is no JSON Schema, or too large.
    """
    if len(schema) > SCHEMA_BYTES:
        raise InvalidArgument(f"The schema of {what} is over {SCHEMA_BYTES} characters.", next="Make it smaller.")
    try:
        return _compile(schema)
    except (ValueError, jsonschema.SchemaError, RecursionError) as error:
        reason = getattr(error, "message", str(error))[:200]
        raise InvalidArgument(f"The schema of {what} is no JSON Schema: {reason}", next="Mend the schema.") from None


@lru_cache(maxsize=256)
def _compile(schema: str) -> Check:
    made = strict_json(schema) if schema else {"type": "object"}
    if not isinstance(made, dict):
        raise ValueError("it is no JSON object")
    jsonschema.Draft202012Validator.check_schema(made)
    validator = _Bounded(made, registry=Registry())

    def check(text: str) -> str:
        _Steps.left = STEPS
        value = strict_json(text)
        if value is None:
            return NO_JSON
        try:
            wrong = next(validator.iter_errors(value), None)
        except _TooMuch:
            return "it could not be checked against its schema within the allowed steps"
        except (Unresolvable, RecursionError, ValueError, TypeError) as problem:
            return f"it could not be checked against its schema: {type(problem).__name__}"
        if wrong is None:
            return ""
        place = "/".join(str(each) for each in wrong.absolute_path)
        return f"{f'at {place}: ' if place else ''}{wrong.message}"[:300]

    return check


def is_object(text: str) -> str:
    """Why `text` is no JSON object; empty if it is one."""
    value = strict_json(text)
    return "" if isinstance(value, dict) else NO_JSON if value is None else "it is no JSON object"
