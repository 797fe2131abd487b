"""Two changes made into one: where they agree, where they do not, and that no side is ever dropped."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.coding.merge import Handed, Merged, merge_text, open_merge
from core.coding.patch import render
from protos.tar import read
from protos.treerules import Caps
from tests.unit.coding.trees import Link, Script, Tree, changed, tar_of

LINES = b"".join(b"line %d\n" % number for number in range(30))
TREE: Tree = {"a": LINES, "b": b"b\n", "c": b"\0c", "d/e": b"e\n"}


@contextmanager
def merged(ours: Tree, theirs: Tree, base: Tree = TREE) -> Iterator[Merged]:
    with open_merge(lambda: tar_of(base), Handed(*changed(base, ours)), Handed(*changed(base, theirs))) as found:
        yield found


def outcome(ours: Tree, theirs: Tree, base: Tree = TREE) -> dict[str, bytes | str | None]:
    """What each file comes to: its content, None where it goes, "conflict" where it is one."""
    with merged(ours, theirs, base) as found:
        names: dict[str, bytes | str | None] = {}
        for member in read(found.changes.pack(), Caps()):
            names[member.name] = b"".join(member.chunks) or member.target
        names |= dict.fromkeys(found.changes.deleted)
        assert not names.keys() & {each.path for each in found.conflicts}
        return names | {each.path: "conflict" for each in found.conflicts}


def test_changes_of_different_files_and_different_lines_come_together() -> None:
    ours = {**TREE, "a": LINES.replace(b"line 3\n", b"three\n"), "new": b"1\n"}
    theirs = {**TREE, "a": LINES.replace(b"line 20\n", b"twenty\n"), "b": b"B\n"}
    del theirs["d/e"]
    text = LINES.replace(b"line 3\n", b"three\n").replace(b"line 20\n", b"twenty\n")
    assert outcome(ours, theirs) == {"a": text, "b": b"B\n", "new": b"1\n", "d/e": None}
    assert outcome(theirs, ours) == outcome(ours, theirs)


def test_the_merged_change_is_a_patch_like_any_other() -> None:
    with merged({**TREE, "b": b"B\n"}, {**TREE, "b": b"B\n", "n": b"-----BEGIN PRIVATE KEY-----\n"}) as found:
        patch = render(found.changes)
    assert [(each.path, each.kind) for each in patch.files] == [("b", "modified"), ("n", "added")]
    assert b"-b\n+B\n" in patch.diff
    assert len(patch.secrets) == 1


def test_the_same_change_twice_is_one() -> None:
    both = {**TREE, "a": b"same\n", "n": b"n\n", "c": b"\0new"}
    del both["b"]
    assert outcome(both, both) == {"a": b"same\n", "n": b"n\n", "c": b"\0new", "b": None}


def test_a_mode_and_a_content_come_together() -> None:
    with merged({**TREE, "b": Script(b"b\n")}, {**TREE, "b": b"B\n"}) as found:
        assert found.conflicts == []
        new = found.changes.pairs["b"].new
        assert new is not None
        assert (new.mode, found.changes.read(new)) == (0o100755, b"B\n")


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ({"a": LINES.replace(b"line 3\n", b"x\n")}, {"a": LINES.replace(b"line 3\n", b"y\n")}, "in the same place"),
        ({"a": LINES.replace(b"line 3\n", b"x\n")}, {"a": None}, "deleted by one side"),
        ({"b": None}, {"b": b"x\n"}, "deleted by one side"),
        ({"n": b"1\n"}, {"n": b"2\n"}, "added by both sides"),
        ({"c": b"\0x"}, {"c": b"\0y"}, "is no text"),
        ({"n": Link("a")}, {"n": b"2\n"}, "is no text"),
    ],
)
def test_a_conflict_is_shown_and_neither_side_is_taken(
    ours: dict[str, bytes | None], theirs: dict[str, bytes | None], why: str
) -> None:
    mine, yours = (
        {path: each for path, each in {**TREE, **side}.items() if each is not None} for side in (ours, theirs)
    )
    with merged(mine, yours) as found:
        (conflict,) = found.conflicts
        assert why in conflict.why
        assert found.changes.pairs == {}
        if conflict.text:
            marks = [line for line in conflict.text.split(b"\n") if line[:7] in (b"<<<<<<<", b"=======", b">>>>>>>")]
            assert marks == [b"<<<<<<< ours", b"=======", b">>>>>>> theirs"]
            assert b"x\n" in conflict.text or b"1\n" in conflict.text
            assert b"y\n" in conflict.text or b"2\n" in conflict.text


def test_a_file_where_the_other_side_has_a_directory_is_a_conflict() -> None:
    assert outcome({**TREE, "n": b"1\n"}, {**TREE, "n/m": b"2\n"}) == {"n": "conflict", "n/m": "conflict"}


def test_what_is_refused_of_either_side_is_left_out_and_told() -> None:
    with open_merge(lambda: tar_of(TREE), Handed(tar_of({".git/config": b""}), []), Handed(tar_of({}), ["b"])) as found:
        assert [each.path for each in found.changes.refused] == [".git/config"]
        assert found.changes.deleted == ["b"]


def test_text_merges_as_it_should_whatever_the_lines() -> None:
    dice = random.Random(11)
    for _ in range(400):
        base = [b"%d\n" % dice.randrange(6) for _ in range(dice.randrange(12))]
        ours, theirs = list(base), list(base)
        for side in (ours, theirs):
            for _ in range(dice.randrange(3)):
                at = dice.randrange(len(side) + 1)
                side[at : at + dice.randrange(3)] = [b"n%d\n" % dice.randrange(3) for _ in range(dice.randrange(3))]
        old, left, right = b"".join(base), b"".join(ours), b"".join(theirs)
        assert merge_text(old, left, old, ("o", "t")) == (left, 0)
        assert merge_text(old, old, right, ("o", "t")) == (right, 0)
        assert merge_text(old, left, left, ("o", "t")) == (left, 0)
        there, one = merge_text(old, left, right, ("o", "t"))
        back, two = merge_text(old, right, left, ("o", "t"))
        assert one == two
        assert one or there == back
        new = {line for line in [*ours, *theirs] if line.startswith(b"n")}
        assert new <= set(there.splitlines(keepends=True))  # what either side added is there


def test_an_end_without_a_newline_is_no_trouble() -> None:
    assert merge_text(b"a\nb", b"A\nb", b"a\nB", ("o", "t"))[1] == 1
    assert merge_text(b"a\n1\n2\n3\nb", b"A\n1\n2\n3\nb", b"a\n1\n2\n3\nB", ("o", "t")) == (b"A\n1\n2\n3\nB", 0)
