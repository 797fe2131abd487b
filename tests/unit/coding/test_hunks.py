"""A diff as a page reads it: against the patches that the core writes, and against what somebody would smuggle in."""

from core.coding.hunks import LINES, compared, read_diff
from core.coding.patch import compute
from tests.unit.coding.trees import Link, Script, Tree, changed, tar_of

OLD: Tree = {
    "a.py": b"one = 1\ntwo = 2\nthree = 3\n",
    "run": b"#!/bin/sh\n",
    "gone": b"bye\n",
    "l": Link("a.py"),
    "b": b"\0old",
}
NEW: Tree = {
    "a.py": b"one = 1\ntwo = 22\nthree = 3",
    "run": Script(b"#!/bin/sh\n"),
    "l": b"no link\n",
    "b": b"\0new",
    'd/"quoted" ü': b"diff --git a/x b/x\n@@ -1 +1 @@\n--- a\n",
}


def patch(old: Tree, new: Tree) -> bytes:
    return compute(tar_of(old), *changed(old, new)).diff


def test_every_kind_of_change_is_told_apart() -> None:
    files = read_diff(patch(OLD, NEW))
    assert [(each.path, each.kind, each.binary) for each in files] == [
        ("a.py", "modified", False),
        ("b", "modified", True),
        ('d/"quoted" ü', "added", False),
        ("gone", "deleted", False),
        ("l", "deleted", False),
        ("l", "added", False),
        ("run", "mode", False),
    ]
    assert (files[-1].old_mode, files[-1].mode) == ("100644", "100755")
    assert (files[4].old_mode, files[5].mode) == ("120000", "100644")


def test_lines_have_the_numbers_of_both_sides_and_say_what_changed_within() -> None:
    (hunk,) = read_diff(patch(OLD, NEW))[0].hunks
    assert [(each.sign, each.old, each.new, each.text, each.ended) for each in hunk.lines] == [
        (" ", 1, 1, "one = 1", True),
        ("-", 2, None, "two = 2", True),
        ("-", 3, None, "three = 3", True),
        ("+", None, 2, "two = 22", True),
        ("+", None, 3, "three = 3", False),
    ]
    assert hunk.lines[1].parts == [("two = ", False), ("2", True)]
    assert hunk.lines[3].parts == [("two = ", False), ("22", True)]


def test_lines_that_look_like_a_diff_are_lines() -> None:
    added = next(each for each in read_diff(patch(OLD, NEW)) if each.path.startswith("d/"))
    assert (added.added, added.removed) == (3, 0)
    assert [each.text for each in added.hunks[0].lines] == ["diff --git a/x b/x", "@@ -1 +1 @@", "--- a"]


def test_secrets_are_covered_and_keys_are_not_shown() -> None:
    secret = b"ghp_" + b"a1B2c3D4e5" * 4
    key = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\nafter\n"
    told = str(read_diff(patch({}, {"s": b"token = '" + secret + b"'\n" + key})))
    assert secret.decode() not in told
    assert "MIIE" not in told
    assert "after" in told


def test_what_is_long_is_cut_and_counted() -> None:
    long = b"".join(b"%d\n" % number for number in range(LINES + 500))
    files = read_diff(patch({}, {"a": long, "b": b"b\n", "c": b"x" * 5000 + b"\n"}))
    assert [(each.added, each.shown, each.cut) for each in files] == [
        (LINES + 500, True, True),
        (1, False, True),
        (1, False, True),
    ]
    (_, _, last) = read_diff(patch({}, {"a": long, "b": b"b\n", "c": b"x" * 5000 + b"\n"}), only=2)
    assert len(last.hunks[0].lines[0].text) == 1001


def test_a_diff_that_breaks_off_ends_there() -> None:
    whole = patch(OLD, NEW)
    for end in range(len(whole)):
        read_diff(whole[:end])


def test_lines_that_have_little_in_common_are_not_compared() -> None:
    assert compared("return a", "raise ValueError(message)") is None
    assert compared("x" * 1000, "x" * 999) is None
