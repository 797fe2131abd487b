"""Real git repositories to apply patches to."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path

from core.coding.branch import Planned, plan, write
from core.coding.changes import open_changes
from core.coding.repository import Repository
from tests.unit.coding.trees import Link, Script, Tree, changed, tar_of

WHO, AT = "madlab <run-1>", 1_700_000_000
CLEAN = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"], "LC_ALL": "C"}
CLEAN |= {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(place: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=place, input=stdin, env=CLEAN | {"HOME": str(place)}, capture_output=True
    )
    assert done.returncode == 0, (arguments, done.stderr.decode())
    return done.stdout


def said(place: Path, *arguments: str) -> str:
    return git(place, *arguments).decode().strip()


def write_tree(place: Path, tree: Tree) -> None:
    for path, content in tree.items():
        where = place / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            where.symlink_to(content.target)
        else:
            where.write_bytes(content.content if isinstance(content, Script) else content)
            where.chmod(0o755 if isinstance(content, Script) else 0o644)


def a_repository(place: Path, tree: Tree) -> Path:
    """A repository with one commit that holds a tree."""
    place.mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    commit(place, tree)
    return place


def commit(place: Path, tree: Tree) -> str:
    """One more commit, with more files or others."""
    write_tree(place, tree)
    git(place, "add", "-A", "-f")
    git(place, "commit", "-qm", "a commit", "--allow-empty")
    return said(place, "rev-parse", "HEAD")


def planned(place: Path, old: Tree, new: Tree, below: str = "") -> Planned:
    """What a run that made one tree into the other comes to at HEAD."""
    repository = Repository.find(place)
    changes, gone = changed(old, new)
    with open_changes(tar_of(old), changes, gone) as found, repository.reading() as objects:
        return plan(found, repository.head(), objects, below)


def applied(place: Path, old: Tree, new: Tree, branch: str = "madlab/run", below: str = "") -> str:
    """The commit that puts it on a branch."""
    repository = Repository.find(place)
    made = planned(place, old, new, below)
    assert made.conflicts == []
    with repository.reading() as objects:
        id = write(made, repository, objects, WHO, AT, "a message\n\nMadlab-Run: run-1")
    repository.create(branch, id)
    return id


def fingerprint(place: Path) -> dict[str, str]:
    """Every file below a place with its mode, time and content; but loose objects, of which there may be more."""
    found = {}
    for each in sorted(place.rglob("*")):
        name = each.relative_to(place).as_posix()
        if "/objects/" in f"/{name}":
            continue
        status = each.lstat()
        content = os.readlink(each).encode() if each.is_symlink() else each.read_bytes() if each.is_file() else b""
        moment = 0 if each.is_dir() else status.st_mtime_ns
        found[name] = f"{status.st_mode:o} {moment} {sha256(content).hexdigest()}"
    return found
