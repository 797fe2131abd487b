"""Where data that others send reaches a place it can harm: a small taint analysis of Python, function by function.

Rules of the file
  1. A value is tainted when it comes from a request (Flask, Django, FastAPI, Starlette, aiohttp, Tornado, the standard
     library's servers) or, more weakly, from the command line. What is made of it is tainted: joined, formatted,
     indexed, passed through functions. What cannot carry it (a number, a length, a comparison) is not.
  2. Statements are followed in order. Branches are followed apart and their results united; a branch that plain
     arithmetic rules out is not followed; loops are followed twice.
  3. Sanitizers take away the harm for what they guard against and no more: quoting for a shell does not make a path
     safe. So does a guard that leaves (`if name not in ALLOWED: abort(404)`).
  4. A function of the same file is followed into, with the taint of its arguments, to a small depth; any other
     function is believed to hand on what it is given. So there are false alarms where another module sanitizes; the
     confidence is "medium", and "high" only for a flow within one function.

Why: of the scanners that work offline none sees such flows. On path traversal, LDAP, XPath, redirects, trust
boundaries and XSS they score nothing at all, and on the rest they cannot tell a fixed string from a sent one.
"""
# ruff: noqa: E501  a table is read one rule a line

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from periphery.mcnamara.findings import Hit, Level
from periphery.mcnamara.inspectors.folding import Constant, compared, computed, fits, hashable, is_number
from periphery.mcnamara.inspectors.harms import (
    ALL,
    CLEANERS,
    COMPILED,
    FRAMEWORKS,
    HTML_FRAMEWORKS,
    LEAVES,
    LOCAL,
    NEEDS,
    PARSERS,
    PATH_METHODS,
    REQUEST,
    ROUTES,
    SIMPLE_TYPES,
    SINKS,
    STORES,
    Harm,
)
from periphery.mcnamara.inspectors.hooks import dotted
from periphery.mcnamara.inventory import File
from periphery.mcnamara.scanner import Canary

DEPTH = 4  # functions followed into
CANARY = Canary(
    "canary.py",
    "from flask import request\nimport os\ndef view():\n    name = request.args.get('n')\n    os.system('ls ' + name)\n",
    "dataflow.command",
)


@dataclass(frozen=True)
class Taint:
    """Where a value came from, and what it can no longer harm."""

    source: str
    line: int
    local: bool = False  # from whoever started the program, not from the network
    clean: frozenset[Harm] = frozenset()
    far: bool = False  # it passed through another function of the file

    def without(self, harms: frozenset[Harm]) -> "Taint | None":
        clean = self.clean | harms
        return None if clean >= ALL else replace(self, clean=clean)


class Items(NamedTuple):
    """A list or dictionary whose items are known one by one."""

    values: Mapping[object, "Value"]


Value = Taint | Items | Constant | None
State = dict[str, Value]


def wants(file: File) -> bool:
    return file.kind == "python"


def inspect(file: File, text: str) -> Iterator[Hit]:
    """The flows of one file."""
    module = _Module(ast.parse(text))
    for hit in module.hits():
        yield replace(hit, path=file.path)


def united(one: Value, other: Value) -> Value:
    """What a value may be after either of two ways."""
    if isinstance(one, Items) and isinstance(other, Items):
        return Items(
            {key: united(one.values.get(key), other.values.get(key)) for key in {**one.values, **other.values}}
        )
    first, second = flat(one), flat(other)
    if first is None or second is None:
        known = (each for each in (one, other) if isinstance(each, Constant))
        return first or second or next(known, None)
    return replace(first, clean=first.clean & second.clean, local=first.local and second.local)


def flat(value: Value) -> Taint | None:
    """The taint of a value as a whole."""
    if isinstance(value, Items):
        found: Value = None
        for each in value.values.values():
            found = united(found, flat(each))
        return found if isinstance(found, Taint) else None
    return value if isinstance(value, Taint) else None


