"""What reaches a terminal: data as it is, and nothing that drives it."""

import pytest

from core.grace.cli.screen import plain, size, span


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800", "\\ud800"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("Zürich → 東京", "Zürich → 東京"),
    ],
)
def test_what_drives_a_terminal_is_shown_as_text(said: str, shown: str) -> None:
    assert plain(said) == shown


def test_lines_stay_lines_where_there_may_be_several() -> None:
    assert plain("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_sizes_and_spans_read_as_people_say_them() -> None:
    assert [size(each) for each in (0, 999, 1000, 123_456_789, 5e15)] == ["0 B", "999 B", "1.0 kB", "123 MB", "5000 TB"]
    assert [span(each) for each in (None, 0.25, 59.6, 61, 3600, 90_061)] == [
        "-",
        "0.2 s",
        "1 min",
        "1 min 1 s",
        "1 h",
        "1 d 1 h",
    ]
