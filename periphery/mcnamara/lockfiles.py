"""Which package in which version a lock file names, and on which line. Read as text: no parser of theirs is run."""

import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from periphery.mcnamara.inspectors.rules import Lines


class Dependency(NamedTuple):
    """One package in one version."""

    ecosystem: str
    name: str
    version: str
    line: int


Reader = Callable[[str], Iterator[Dependency]]


def _requirements(text: str) -> Iterator[Dependency]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(
            r"\s*([A-Za-z0-9][\w.-]{0,100})\s*(?:\[[^\]]{0,100}\])?\s*===?\s*([^\s;,#\\*]{1,60})\s*(?:[;#\\]|--hash|$)",
            line,
        )
        if match:
            yield Dependency("PyPI", match.group(1), match.group(2), number)


def _toml_packages(ecosystem: str) -> Reader:
    """poetry.lock, uv.lock, pdm.lock and Cargo.lock: `[[package]]` with a name and a version."""

    def read(text: str) -> Iterator[Dependency]:
        name, at = "", 0
        within = False
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("["):
                within, name = line.strip() == "[[package]]", ""
            match = re.match(r'(name|version)\s*=\s*"([^"]{1,200})"', line)
            if not (within and match):
                continue
            if match.group(1) == "name":
                name, at = match.group(2), number
            elif name:
                yield Dependency(ecosystem, name, match.group(2), at)
                name = ""

    return read


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(text: str, lines: Lines, needle: str) -> int:
    at = text.find(needle)
    return lines.at(at) if at >= 0 else 1


def _pipfile(text: str) -> Iterator[Dependency]:
    lines = Lines(text)
    whole = _object(text)
    for group in ("default", "develop"):
        for name, each in _table(whole.get(group)).items():
            version = str(_table(each).get("version", ""))
            if version.startswith("=="):
                yield Dependency("PyPI", name, version.lstrip("="), _line(text, lines, f'"{name}"'))


def _npm(text: str) -> Iterator[Dependency]:
    lines = Lines(text)
    whole = _object(text)
    packages = _table(whole.get("packages"))
    for path, each in packages.items():
        _, found, name = path.rpartition("node_modules/")
        given = _table(each)
        if found and not given.get("link") and given.get("version"):
            yield Dependency(
                "npm", str(given.get("name") or name), str(given["version"]), _line(text, lines, f'"{path}"')
            )
    waiting = [] if packages else [whole]
    for _ in range(100_000):
        if not waiting:
            return
        for name, each in _table(waiting.pop().get("dependencies")).items():
            given = _table(each)
            waiting.append(given)
            if given.get("version"):
                yield Dependency("npm", name, str(given["version"]), _line(text, lines, f'"{name}"'))


def _yarn(text: str) -> Iterator[Dependency]:
    name, at = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line[0].isspace() and not line.startswith("#"):
            match = re.match(r'"?(@?[^@"\s]{1,200})@', line)
            name, at = (match.group(1), number) if match else ("", 0)
        elif name:
            match = re.match(r'\s+version:?\s+"?([^"\s]{1,80})"?\s*$', line)
            if match:
                yield Dependency("npm", name, match.group(1), at)
                name = ""


def _pnpm(text: str) -> Iterator[Dependency]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(
            r"  ['\"]?/?(@?[^@'\"\s(]{1,200}?)[@/](\d[^:/'\"\s()_]{0,80})(?:[(_][^:]{0,400})?['\"]?:\s*$", line
        )
        if match:
            yield Dependency("npm", match.group(1), match.group(2), number)


def _go_mod(text: str) -> Iterator[Dependency]:
    within = False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"require\s*\(", line):
            within = True
        elif line.startswith(")"):
            within = False
        match = re.match(r"(?:require\s+|\s+)([\w.~/-]{1,200}\.[\w.~/-]{1,200})\s+v(\S{1,100})", line)
        if match and (within or line.startswith("require")):
            yield Dependency("Go", match.group(1), match.group(2).removesuffix("+incompatible"), number)


def _gemfile(text: str) -> Iterator[Dependency]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"    ([\w.-]{1,100}) \((\d[\w.]{0,60})(?:-[\w-]{1,40})?\)$", line)
        if match:
            yield Dependency("RubyGems", match.group(1), match.group(2), number)


def _composer(text: str) -> Iterator[Dependency]:
    lines = Lines(text)
    whole = _object(text)
    for group in ("packages", "packages-dev"):
        for each in whole.get(group) or ():
            name, version = str(_table(each).get("name", "")), str(_table(each).get("version", ""))
            if name and version:
                yield Dependency("Packagist", name, version.removeprefix("v"), _line(text, lines, f'"name": "{name}"'))


def _pom(text: str) -> Iterator[Dependency]:
    lines = Lines(text)
    properties = dict(re.findall(r"<([\w.-]{1,80})>\s*([\w.-]{1,60})\s*</\1>", text))
    for match in re.finditer(r"<dependency>(.{0,2000}?)</dependency>", text, re.DOTALL):
        given = dict(re.findall(r"<(groupId|artifactId|version)>\s*([^<\s]{1,120})\s*</\1>", match.group(1)))
        version = re.sub(r"^\$\{([\w.-]+)\}$", lambda each: properties.get(each.group(1), ""), given.get("version", ""))
        if version and {"groupId", "artifactId"} <= given.keys():
            yield Dependency("Maven", f"{given['groupId']}:{given['artifactId']}", version, lines.at(match.start()))


def _gradle(text: str) -> Iterator[Dependency]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"([\w.-]{1,120}:[\w.-]{1,120}):([\w.-]{1,60})=", line)
        if match:
            yield Dependency("Maven", match.group(1), match.group(2), number)


def _nuget(text: str) -> Iterator[Dependency]:
    lines = Lines(text)
    for framework in _table(_object(text).get("dependencies")).values():
        for name, each in _table(framework).items():
            if _table(each).get("resolved"):
                yield Dependency("NuGet", name, str(each["resolved"]), _line(text, lines, f'"{name}"'))


READERS: tuple[tuple[str, Reader], ...] = (
    ("*requirements*.txt", _requirements),
    ("*/requirements/*.txt", _requirements),
    ("*/constraints*.txt", _requirements),
    ("*/poetry.lock", _toml_packages("PyPI")),
    ("*/uv.lock", _toml_packages("PyPI")),
    ("*/pdm.lock", _toml_packages("PyPI")),
    ("*/pylock*.toml", _toml_packages("PyPI")),
    ("*/Pipfile.lock", _pipfile),
    ("*/package-lock.json", _npm),
    ("*/npm-shrinkwrap.json", _npm),
    ("*/yarn.lock", _yarn),
    ("*/pnpm-lock.yaml", _pnpm),
    ("*/go.mod", _go_mod),
    ("*/Cargo.lock", _toml_packages("crates.io")),
    ("*/Gemfile.lock", _gemfile),
    ("*/composer.lock", _composer),
    ("*/pom.xml", _pom),
    ("*/gradle.lockfile", _gradle),
    ("*/packages.lock.json", _nuget),
)


def is_lock_file(path: str) -> bool:
    """Whether packages and versions can be read from a file of this name."""
    return any(fnmatchcase(f"/{path}", pattern) for pattern, _ in READERS)


def dependencies(path: str, text: str) -> list[Dependency]:
    """The packages that a lock file names.

    Raises:
        ValueError: it is malformed.
    """
    return next((list(reader(text)) for pattern, reader in READERS if fnmatchcase(f"/{path}", pattern)), [])
