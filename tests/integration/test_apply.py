"""A change put on a branch of a real repository: what git says of it, and that nothing else has moved."""

import os
from pathlib import Path

import pytest

from core.coding.repository import Repository, check_branch
from protos.errors import Conflict, InvalidArgument, NotFound, Unavailable
from tests.integration.gits import AT, a_repository, applied, commit, fingerprint, git, planned, said, write_tree
from tests.unit.coding.trees import Link, Script, Tree

LINES = b"".join(b"line %d\n" % number for number in range(60))
OLD: Tree = {
    "a.py": LINES,
    "d/b.txt": b"b\n",
    "d/e/c": b"c\n",
    "run": Script(b"#!/bin/sh\n"),
    "l": Link("a.py"),
    "z": b"",
}
WITHOUT = {path: content for path, content in OLD.items() if path != "a.py"}
NEW: Tree = {
    "a.py": LINES.replace(b"line 7\n", b"line seven\n"),
    "d/new/x ü": b"new\n",
    "d.txt": b"sorted before d/\n",
    "run": b"#!/bin/sh\n",
    "l": Link("d"),
    "z": Script(b""),
}


def tree_of(tmp_path: Path, tree: Tree) -> str:
    return said(a_repository(tmp_path / "wanted", tree), "rev-parse", "HEAD^{tree}")


