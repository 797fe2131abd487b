"""What a snapshot takes, against what git itself lists."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from core.horace.snapshot import take
from protos.errors import InvalidArgument, NotFound
from protos.tree import Caps, TreeRefused, members, unpack

WORDS = r"""
    a b abc abd ab ba c foo bar build x.py x.o y.tar.gz Z .env é a]c a-c a*b a\b [a - #a
""".split()  # noqa: SIM905  thirty quotes less to read
PIECES = r"""
    a b c foo x . o py é - ] ! # * ** *** ? [ab] [!a] [^x-z] [a-c] [a-] []a] [!]a] [\]a] [a-\c] [/] [a
    [[:alpha:]] [[:nope:]] [[:alpha] \a \* \/ \ / / / /**/ **/ /** b** a**/ **\/
""".split()  # noqa: SIM905  thirty quotes less to read


def git(root: Path, *arguments: str) -> bytes:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_LITERAL_PATHSPECS": "1",
    }
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
                git(root, "add", "-f", "--", str(path.relative_to(root)))
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


def names(root: Path, *, history: bool = False) -> list[str]:
    return sorted(take(root, history=history).names)


def committed(root: Path, *files: str) -> Path:
    repository(root)
    write(root, *files)
    git(root, "add", "-f", *files)
    git(root, "commit", "-qm", "first")
    return root


def test_a_plain_directory_is_taken_whole(tmp_path: Path) -> None:
    write(tmp_path / "r", "a", "b/.gitignore", "b/c", content="*")
    (tmp_path / "r" / "hollow").mkdir()
    snapshot = take(tmp_path / "r")
    assert snapshot.names == ["a", "b", "b/.gitignore", "b/c", "hollow"]
    assert (snapshot.kind, snapshot.files, snapshot.size) == ("plain", 3, 3)


def test_a_snapshot_unpacks_to_what_it_listed(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a", "d/b")
    (root / "d" / "link").symlink_to("../a")
    snapshot = take(root)
    unpack(snapshot.pack(), tmp_path / "out")
    assert take(tmp_path / "out").names == ["a", "d", "d/b", "d/link"]
    assert sorted(each.name for each in members(snapshot.pack())) == sorted(snapshot.names)


def test_no_program_named_in_the_repository_runs(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a.txt")
    ran = tmp_path / "ran"
    hook = root / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    for key in ("core.fsmonitor", "filter.x.clean", "diff.external", "core.sshCommand", "core.editor"):
        git(root, "config", key, str(hook))
    (root / ".gitattributes").write_text("*.txt filter=x\n")
    for name in ("post-index-change", "post-checkout", "pre-commit", "fsmonitor-watchman"):
        (root / ".git" / "hooks" / name).write_bytes(hook.read_bytes())
    unpack(take(root, history=True).pack(), tmp_path / "out")
    assert not ran.exists()
    git(root, "status")  # the same repository, and git itself
    assert ran.exists()


def test_a_tracked_file_below_a_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "d/secret", "kept")
    write(tmp_path / "outside", "secret")
    (root / "d" / "secret").unlink()
    (root / "d").rmdir()
    (root / "d").symlink_to("../outside")
    assert names(root) == ["d", "kept"]
    with pytest.raises(TreeRefused, match=r"a link to '\.\./outside'"):
        list(take(root).pack())


@pytest.mark.parametrize("version", [2, 3, 4])
def test_every_index_version_is_read(tmp_path: Path, version: int) -> None:
    root = repository(tmp_path / "r")
    files = [f"{'d' * (each % 7 + 1)}/{each:03}{'x' * each}.log" for each in range(100)]
    write(root, *files, ".gitignore", content="*.log")
    git(root, "add", "-f", *files)
    if version == 3:
        write(root, "later.log")
        git(root, "add", "-f", "-N", "later.log")  # "intent to add" needs version 3
        files.append("later.log")
    else:
        git(root, "update-index", "--index-version", str(version))
    assert (root / ".git" / "index").read_bytes()[7] == version
    assert names(root) == sorted([*files, ".gitignore"])


def test_a_sha_256_repository_is_read(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", "--object-format=sha256")
    write(root, "tracked.log", "other", ".gitignore", content="*.log")
    git(root, "add", "-f", "tracked.log")
    assert names(root) == listed_by_git(root) == [".gitignore", "other", "tracked.log"]


def test_a_sparse_index_and_a_conflict_are_read(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "kept/a", "left/out/b", "top")
    git(root, "sparse-checkout", "set", "--cone", "--sparse-index", "kept")
    assert b"sdir" in (root / ".git" / "index").read_bytes()
    assert names(root) == ["kept/a", "top"]
    git(root, "checkout", "-qb", "other")
    write(root, "top", content="2")
    git(root, "commit", "-qam", "2")
    git(root, "checkout", "-q", "main")
    write(root, "top", content="3")
    git(root, "commit", "-qam", "3")
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "merge", "other")
    assert names(root) == ["kept/a", "top"]


def test_what_cannot_be_read_of_git_is_taken_whole_and_said(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    write(root, "dropped.log", ".gitignore", content="*.log")
    git(root, "update-index", "--split-index")
    snapshot = take(root, history=True)
    assert sorted(snapshot.names) == [".gitignore", "a", "dropped.log"]
    assert (snapshot.kind, snapshot.history) == ("plain", False)
    assert "is taken whole" in snapshot.notes[0]
    assert "b'link'" in snapshot.notes[0]


@pytest.mark.parametrize("version", [2, 4])
def test_a_damaged_index_never_breaks_the_walk(tmp_path: Path, version: int) -> None:
    root = committed(tmp_path / "r", "a", "d/b")
    git(root, "update-index", "--index-version", str(version))
    index = root / ".git" / "index"
    whole = index.read_bytes()
    for position in range(len(whole)):
        index.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        assert {"a", "d/b"} <= set(take(root).names)
        index.write_bytes(whole[:position])
        assert {"a", "d/b"} <= set(take(root).names)


def test_a_pointer_that_leads_outside_is_not_followed_and_said(tmp_path: Path) -> None:
    committed(tmp_path / "main", "a", "secret.log")
    git(tmp_path / "main", "worktree", "add", "-q", "../tree")
    write(tmp_path / "tree", "new.log", ".gitignore", content="*.log")
    snapshot = take(tmp_path / "tree")
    assert sorted(snapshot.names) == [".gitignore", "a", "new.log", "secret.log"]
    assert "outside this directory" in snapshot.notes[0]


@pytest.mark.parametrize("target", ["/etc", "../../..", "none", "\x00", "link"])
def test_a_hostile_pointer_changes_nothing(tmp_path: Path, target: str) -> None:
    committed(tmp_path / "other", "theirs")
    write(tmp_path / "r", "mine")
    (tmp_path / "r" / ".git").write_text(f"gitdir: {target}\n")
    if target == "link":
        (tmp_path / "r" / "link").symlink_to(tmp_path / "other" / ".git")
    snapshot = take(tmp_path / "r")
    assert set(snapshot.names) <= {"mine", "link"}
    assert snapshot.notes


def test_a_git_directory_behind_a_link_is_not_followed(tmp_path: Path) -> None:
    committed(tmp_path / "other", "theirs")
    write(tmp_path / "r", "mine", "x.log", ".gitignore", content="*.log")
    (tmp_path / "r" / ".git").symlink_to("../other/.git")
    assert names(tmp_path / "r", history=True) == [".gitignore", "mine", "x.log"]


def test_ignore_files_behind_links_are_not_read(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    (tmp_path / "outside").write_text("*")
    (root / ".gitignore").symlink_to("../outside")
    snapshot = take(root)
    assert sorted(snapshot.names) == [".gitignore", "a"]
    assert snapshot.notes == ["'.gitignore' is a link or too much to read and is not heeded"]


def test_ignore_files_that_are_too_much_to_read_hide_nothing(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    write(root, "big/x", "long/x", "many/x")
    (root / "big" / ".gitignore").write_text("x\n" * 1_000_000)
    (root / "long" / ".gitignore").write_text("x" + "*" * 5000 + "\n")
    (root / "many" / ".gitignore").write_text("?q\n" * 3000 + "x?\n" + "[x]\n")
    snapshot = take(root)
    assert {"big/x", "long/x", "many/x"} <= set(snapshot.names)
    assert snapshot.notes == [
        "'big/.gitignore' is a link or too much to read and is not heeded",
        "lines of 'long/.gitignore' that are too long or too many and not heeded: 1",
        "lines of 'many/.gitignore' that are too long or too many and not heeded: 1,002",
    ]


def test_submodules_and_clones_within_are_listed_by_their_own_rules(tmp_path: Path) -> None:
    committed(tmp_path / "library", "l.py", "l.log")
    root = committed(tmp_path / "r", "a")
    git(root, "submodule", "add", "-q", "../library", "vendor/library")
    write(root, "vendor/library/new.log", "vendor/library/new.py", ".gitignore", content="*.py\n")
    (root / "vendor" / "library" / ".gitignore").write_text("*.log\n")
    committed(root / "clone", "c.py", "c.log")
    write(root, "clone/.gitignore", "clone/new.log", "clone/new.py", content="*.log\n")
    assert names(root) == sorted([
        ".gitignore", ".gitmodules", "a", "clone/.gitignore", "clone/c.log", "clone/c.py", "clone/new.py",
        "vendor/library/.gitignore", "vendor/library/l.log", "vendor/library/l.py", "vendor/library/new.py",
    ])  # fmt: skip
    recursive = os.fsdecode(git(root, "ls-files", "-cz", "--recurse-submodules")).split("\0")
    assert {name for name in recursive if name} <= set(names(root))


def test_history_comes_without_what_runs_or_leads_elsewhere(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    git(root, "gc", "-q")
    write(root, "b")
    git(root, "add", "b")
    git(root, "commit", "-qm", "second")
    (root / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (root / ".git" / "objects" / "info" / "alternates").write_text("/elsewhere\n")
    snapshot = take(root, history=True)
    assert snapshot.history
    tops = {name.split("/")[1] for name in snapshot.names if name.startswith(".git/")}
    assert tops == {"HEAD", "objects", "packed-refs", "refs"}
    assert not any("info" in name for name in snapshot.names)
    assert not any(name.startswith(".git/") for name in take(root).names)

    unpack(snapshot.pack(), tmp_path / "out")
    git(tmp_path, "init", "-q", "--bare", "reader")
    for name in ("HEAD", "packed-refs", "refs", "objects"):
        git_path = tmp_path / "reader" / name
        subprocess.run(["cp", "-r", "--", str(tmp_path / "out" / ".git" / name), str(git_path.parent)], check=True)
    assert len(git(tmp_path / "reader", "log", "--oneline").splitlines()) == 2
    assert git(tmp_path / "reader", "fsck", "--strict").strip() == b""


def test_history_that_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    snapshot = take(root, Caps(files=2), history=True)
    assert snapshot.names == ["a"]
    assert not snapshot.history
    assert "the git history is left out" in snapshot.notes[0]
    assert "tree.files" in snapshot.notes[0]


def test_history_that_is_reached_through_links_is_left_out_and_said(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    (root / ".git" / "objects").rename(tmp_path / "objects")
    (root / ".git" / "objects").symlink_to(tmp_path / "objects")
    snapshot = take(root, history=True)
    assert snapshot.names == ["a"]
    assert "'.git/objects': a link or a device" in snapshot.notes[0]
    assert [each.name for each in members(snapshot.pack())] == ["a"]


def test_a_snapshot_over_a_cap_says_which(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a", "b", "c")
    with pytest.raises(TreeRefused) as error:
        take(root, Caps(files=2))
    assert error.value.setting == "tree.files"
    with pytest.raises(TreeRefused, match=r"tree\.bytes"):
        take(root, Caps(bytes=2))


def test_a_deep_directory_is_refused_whether_or_not_it_is_ignored_inside(tmp_path: Path) -> None:
    root = committed(tmp_path / "r", "a")
    (root / "/".join(["d"] * 70)).mkdir(parents=True)
    with pytest.raises(TreeRefused, match=r"tree\.depth"):
        take(root)
    (root / ".gitignore").write_text("d/\n")
    assert names(root) == [".gitignore", "a"]


def test_a_pattern_made_to_be_slow_is_not(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    write(root, *(f"{'a' * 200}{each}" for each in range(50)))
    (root / ".gitignore").write_text("*a" * 100 + "b\n" + "**/" * 60 + "b\n" + "(a+)+$\n" + "?*" * 100 + "/b\n")
    started = time.thread_time()
    assert len(take(root).names) == 51
    assert time.thread_time() - started < 5, "seconds of work, however busy the machine is"


def test_each_bad_path_has_its_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty" / "hollow").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    repository(tmp_path / "bare-new")
    with pytest.raises(NotFound, match=r"there is no '.*none'"):
        take(tmp_path / "none")
    with pytest.raises(InvalidArgument, match="is not a directory"):
        take(tmp_path / "file")
    for name in ("empty", "bare-new"):
        with pytest.raises(InvalidArgument, match="holds no file to take"):
            take(tmp_path / name)


def pattern(chance: random.Random) -> str:
    text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 5)))
    if chance.random() < 0.4:
        text = chance.choice(WORDS)
    start, end = (
        chance.choice(["", "", "", "!", "/", "!/", "\\!", "#"]),
        chance.choice(["", "", "", "/", " ", "\\ ", "\r", "\t"]),
    )
    return f"{start}{text}{end}\n"
