"""What may still be spent, decided in one place, without waiting: accounts, their caps, and what is held.

Before an attempt begins its worst case is *held* in its account and in every account above it; when its cost is known
the hold is *settled*: given back, and the cost spent. A hold is only taken where all caps still hold afterwards. So
however many calls run at once, spent and held together never pass a cap.

This is the core's memory of the journal's "budget" entries (`core.fiedler.ledger` keeps the two alike). There is one
core and one event loop, and nothing here waits: between asking and taking nobody comes in between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.fiedler.money import Amount, dollars
from protos.errors import Exhausted


@dataclass
class Account:
    """Who pays. A cap of None is none."""

    name: str
    parent: str = ""
    cap_tokens: int | None = None
    cap_usd: int | None = None  # picodollars
    spent: Amount = field(default=Amount())
    held: Amount = field(default=Amount())

    def left(self) -> tuple[int | None, int | None]:
        """Tokens and picodollars that are neither spent nor held; None where there is no cap."""
        used = self.spent.plus(self.held)
        tokens = None if self.cap_tokens is None else max(self.cap_tokens - used.tokens, 0)
        usd = None if self.cap_usd is None else max(self.cap_usd - used.usd, 0)
        return tokens, usd


@dataclass(frozen=True)
class Hold:
    """The worst case of one attempt."""

    accounts: Sequence[str]
    amount: Amount


class Escrow:
    """All accounts that are in use."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}

    def lineage(self, name: str) -> Iterator[Account]:
        """An account and those above it."""
        seen: set[str] = set()
        while name and name not in seen:
            seen.add(name)
            account = self.accounts[name]
            yield account
            name = account.parent

    def shortage(self, name: str, amount: Amount) -> Exhausted | None:
        """Why `amount` cannot be held, told with what would be needed; None if it can."""
        for account in self.lineage(name):
            tokens, usd = account.left()
            missing = []
            if usd is not None and amount.usd > usd:
                more, cap = _money(amount.usd - usd), _money(account.cap_usd or 0)
                missing.append(f"{more} more ({_money(usd)} left of {cap})")
            if tokens is not None and amount.tokens > tokens:
                missing.append(f"{amount.tokens - tokens} tokens more ({tokens} left of {account.cap_tokens})")
            if missing:
                return Exhausted(
                    f"The budget of {account.name} does not cover the worst case of this call: it needs"
                    f" {' and '.join(missing)}.",
                    next="Raise the budget, ask for fewer tokens, or use a cheaper model.",
                )
        return None

    def hold(self, attempt: str, name: str, amount: Amount) -> Hold:
        """Sets `amount` aside for an attempt.

        Raises:
            Exhausted: an account cannot cover it; nothing was changed.
        """
        short = self.shortage(name, amount)
        if short is not None:
            raise short
        lineage = list(self.lineage(name))
        for account in lineage:
            account.held = account.held.plus(amount)
        made = self.holds[attempt] = Hold([each.name for each in lineage], amount)
        return made

    def settle(self, attempt: str, cost: Amount) -> None:
        """Gives a hold back and spends what the attempt has cost. Once: a second time changes nothing."""
        hold = self.holds.pop(attempt, None)
        if hold is None:
            return
        for name in hold.accounts:
            account = self.accounts[name]
            account.held = account.held.minus(hold.amount)
            account.spent = account.spent.plus(cost)


def _money(picodollars: int) -> str:
    """Dollars with as many digits as it takes to see them."""
    usd = dollars(picodollars)
    return f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.6f}".rstrip("0").rstrip(".") or "$0"
