"""What a call may cost at worst, and what is charged."""

import random
from decimal import Decimal

from core.fiedler.escrow import Account, Escrow
from core.fiedler.money import Amount, Bound, Price, Used, bound_of, dollars, picodollars, price_of, used_of
from core.fiedler.provider import Reported
from protos.errors import Exhausted
from protos.llm import prompt
from protos.money import total
from protos.v1 import llm_pb2 as pb

BOUND = Bound(input=100, output=50, input_bytes=300)


def test_prices_are_exact() -> None:
    assert price_of(Decimal("3")) == 3_000_000
    assert price_of(Decimal("0.0375")) == 37_500
    assert picodollars(0.1) + picodollars(0.2) == picodollars(0.3)
    price = Price(input=3, output=15, cached=1, cache_write=4)
    assert price.of(Used(input=100, cached=20, cache_write=10, output=5)) == 70 * 3 + 20 * 1 + 10 * 4 + 5 * 15


def test_dollars_are_told_and_added_as_they_are_counted() -> None:
    assert 0.000117 + 0.000117 + 0.000117 != 0.000351, "floats alone add up to something else"
    assert total([0.000117] * 3) == dollars(351_000_000) == 0.000351
    assert total([]) == 0


def test_the_bound_holds_for_any_text() -> None:
    bound = bound_of(prompt("ä🧪" * 100, system="s"), max_tokens=7)
    assert bound.input >= 600
    assert bound.output == 7
    rough = bound_of(prompt("word " * 1000), max_tokens=7, bytes_per_token=2.5)
    assert 2000 <= rough.input < rough.input_bytes


def test_pictures_are_bound_by_their_own_measure() -> None:
    request = prompt("what?")
    without = bound_of(request, max_tokens=1).input
    request.turns[0].parts.add(image=pb.Image(data=b"x" * 100_000, media_type="image/png"))
    assert without + 700 <= bound_of(request, max_tokens=1, image_tokens=700).input < without + 1000


def test_what_was_told_counts() -> None:
    used = used_of(Reported(60, 20, 10, 30, 5), BOUND, 100)
    assert used == Used(60, 20, 10, 30, 5, assumed=False)


def test_what_was_not_told_is_the_worst_case_and_called_assumed() -> None:
    assert used_of(None, BOUND, 0) == Used(100, output=50, assumed=True)
    assert used_of(Reported(60), BOUND, 10) == Used(60, output=50, assumed=True)
    assert used_of(None, BOUND, 400).output == 50, "bytes are no tokens: what is assumed was held"


def test_what_cannot_be_true_is_not_believed() -> None:
    assert used_of(Reported(10**9, 0, 0, 10**9), BOUND, 10) == Used(300, output=50, assumed=True)
    assert used_of(Reported(0, 0, 0, 0), BOUND, 10) == Used(100, output=50, assumed=True)
    assert used_of(Reported(60, 10**9, 10**9, 30, 10**9), BOUND, 10) == Used(60, 60, 0, 30, 30)
    assert used_of(Reported(60, 0, 0, 80), BOUND, 400).output == 80, "a server that writes more than it should bills it"


def escrow() -> Escrow:
    made = Escrow()
    made.accounts["day"] = Account("day", cap_usd=1000)
    made.accounts["run"] = Account("run", "day", cap_tokens=100, cap_usd=500)
    made.accounts["child"] = Account("child", "run", cap_usd=400)
    return made


def test_a_child_draws_from_its_parents() -> None:
    tried = escrow()
    tried.hold("a", "child", Amount(10, 300))
    assert {name: account.held for name, account in tried.accounts.items()} == dict.fromkeys(
        ("day", "run", "child"), Amount(10, 300)
    )
    tried.settle("a", Amount(8, 200))
    tried.settle("a", Amount(8, 200))
    assert tried.accounts["day"].spent == Amount(8, 200)
    assert tried.accounts["day"].held == Amount()


def test_what_is_short_is_told_with_what_it_needs() -> None:
    tried = escrow()
    tried.accounts["run"].cap_usd = picodollars(2)
    tried.accounts["child"].cap_usd = tried.accounts["day"].cap_usd = None
    error = tried.shortage("child", Amount(101, picodollars(2.5)))
    assert isinstance(error, Exhausted)
    assert "budget of run" in error.message
    assert "$0.5 more ($2.00 left of $2.00)" in error.message
    assert "1 tokens more (100 left of 100)" in error.message


def test_no_cap_is_ever_passed_by_what_is_spent_and_held() -> None:
    """A thousand random lives of parallel attempts, whose costs are up to their worst cases."""
    for seed in range(1000):
        chance, tried = random.Random(seed), escrow()
        open_: dict[str, Amount] = {}
        spent: dict[str, int] = dict.fromkeys(tried.accounts, 0)
        for turn in range(80):
            if open_ and chance.random() < 0.5:
                attempt = chance.choice(list(open_))
                worst = open_.pop(attempt)
                cost = Amount(chance.randint(0, worst.tokens), chance.randint(0, worst.usd))
                for name in tried.holds[attempt].accounts:
                    spent[name] += cost.usd
                tried.settle(attempt, cost)
            else:
                worst = Amount(chance.randint(0, 30), chance.randint(0, 150))
                name = chance.choice(list(tried.accounts))
                fits = tried.shortage(name, worst) is None
                try:
                    tried.hold(str(turn), name, worst)
                    open_[str(turn)] = worst
                    assert fits
                except Exhausted:
                    assert not fits
            for name, account in tried.accounts.items():
                held = sum(hold.amount.usd for hold in tried.holds.values() if name in hold.accounts)
                assert (account.spent.usd, account.held.usd) == (spent[name], held)
                assert account.spent.usd + account.held.usd <= (account.cap_usd or 10**12)
                assert account.spent.tokens + account.held.tokens <= (account.cap_tokens or 10**12)
