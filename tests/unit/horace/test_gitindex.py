import pytest

from core.horace.gitindex import IndexUnreadable, Tracked, parse_index
from protos.tree import Caps


def index_of_growing_names(count: int, added: int) -> bytes:
    """Version 4: each name is the one before and `added` more bytes."""
    entry = bytes(60) + b"\0\0" + b"\0" + b"x" * added + b"\0"
    return b"DIRC" + (4).to_bytes(4, "big") + count.to_bytes(4, "big") + entry * count + bytes(20)


def test_names_that_share_their_beginnings_are_put_together() -> None:
    found = parse_index(index_of_growing_names(3, 2), Caps())
    assert all(b"x" * each in found for each in (2, 4, 6))
    assert b"x" not in found


def test_a_small_index_that_stands_for_gigabytes_of_names_is_not_read() -> None:
    content = index_of_growing_names(20_000, 1)
    assert len(content) < 2_000_000
    with pytest.raises(IndexUnreadable, match="too long"):
        parse_index(content, Caps())


def test_more_entries_than_any_tree_may_have_are_not_read() -> None:
    with pytest.raises(IndexUnreadable, match="lists 4,294,967,295 files"):
        parse_index(b"DIRC" + (2).to_bytes(4, "big") + b"\xff" * 4 + bytes(40), Caps())


def test_what_lies_below_a_directory_is_found_by_its_whole_name() -> None:
    tracked = Tracked([b"ab/c", b"a-b", b"a/b/c"])
    assert [each for each in (b"a", b"a/b", b"ab", b"b", b"a/", b"a/b/c") if tracked.below(each)] == [
        b"a",
        b"a/b",
        b"ab",
    ]
