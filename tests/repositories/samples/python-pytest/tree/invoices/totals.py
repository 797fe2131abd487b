"""Sums over the lines of an invoice."""

from invoices.money import cents


def total(lines: list[tuple[str, int]]) -> int:
    """The sum of price times count, in cents."""
    return sum(cents(price) * count for price, count in lines)
