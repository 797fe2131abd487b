"""A test that must fail: where it is put, and that real runners tell of it unless the tested code prevents it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from periphery.hopper.controls import plant
from periphery.hopper.shell import Ran, Shell

CALC = "def double(value):\n    return 2 * value\n"
UNITTEST = """import unittest

from calc import double


class Doubling(unittest.TestCase):
    def test(self):
        self.assertEqual(double(2), 4)


if __name__ == "__main__":
    unittest.main()
"""
FUNCTIONS = "from calc import double\n\n\ndef test_double():\n    assert double(2) == 4\n\n\n"
SCRIPT = FUNCTIONS + "test_double()\n"
ESM = """import assert from "node:assert";
import { test } from "node:test";
import { double } from "./calc.mjs";
test("doubles", () => assert.equal(double(2), 4));
"""
CJS = """const assert = require("node:assert");
const test = require("node:test");
const { double } = require("./calc.js");
test("doubles", () => assert.equal(double(2), 4))"""
PLAIN = 'const assert = require("assert");\nassert.equal(require("./calc.js").double(2), 4)'
MJS, JS = "export const double = (value) => 2 * value;\n", "exports.double = (value) => 2 * value;\n"
C = """#include "calc.h"
int main(int count, char **words)
{
    (void)count, (void)words;
    return twice(2) != 4;
}
"""
HEADER = "static int twice(int value) { return 2 * value; }\n"
CPP = '#include <cassert>\n#include "calc.h"\n\nauto main() -> int {\n    assert(twice(2) == 4);\n}\n'
STRICT = "-Wall -Wextra -Werror -pedantic"
PYTEST = "env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python3 -m pytest -q -p no:cacheprovider"  # ours take a second to load


async def controls(place: Path, files: Mapping[str, str], command: str) -> tuple[Ran, list[str], list[str]]:
    """The run with them, which files have one, and in which it was told of."""
    shell = Shell(place / "repo", place / "home")
    for name, content in files.items():
        (shell.root / name).parent.mkdir(parents=True, exist_ok=True)
        (shell.root / name).write_text(content)
    before = await shell.run(command, seconds=60)
    assert before.passed, before.output
    planted = plant(shell.root)
    ran = await shell.run(command, seconds=60, listen_for=planted)
    return ran, sorted(planted.values()), sorted(planted[each] for each in ran.heard)


def need(command: str) -> None:
    program = command.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"calc.py": CALC, "tests/__init__.py": "", "tests/test_calc.py": UNITTEST}, "python3 -m unittest -q"),
        ({"calc.py": CALC, "test_calc.py": UNITTEST}, "python3 test_calc.py"),
        ({"calc.py": CALC, "test_calc.py": SCRIPT}, "python3 test_calc.py"),
        ({"calc.py": CALC, "test_calc.py": FUNCTIONS}, PYTEST),
        ({"calc.py": CALC, "calc_test.py": UNITTEST.replace("\n", "\r\n")}, f"{PYTEST} --tb=no -v"),
        ({"calc.mjs": MJS, "calc.test.mjs": ESM}, "node --test"),
        ({"calc.js": JS, "test/calc.js": CJS.replace("./", "../")}, "node --test"),
        ({"calc.js": JS, "test-calc.js": PLAIN}, "node test-calc.js"),
        ({"calc.h": HEADER, "tests/test_calc.c": C}, f"gcc {STRICT} -I. -o calc tests/*.c && ./calc"),
        ({"calc.h": HEADER, "test_calc.cpp": CPP}, f"g++ {STRICT} -O2 -o calc test_calc.cpp && ./calc"),
    ],
)
async def test_the_usual_runners_tell_of_it(tmp_path: Path, files: Mapping[str, str], command: str) -> None:
    need(command)
    ran, planted, noticed = await controls(tmp_path, files, command)
    assert not ran.passed
    assert planted == noticed == [each for each in files if "test" in each and files[each]], ran.output


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"calc.py": "import os\n\nos._exit(0)\n", "test_calc.py": FUNCTIONS}, PYTEST),
        ({"calc.py": "def double(value):\n    raise SystemExit(0)\n", "test_calc.py": SCRIPT}, "python3 test_calc.py"),
        ({"calc.mjs": "process.exit(0);\nexport const double = 0;\n", "calc.test.mjs": ESM}, "node --test"),
        (
            {"calc.h": "#include <stdlib.h>\nstatic int twice(int value) { exit(0); }\n", "tests/test_calc.c": C},
            "gcc -I. -o calc tests/*.c && ./calc",
        ),
        ({"calc.py": CALC, "test_calc.py": UNITTEST}, "python3 -m unittest -q || true"),
    ],
)
async def test_a_run_that_ends_green_all_the_same_shows_nothing(
    tmp_path: Path, files: Mapping[str, str], command: str
) -> None:
    need(command)
    ran, planted, _ = await controls(tmp_path, files, command)
    assert planted
    assert ran.passed


async def test_one_file_that_leaves_early_is_silent_beside_one_that_is_not(tmp_path: Path) -> None:
    need("node")
    leaves = 'require("node:test")("leaves", () => {});\nprocess.exit(0);\n'
    ran, planted, noticed = await controls(
        tmp_path, {"calc.js": JS, "a.test.js": leaves, "b.test.js": CJS}, "node --test"
    )
    assert not ran.passed
    assert (planted, noticed) == (["a.test.js", "b.test.js"], ["b.test.js"])


def test_it_goes_into_plain_files_of_tests_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "outside.py").write_text("def test_nothing(): pass\n")
    root = tmp_path / "tests"
    for name in ("test_one.py", "test_two.py", "helper.txt", "test_empty.py", "test_data.py", "notes.md"):
        (root / name).write_text("" if "empty" in name else "X = 1\n" if "data" in name else "def test(): pass\n")
    (root / "test_link.py").symlink_to(tmp_path / "outside.py")
    (tmp_path / "node_modules" / "test_other.py").write_text("def test(): pass\n")
    assert sorted(plant(tmp_path).values()) == ["tests/test_one.py", "tests/test_two.py"]
    assert plant(tmp_path / "tests", ["../outside.py", "nowhere.py", "test_link.py"]) == {}


def test_neither_the_names_of_tests_nor_their_source_say_the_word(tmp_path: Path) -> None:
    for name, content in {"test_a.py": UNITTEST, "b.test.js": CJS, "test_c.c": C}.items():
        (tmp_path / name).write_text(content)
    planted = plant(tmp_path)
    assert sorted(planted.values()) == ["b.test.js", "test_a.py", "test_c.c"]
    for word, path in planted.items():
        assert word not in (tmp_path / path).read_text()