class _Module:
    """One file: its imports, its functions, what has been reported."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.names: dict[str, str] = {}
        self.modules: set[str] = set()
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.constants: dict[str, object] = {}
        self.found: dict[tuple[int, str], Hit] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for each in node.names:
                    self.modules.add(each.name)
                    self.names[each.asname or each.name.split(".")[0]] = (
                        each.name if each.asname else each.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                self.modules.add(node.module or "")
                for each in node.names:
                    self.names[each.asname or each.name] = f"{node.module}.{each.name}" if node.module else each.name
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions[statement.name] = statement
        self.web = any(each.split(".")[0] in FRAMEWORKS for each in self.modules) or "http.server" in self.modules
        self.pages = any(each.split(".")[0] in HTML_FRAMEWORKS for each in self.modules)

    def hits(self) -> list[Hit]:
        """Follows every function, and the module itself."""
        _Flow(self).run(self.tree.body, {})
        waiting: list[tuple[ast.AST, str]] = [(each, "") for each in ast.iter_child_nodes(self.tree)]
        while waiting:
            node, bases = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                _Flow(self, node, handler="Handler" in bases).run(node.body, self.entry(node))
            if isinstance(node, ast.ClassDef):
                bases = " ".join(dotted(each) for each in node.bases)
            waiting += [(each, bases) for each in ast.iter_child_nodes(node)]
        return [self.found[key] for key in sorted(self.found)]

    def is_route(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        return self.web and any(
            isinstance(each, ast.Call) and ROUTES.search(dotted(each.func)) for each in function.decorator_list
        )

    def is_static(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether it is a route whose path has no parameters."""
        routes = [
            each for each in function.decorator_list if isinstance(each, ast.Call) and ROUTES.search(dotted(each.func))
        ]
        paths = [each.args[0].value for each in routes if each.args and isinstance(each.args[0], ast.Constant)]
        return (
            self.web
            and bool(routes)
            and len(paths) == len(routes)
            and not any(re.search(r"[<{]", str(each)) for each in paths)
        )

    def entry(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> State:
        """What is tainted when a function begins: a route's parameters are parts of the request."""
        state: State = {}
        if not self.is_route(function):
            return state
        arguments = [*function.args.posonlyargs, *function.args.args]
        defaults: list[ast.expr | None] = [None] * (len(arguments) - len(function.args.defaults))
        pairs = [*zip(arguments, defaults + list(function.args.defaults), strict=True)]
        pairs += [*zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)]
        for argument, default in pairs:
            kind = dotted(argument.annotation) if argument.annotation else ""
            injected = isinstance(default, ast.Call) and dotted(default.func).endswith(("Depends", "Security"))
            if (
                argument.arg not in ("self", "cls", "request")
                and kind not in SIMPLE_TYPES
                and not injected
                and not kind.endswith(("Request", "Response", "Session", "BackgroundTasks"))
            ):
                state[argument.arg] = Taint(f"parameter `{argument.arg}`", argument.lineno)
        return state

    def full(self, name: str) -> str:
        """A dotted name with its import resolved."""
        first, dot, rest = name.partition(".")
        return self.names.get(first, first) + dot + rest

    def cookie(self, line: int, *, explicit: bool) -> None:
        """Adds a finding on a cookie that is not kept to encrypted connections."""
        message = "The cookie is sent over unencrypted connections, too."
        severity: Level = "medium" if explicit else "low"
        hit = Hit("dataflow.cookie", severity, "", line, message, "Set `secure=True` and `httponly=True`.", "CWE-614")
        self.found[line, "cookie"] = hit

    def report(self, harm: Harm, taint: Taint, line: int, what: str) -> None:
        """Adds a finding, once per line and harm."""
        if harm in taint.clean or (taint.local and harm not in LOCAL):
            return
        sink = SINKS[harm]
        severity: Level = "medium" if taint.local else sink.severity
        hit = Hit(
            rule=f"dataflow.{harm}",
            severity=severity,
            path="",
            line=line,
            message=f"What comes from {taint.source} (line {taint.line}) {sink.message} in `{what}`.",
            fix=sink.fix,
            cwe=sink.cwe,
            confidence="low" if taint.local else "medium" if taint.far else "high",
        )
        known = self.found.get((line, harm))
        if known is None or (known.severity == "medium" and severity != "medium"):
            self.found[line, harm] = hit


