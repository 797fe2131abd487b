"""Sums of money that was told in dollars, on both sides of the contract counted as the lab's ledger counts.

A cent is no binary fraction: floats added one by one drift away from what the ledger says. Counted in picodollars
(10^-12 USD), whole numbers, they do not.
"""

from collections.abc import Iterable

PICODOLLARS = 10**12


def total(usd: Iterable[float]) -> float:
    """The sum of amounts that were told in dollars: the nearest float, which is written as it was meant."""
    return sum(round(each * PICODOLLARS) for each in usd) / PICODOLLARS