def test_the_branch_holds_the_change_as_one_commit_and_nothing_else_moved(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    (place / "a.py").write_bytes(b"uncommitted\n")
    (place / "untracked").write_bytes(b"x")
    git(place, "config", "core.fsmonitor", "false; touch FSMONITOR")
    (place / ".git/hooks/reference-transaction").write_text("#!/bin/sh\ntouch HOOK\n")
    (place / ".git/hooks/reference-transaction").chmod(0o755)
    before, head = fingerprint(place), said(place, "rev-parse", "HEAD")
    id = applied(place, OLD, NEW)
    after = fingerprint(place)
    assert after.keys() - before.keys() == {".git/refs/heads/madlab", ".git/refs/heads/madlab/run"}
    assert {name: after[name] for name in before} == before
    (place / ".git/hooks/reference-transaction").unlink()
    git(place, "config", "--unset", "core.fsmonitor")
    assert git(place, "fsck", "--strict", "--full") == b""
    assert said(place, "rev-parse", "madlab/run") == id
    assert said(place, "rev-parse", "madlab/run^") == head
    assert said(place, "rev-parse", "madlab/run^{tree}") == tree_of(tmp_path, NEW)
    assert said(place, "log", "-1", "--format=%an|%ae|%at|%cn|%ct|%(trailers:key=Madlab-Run,valueonly)", id) == (
        f"madlab|run-1|{AT}|madlab|{AT}|run-1"
    )


def test_applying_twice_is_applying_once(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    assert applied(place, OLD, NEW) == applied(place, OLD, NEW)
    assert not Repository.find(place).create("madlab/run", said(place, "rev-parse", "madlab/run"))
    git(place, "pack-refs", "--all")
    assert not Repository.find(place).create("madlab/run", said(place, "rev-parse", "madlab/run"))
    with pytest.raises(Conflict, match="is there already"):
        Repository.find(place).create("madlab/run", said(place, "rev-parse", "HEAD"))


def test_head_that_moved_elsewhere_is_no_hindrance(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    moved = commit(place, {"a.py": LINES.replace(b"line 50\n", b"line fifty\n"), "other": b"x\n"})
    made = planned(place, OLD, NEW)
    assert (made.conflicts, made.merged) == ([], ["a.py"])
    applied(place, OLD, NEW)
    assert said(place, "rev-parse", "madlab/run^") == moved
    text = git(place, "show", "madlab/run:a.py")
    assert b"line seven\n" in text
    assert b"line fifty\n" in text


def test_what_was_not_committed_is_left_out_where_lines_can_tell(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    snapshot: Tree = {**OLD, "a.py": LINES.replace(b"line 40\n", b"my own work\n"), "untracked": b"mine\n"}
    new: Tree = {**snapshot, "a.py": snapshot["a.py"].replace(b"line 7\n", b"seven\n")}  # type: ignore[union-attr]
    applied(place, snapshot, new)
    text = git(place, "show", "madlab/run:a.py")
    assert text == LINES.replace(b"line 7\n", b"seven\n")
    assert "untracked" not in said(place, "ls-tree", "--name-only", "madlab/run")


@pytest.mark.parametrize(
    ("at_head", "old", "new", "why"),
    [
        ({"a.py": LINES.replace(b"line 7\n", b"7\n")}, OLD, NEW, "in the same place"),
        (
            {"a.py": LINES.replace(b"line 7\n", b"7\n")},
            OLD,
            {k: v for k, v in OLD.items() if k != "a.py"},
            "deletes it",
        ),
        ({}, {**OLD, "n": b"1\n"}, {**OLD, "n": b"2\n"}, "is not in HEAD's commit"),
        ({"n": b"1\n"}, OLD, {**OLD, "n": b"2\n"}, "with other content"),
        ({"n/a": b"1\n"}, OLD, {**OLD, "n": b"2\n"}, "is a directory at HEAD"),
        ({"n": b"1\n"}, OLD, {**OLD, "n/a": b"2\n"}, "lies below 'n'"),
        ({"b": b"\0c"}, {**OLD, "b": b"\0a"}, {**OLD, "b": b"\0b"}, "cannot be merged"),
        ({"k": Link("z")}, {**OLD, "k": b"a\n"}, {**OLD, "k": b"b\n"}, "is a link"),
        (
            {"b": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"},
            {**OLD, "b": b"\0a"},
            {**OLD, "b": b"\0b"},
            "git-lfs",
        ),
    ],
)
def test_what_does_not_fit_is_told_by_file(tmp_path: Path, at_head: Tree, old: Tree, new: Tree, why: str) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    commit(place, at_head)
    before = fingerprint(place)
    found = planned(place, old, new).conflicts
    assert len(found) == 1
    assert why in found[0].why
    assert fingerprint(place) == before


def test_line_ends_that_the_repository_keeps_otherwise_are_kept(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", {"a": b"1\n2\n3\n"})
    applied(place, {"a": b"1\r\n2\r\n3\r\n"}, {"a": b"1\r\nzwei\r\n3\r\n"})
    assert git(place, "show", "madlab/run:a") == b"1\nzwei\n3\n"


def test_a_mode_that_the_run_did_not_change_is_heads(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", {"a": Script(b"1\n"), "b": b"1\n"})
    applied(place, {"a": b"1\n", "b": b"1\n"}, {"a": b"2\n", "b": Script(b"1\n")})
    assert said(place, "ls-tree", "madlab/run", "--format=%(objectmode) %(path)") == "100755 a\n100755 b"


def test_directories_and_files_change_places(tmp_path: Path) -> None:
    old: Tree = {"a/b/c": b"1\n", "a/d": b"2\n", "f": b"3\n"}
    new: Tree = {"a": b"now a file\n", "f/g/h": b"4\n"}
    place = a_repository(tmp_path / "repo", old)
    applied(place, old, new)
    assert said(place, "rev-parse", "madlab/run^{tree}") == tree_of(tmp_path, new)


def test_the_last_file_of_a_directory_takes_it_along(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    new = {path: content for path, content in OLD.items() if not path.startswith("d/")}
    applied(place, OLD, new)
    assert said(place, "rev-parse", "madlab/run^{tree}") == tree_of(tmp_path, new)
    applied(place, OLD, {}, branch="empty")
    assert said(place, "rev-parse", "empty^{tree}") == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_a_run_of_one_directory_is_put_below_it(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", {"sub/a": b"1\n", "a": b"other\n"})
    applied(place, {"a": b"1\n"}, {"a": b"2\n", "b": b"3\n"}, below="sub")
    assert git(place, "show", "madlab/run:sub/a") == b"2\n"
    assert git(place, "show", "madlab/run:a") == b"other\n"


def test_worktrees_packs_bare_and_detached_repositories(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    git(place, "gc", "-q")
    git(place, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    side = commit(tmp_path / "tree", {"side": b"x\n"})
    applied(tmp_path / "tree" / "d", OLD, NEW)
    assert said(place, "rev-parse", "madlab/run^") == side
    git(place, "checkout", "-q", "--detach")
    applied(place, OLD, NEW, branch="detached")
    git(tmp_path, "clone", "-q", "--bare", str(place), "bare")
    applied(tmp_path / "bare", OLD, NEW, branch="in/bare")
    git(tmp_path, "clone", "-q", "--shared", str(place), "shared")
    applied(tmp_path / "shared", OLD, NEW)
    for each in (place, tmp_path / "bare", tmp_path / "shared"):
        git(each, "fsck", "--strict")


def test_a_submodule_at_head_is_left_alone(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    git(place, "update-index", "--add", "--cacheinfo", f"160000,{said(place, 'rev-parse', 'HEAD')},sub")
    git(place, "commit", "-qm", "sub")
    assert "is a submodule" in planned(place, {"sub": b"1"}, {"sub": b"2"}).conflicts[0].why
    assert "lies below 'sub'" in planned(place, {}, {"sub/x": b"2"}).conflicts[0].why
    applied(place, OLD, NEW)
    assert "160000 sub" in said(place, "ls-tree", "madlab/run", "--format=%(objectmode) %(path)")


def test_what_is_no_repository_or_another_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="is not in a git repository"):
        Repository.find(tmp_path)
    with pytest.raises(NotFound):
        Repository.find(tmp_path / "missing")
    git(tmp_path, "init", "-q", "--object-format=sha256", "sha256")
    with pytest.raises(Conflict, match="SHA-256"):
        Repository.find(tmp_path / "sha256")
    git(tmp_path, "init", "-q", "new")
    with pytest.raises(Conflict, match="has no commit yet"):
        Repository.find(tmp_path / "new").head()
    for number, extension in enumerate(("refstorage = reftable", "refStorage=reftable # x", "partialThing = true")):
        odd = f"odd{number}"
        git(tmp_path, "init", "-q", odd)
        (tmp_path / odd / ".git/config").write_text(f"[core]\nrepositoryformatversion = 1\n[Extensions]\n{extension}\n")
        with pytest.raises(Conflict, match="not supported"):
            Repository.find(tmp_path / odd)
    place = a_repository(tmp_path / "repo", OLD)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no git on this machine"):
        planned(place, OLD, NEW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_repository_above_that_somebody_else_owns_does_not_count(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    assert Repository.find(place / "d").place == place
    os.chown(place / ".git", 12345, 12345)
    with pytest.raises(NotFound):
        Repository.find(place / "d")
    assert Repository.find(place).place == place


def test_replaced_and_grafted_objects_do_not_count(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    head = said(place, "rev-parse", "HEAD")
    other = commit(place, {"a.py": b"other\n"})
    git(place, "reset", "-q", "--hard", head)
    git(place, "replace", head, other)
    applied(place, OLD, NEW)
    assert said(place, "--no-replace-objects", "rev-parse", "madlab/run^{tree}") == tree_of(tmp_path, NEW)


def test_a_damaged_repository_is_told_and_left(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    root = said(place, "rev-parse", "HEAD^{tree}")
    (place / ".git/objects" / root[:2] / root[2:]).unlink()
    with pytest.raises(Conflict, match="has no tree"):
        planned(place, OLD, NEW)


@pytest.mark.parametrize("way", ["madlab", "madlab/run/x"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_branch_in_the_way_is_told(tmp_path: Path, way: str, packed: bool) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    git(place, "branch", way)
    if packed:
        git(place, "pack-refs", "--all")
    with pytest.raises(Conflict, match="in the way"):
        applied(place, OLD, NEW)
    assert said(place, "branch", "--list", "madlab/run") == ""


def test_a_lock_of_somebody_else_is_respected_and_one_of_ours_is_taken_over(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    (place / ".git/refs/heads/madlab").mkdir()
    lock = place / ".git/refs/heads/madlab/run.lock"
    lock.write_bytes(b"")
    with pytest.raises(Conflict, match="another program is making the branch"):
        applied(place, OLD, NEW)
    lock.unlink()
    id = applied(place, OLD, NEW)
    git(place, "branch", "-qD", "madlab/run")
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(f"{id}\n")
    assert applied(place, OLD, NEW) == id
    assert not lock.exists()
    assert said(place, "rev-parse", "madlab/run") == id


def test_a_link_among_the_refs_is_not_followed(tmp_path: Path) -> None:
    place = a_repository(tmp_path / "repo", OLD)
    (tmp_path / "elsewhere").mkdir()
    (place / ".git/refs/heads/madlab").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict, match="in the way"):
        applied(place, OLD, NEW)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_names_of_branches_are_gits_own(tmp_path: Path) -> None:
    for each in ["a", "a/b", "a.b", "a@b", "ü", "a-", "1", "madlab/x-01a2", "a.lockx", "@a", "{a}"]:
        check_branch(each)
        git(tmp_path, "check-ref-format", f"refs/heads/{each}")
    bad = ["a.", "a..b", "a~", "a^", "a:b", "a?", "a*", "a[", "/a", "a/", "a//b", ".a", "a/.b", "a\\", "a.lock"]
    bad += ["a.lock/b", "a@{b", "a\x7f", "\x01"]
    for each in [*bad, "a b", ""]:
        with pytest.raises(InvalidArgument):
            check_branch(each)
        with pytest.raises(AssertionError):
            git(tmp_path, "check-ref-format", f"refs/heads/{each}")
    for each in ("@", "-a", "HEAD"):  # fine as refs, but not as branches
        with pytest.raises(InvalidArgument):
            check_branch(each)


def test_a_large_change_goes_in_whole(tmp_path: Path) -> None:
    old: Tree = {f"d{each % 20}/f{each}": b"%d\n" % each for each in range(600)}
    place = a_repository(tmp_path / "repo", old)
    new: Tree = {path: b"x" + content for path, content in old.items()}  # type: ignore[operator]
    applied(place, old, new)
    write_tree(place, new)
    git(place, "add", "-A")
    assert said(place, "write-tree") == said(place, "rev-parse", "madlab/run^{tree}")
