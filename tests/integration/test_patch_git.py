"""The patches that are computed here, against the real git: it takes them, and they make the tree that was meant."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from core.coding.patch import Limits, Patch, compute
from tests.unit.coding.trees import Link, Script, Tree, changed, tar_of

CLEAN = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"], "LC_ALL": "C"}
CLEAN |= {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
LINES = b"".join(b"line %d\n" % number for number in range(200))


def git(place: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=place, input=stdin, env=CLEAN | {"HOME": str(place)}, capture_output=True
    )
    assert done.returncode == 0, (arguments, done.stderr.decode())
    return done.stdout


def write(place: Path, tree: Tree) -> None:
    for path, content in tree.items():
        where = place / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            where.symlink_to(content.target)
        else:
            where.write_bytes(content.content if isinstance(content, Script) else content)
            where.chmod(0o755 if isinstance(content, Script) else 0o644)


def stored(place: Path, tree: Tree) -> str:
    """What git calls a tree."""
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    write(place, tree)
    git(place, "add", "-A", "-f")
    return git(place, "write-tree").decode().strip()


def patch_of(old: Tree, new: Tree, limits: Limits | None = None) -> Patch:
    changes, gone = changed(old, new)
    return compute(tar_of(old), changes, gone, limits)


def check(tmp_path: Path, old: Tree, new: Tree, limits: Limits | None = None) -> Patch:
    patch = patch_of(old, new, limits)
    assert patch.refused == []
    wanted = stored(tmp_path / "new", new)
    before = stored(tmp_path / "old", old)
    if patch.diff:
        git(tmp_path / "old", "apply", "--index", "--whitespace=nowarn", "-", stdin=patch.diff)
    assert git(tmp_path / "old", "write-tree").decode().strip() == wanted
    if patch.diff and limits is None:
        git(tmp_path / "old", "apply", "--index", "--whitespace=nowarn", "-R", "-", stdin=patch.diff)
        assert git(tmp_path / "old", "write-tree").decode().strip() == before
    return patch


CASES: dict[str, tuple[Tree, Tree]] = {
    "one line": ({"a.txt": LINES}, {"a.txt": LINES.replace(b"line 77\n", b"line 77!\n")}),
    "first and last line": ({"a": LINES}, {"a": b"top\n" + LINES[7:-9] + b"end\n"}),
    "no newline at the end, then one": ({"a": b"x\ny"}, {"a": b"x\ny\n"}),
    "a newline at the end, then none": ({"a": b"x\ny\n"}, {"a": b"x\ny"}),
    "no newline on both sides": ({"a": b"x\ny"}, {"a": b"z\ny"}),
    "carriage returns": ({"a": b"x\r\ny\r\nz\r\n"}, {"a": b"x\r\ny\nz\r\n", "b": b"\r\n\r"}),
    "empty files come and go": ({"a": b"", "b": b"x"}, {"b": b"", "c": b""}),
    "a file goes": ({"a": b"x\n", "d/b": LINES}, {"a": b"x\n"}),
    "modes": ({"a": b"x\n", "b": Script(b"y\n")}, {"a": Script(b"x\n"), "b": b"z\n"}),
    "names": (
        {"mit leerzeichen": b"a\n", "grün/日本": b"b\n", 'q"u\\o': b"c\n", "\udcff\udc80": b"d\n"},
        {
            "mit leerzeichen": b"A\n",
            "grün/日本": b"B\n",
            'q"u\\o': b"C\n",
            "\udcff\udc80": b"D\n",
            "neu ü": b"",
            " ": b"e",
        },
    ),
    "a dash that looks like a header": ({"a": b"-- a\n++ b\n"}, {"a": b"++ b\n-- c\n"}),
    "binary": ({"a.bin": bytes(range(256)) * 9, "b.bin": b"\0gone"}, {"a.bin": b"\0" + bytes(range(255)), "c": b"\0"}),
    "text becomes binary": ({"a": LINES}, {"a": LINES + b"\0"}),
    "links": ({"a": b"x\n", "l": Link("a")}, {"a": b"x\n", "l": Link("b"), "m/n": Link("../a")}),
    "a link becomes a file": ({"l": Link("a"), "f": b"x\n"}, {"l": b"x\n", "f": Link("l")}),
    "a file becomes a directory": ({"a": b"x\n"}, {"a/b": b"y\n"}),
    "a directory becomes a file": ({"a/b": b"y\n", "a/c/d": b"z\n"}, {"a": b"x\n"}),
    "many hunks": (
        {"a": LINES},
        {"a": b"".join(each + b"\n" for each in LINES.split(b"\n")[:-1] if each[-1:] != b"5")},
    ),
    "all is new": ({"a": b"a\n" * 1000}, {"a": b"b\n" * 1000}),
    "nothing": ({"a": b"a\n"}, {"a": b"a\n"}),
}


@pytest.mark.parametrize("case", CASES)
def test_git_takes_the_patch_there_and_back(tmp_path: Path, case: str) -> None:
    check(tmp_path, *CASES[case])


def test_text_that_differs_too_widely_for_lines_is_whole_and_what_is_too_big_is_named(tmp_path: Path) -> None:
    limits = Limits(text_bytes=1000, binary_bytes=3000)
    old: Tree = {"a": b"".join(b"%d\n" % each for each in range(500))}
    new: Tree = {"a": b"".join(b"%d\n" % each for each in range(1000, 1500))}
    patch = check(tmp_path, old, new, limits)
    assert patch.files[0].binary
    assert patch.files[0].whole
    assert b"GIT binary patch" in patch.diff
    named = patch_of(old, {"a": bytes(4000)}, limits)
    assert named.diff.endswith(b"Binary files a/a and b/a differ\n")
    assert not named.files[0].whole
    assert patch_of({"a": bytes(4000)}, {}, limits).files[0].whole


def test_random_trees_with_random_edits(tmp_path: Path) -> None:
    dice = random.Random(7)
    for turn in range(25):
        old = {f"d{each % 4}/f {each}": _text(dice) for each in range(12)}
        new = {path: _edited(dice, content) for path, content in old.items() if dice.random() < 0.9}
        new |= {f"new/{each}": _text(dice) for each in range(2)}
        (tmp_path / str(turn)).mkdir()
        check(tmp_path / str(turn), old, new)


def test_the_numbers_are_gits_own(tmp_path: Path) -> None:
    old: Tree = {"a": LINES, "b": b"x\n", "c": b"1\n2\n3\n"}
    new: Tree = {"a": LINES.replace(b"7\n", b"8\n"), "c": b"1\n3\n4", "d": b"a\nb"}
    ours = {each.path: (each.added, each.removed) for each in patch_of(old, new).files}
    stored(tmp_path / "old", old)
    git(tmp_path / "old", "commit", "-qm", "old")
    for each in ("a", "b", "c"):
        (tmp_path / "old" / each).unlink()
    write(tmp_path / "old", new)
    git(tmp_path / "old", "add", "-A")
    told = git(tmp_path / "old", "diff", "--cached", "--numstat", "--no-renames").decode().splitlines()
    theirs = {path: (int(added), int(removed)) for added, removed, path in (each.split("\t") for each in told)}
    assert ours == theirs


def _text(dice: random.Random) -> bytes:
    lines = [b"%d" % dice.randrange(8 if dice.random() < 0.5 else 1000) for _ in range(dice.randrange(60))]
    return b"\n".join(lines) + (b"\n" if dice.random() < 0.8 and lines else b"")


def _edited(dice: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    for _ in range(dice.randrange(6)):
        at = dice.randrange(len(lines) + 1)
        lines[at : at + dice.randrange(4)] = [b"new %d\n" % dice.randrange(9) for _ in range(dice.randrange(4))]
    return b"".join(lines).replace(b"\n\n", b"\n")
