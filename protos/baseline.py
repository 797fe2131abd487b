"""A baseline: findings of a scan that a person has looked at and accepts, for a while.

It is JSON that the operator hands in beside what is scanned:

    {"version": 1, "accepted": [
      {"id": "mcn-0123456789abcdef", "reason": "fixture of a test", "who": "ada", "until": "2027-03-31"}]}

Each entry says why, who and until when; from the day after `until` (UTC) the finding counts again. Whoever hands one in
and whoever heeds it read it by this one rule, so that a slip is told before anything is begun.
"""

import json
from dataclasses import dataclass
from datetime import date

from protos.errors import InvalidArgument

FIELDS = {"id", "reason", "who", "until"}
FORM = 'It is {"version": 1, "accepted": [{"id", "reason", "who", "until": "YYYY-MM-DD"}]}.'


@dataclass(frozen=True)
class Accepted:
    """One finding a person accepts."""

    id: str
    reason: str
    who: str
    until: date  # the last day it holds


def read(text: str) -> list[Accepted]:
    """The entries of a baseline.

    Raises:
        InvalidArgument: it is no baseline, or an entry lacks a reason, a name or a date.
    """
    try:
        return _entries(json.loads(text))
    except RecursionError:
        raise InvalidArgument("The baseline cannot be read: it is nested too deeply.", next=FORM) from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"The baseline cannot be read: it is no JSON ({error}).", next=FORM) from None
    except ValueError as error:
        raise InvalidArgument(f"The baseline cannot be read: {error}.", next=FORM) from None


def _entries(whole: object) -> list[Accepted]:
    if not isinstance(whole, dict):
        raise ValueError("it is no object")
    if "accepted" not in whole and "findings" in whole:
        raise ValueError("it is a scan's report, and lists what was found, not what is accepted")
    entries = whole.get("accepted")
    if not isinstance(entries, list):
        raise ValueError("it has no list `accepted`")
    if whole.get("version") != 1:
        raise ValueError("its `version` is not 1")
    return [_entry(number, each) for number, each in enumerate(entries, 1)]


def _entry(number: int, value: object) -> Accepted:
    if not isinstance(value, dict):
        raise ValueError(f"entry {number} is no object")
    if set(value) != FIELDS or not all(isinstance(each, str) and each.strip() for each in value.values()):
        raise ValueError(f"entry {number} needs exactly {', '.join(sorted(FIELDS))}, none empty")
    try:
        until = date.fromisoformat(value["until"])
    except ValueError:
        raise ValueError(f"entry {number} holds until {value['until'][:40]!r}, which is no date") from None
    return Accepted(value["id"], value["reason"], value["who"], until)
