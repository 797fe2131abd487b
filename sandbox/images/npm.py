"""npm packages for an image: tarballs by integrity hash, unpacked by plain rules; no script of theirs runs.

The machine's own `npm` says where its registry is. What is unpacked is one folder for each package, without the
packages that it depends on: they are named too, or it has none.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

MODULES = Path("usr/local/lib/node_modules")


def _npm(*arguments: str) -> str:
    try:
        done = subprocess.run(["npm", "--no-update-notifier", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("this machine has no npm, which fetches them: install Node.js, and try again") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr[-1000:]]
        raise RuntimeError("\n".join(said[:5]))
    return done.stdout


def lock(wanted: Sequence[str]) -> str:
    """The text of an npm.lock: a line for each `NAME@VERSION`, with its integrity as the registry tells it now."""
    lines = []
    for each in sorted(wanted):
        integrity = json.loads(_npm("view", "--json", each, "dist.integrity"))
        if not isinstance(integrity, str) or not integrity.startswith("sha512-"):
            raise RuntimeError(f"{each} is not one version with a sha512")
        lines.append(f"{each} {integrity}\n")
    return "".join(lines)


def read_lock(path: Path) -> dict[str, str]:
    """Integrity by `NAME@VERSION`."""
    return dict(line.split() for line in path.read_text().splitlines()) if path.exists() else {}


def fetch(package: str, integrity: str, cache: Path) -> Path:
    """The tarball of a package, from `cache` or else from the machine's registry.

    Raises:
        RuntimeError: it cannot be had, or is not what the lock means.
    """
    digest = base64.b64decode(integrity.removeprefix("sha512-"))
    kept = cache / f"{digest.hex()[:64]}.tgz"
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as to:
        _npm("pack", "--ignore-scripts", "--pack-destination", to, package)
        [fetched] = Path(to).glob("*.tgz")
        with fetched.open("rb") as file:
            if hashlib.file_digest(file, "sha512").digest() != digest:
                raise RuntimeError(f"{package} is not the package that npm.lock means: its digest differs")
        fetched.rename(kept)
    return kept


def unpack(package: str, tarball: Path, root: Path) -> None:
    """Unpacks a tarball into an image's tree, as MODULES/NAME; only its files, never a link.

    Raises:
        RuntimeError: a member would land elsewhere.
    """
    home = MODULES / package[: package.rindex("@")]
    with tarfile.open(tarball) as archive:
        for member in archive:
            if not member.isreg():
                continue
            inside = Path(*Path(member.name).parts[1:])  # below one folder, most often called "package"
            if ".." in inside.parts or inside.is_absolute() or not inside.parts:
                raise RuntimeError(f"{package} has a member {member.name!r} that leaves its place")
            target = root / home / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with content, target.open("wb") as file:
                while chunk := content.read(1 << 20):
                    file.write(chunk)
            target.chmod(0o755 if member.mode & 0o111 else 0o644)
