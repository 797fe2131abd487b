"""Plain arithmetic and comparisons on values that are known before a program runs."""

import ast
from typing import NamedTuple


class Constant(NamedTuple):
    """A value that is known."""

    value: object


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def computed(op: ast.operator, left: float, right: float) -> Constant | None:
    if isinstance(op, ast.Div | ast.Mod) and right == 0:
        return None
    results = {
        ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right,
        ast.Mod: left % right if right else 0, ast.Div: left / right if right else 0,
    }  # fmt: skip
    return Constant(results[type(op)])


def compared(op: ast.cmpop, left: object, right: object) -> Constant | None:
    if isinstance(op, ast.Eq | ast.NotEq):
        return Constant((left == right) == isinstance(op, ast.Eq))
    if isinstance(op, ast.In | ast.NotIn) and isinstance(left, str) and isinstance(right, str):
        return Constant((left in right) == isinstance(op, ast.In))
    if is_number(left) and is_number(right):
        one, other = float(left), float(right)  # type: ignore[arg-type]
        orders = {ast.Lt: one < other, ast.LtE: one <= other, ast.Gt: one > other, ast.GtE: one >= other}
        if type(op) in orders:
            return Constant(orders[type(op)])
    return None


def fits(pattern: ast.pattern, value: object) -> bool:
    match pattern:
        case ast.MatchValue(value=ast.Constant(value=wanted)):
            return bool(wanted == value)
        case ast.MatchOr():
            return any(fits(each, value) for each in pattern.patterns)
        case ast.MatchAs(pattern=None):
            return True
    return False


def hashable(value: object) -> object:
    return value if isinstance(value, str | int | float | bytes | bool | None) else repr(value)
