"""How a tree is tested, as it is found out by looking."""

import os
import sys
from pathlib import Path

import pytest

from periphery.hopper import detection
from periphery.hopper.detection import PYTEST, Project, detect
from periphery.hopper.shell import Shell
from tests.unit.mcnamara.lab import write

CTEST = (
    'cmake -S . -B "$TMPDIR/build" && cmake --build "$TMPDIR/build" '
    '&& ctest --test-dir "$TMPDIR/build" --output-on-failure'
)


@pytest.fixture(autouse=True)
def _pythons_modules_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Python for each tree would take longer than all the rest."""

    async def modules(shell: Shell) -> frozenset[str]:
        return frozenset({"pytest", "unittest"})

    monkeypatch.setattr(detection, "_python_modules", modules)


async def found(tmp_path: Path, files: dict[str, str]) -> Project:
    return await detect(Shell(write(tmp_path / "repo", files), tmp_path / "home"))


@pytest.mark.parametrize(
    ("files", "kind", "test"),
    [
        ({"test_a.py": "def test_a(): pass"}, "pytest", PYTEST),
        ({"src/pkg/__init__.py": "", "tests/test_a.py": ""}, "pytest", f"PYTHONPATH=src {PYTEST}"),
        ({"package.json": '{"scripts": {"test": "mocha", "build": "tsc"}}'}, "npm", "npm test"),
        (
            {
                "package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}',
                "test/a.test.js": "",
            },
            "node",
            "node --test",
        ),
        ({"package.json": "{}"}, "node", ""),
        ({"package.json": "[1]"}, "node", ""),
        ({"Cargo.toml": "[package]"}, "cargo", "cargo test --offline"),
        ({"go.mod": "module x"}, "go", "go test -v ./..."),
        (
            {"CMakeLists.txt": "enable_testing()"},
            "ctest",
            CTEST,
        ),
        ({"CMakeLists.txt": "project(x)"}, "cmake", ""),
        ({"Makefile": "all:\n\tcc x.c\ncheck: all\n\t./x\n"}, "make", "make check"),
        ({"Makefile": "test := 1\nall:\n"}, "make", ""),
        ({"test.sh": "#!/bin/bash\n"}, "script", "bash ./test.sh"),
        ({"backend/go.mod": "module x", "docs/Makefile": "test:\n"}, "go", "cd backend && go test -v ./..."),
        ({"README.md": "x"}, "", ""),
        ({"pyproject.toml": "not [ toml", "setup.py": ""}, "python", ""),
    ],
)
async def test_a_tree_is_told_by_its_files(tmp_path: Path, files: dict[str, str], kind: str, test: str) -> None:
    project = await found(tmp_path, files)
    assert (project.kind, project.test) == (kind, test)
    assert project.why


async def test_of_several_kinds_the_first_counts_and_the_others_are_named(tmp_path: Path) -> None:
    project = await found(tmp_path, {"test_a.py": "", "Makefile": "test:\n\ttrue\n", "Cargo.toml": ""})
    assert project.kind == "pytest"
    assert project.why.endswith("there is also `cargo test --offline`; there is also `make test`")


async def test_what_is_no_file_or_not_readable_is_passed_by(tmp_path: Path) -> None:
    root = write(tmp_path / "repo", {"a/test_x.py": ""})
    (root / "Makefile").mkdir()
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "package.json")
    assert (await detect(Shell(root, tmp_path / "home"))).kind == "pytest"


async def test_the_python_of_the_tree_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert (await found(tmp_path, {"test_a.py": ""})).test == PYTEST
    monkeypatch.setenv("PATH", str(tmp_path))
    shell = Shell(write(tmp_path / "other", {"test_a.py": "import unittest"}), tmp_path / "home")
    assert (await detect(shell)).kind == "unittest"
