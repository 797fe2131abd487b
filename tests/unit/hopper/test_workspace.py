"""A tree that comes in, is worked on, and what of it is found to have changed."""

import os
from pathlib import Path

import pytest

from periphery.hopper.workspace import Workspace
from protos.tree import TreeRefused, members
from tests.unit.mcnamara.lab import packed, write

TREE = {"a.py": "one\n", "dir/b.py": "two\n", "dir/run.sh": "#!/bin/sh\n", "c ü.txt": "three\n"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    source = write(tmp_path / "source", TREE)
    (source / "dir/run.sh").chmod(0o755)
    (source / "link").symlink_to("a.py")
    made = Workspace(tmp_path / "repo")
    assert made.fill([packed(source)]) == 5
    return made


def out(workspace: Workspace) -> dict[str, bytes]:
    changes = workspace.changes()
    stream = workspace.packed(changes.written, lambda note: None)
    return {each.name: b"".join(each.chunks) for each in members(stream)}


def test_what_is_only_touched_is_not_changed(workspace: Workspace) -> None:
    assert not workspace.changes()
    os.utime(workspace.root / "a.py")
    (workspace.root / "dir/b.py").write_text("two\n")
    os.replace(workspace.root / "c ü.txt", workspace.root / "x")
    os.replace(workspace.root / "x", workspace.root / "c ü.txt")
    assert not workspace.changes()


def test_a_change_of_the_same_size_is_seen_although_the_time_is_set_back(workspace: Workspace) -> None:
    status = (workspace.root / "a.py").stat()
    (workspace.root / "a.py").write_text("eno\n")
    os.utime(workspace.root / "a.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert workspace.changes().modified == ["a.py"]
    assert out(workspace) == {"a.py": b"eno\n"}


def test_modes_links_and_kinds_are_changes(workspace: Workspace) -> None:
    root = workspace.root
    (root / "a.py").chmod(0o755)
    (root / "link").unlink()
    (root / "link").symlink_to("dir/b.py")
    (root / "dir/run.sh").unlink()
    (root / "dir/run.sh").mkdir()
    (root / "dir/run.sh/inner").write_text("x")
    found = workspace.changes()
    assert (found.modified, found.added, found.deleted) == (["a.py", "link"], ["dir/run.sh/inner"], ["dir/run.sh"])


def test_earlier_changes_are_laid_over_whatever_is_in_their_way(workspace: Workspace, tmp_path: Path) -> None:
    over = write(tmp_path / "over", {"a.py/inside": "dir where a file was\n", "dir": "file where a dir was\n"})
    workspace.remove(["c ü.txt", "none", "dir/none/deeper"])
    workspace.lay([packed(over)])
    found = workspace.changes()
    assert found.added == ["a.py/inside", "dir"]
    assert found.deleted == ["a.py", "c ü.txt", "dir/b.py", "dir/run.sh"]


def test_removing_goes_through_no_link_and_out_of_no_tree(workspace: Workspace, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"kept": "x"})
    (workspace.root / "way").symlink_to(outside)
    workspace.remove(["way/kept", ".git/config"])
    with pytest.raises(TreeRefused):
        workspace.remove(["../outside/kept"])
    assert (outside / "kept").exists()


def test_what_was_closed_is_opened_and_what_cannot_travel_stays_behind(workspace: Workspace) -> None:
    root = workspace.root
    (root / "a.py").unlink()
    os.mkfifo(root / "a.py")
    (root / "c ü.txt").unlink()
    (root / "c ü.txt").symlink_to("/etc/passwd")
    (root / "two\nlines").write_text("x")
    (root / "dir/b.py").write_text("secret\n")
    (root / "dir/b.py").chmod(0)
    (root / "dir").chmod(0)
    found = workspace.changes()
    assert (found.modified, found.added, found.deleted) == (["dir/b.py"], [], ["a.py", "c ü.txt"])
    assert found.left_out == {"neither files nor links": 1, "names or links that no tree may have": 2}
    assert out(workspace) == {"dir/b.py": b"secret\n"}


def test_a_repository_inside_is_neither_taken_nor_given(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": "x", ".git/config": "evil", "sub/.GIT": "gitdir: x", "sub/b": "y"})
    workspace = Workspace(tmp_path / "repo")
    assert workspace.fill([packed(source)]) == 2
    write(workspace.root, {".git/HEAD": "x", "sub/.git/HEAD": "x"})
    assert not workspace.changes()


def test_a_stream_that_breaks_off_is_refused(tmp_path: Path) -> None:
    content = packed(write(tmp_path / "source", TREE))
    with pytest.raises(TreeRefused):
        Workspace(tmp_path / "repo").fill([content[:700]])
