"""JSON that everybody can read again, and JSON that only seems so."""

import json

import pytest

from core.strict import DEPTH, strict_json


@pytest.mark.parametrize("text", ["{}", "[]", '{"a": [1, 2.5, "é", null, true]}', "1e308", '"\\ud83d\\ude00"', "[[]]"])
def test_plain_json_comes_through(text: str) -> None:
    assert strict_json(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", '{"a": Infinity}', "-Infinity", "1e999", '"\\ud800"', '{"\\udc00": 1}', "[" * 100_000, "9" * 5000],
)
def test_what_others_could_not_read_is_none(text: str) -> None:
    assert strict_json(text) is None


def test_only_so_deep() -> None:
    assert strict_json("[" * DEPTH + "]" * DEPTH) is not None
    assert strict_json("[" * (DEPTH + 1) + "]" * (DEPTH + 1)) is None
    assert strict_json('{"a":' * (DEPTH + 1) + "1" + "}" * (DEPTH + 1)) is None