@dataclass
class _Flow:
    """Follows one function."""

    module: _Module
    function: ast.FunctionDef | ast.AsyncFunctionDef | None = None
    handler: bool = False
    depth: int = 0
    returned: Value = None
    constants: dict[str, object] = field(default_factory=dict)
    parsed: dict[str, str] = field(default_factory=dict)  # names of parsed addresses → the names they were parsed from

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, body: Sequence[ast.stmt], state: State) -> bool:
        """Follows statements, changing `state`; False if they never reach their end."""
        return all(self.statement(each, state) for each in body)

    def statement(self, node: ast.stmt, state: State) -> bool:
        match node:
            case ast.Assign():
                value = self.value(node.value, state)
                for target in node.targets:
                    self.assign(target, value, state, node.value)
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, self.value(node.value, state), state, node.value)
            case ast.AugAssign():
                value = united(self.value(node.target, state), self.value(node.value, state))
                self.assign(node.target, value, state, None)
            case ast.Expr():
                self.value(node.value, state)
                return not (isinstance(node.value, ast.Call) and self.module.full(dotted(node.value.func)) in LEAVES)
            case ast.Return():
                self.leave(node, state)
                return False
            case ast.Raise() | ast.Continue() | ast.Break():
                return False
            case ast.If():
                return self.branch(node, state)
            case ast.Match():
                return self.match(node, state)
            case ast.For() | ast.AsyncFor():
                items = flat(self.value(node.iter, state))
                for _ in range(2):
                    inner = dict(state)
                    self.assign(node.target, items, inner, None)
                    self.run(node.body, inner)
                    self.unite(state, inner)
                self.run(node.orelse, state)
            case ast.While():
                for _ in range(2):
                    self.value(node.test, state)
                    inner = dict(state)
                    self.run(node.body, inner)
                    self.unite(state, inner)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, state)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, value, state, None)
                return self.run(node.body, state)
            case ast.Try() | ast.TryStar():
                before = dict(state)
                ends = self.run(node.body, state)
                for handler in node.handlers:
                    inner = {**before}
                    self.unite(inner, state)
                    if self.run(handler.body, inner):
                        self.unite(state, inner)
                        ends = True
                if ends:
                    self.run(node.orelse, state)
                return self.run(node.finalbody, state) and ends
            case ast.Assert():
                self.value(node.test, state)
                self.guard(node.test, state, True)
        return True

    def leave(self, node: ast.Return, state: State) -> None:
        value = self.value(node.value, state) if node.value is not None else None
        self.returned = united(self.returned, value)
        taint = flat(value)
        page = self.module.pages and self.function is not None and self.module.is_route(self.function)
        if taint is not None and page and not self.depth and not isinstance(node.value, ast.Dict | ast.List):
            self.module.report("xss", taint, node.lineno, "return")

    def branch(self, node: ast.If, state: State) -> bool:
        self.value(node.test, state)
        known = self.constant(node.test)
        yes, no = dict(state), dict(state)
        self.guard(node.test, yes, True)
        self.guard(node.test, no, False)
        constants = dict(self.constants)
        yes_ends = self.run(node.body, yes) if known is None or known.value else False
        after_yes, self.constants = self.constants, constants
        no_ends = self.run(node.orelse, no) if known is None or not known.value else False
        self.constants = {key: value for key, value in self.constants.items() if after_yes.get(key, self) == value}
        if known is not None:
            self.constants = after_yes if known.value else self.constants
        state.clear()
        if yes_ends:
            state.update(yes)
        if no_ends:
            self.unite(state, no)
        return yes_ends or no_ends

    def match(self, node: ast.Match, state: State) -> bool:
        self.value(node.subject, state)
        subject = self.constant(node.subject)
        before, ends, taken = dict(state), False, False
        after: State = {}
        for case in node.cases:
            if subject is not None and not taken:
                taken = fits(case.pattern, subject.value)
                if not taken:
                    continue
            elif subject is not None:
                break
            inner = dict(before)
            if self.run(case.body, inner):
                self.unite(after, inner)
                ends = True
        if subject is None or not taken:
            self.unite(after, before)
            ends = True
        state.clear()
        state.update(after)
        return ends

    def unite(self, state: State, other: State) -> None:
        for name in other:
            state[name] = united(state[name], other[name]) if name in state else other[name]

    def assign(self, target: ast.expr, value: Value, state: State, source: ast.expr | None) -> None:
        match target:
            case ast.Name():
                state[target.id] = value
                if isinstance(source, ast.Call) and source.args and self.module.full(dotted(source.func)) in PARSERS:
                    self.parsed[target.id] = dotted(source.args[0])
                known = self.constant(source) if source is not None else None
                self.constants.pop(target.id, None)
                if known is not None:
                    self.constants[target.id] = known.value
            case ast.Tuple() | ast.List():
                parts = source.elts if isinstance(source, ast.Tuple | ast.List) else []
                for number, each in enumerate(target.elts):
                    exact = len(parts) == len(target.elts)
                    self.assign(each, self.value(parts[number], state) if exact else flat(value), state, None)
            case ast.Starred():
                self.assign(target.value, flat(value), state, None)
            case ast.Subscript():
                self.assign_item(target, value, state)
            case ast.Attribute():
                name = dotted(target)
                if name:
                    state[name] = value

    def assign_item(self, target: ast.Subscript, value: Value, state: State) -> None:
        name = dotted(target.value)
        taint = united(flat(value), flat(self.value(target.slice, state)))
        if (
            self.module.full(name)
            in (
                "flask.session",
                "request.session",
                "session",
                "self.request.session",
            )
            and isinstance(taint, Taint)
            and self.module.web
        ):
            self.module.report("session", taint, target.lineno, f"{name}[…]")
        key = self.constant(target.slice)
        held = state.get(name)
        if key is not None and isinstance(held, Items):
            state[name] = Items({**held.values, hashable(key.value): value})
        elif name:
            state[name] = united(flat(held), taint)

    # ── guards ───────────────────────────────────────────────────────────────────────────────────────────────────

    def guard(self, test: ast.expr, state: State, holds: bool) -> None:
        """What is known of names when `test` holds, or does not."""
        match test:
            case ast.UnaryOp(op=ast.Not()):
                self.guard(test.operand, state, not holds)
            case ast.BoolOp():
                if isinstance(test.op, ast.And) == holds:
                    for each in test.values:
                        self.guard(each, state, holds)
            case ast.Compare(ops=[ast.In() | ast.NotIn() | ast.Eq() | ast.NotEq() as op], comparators=[other]):
                positive = isinstance(op, ast.In | ast.Eq) == holds
                left = dotted(test.left)
                if positive and left and flat(self.value(other, state)) is None:
                    state[left] = None  # one of a known list
                    origin = self.parsed.get(left.partition(".")[0], "")
                    if left.endswith((".netloc", ".hostname")) and (taint := flat(state.get(origin))) is not None:
                        state[origin] = taint.without(frozenset({"redirect", "ssrf"}))
                parts = dotted(other)
                literal = test.left.value if isinstance(test.left, ast.Constant) else None
                if (
                    isinstance(op, ast.In | ast.NotIn)
                    and not positive
                    and parts
                    and isinstance(literal, str)
                    and literal in ("..", "/", "../", "\\")
                ):
                    taint = flat(state.get(parts))
                    state[parts] = taint.without(frozenset({"path"})) if taint else None
            case ast.Call(func=ast.Attribute(attr=attribute)) if holds:
                receiver = dotted(_within(test.func.value))  # type: ignore[attr-defined]
                if (
                    attribute in ("isdigit", "isalnum", "isnumeric", "isalpha", "isidentifier", "isdecimal")
                    and receiver
                ):
                    state[receiver] = None
                elif (
                    attribute in ("startswith", "is_relative_to") and receiver and (taint := flat(state.get(receiver)))
                ):
                    state[receiver] = taint.without(frozenset({"path", "redirect", "ssrf"}))
                elif attribute in ("fullmatch", "match") and test.args:
                    name = dotted(test.args[-1])
                    if name:
                        state[name] = None

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────

    def value(self, node: ast.expr | None, state: State) -> Value:
        """What an expression gives, reporting the sinks within it."""
        match node:
            case None | ast.Constant() | ast.Lambda():
                return None
            case ast.Name():
                return state.get(node.id)
            case ast.Attribute():
                return self.attribute(node, state)
            case ast.Subscript():
                return self.item(node, state)
            case ast.Call():
                return self.call(node, state)
            case ast.Compare():
                for each in (node.left, *node.comparators):
                    self.value(each, state)
                return None
            case ast.List() | ast.Tuple():
                return Items({number: self.known(each, state) for number, each in enumerate(node.elts)})
            case ast.Dict():
                values: dict[object, Value] = {}
                for number, (key, each) in enumerate(zip(node.keys, node.values, strict=True)):
                    known = self.constant(key) if key is not None else None
                    values[hashable(known.value) if known else ("?", number)] = self.value(each, state)
                return Items(values)
            case ast.IfExp():
                known = self.constant(node.test)
                self.value(node.test, state)
                if known is not None:
                    return self.value(node.body if known.value else node.orelse, state)
                return united(self.value(node.body, state), self.value(node.orelse, state))
            case ast.NamedExpr():
                value = self.value(node.value, state)
                self.assign(node.target, value, state, node.value)
                return value
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = dict(state)
                for generator in node.generators:
                    self.assign(generator.target, flat(self.value(generator.iter, inner)), inner, None)
                if isinstance(node, ast.DictComp):
                    return united(flat(self.value(node.key, inner)), flat(self.value(node.value, inner)))
                return flat(self.value(node.elt, inner))
            case ast.Await() | ast.Starred() | ast.FormattedValue() | ast.YieldFrom():
                return self.value(node.value, state)
        found: Value = None
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                found = united(found, flat(self.value(child, state)))
        return found

    def known(self, node: ast.expr, state: State) -> Value:
        """What an expression gives, its constant value where it has one."""
        return self.value(node, state) or self.constant(node)

    def attribute(self, node: ast.Attribute, state: State) -> Value:
        name = dotted(node)
        if name in state:
            return state[name]
        full = self.module.full(name)
        if full == "sys.argv":
            return Taint("the command line", node.lineno, local=True)
        first, _, rest = name.removeprefix("self.").partition(".")
        if rest in ("path", "base_url") and self.function is not None and self.module.is_static(self.function):
            return None  # nobody chooses the path of a route without parameters
        if (
            self.module.web
            and rest.split(".")[0] in REQUEST
            and (first == "request" or full.startswith(("flask.request.", "bottle.request.")))
        ):
            return Taint(f"`{'.'.join(name.split('.')[:3])}`", node.lineno)
        if self.handler and name in ("self.path", "self.headers", "self.rfile", "self.requestline"):
            return Taint(f"`{name}`", node.lineno)
        return flat(self.value(node.value, state))

    def item(self, node: ast.Subscript, state: State) -> Value:
        held = self.value(node.value, state)
        self.value(node.slice, state)
        key = self.constant(node.slice)
        if isinstance(held, Items) and key is not None:
            if hashable(key.value) in held.values:
                return held.values[hashable(key.value)]
            if isinstance(key.value, int) and key.value < 0 and len(held.values) + key.value in held.values:
                return held.values[len(held.values) + key.value]
        return flat(held)

    def call(self, node: ast.Call, state: State) -> Value:
        name = dotted(node.func)
        full = self.module.full(name)
        arguments = [self.value(each, state) for each in node.args]
        named = {each.arg: self.value(each.value, state) for each in node.keywords}
        receiver = self.value(node.func.value, state) if isinstance(node.func, ast.Attribute) else None
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if (changed := self.container(node, name, method, receiver, arguments, state)) is not _NOT:
            return changed  # type: ignore[return-value]
        shown = name or f"….{method}"
        if method == "set_cookie" and self.module.web:
            self.cookie(node)
        if method in PATH_METHODS and "pathlib" in self.module.modules and (taint := flat(receiver)) is not None:
            self.module.report("path", taint, node.lineno, shown)
        self.sinks(node, full or f"?.{method}", shown, arguments, named)
        if full == "input":
            return Taint("`input()`", node.lineno, local=True)
        if method in ("get_argument", "get_arguments", "get_query_argument", "get_body_argument") and name.startswith(
            "self."
        ):
            return Taint(f"`{name}`", node.lineno)
        if any(isinstance(each, ast.Name) and self.module.full(each.id) == "flask.request" for each in node.args):
            return Taint(f"`{shown}(request)`", node.lineno, far=True)
        everything: Value = flat(receiver)
        for each in (*arguments, *named.values()):
            everything = united(everything, flat(each))
        if not isinstance(everything, Taint):
            return None
        for expression, harms in CLEANERS:
            if expression.fullmatch(full or f"?.{method}"):
                cleaned = everything.without(harms)
                if cleaned is None:
                    return None
                everything = cleaned
        held = name.rpartition(".")[0]
        if method in STORES and "." not in held and held in state:  # an object that keeps what it is given
            state[held] = united(flat(state[held]), everything)
        function = self.module.functions.get(name)
        if function is not None:
            return self.follow(function, node, arguments, named)
        return everything

    def cookie(self, node: ast.Call) -> None:
        """A cookie that may travel in the clear: no flow, but seen on the same way."""
        secure = next((each.value for each in node.keywords if each.arg == "secure"), None)
        known = self.constant(secure)
        if secure is None or (known is not None and not known.value):
            self.module.cookie(node.lineno, explicit=secure is not None)

    def container(
        self, node: ast.Call, name: str, method: str, receiver: Value, arguments: Sequence[Value], state: State
    ) -> object:
        """Methods that change or read a list or dictionary whose items are known."""
        held = name.rpartition(".")[0]
        if not isinstance(receiver, Items) or held not in state:
            return _NOT
        values = dict(receiver.values)
        key = self.constant(node.args[0]) if node.args else None
        if method == "append" and arguments:
            state[held] = Items({**values, len(values): arguments[0] or self.constant(node.args[0])})
            return None
        if method == "pop" and all(isinstance(each, int) for each in values):
            at = key.value if key is not None else -1
            order = [values[each] for each in sorted(values, key=lambda each: int(str(each)))]
            if isinstance(at, int) and -len(order) <= at < len(order):
                taken = order.pop(at)
                state[held] = Items(dict(enumerate(order)))
                return taken
        if method == "get" and key is not None:
            return values.get(hashable(key.value), arguments[1] if len(arguments) > 1 else None)
        return _NOT

    def follow(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef,
        node: ast.Call,
        arguments: Sequence[Value],
        named: Mapping[str | None, Value],
    ) -> Value:
        """What a function of this file makes of tainted arguments; sinks within it are reported where they are."""
        if self.depth >= DEPTH or function is self.function:
            return None
        parameters = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        state: State = {name: _afar(value) for name, value in zip(parameters, arguments, strict=False)}
        state |= {name: _afar(value) for name, value in named.items() if name}
        inner = _Flow(self.module, function, depth=self.depth + 1)
        inner.run(function.body, state)
        return inner.returned

    def sinks(
        self, node: ast.Call, full: str, shown: str, arguments: Sequence[Value], named: Mapping[str | None, Value]
    ) -> None:
        first = flat(arguments[0]) if arguments else None
        if full.startswith("subprocess.") or full == "asyncio.create_subprocess_exec":
            shell = any(
                each.arg == "shell" and not (isinstance(each.value, ast.Constant) and not each.value.value)
                for each in node.keywords
            )
            whole = flat(arguments[0]) if arguments else flat(named.get("args"))
            if whole is not None and (shell or self.runs_shell(arguments)):
                self.module.report("command", whole, node.lineno, shown)
            return
        for expression, harm in COMPILED:
            if not expression.fullmatch(full):
                continue
            if harm in NEEDS and not any(
                NEEDS[harm].search(each) for each in self.module.modules | set(self.module.names.values())
            ):
                continue
            if harm == "path" and full.endswith(".save") and not self.module.web:
                continue
            if harm == "deserialize" and any(
                each.arg == "Loader" and "Safe" in dotted(each.value) for each in node.keywords
            ):
                continue
            if harm == "xpath" and full.endswith((".find", ".select")) and not isinstance(node.func, ast.Attribute):
                continue
            taint = first
            if harm == "xss" and arguments and isinstance(arguments[0], Items):
                taint = flat(arguments[0].values.get(0))  # (body, headers)
                arguments = arguments[:0]
            if harm in ("ldap", "ssrf", "redirect", "xss") or (
                harm == "path" and full.startswith(("shutil.", "os.rename", "os.replace"))
            ):
                for each in (*arguments, *named.values()):
                    taint = taint or flat(each)
            if harm == "xss" and any(
                each.arg in ("mimetype", "content_type", "media_type") and "html" not in ast.unparse(each.value)
                for each in node.keywords
            ):
                continue
            if taint is not None:
                self.module.report(harm, taint, node.lineno, shown)

    def runs_shell(self, arguments: Sequence[Value]) -> bool:
        """Whether a list of arguments is `sh -c TAINTED`, or begins with what is tainted."""
        held = arguments[0] if arguments else None
        if not isinstance(held, Items):
            return False
        start = held.values.get(0)
        name = str(start.value) if isinstance(start, Constant) else ""
        return (
            flat(start) is not None
            or re.search(r"(?:^|/)(?:ba|da|z|k)?sh$|cmd(?:\.exe)?$|powershell", name) is not None
        )

    # ── constants ────────────────────────────────────────────────────────────────────────────────────────────────

    def constant(self, node: ast.expr | None) -> "Constant | None":
        """The value of an expression of literals and of names that hold literals."""
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | bytes() | None):
                return Constant(node.value)
            case ast.Name() if node.id in self.constants:
                return Constant(self.constants[node.id])
            case ast.UnaryOp():
                inner = self.constant(node.operand)
                if inner is not None and isinstance(node.op, ast.Not):
                    return Constant(not inner.value)
                if inner is not None and isinstance(node.op, ast.USub) and isinstance(inner.value, int | float):
                    return Constant(-inner.value)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Mod() | ast.Div() as op):
                left, right = self.constant(node.left), self.constant(node.right)
                if left is not None and right is not None and is_number(left.value) and is_number(right.value):
                    return computed(op, float(left.value), float(right.value))  # type: ignore[arg-type]
            case ast.Subscript():
                held, key = self.constant(node.value), self.constant(node.slice)
                if (
                    held is not None
                    and key is not None
                    and isinstance(held.value, str)
                    and isinstance(key.value, int)
                    and -len(held.value) <= key.value < len(held.value)
                ):
                    return Constant(held.value[key.value])
            case ast.Compare(ops=[op], comparators=[other]):
                left, right = self.constant(node.left), self.constant(other)
                if left is not None and right is not None:
                    return compared(op, left.value, right.value)
        return None


_NOT = object()


def _within(node: ast.expr) -> ast.expr:
    """The `x` of `str(x)`, `x.resolve()` and the like: what a guard on the text says of the value itself."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not node.args:
            node = node.func.value
        elif len(node.args) == 1:
            node = node.args[0]
        else:
            break
    return node


def _afar(value: Value) -> Value:
    taint = flat(value)
    return replace(taint, far=True) if taint else None
