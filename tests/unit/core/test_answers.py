"""Whatever a worker answers, the foreman goes on with something of a known shape."""

import json
from typing import Any

import pytest

from core.coding.answers import claimed, ended, fitting, parsed, result_of_test, worked
from core.run import Outcome
from protos.v1.message_pb2 import KIND_FAULT, Message

ODD: tuple[Any, ...] = ({}, {"tests_after": []}, {"commands": 3}, {"commands": [1, {"command": []}]}, {"steps": "x"})


@pytest.mark.parametrize("text", ["[", "[]", "null", "NaN", '"x"', "[" * 5000])
def test_what_is_no_object_is_nothing(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("value", ODD)
def test_work_of_any_shape_comes_out_with_every_field(value: dict[str, Any]) -> None:
    found = worked(value)
    assert found["tests_after"] is None
    assert isinstance(found["summary"], str)
    assert json.dumps(found)


@pytest.mark.parametrize("value", [None, [], {}, {"found": 1}, {"found": "yes", "passed": True}])
def test_a_test_result_without_its_word_is_none(value: object) -> None:
    assert result_of_test(value) is None


def test_counts_are_numbers() -> None:
    found = result_of_test({"found": True, "passed": True, "counts": {"passed": "x", "failed": 2}})
    assert found is not None
    assert found["counts"] == {"passed": 0, "failed": 2, "errors": 0, "skipped": 0}


def test_what_only_the_core_can_say_is_believed_from_the_core_only() -> None:
    assert claimed({"outcome": "stuck"}) is Outcome.STUCK
    assert claimed({"outcome": "lost"}) is Outcome.FAILED
    fault = Message(kind=KIND_FAULT, data='{"code": "timed_out"}')
    assert ended(fault) is Outcome.FAILED
    fault.sender = "core"
    assert ended(fault) is Outcome.TIMED_OUT
    fault.data = "["
    assert ended(fault) is Outcome.FAILED


def test_notes_give_way_where_a_question_is_too_long() -> None:
    text = fitting({"goal": "g" * 1000, "notes": "\x01" * 8000}, 16_000)
    assert len(text.encode()) <= 16_000
    assert json.loads(text)["goal"] == "g" * 1000
