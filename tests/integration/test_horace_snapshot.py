"""What a snapshot takes, against what git itself lists."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from core.horace.snapshot import take
from protos.errors import InvalidArgument

WORDS = [
    "a",
    "b",
    "abc",
    "abd",
    "foo",
    "bar",
    "build",
    "x.py",
    "x.o",
    "y.tar.gz",
    "Z",
    ".env",
    "a b",
    "é",
    "a]c",
    "a-c",
]
PIECES = ["a", "b", "c", "foo", "x", "*", "**", "?", "[ab]", "[!a]", "[^x-z]", "[a-]", "[]a]", "[[:alpha:]]", "[[:nope:]]",
          ".", "o", "py", "\\a", "\\*", "[\\]a]", "[a", "é", " ", "-", "***", "/", "/**/", "**/", "/**"]  # fmt: skip


def git(root: Path, *arguments: str) -> bytes:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "t", f"GIT_{role}_EMAIL": "t@example.org"}
    command = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True).stdout


def listed_by_git(root: Path) -> list[str]:
    """Cached and others; what is only in the index is not there to take."""
    names = set(os.fsdecode(git(root, "ls-files", "-coz", "--exclude-standard")).split("\0")) - {""}
    return sorted(name for name in names if os.path.lexists(root / name) and not _behind_link(root, name))


def _behind_link(root: Path, name: str) -> bool:
    return any((root / part).is_symlink() for part in Path(name).parents if str(part) != ".")


def write(root: Path, *names: str, content: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def repository(root: Path, *arguments: str) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    git(root, "init", "-q", *arguments)
    return root


def test_ignored_files_stay_behind_unless_they_are_tracked(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    write(
        root,
        "kept.py",
        "dropped.log",
        "tracked.log",
        "build/x",
        "build/tracked",
        "deep/er/dropped.log",
        "deep/kept.log",
    )
    (root / ".gitignore").write_text("*.log\nbuild/\n")
    (root / "deep" / ".gitignore").write_text("!kept.log\n")
    git(root, "add", "-f", "tracked.log", "build/tracked")
    snapshot = take(root)
    assert sorted(snapshot.names) == [
        ".gitignore", "build/tracked", "deep/.gitignore", "deep/kept.log", "kept.py", "tracked.log",
    ]  # fmt: skip
    assert sorted(snapshot.names) == listed_by_git(root)
    assert (snapshot.kind, snapshot.files, snapshot.notes) == ("git", 6, [])


@pytest.mark.parametrize("seed", range(60))
def test_generated_repositories_are_listed_as_git_lists_them(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = repository(tmp_path / "r")
    directories = [""]
    for _ in range(chance.randint(2, 14)):
        directories.append(f"{chance.choice(directories)}{chance.choice(WORDS)}/")
    for directory in directories:
        for _ in range(chance.randint(0, 5)):
            path = root / f"{directory}{chance.choice(WORDS)}"
            if not path.exists() and not any(parent.is_file() for parent in path.parents):
                write(root, str(path.relative_to(root)))
    present = [path for path in root.rglob("*") if ".git" not in path.parts]
    if present:
        for path in chance.sample(present, len(present) // 4):
            if path.is_file():
                git(root, "add", "-f", str(path.relative_to(root)))
    for directory in ["", *chance.sample(directories, min(3, len(directories)))]:
        if (root / directory).is_dir():
            (root / directory / ".gitignore").write_text("".join(pattern(chance) for _ in range(chance.randint(1, 8))))
    if chance.random() < 0.3:
        (root / ".git" / "info" / "exclude").write_text(pattern(chance))
    for path in chance.sample(present, len(present) // 8):
        if path.is_file():
            path.unlink()
    git(root, "update-index", "--index-version", str(chance.choice([2, 3, 4])))
    expected = listed_by_git(root)
    if expected:
        assert sorted(take(root).names) == expected
    else:
        with pytest.raises(InvalidArgument, match="holds no file"):
            take(root)


def pattern(chance: random.Random) -> str:
    text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 5)))
    if chance.random() < 0.4:
        text = chance.choice(WORDS)
    start, end = (
        chance.choice(["", "", "", "!", "/", "!/", "\\!", "#"]),
        chance.choice(["", "", "", "/", " ", "\\ ", "\r", "\t"]),
    )
    return f"{start}{text}{end}\n"
