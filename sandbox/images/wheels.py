"""Python packages for an image: wheels from a hashed lock, for the image's Python, unpacked by plain rules.

No pip runs in or for the image but to download: a wheel is a zip file, and unpacking it here keeps the host's Python,
its paths and its installed packages out of the result.
"""

import configparser
import json
import platform
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.images.tree import SITE

_SCRIPT = """#!{python}
import sys
from {module} import {name}
sys.exit({call}())
"""


@dataclass(frozen=True)
class Home:
    """Where an image keeps Python packages, and by which Python their programs run."""

    site: Path
    bin: Path
    data: Path
    python: str
    links: bool = True  # `.pth` files, which run at every start, are kept


WORKER = Home(SITE, Path("usr/local/bin"), Path("usr/local"), "/usr/bin/python3", links=False)


def venv(place: str) -> Home:
    """A virtual environment at `place` in the image."""
    root = Path(place)
    return Home(root / "lib/python3.13/site-packages", root / "bin", root, f"/{place}/bin/python3")


def lay_venv(place: str, root: Path) -> None:
    """Makes an empty virtual environment of the image's Python: it sees the standard library and what it holds."""
    home = root / venv(place).bin
    home.mkdir(parents=True)
    (root / place / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.13\n")
    for name in ("python", "python3", "python3.13"):
        (home / name).symlink_to("/usr/bin/python3.13")


def _target(machine: str) -> list[str]:
    """What pip must know of the image's Python."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)]
    tags += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return ["--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.13", *platforms]


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-1000:]]
        raise RuntimeError("\n".join(said))
    return done.stdout


def lock(wanted: Path, below: Sequence[Path] = ()) -> str:
    """The text of a requirements.txt that satisfies `wanted`: exact versions, hashes, no address.

    What `below`, the lock of the image beneath, brings already is left as it is there, and left out here. So is what a
    line `# without: NAME, NAME` in `wanted` names: dependencies for uses that are not ours.
    """
    hashes: dict[str, set[str]] = {}
    without = {name for line in re.findall(r"^# without: (.+)$", wanted.read_text(), re.M) for name in line.split(", ")}
    there = {line.split(" ")[0] for path in below for line in path.read_text().splitlines() if "==" in line}
    for machine in ("x86_64", "aarch64"):
        with tempfile.TemporaryDirectory() as nowhere:
            report = Path(nowhere) / "report.json"
            bounds = Path(nowhere) / "bounds.txt"
            bounds.write_text("\n".join(sorted(there)))
            arguments = ["--dry-run", "--ignore-installed", "--target", nowhere, "--report", str(report)]
            try:
                _pip("install", *arguments, *_target(machine), "-c", str(bounds), "-r", str(wanted))
            except RuntimeError:
                if machine == platform.machine():
                    raise
                continue  # the other kind of machine lacks a wheel: the lock serves this kind alone
            for item in json.loads(report.read_text())["install"]:
                name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
                if name in without:
                    continue
                requirement = f"{name}=={item['metadata']['version']}"
                digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
                hashes.setdefault(requirement, set()).add(digest)
    blocks = []
    for requirement in sorted(hashes.keys() - there):
        lines = [requirement, *(f"    --hash=sha256:{digest}" for digest in sorted(hashes[requirement]))]
        blocks.append(" \\\n".join(lines) + "\n")
    return "".join(blocks)


def fetch(requirements: Path, cache: Path) -> list[Path]:
    """The wheels of a lock, from `cache` or else from the machine's package index; pip checks the hashes.

    Raises:
        RuntimeError: one cannot be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as to:
        arguments = ["--no-deps", "--require-hashes", "-d", to, "-r", str(requirements), *_target(platform.machine())]
        try:
            _pip("download", "--no-index", "--find-links", str(cache), *arguments)
        except RuntimeError:
            _pip("download", *arguments)
        return sorted(file.rename(cache / file.name) for file in Path(to).glob("*.whl"))


def unpack(wheel: Path, root: Path, home: Home = WORKER) -> None:
    """Unpacks one wheel into an image's tree: libraries, programs and data where `home` has them.

    Raises:
        RuntimeError: the wheel has a member that would land elsewhere.
    """
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            place = _place(member.filename, home)
            if place is None:
                continue
            if ".." in place.parts or place.is_absolute():
                raise RuntimeError(f"{wheel.name} has a member {member.filename!r} that leaves its place")
            content = archive.read(member)
            program = place.parent == home.bin
            if program and content.startswith(b"#!python"):
                content = f"#!{home.python}".encode() + content[content.index(b"\n") :]
            _write(root / place, content, executable=program or bool(member.external_attr >> 16 & stat.S_IXUSR))
        for member in archive.infolist():
            if re.fullmatch(r"[^/]+\.dist-info/entry_points\.txt", member.filename):
                _scripts(archive.read(member).decode(), root, home)


def _place(name: str, home: Home) -> Path | None:
    """Where a member of a wheel belongs, by the wheel specification."""
    head, _, rest = name.partition("/")
    if not head.endswith(".data"):
        dropped = name.endswith(".dist-info/RECORD") or (name.endswith(".pth") and not home.links)
        return None if dropped else home.site / name
    scheme, _, rest = rest.partition("/")
    return {"purelib": home.site, "platlib": home.site, "scripts": home.bin, "data": home.data}.get(
        scheme, Path("usr/include")
    ) / rest


def _scripts(entry_points: str, root: Path, home: Home) -> None:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry_points)
    for command, target in parser.items("console_scripts") if parser.has_section("console_scripts") else ():
        module, _, call = target.partition("[")[0].strip().partition(":")
        script = _SCRIPT.format(python=home.python, module=module, name=call.split(".")[0], call=call)
        _write(root / home.bin / command, script.encode(), executable=True)


def _write(path: Path, content: bytes, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
