"""Which function a failing test is about, and putting another in its place."""

from pathlib import Path

import pytest

from periphery.hopper.places import functions, likely, only, replaced, uses
from tests.unit.mcnamara.lab import write

PYTHON = """\
import functools


class Pager:
    def size(self):
        return 1

    @functools.cache
    def pages(self):
        def inner():
            return 2

        return inner()


async def last(): return 3
"""
SOURCES = {
    "a.py": (PYTHON, ["size", "pages", "inner", "last"]),
    "a.js": (
        "export default async function one(a) {\n  return '}';\n}\nconst two = (b) => {\n  if (b) { return 1; }\n};\n"
        "class C {\n  three(c) {\n    return `x`; // }\n  }\n}\n",
        ["one", "two", "three"],
    ),
    "a.c": (
        "#include <x.h>\nstruct a { int b; };\nint declared(int a);\nstatic int\nvoid *one(int a)\n{\n  return 0;\n}\n"
        "int two(void) {\n  /* } */ if (1) { return 1; }\n  return 2;\n}\n",
        ["one", "two"],
    ),
    "a.go": ("package a\n\nfunc One(a int) int {\n\treturn 1\n}\n\nfunc (t *T) Two() {\n}\n", ["One", "Two"]),
    "a.rs": ("pub fn one() -> u8 {\n    1\n}\nimpl A {\n    async fn two(&self) {\n    }\n}\n", ["one", "two"]),
    "A.java": ("class A {\n    public static int one(int a) {\n        return 1;\n    }\n}\n", ["one"]),
}


@pytest.mark.parametrize("path", SOURCES)
def test_functions_are_found_with_their_lines(path: str) -> None:
    text, names = SOURCES[path]
    found = list(functions(path, text))
    assert sorted(each.name for each in found) == sorted(names)
    for each in found:
        assert each.code == "\n".join(text.split("\n")[each.first - 1 : each.last])
        assert replaced(text, each, each.code) == text


def test_a_method_keeps_its_indentation_and_its_decorators_go_with_it() -> None:
    place = next(each for each in functions("a.py", PYTHON) if each.name == "pages")
    assert place.code.startswith("    @functools.cache\n")
    text = replaced(PYTHON, place, "def pages(self):\n    return 4")
    assert "\n    def pages(self):\n        return 4\n\n\nasync def last()" in text


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("def size(self):\n    return 5", "def size(self):\n    return 5"),
        ("Sure!\n```python\n    def size(self):\n        return 5\n```\nDone.", "def size(self):\n    return 5"),
        ("import os\n\ndef other(): pass\n\ndef size(self): return 5\n\nsize(1)", "def size(self): return 5"),
        ("def other(): pass", None),
        ("def size(self:", None),
        ("", None),
    ],
)
def test_of_an_answer_the_one_function_is_taken(answer: str, code: str | None) -> None:
    place = next(each for each in functions("a.py", PYTHON) if each.name == "size")
    assert only(place, answer) == code


def test_the_traceback_counts_more_than_a_name_and_tests_are_no_place(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "shop/cart.py": "def total(items):\n    return price(items)\n\n\ndef price(items):\n    return items[0]\n",
            "shop/other.py": "def unrelated():\n    return 1\n",
            "tests/test_cart.py": "def test_total():\n    assert total([]) == 0\n",
        },
    )
    output = 'tests/test_cart.py:2: \nshop/cart.py:2: in total\n  File "shop/cart.py", line 6, in price\nE   IndexError'
    assert [each.name for each in likely(root, "An empty cart fails.", output)] == ["price", "total"]
    assert [each.name for each in likely(root, "`unrelated` should return 2", "")] == ["unrelated"]
    assert likely(root, "Nothing to go by", "") == []


def test_a_function_that_is_missing_has_a_place_at_the_end(tmp_path: Path) -> None:
    root = write(tmp_path, {"a.py": "ONE = 1\n", "test_a.py": "from a import two\n\nassert two() == 2\n"})
    assert uses(root, "two") == "assert two() == 2"
    place, whole = likely(root, "", "ImportError: cannot import name 'two' from 'a' (/x/a.py)")
    assert (place.name, place.path, whole.name) == ("two", "a.py", "")
    assert replaced("ONE = 1\n", place, "def two():\n    return 2") == "ONE = 1\n\n\ndef two():\n    return 2\n"
    assert only(place, "def two():\n    return 2\n") == "def two():\n    return 2"
