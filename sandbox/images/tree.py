"""A directory tree becomes a layer: pruned, compiled, and packed so that the same tree is the same bytes."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

EPOCH = 1735689600  # every file's time, 2025-01-01: zip files know no time before 1980
SITE = Path("usr/local/lib/python3.13/dist-packages")
STDLIB = Path("usr/lib/python3.13")


@lru_cache
def _pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay within a name, `**` crosses folders, `{a,b}` is either, `[!x]` is any but x."""
    out = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]]+\]|[{},])", glob):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
        if part in known:
            out += known[part]
        elif part.startswith("["):
            out += part.replace("[!", "[^", 1)
        else:
            out += re.escape(part)
    return re.compile(out)


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether `path`, relative to the image's root, is meant by one of `globs`; `x/**` means x as well."""
    return any(_pattern(g).fullmatch(path) or (g.endswith("/**") and _pattern(g[:-3]).fullmatch(path)) for g in globs)


def prune(root: Path, globs: Sequence[str]) -> None:
    """Removes what `globs` mean, and all bytecode: it is made anew."""
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, root)
        for name in [*folders, *files]:
            path = os.path.normpath(os.path.join(here, name))
            full = root / path
            if not (matches(path, globs) or name == "__pycache__"):
                continue
            if full.is_dir() and not full.is_symlink():
                shutil.rmtree(full)
                folders.remove(name)
            else:
                full.unlink()


def compile_all(root: Path, folders: Sequence[Path], ground: Path) -> None:
    """Compiles what lies in `folders` below `root`, by the Python of the image whose tree is `ground`.

    The bytecode is never checked against its source again: the root of a sandbox is read-only. It runs through the
    image's own loader, so that neither its C library nor its Python need to be the host's.
    """
    existing = [str(root / folder) for folder in folders if (root / folder).is_dir()]
    if not existing:
        return
    [loader] = ground.glob("usr/lib*/ld-linux-*.so.*")
    [libraries] = ground.glob("usr/lib/*-linux-gnu")
    python = [str(loader), "--library-path", str(libraries), str(ground / "usr/bin/python3.13")]
    compileall = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    # What the compiler imports must not be written where it compiles: that bytecode would carry times and paths.
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHOME": str(ground / "usr"),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
    }
    done = subprocess.run([*python, "-S", *compileall, *existing], env=environment, capture_output=True, text=True)
    # A library may carry a file that is no valid Python (templates, samples): it stays uncompiled, which is no fault.
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"compiling {root} failed: {done.stderr[-2000:]}")


def pack(root: Path, to: Path) -> str:
    """Packs `root` as a layer and returns the SHA-256 of its bytes: names in order, times fixed, owned by root."""
    names = sorted(os.path.relpath(os.path.join(f, n), root) for f, ds, fs in os.walk(root) for n in [*ds, *fs])
    first: dict[tuple[int, int], str] = {}  # a file with several names is stored once
    with to.open("wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            path = root / name
            status = path.lstat()
            member = tarfile.TarInfo(name)
            member.mtime, member.uid, member.gid = EPOCH, 0, 0
            if stat.S_ISLNK(status.st_mode):
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
                tar.addfile(member)
            elif stat.S_ISDIR(status.st_mode):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            elif stat.S_ISREG(status.st_mode):
                member.mode = 0o755 if status.st_mode & 0o111 else 0o644
                key = (status.st_dev, status.st_ino)
                if status.st_nlink > 1 and key in first:
                    member.type, member.linkname = tarfile.LNKTYPE, first[key]
                    tar.addfile(member)
                    continue
                first[key] = name
                member.size = status.st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                raise RuntimeError(f"{name} is neither file, folder nor link: it has no place in an image")
    with to.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()
