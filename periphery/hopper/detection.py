"""Finds out how a tree is tested, built and installed, and says why it thinks so.

Looks at names and a few lines of the files at the top, then one directory further down; runs nothing of the tree.
To add a kind of project: one function that looks, one line in `_LOOKS`, and in `counts` how its summary is read.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from periphery.hopper.printable import printable
from periphery.hopper.shell import Shell
from periphery.hopper.workspace import CACHES

LOOKED_AT_BYTES = 256 * 1024
LOOKED_AT_FILES = 2000


@dataclass(frozen=True)
class Project:
    """How a tree, or a part of it, is worked with. An empty command: there is none, or nobody knows."""

    kind: str
    why: str  # what was seen
    test: str = ""
    build: str = ""
    install: str = ""


NOTHING = Project("", "Nothing says how it is tested.")


async def detect(shell: Shell) -> Project:
    """The project at the shell's root. Of several kinds the first that has tests counts; `why` names the others."""
    modules = await _python_modules(shell)
    found = [*_projects(shell.root, modules)]
    for below in [] if any(each.test for each in found) else _folders(shell.root):
        found += [_moved(each, below) for each in _projects(shell.root / below, modules)]
    with_tests = [each for each in found if each.test]
    best = next(iter(with_tests or found), NOTHING)
    others = [each.test for each in with_tests if each is not best and each.test != best.test]
    return replace(best, why=printable(best.why) + "".join(f"; there is also `{each}`" for each in others[:3]))


def _projects(root: Path, modules: frozenset[str]) -> Iterator[Project]:
    files = _Files(root, modules)
    for look in _LOOKS:
        if (found := look(files)) is not None:
            yield found


def _moved(project: Project, below: str) -> Project:
    """A project in a directory, as commands at the root."""

    def there(command: str) -> str:
        return f"cd {below} && {command}" if command else ""

    return replace(
        project,
        why=f"{below}: {project.why}",
        test=there(project.test),
        build=there(project.build),
        install=there(project.install),
    )


def _folders(root: Path) -> list[str]:
    plain = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
    skipped = CACHES | {"doc", "docs", "examples", "vendor", "third_party"}
    return sorted(
        each.name
        for each in root.iterdir()
        if each.is_dir() and not each.is_symlink() and plain.fullmatch(each.name) and each.name not in skipped
    )[:20]


async def _python_modules(shell: Shell) -> frozenset[str]:
    """Which of the modules we ask for the tree's Python has."""
    code = "import importlib.util as u; print(*[m for m in ('pytest', 'unittest') if u.find_spec(m)])"
    try:
        ran = await shell.run(["python3", "-I", "-c", code], seconds=20, listed=False)
    except OSError:
        return frozenset()
    return frozenset(ran.output.split()) if ran.passed else frozenset()


@dataclass
class _Files:
    """A directory as a look sees it."""

    root: Path
    modules: frozenset[str]  # of Python

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def text(self, name: str) -> str:
        path = self.root / name
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(LOOKED_AT_BYTES).decode("utf-8", "replace")

    def first(self, pattern: str) -> str:
        """A file whose last name matches, nearest to the top; its path, or nothing."""
        wanted = re.compile(pattern)
        waiting, seen = [self.root], 0
        while waiting and seen < LOOKED_AT_FILES:
            folders = []
            for folder in waiting:
                try:
                    listed = sorted(folder.iterdir())
                except OSError:
                    continue
                for each in listed:
                    seen += 1
                    if each.is_file() and wanted.fullmatch(each.name):
                        return each.relative_to(self.root).as_posix()
                    if each.is_dir() and not each.is_symlink() and each.name not in CACHES and each.name != ".git":
                        folders.append(each)
            waiting = folders
        return ""


