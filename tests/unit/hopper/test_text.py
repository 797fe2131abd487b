"""What programs say, made fit to be shown; and what their summaries count."""

import pytest

from periphery.hopper.counts import count
from periphery.hopper.printable import printable, shortened, tail


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("\x1b[31mred\x1b[0m \x1b[1;4mbold", "red bold"),
        ("\x1b]0;a title\x07text \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "text link"),
        (" 10%\r 50%\r100%\ndone\r\n", "100%\ndone\n"),
        ("over\b\b\b\bdone", "done"),
        ("a\x00b\x07c\u202ed\u2066e\ufeff", "abcde"),
        ("\x1bPpayload\x1b\\x\x9b31my", "xy"),
        ("tab\tand ünïcode 字", "tab\tand ünïcode 字"),
        ("never ends \x1b]0;x", "never ends "),
    ],
)
def test_escape_sequences_and_control_characters_are_gone(said: str, seen: str) -> None:
    assert printable(said) == seen


def test_a_long_text_keeps_its_start_and_more_of_its_end() -> None:
    cut = shortened("a" * 500 + "b" * 500, 300)
    assert len(cut) <= 300
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
    assert "characters left out" in cut
    assert shortened("short", 300) == "short"


def test_a_tail_has_whole_lines_and_whole_characters() -> None:
    assert tail("one\ntwo\nthree\n", 9) == "three\n"
    assert tail("ü" * 10, 5) == "üü"
    assert tail("all of it", 100) == "all of it"


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("== 2 failed, 3 passed, 1 skipped, 1 xfailed in 0.12s ==", (3, 2, 0, 2)),
        ("1 passed, 2 errors in 1.20s", (1, 0, 2, 0)),
        ("5 passed, 1 warning in 61.20s (0:01:01)", (5, 0, 0, 0)),
        ("no tests ran in 0.01s", (0, 0, 0, 0)),
        ("Ran 5 tests in 0.001s\n\nFAILED (failures=1, errors=1, skipped=1)", (2, 1, 1, 1)),
        ("Ran 3 tests in 0.000s\n\nOK", (3, 0, 0, 0)),
        ("Ran 2 tests in 0.1s\n\nOK (expected failures=1)", (1, 0, 0, 1)),
        (
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n"
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured",
            (3, 3, 0, 1),
        ),
        (
            "--- PASS: TestA (0.00s)\n    --- PASS: TestA/sub\n--- FAIL: TestB (0.0s)\nFAIL\tx [build failed]",
            (1, 1, 1, 0),
        ),
        ("67% tests passed, 1 tests failed out of 3\n", (2, 1, 0, 0)),
        ("# tests 3\n# pass 2\n# fail 1\n# cancelled 0\n# skipped 0\n# todo 0", (2, 1, 0, 0)),
        ("\u2139 tests 1\n\u2139 pass 1\n\u2139 fail 0\n\u2139 skipped 0", (1, 0, 0, 0)),
        ("Tests:       1 failed, 1 skipped, 4 passed, 6 total", (4, 1, 0, 1)),
        ("      Tests  1 failed | 4 passed (5)", (4, 1, 0, 0)),
        ("  3 passing (12ms)\n  1 pending\n  2 failing\n", (3, 2, 0, 1)),
        ("# TOTAL: 3\n# PASS:  2\n# SKIP:  0\n# XFAIL: 0\n# FAIL:  1\n# XPASS: 0\n# ERROR: 0", (2, 1, 0, 0)),
        ("1..3\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP why", (1, 1, 0, 1)),
    ],
)
def test_a_summary_is_counted(output: str, counts: tuple[int, int, int, int]) -> None:
    found = count(f"noise before\n{output}\n")
    assert found is not None
    assert (found["passed"], found["failed"], found["errors"], found["skipped"]) == counts


def test_what_is_no_summary_is_not_counted() -> None:
    assert count("Everything is fine. 3 passed the exam, ok 1") is None
    assert count("") is None
