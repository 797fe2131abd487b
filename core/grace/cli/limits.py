"""Which limit a run came to, and how one goes on behind it. The core's own sentence, its reason, says which."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DAY = re.compile(r"The budget of day:")


@dataclass(frozen=True)
class _Limit:
    name: str
    sign: re.Pattern[str]  # in the reason of a run that came to it
    term: str  # of the message that asked for the run
    flag: str
    takes: str


LIMITS = (
    _Limit("its money", re.compile(r"\$[\d.]+ more \("), "usd", "--budget", "USD"),
    _Limit("its tokens", re.compile(r"\d tokens more \("), "tokens", "--max-tokens", "N"),
    _Limit("its time", re.compile(r"needs more time|^It was not done after"), "seconds", "--time", "20m"),
)


def going_on(run: Mapping[str, Any]) -> str:
    """What a run ran out of, and the command that goes on with it."""
    reason = str(run["reason"])
    terms: Mapping[str, Any] = next((each["terms"] for each in run["messages"] if each["terms"]), {})
    if DAY.search(reason):
        what = "The lab's budget of this day is spent: raise it in [llm] of madlab.toml, or wait for tomorrow"
        return f"{what}. Its work is kept. Go on with: madlab resume {run['id']}"
    met = [each for each in LIMITS if each.sign.search(reason)]
    ran_out = " and ".join(each.name + _given(terms.get(each.term), each) for each in met)
    flags = "".join(f" {each.flag} {each.takes}" for each in met)
    why = f"It ran out of {ran_out}. " if met else ""
    return f"{why}Its work is kept. Go on with: madlab resume {run['id']}{flags}"


def _given(term: float | None, limit: _Limit) -> str:
    if term is None:
        return ""
    return f" ({limit.flag} {f'{term:g}s' if limit.term == 'seconds' else f'{term:g}'})"