def _python(files: _Files) -> Project | None:
    pyproject = _toml(files.text("pyproject.toml"))
    tests = files.first(r"test_.*\.py|.*_test\.py|tests\.py")
    install = next(
        (
            command
            for name, command in (
                ("pyproject.toml", "python3 -m pip install --no-build-isolation --no-deps -e ."),
                ("setup.py", "python3 -m pip install --no-build-isolation --no-deps -e ."),
                ("requirements.txt", "python3 -m pip install -r requirements.txt"),
            )
            if files.has(name)
        ),
        "",
    )
    if not (tests or install):
        return None
    build = "python3 -m compileall -q ."
    if not tests:
        return Project("python", "Python without a test file", build=build, install=install)
    wants = (
        "pytest.ini"
        if files.has("pytest.ini")
        else "pyproject.toml"
        if "pytest" in pyproject.get("tool", {})
        else "setup.cfg"
        if "[tool:pytest]" in files.text("setup.cfg")
        else "tox.ini"
        if "[pytest]" in files.text("tox.ini")
        else files.first(r"conftest\.py")
    )
    uses = bool(re.search(r"^\s*(?:import|from) pytest\b|^(?:async )?def test_", files.text(tests), re.MULTILINE))
    below = "PYTHONPATH=src " if files.first(r"__init__\.py").startswith("src/") else ""  # no install is needed then
    if "pytest" in files.modules or wants or uses:
        missing = "" if "pytest" in files.modules else "; pytest is not installed here"
        why = (f"{wants} and {tests}" if wants else tests) + missing
        return Project("pytest", why, below + PYTEST, build, install)
    return Project("unittest", f"{tests}; pytest is not installed here", below + UNITTEST, build, install)


PYTEST = "python3 -m pytest -q -p no:cacheprovider"
UNITTEST = "python3 -m unittest discover -v"


def _node(files: _Files) -> Project | None:
    if not files.has("package.json"):
        return None
    try:
        package = json.loads(files.text("package.json"))
    except ValueError:
        return None
    scripts = package.get("scripts") if isinstance(package, dict) else None
    scripts = scripts if isinstance(scripts, dict) else {}
    install = "npm ci" if files.has("package-lock.json") else "npm install"
    build = "npm run build" if "build" in scripts else ""
    script = str(scripts.get("test", ""))
    if script and "no test specified" not in script:
        return Project("npm", f"package.json: test is `{script[:80]}`", "npm test", build, install)
    if test := files.first(r".*[.-]test\.[cm]?js|test\.[cm]?js|test-.*\.[cm]?js"):
        return Project("node", f"{test}, and no test script in package.json", "node --test", build, install)
    return Project("node", "package.json without a test", build=build, install=install)


def _cargo(files: _Files) -> Project | None:
    if not files.has("Cargo.toml"):
        return None
    return Project("cargo", "Cargo.toml", "cargo test --offline", "cargo build --offline", "cargo fetch")


def _go(files: _Files) -> Project | None:
    if not files.has("go.mod"):
        return None
    return Project("go", "go.mod", "go test -v ./...", "go build ./...", "go mod download")


def _cmake(files: _Files) -> Project | None:
    text = files.text("CMakeLists.txt")
    if not text:
        return None
    place = '"$TMPDIR/build"'
    build = f"cmake -S . -B {place} && cmake --build {place}"
    if not re.search(r"^\s*(?:enable_testing|add_test|include\s*\(\s*CTest)\b", text, re.MULTILINE | re.IGNORECASE):
        return Project("cmake", "CMakeLists.txt without tests", build=build)
    return Project(
        "ctest", "CMakeLists.txt with tests", f"{build} && ctest --test-dir {place} --output-on-failure", build
    )


def _make(files: _Files) -> Project | None:
    name = next((each for each in ("GNUmakefile", "makefile", "Makefile") if files.has(each)), "")
    if not name:
        return None
    targets = set(re.findall(r"^([A-Za-z0-9_-]+)\s*::?(?!=)", files.text(name), re.MULTILINE))
    test = next((each for each in ("test", "check", "tests") if each in targets), "")
    why = f"{name} with the target {test}" if test else f"{name} without a target test or check"
    return Project("make", why, f"make {test}" if test else "", "make")


def _script(files: _Files) -> Project | None:
    for name in ("test.sh", "run_tests.sh", "runtests.sh", "tests/run.sh"):
        if files.has(name):
            return Project("script", name, f"sh ./{name}" if "bash" not in files.text(name)[:40] else f"bash ./{name}")
    return None


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


_LOOKS: tuple[Callable[[_Files], Project | None], ...] = (_python, _node, _cargo, _go, _cmake, _make, _script)
