"""What a worker answered, brought into shape: it wrote it, so each field is what it should be or its default."""

import json
from collections.abc import Mapping
from typing import Any

from core.coding.evidence import TestResult
from core.run import WORKER_OUTCOMES, Outcome
from core.strict import strict_json
from protos.v1.message_pb2 import Message

COMMANDS = 200
TEXT = 8000  # characters
PATHS = 40  # files of tests with a control
COUNTS = ("passed", "failed", "errors", "skipped")


def parsed(text: str) -> Mapping[str, Any] | None:
    """The JSON object in `text`, or None where there is none."""
    value = strict_json(text)
    return value if isinstance(value, dict) else None


def result_of_test(value: Any) -> TestResult | None:
    """A result of `hopper.test`; None where the worker said nothing of the kind."""
    if not isinstance(value, dict) or not isinstance(value.get("found"), bool):
        return None
    counts, control = value.get("counts"), value.get("control")
    result = {
        "command": _text(value, "command"),
        "detected": value.get("detected") is True,
        "found": value["found"],
        "passed": value.get("passed") is True,
        "exit_code": _number(value, "exit_code"),
        "seconds": float(_number(value, "seconds")),
        "timed_out": value.get("timed_out") is True,
        "tail": _text(value, "tail"),
        "counts": {each: int(_number(counts, each)) for each in COUNTS} if isinstance(counts, dict) else None,
    }
    if isinstance(control, dict):
        result["control"] = {each: _paths(control, each) for each in ("planted", "noticed")}
    return result


def worked(value: Mapping[str, Any]) -> dict[str, Any]:
    """A result of `hopper.work`."""
    texts = {each: _text(value, each) for each in ("reason", "summary", "agent", "model")}
    numbers = {f"{each}_seconds": float(_number(value, f"{each}_seconds")) for each in ("model", "command", "loop")}
    commands = value.get("commands")
    ran = [each for each in commands if isinstance(each, dict)] if isinstance(commands, list) else []
    return {
        **texts,
        **numbers,
        "steps": _number(value, "steps"),
        "small": value.get("small") is True,
        "red_first": value.get("red_first") is True,
        "tests_after": result_of_test(value.get("tests_after")),
        "commands": [
            {
                "command": _text(each, "command"),
                "exit_code": _number(each, "exit_code"),
                "seconds": float(_number(each, "seconds")),
            }
            for each in ran[-COMMANDS:]
        ],
    }


def claimed(value: Mapping[str, Any]) -> Outcome:
    """What a worker says it came to, if that is a worker's to say."""
    said = value.get("outcome")
    return Outcome(said) if said in {str(each) for each in WORKER_OUTCOMES} else Outcome.FAILED


def ended(fault: Message) -> Outcome:
    """How a run ended that gave a fault: by the core's word, and by nobody else's."""
    code = (parsed(fault.data) or {}).get("code") if fault.sender == "core" else None
    return Outcome(code) if code in {str(each) for each in Outcome} else Outcome.FAILED


def fitting(arguments: Mapping[str, Any], most: int) -> str:
    """Arguments as JSON of at most `most` bytes: what is too long is cut from the notes, which are advice."""
    given = dict(arguments)
    while len((text := json.dumps(given, ensure_ascii=False)).encode()) > most and given.get("notes"):
        given["notes"] = given["notes"][: len(given["notes"]) * 3 // 4]
    return text


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found[:TEXT] if isinstance(found, str) else ""


def _paths(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key)
    return [each for each in found[:PATHS] if isinstance(each, str)] if isinstance(found, list) else []


def _number(value: Mapping[str, Any], key: str) -> int | float:
    found = value.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**53 else 0
