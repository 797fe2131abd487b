"""Finds the functions of a tree, and which of them a failing test is most likely about.

Python is parsed; in languages with braces a function is a line that looks like a head and everything to the matching
brace. That is enough for choosing where to look, and a wrong choice costs one question to a small model.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from periphery.hopper.printable import printable
from periphery.hopper.testing import TEST_FILE
from periphery.hopper.workspace import CACHES

FILES = 3000
FILE_BYTES = 256 * 1024
PLACE_CHARACTERS = 6000  # more is too much to ask of a small model
SMALL_FILE_LINES = 60

_NAME = r"(?P<name>[A-Za-z_$][\w$]*)"
_JAVASCRIPT = (
    rf"^\s*(?:export\s+)?(?:default\s+)?(?:async\s+)?function\s*\*?\s*{_NAME}\s*\("
    rf"|^\s*(?:export\s+)?(?:const|let|var)\s+{_NAME.replace('name', 'bound')}\s*=\s*"
    r"(?:async\s*)?(?:function\b|\([^)]*\)\s*=>|\w+\s*=>)"
    rf"|^\s+(?:async\s+|static\s+)*(?!if\b|for\b|while\b|switch\b|catch\b){_NAME.replace('name', 'method')}"
    r"\s*\([^)]*\)\s*\{"
)
_C = (
    r"^(?![\s#}]|typedef\b|struct\s+\w+\s*\{|else\b|return\b)"
    rf"[\w\s*&:<>,]*?\b{_NAME}\s*\([^;{{}}]*\)\s*(?:const\s*)?\{{?\s*$"
)
_JAVA = (
    r"^\s+(?:(?:public|private|protected|static|final|synchronized)\s+)+"
    rf"[\w<>\[\], ]+\s+{_NAME}\s*\([^;]*\{{\s*$"
)
_HEADS = {
    ".js": _JAVASCRIPT,
    ".mjs": _JAVASCRIPT,
    ".cjs": _JAVASCRIPT,
    ".jsx": _JAVASCRIPT,
    ".ts": _JAVASCRIPT,
    ".tsx": _JAVASCRIPT,
    ".c": _C,
    ".h": _C,
    ".cc": _C,
    ".cpp": _C,
    ".go": rf"^func\s+(?:\([^)]*\)\s*)?{_NAME}\s*[\[(]",
    ".rs": rf"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:const\s+|async\s+|unsafe\s+)*fn\s+{_NAME}",
    ".java": _JAVA,
}
HEADS = {suffix: re.compile(pattern) for suffix, pattern in _HEADS.items()}
LANGUAGES = {
    ".py": "Python",
    ".c": "C",
    ".h": "C",
    ".cc": "C++",
    ".cpp": "C++",
    ".go": "Go",
    ".rs": "Rust",
    ".java": "Java",
}
_STRINGS = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)

_FRAME = re.compile(r'(?:File "(?P<file>[^"]+)", line (?P<line>\d+))|(?P<path>[\w./-]+\.\w+):(?P<at>\d+)')
_MISSING = re.compile(
    r"cannot import name '(?P<name>\w+)' from '(?P<module>[\w.]+)'"
    r"|module '(?P<module2>[\w.]+)' has no attribute '(?P<name2>\w+)'"
)


@dataclass(frozen=True)
class Place:
    """A piece of a file that one answer can replace."""

    path: str
    name: str  # of the function; empty: the whole file
    first: int  # line, from 1
    last: int  # line; less than `first`: the function is missing, and goes there
    code: str
    score: float = 0.0
    why: str = ""

    @property
    def language(self) -> str:
        """For the model."""
        return LANGUAGES.get(Path(self.path).suffix, "JavaScript")

    @property
    def title(self) -> str:
        """For people."""
        return f"`{self.name}` in {self.path}" if self.name else self.path


def likely(root: Path, goal: str, output: str, most: int = 3) -> list[Place]:
    """The places that a goal and the output of failing tests point to, the likeliest first."""
    seen = f"{goal}\n{output}"
    frames = _frames(root, output)
    words = set(re.findall(r"[A-Za-z_$][\w$]*", seen))
    goal_words = set(re.findall(r"[A-Za-z_$][\w$]*", goal))
    tests = "\n".join(_text(root / each) for each in _tests_in(root, frames))
    tested = set(re.findall(r"[A-Za-z_$][\w$]*", tests))
    scored = []
    for path in _sources(root):
        text = _text(root / path)
        here = 2.0 if Path(path).stem in words or path in seen else 0.0
        for place in functions(path, text):
            score = 0.0
            why: list[str] = []
            for depth, (file, line) in enumerate(frames):
                if file == path and place.first <= line <= place.last:
                    score, why = score + 8 + min(depth, 4), [*why, "a failing test passes through it"]
                    break
            for known, worth, reason in (
                (goal_words, 7.0, "the goal names it"),
                (words, 4.0, "the failing test names it"),
                (tested, 2.0, "the test uses it"),
            ):
                if place.name in known:
                    score, why = score + worth, [*why, reason]
                    break
            if score:
                scored.append(replace(place, score=score + here, why=", ".join(why)))
        if here and not scored and text.count("\n") <= SMALL_FILE_LINES:
            whole = Place(path, "", 1, text.count("\n") + 1, text, score=here, why="the file is small and named")
            scored.append(whole)
    scored += _missing(root, output)
    fit = [each for each in scored if len(each.code) <= PLACE_CHARACTERS]
    return sorted(fit, key=lambda each: -each.score)[:most]


def functions(path: str, text: str) -> Iterator[Place]:
    """The functions of a file."""
    if path.endswith(".py"):
        yield from _python(path, text)
    elif head := HEADS.get(Path(path).suffix):
        yield from _braced(path, text, head)


def uses(root: Path, name: str, most: int = 8) -> str:
    """The lines of the tests that use a function."""
    found: dict[str, None] = {}
    for path in _sources(root, tests=True):
        text = _text(root / path)
        if name in text:
            found |= dict.fromkeys(
                each.strip() for each in text.split("\n") if re.search(rf"\b{re.escape(name)}\(", each)
            )
    return "\n".join(list(found)[:most])


def replaced(text: str, place: Place, code: str) -> str:
    """The text of a file with `code` where `place` is, indented as what stood there."""
    lines = text.split("\n")
    if place.last < place.first:
        before = "\n".join(lines[: place.first - 1]).rstrip("\n")
        return (before + "\n\n\n" if before else "") + code.strip("\n") + "\n"
    indent = re.match(r"[ \t]*", place.code)
    wanted = indent.group() if indent else ""
    new = code.strip("\n").split("\n")
    has = min((len(each) - len(each.lstrip()) for each in new if each.strip()), default=0)
    laid = [wanted + each[has:] if each.strip() else "" for each in new]
    return "\n".join([*lines[: place.first - 1], *laid, *lines[place.last :]])


def only(place: Place, code: str) -> str | None:
    """Of an answer the code that may stand at `place`: the function of that name alone; nothing if it is not there."""
    fenced = re.search(r"```[\w+-]*\n(.*?)```", code, re.DOTALL)
    code = (fenced.group(1) if fenced else code).expandtabs(4) if place.language == "Python" else code
    if not place.name:
        return code
    if place.language == "Python":
        found = [each for each in _python(place.path, textwrap.dedent(code.strip("\n"))) if each.name == place.name]
        return found[0].code if found else None
    found = [each for each in functions(place.path, code) if each.name == place.name]
    return found[0].code if found else None


def _python(path: str, text: str) -> Iterator[Place]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            last = node.end_lineno or node.lineno
            yield Place(path, node.name, first, last, "\n".join(lines[first - 1 : last]))


def _braced(path: str, text: str, head: re.Pattern[str]) -> Iterator[Place]:
    lines = text.split("\n")
    bare = _STRINGS.sub(lambda each: re.sub(r"[^\n]", " ", each.group()), text).split("\n")
    for number, line in enumerate(bare):
        match = head.match(line)
        if match is None:
            continue
        name = next(value for value in match.groupdict().values() if value)
        last = _closing(bare, number)
        if last is not None:
            yield Place(path, name, number + 1, last + 1, "\n".join(lines[number : last + 1]))


def _closing(lines: list[str], start: int) -> int | None:
    """The line where the braces opened from `start` on are closed again."""
    depth, opened = 0, False
    for number in range(start, min(start + 400, len(lines))):
        for each in lines[number]:
            if each == "{":
                depth, opened = depth + 1, True
            elif each == "}":
                depth -= 1
            elif each == ";" and not opened and depth == 0:
                return number if "=>" in lines[start] else None
        if opened and depth <= 0:
            return number
    return None


def _frames(root: Path, output: str) -> list[tuple[str, int]]:
    """The places that a traceback or a compiler names, the outermost first, as paths in the tree."""
    found = []
    base = str(root.resolve())
    for each in _FRAME.finditer(output):
        path, line = each["file"] or each["path"], int(each["line"] or each["at"])
        path = path.removeprefix(base).removeprefix(str(root)).lstrip("/").removeprefix("./")
        if (root / path).is_file():
            found.append((path, line))
    return found


def _missing(root: Path, output: str) -> Iterator[Place]:
    """Functions that a test asks for and nobody has written."""
    seen = set()
    for each in _MISSING.finditer(output):
        module, name = each["module"] or each["module2"], each["name"] or each["name2"]
        path = module.replace(".", "/") + ".py"
        if (root / path).is_file() and (path, name) not in seen:
            seen.add((path, name))
            text = _text(root / path)
            yield Place(
                path, name, text.count("\n") + 2, 0, "", score=12, why="a failing test needs it, and it is missing"
            )


def _tests_in(root: Path, frames: list[tuple[str, int]]) -> list[str]:
    named = [path for path, _ in frames if TEST_FILE.search(path)]
    return list(dict.fromkeys(named))[:5]


def _sources(root: Path, *, tests: bool = False) -> Iterator[str]:
    """Files with code, those of the tests or the others, as paths in the tree."""
    waiting, seen = [root], 0
    while waiting and seen < FILES:
        try:
            listed = sorted(waiting.pop().iterdir())
        except OSError:
            continue
        for each in listed:
            name = each.relative_to(root).as_posix()
            if each.is_symlink() or printable(name) != name:
                continue
            if each.is_dir():
                if each.name not in CACHES and not each.name.startswith("."):
                    waiting.append(each)
            elif (each.suffix == ".py" or each.suffix in HEADS) and bool(TEST_FILE.search(name)) == tests:
                seen += 1
                yield name


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
