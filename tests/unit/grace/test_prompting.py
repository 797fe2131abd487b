"""What a person asks a model, before anything is sent."""

import io
import sys

import pytest

from core.grace.cli.prompting import words_of
from protos.errors import InvalidArgument


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"], ids=["in a locale", "in none"])
@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "the prompt is empty"), (b" \n", "empty"), (b"caf\xe9", "no text in UTF-8")]
)
def test_nothing_and_what_is_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, errors: str, content: bytes, sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors=errors))
    with pytest.raises(InvalidArgument, match=sentence):
        words_of("-", "the prompt")


def test_a_dash_reads_stdin_and_words_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(" Is it?\n"))
    assert words_of("-", "the prompt") == " Is it?\n"
    assert words_of("Is it?", "the prompt") == "Is it?"
