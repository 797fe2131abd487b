"""A test that must fail, put into each file of tests: does the test command tell of it?

What a tested program prints, writes and exits with is made by a process that the tested code lives in. It can leave
with 0 in the middle, print a summary that never was, or rewrite outcomes as they come. So a tree is tested a second
time, in a sandbox of its own, with a failure in each file of tests; a run that is still green, or is silent about
one of them, is no proof. Whether the tests tell of it at all is tried on the tree as it came
(`core/coding/controls.py`).

A file gets its failure at its end, since what ends a run too early ends it before that, and says a word of its own
when it fails. The word is put together only then: neither a listing of the tests nor their source can say it. What is
planted here is checked on the untouched tree before it counts, so a language needs to be right in the usual case only.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex

from typing_extensions import TypedDict

from periphery.hopper.testing import TEST_FILE
from periphery.hopper.workspace import CACHES

MOST = 40  # files
FILE_BYTES = 512 * 1024
LOOKED_AT = 20_000  # files
PATH_BYTES = 150  # of a path: they go back in the question for the next tree

Plant = Callable[[str, str, str], str]


class Control(TypedDict):
    """Of which files of tests it was told that a test in them failed, as one must."""

    planted: list[str]
    noticed: list[str]


def plant(root: Path, wanted: Sequence[str] = ()) -> dict[str, str]:
    """Puts a failing test into the files of tests below `root`, or into those `wanted`; returns path by word.

    Files that are not there, or are no tests of a known kind, are passed over. Blocks.
    """
    planted: dict[str, str] = {}
    for path in wanted or _candidates(root):
        if len(planted) == MOST:
            break
        make = PLANTS.get(Path(path).suffix)
        text = _text(root, path) if make else None
        if make is None or text is None:
            continue
        first, second = token_hex(6), token_hex(6)
        changed = make(text, first, second)
        if changed:
            (root / path).write_bytes(changed.encode("latin-1"))
            planted[first + second] = path
    return planted


def _candidates(root: Path) -> Iterator[str]:
    """Files that are called like tests, by name."""
    seen = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if each not in CACHES and not each.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > LOOKED_AT:
                return
            path = (Path(folder) / name).relative_to(root).as_posix()
            if TEST_FILE.search(path) and len(os.fsencode(path)) <= PATH_BYTES and path.isprintable():
                yield path


def _text(root: Path, path: str) -> str | None:
    """A small file's content, a character a byte; None where it is no plain file of the tree."""
    place = root / path
    if place.is_symlink() or not place.is_file() or not place.resolve().is_relative_to(root.resolve()):
        return None
    content = place.read_bytes() if place.stat().st_size <= FILE_BYTES else b""
    return content.decode("latin-1") or None


def _python(text: str, first: str, second: str) -> str:
    """A test case, before the lines that run the file as a program, and a failure behind them."""
    if not re.search(r"^\s*(?:async )?def test|^class \w*Test|^assert\b", text, re.MULTILINE):
        return ""
    word = f'"{first}" + "{second}"'
    case = f"""

class Test{first}(__import__("unittest").TestCase):
    def test_{first}(self):
        for false in (lambda: self.assertEqual(1, 2), lambda: self.assertTrue(0), lambda: self.fail()):
            try:
                false()
            except AssertionError:
                continue
            return
        raise AssertionError({word})


"""
    programs = list(re.finditer(r"^if __name__\b", text, re.MULTILINE))
    at = programs[-1].start() if programs else len(text)
    return f'{text[:at]}{case}{text[at:]}\n\nif __name__ == "__main__":\n    raise AssertionError({word})\n'


def _javascript(text: str, first: str, second: str) -> str:
    """A test of the framework that the file names, of the one it finds in the air, or a program that fails."""
    fails = f'() => {{ throw new Error("{first}" + "{second}"); }}'
    named = re.search(r"""["'](node:test|vitest|@jest/globals|bun:test)["']""", text)
    name = f"t_{first}"
    if named and re.search(r"^\s*import\b", text, re.MULTILINE):
        return f'{text}\nimport {{ test as {name} }} from "{named[1]}";\n{name}("{name}", {fails});\n'
    if named:
        return f'{text}\nrequire("{named[1]}").test("{name}", {fails});\n'
    if re.search(r"\b(?:test|it)\s*\(", text):
        return f'{text}\n;(typeof test === "function" ? test : it)("{name}", {fails});\n'
    return f"{text}\n;({fails})();\n" if re.search(r"\bassert\b", text) else ""


_MAIN = re.compile(r"^(?:int|auto)\s+main\s*\([^)]*\)\s*(?:->\s*int\s*)?\{", re.MULTILINE)


def _c(text: str, first: str, second: str) -> str:
    """A failure when `main` returns: who leaves before it has does not meet it. GCC's and Clang's."""
    main = _MAIN.search(text)
    if main is None:
        return ""
    name = f"f_{first}"
    fails = f'fflush(stdout); fputs("{first}" "{second}\\n", stderr); exit(1);'
    function = f"#include <stdio.h>\n#include <stdlib.h>\nstatic void {name}(int *at) {{ (void)at; {fails} }}\n"
    watched = f" int v_{first} __attribute__((cleanup({name}), unused)) = 0;"
    return f"{text[: main.start()]}{function}{main[0]}{watched}{text[main.end() :]}"


PLANTS: dict[str, Plant] = {
    ".py": _python,
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx"), _javascript),
    **dict.fromkeys((".c", ".cc", ".cpp", ".cxx"), _c),
}
