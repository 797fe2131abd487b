"""What a run that had to stop is told to go on with: the flag of the limit that it came to, as the core tells of it."""

from typing import Any

import pytest

from core.fiedler.escrow import Account, Escrow
from core.fiedler.money import Amount
from core.grace.cli.limits import going_on


def shortage(account: Account, amount: Amount) -> str:
    escrow = Escrow()
    escrow.accounts[account.name] = account
    short = escrow.shortage(account.name, amount)
    assert short is not None
    return short.message


def told(reason: str, outcome: str = "out_of_budget", **terms: float) -> str:
    messages: list[dict[str, Any]] = [{"terms": terms}, {"terms": {}}]
    return going_on({"id": "foreman-1", "outcome": outcome, "reason": reason, "messages": messages})


def test_the_limit_that_was_met_is_named_and_so_is_its_flag() -> None:
    no_tokens = shortage(Account("run:a", cap_tokens=0), Amount(tokens=1000, usd=10**9))
    said = told(no_tokens, tokens=0)
    assert said.startswith("It ran out of its tokens (--max-tokens 0). ")
    assert said.endswith("madlab resume foreman-1 --max-tokens N")
    no_money = shortage(Account("run:a", cap_usd=0), Amount(tokens=1000, usd=10**9))
    assert told(no_money).endswith("madlab resume foreman-1 --budget USD")
    neither = shortage(Account("run:a", cap_usd=5, cap_tokens=9), Amount(tokens=1000, usd=10**9))
    assert told(neither, usd=1.5).startswith("It ran out of its money (--budget 1.5) and its tokens. ")
    assert told(neither).endswith(" --budget USD --max-tokens N")


@pytest.mark.parametrize("reason", ["Its time is used up. It needs more time.", "It was not done after 90 s."])
def test_time_is_raised_by_time(reason: str) -> None:
    assert told(reason, "timed_out", seconds=90.0).startswith("It ran out of its time (--time 90s). ")
    assert told(reason, "timed_out").endswith("madlab resume foreman-1 --time 20m")


def test_what_no_flag_raises_is_not_told_to_be_raised_by_one() -> None:
    day = shortage(Account("day:2026-11-22", cap_usd=0), Amount(usd=10**9))
    assert "[llm] of madlab.toml" in told(day)
    assert told(day).endswith("madlab resume foreman-1")
    assert told("The same again.", "stuck") == "Its work is kept. Go on with: madlab resume foreman-1"
