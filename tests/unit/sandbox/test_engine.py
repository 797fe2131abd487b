"""What is told of how a program ended."""

from ast import literal_eval

import pytest

from sandbox.engine import LAST_WORDS, Exit


@pytest.mark.parametrize(
    "noise", ["", "x" * 5000, "\x1b[31m\n" * 900, "🙂\x00" * 700], ids=["none", "long", "escapes", "wide"]
)
def test_the_last_words_end_with_what_went_wrong_and_are_no_longer_than_allowed(noise: str) -> None:
    for most in (LAST_WORDS, 40):
        words = Exit(1, "exited", f"{noise}\nValueError: no weights\n").last_words(most)
        assert len(words) <= most
        assert literal_eval(words).endswith("\nValueError: no weights" if noise else "ValueError: no weights")


def test_a_program_that_wrote_nothing_has_no_last_words() -> None:
    assert Exit(0, "exited", " \n").last_words() == ""
