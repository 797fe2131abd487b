"""Amounts of money."""


def cents(amount: str) -> int:
    """The amount in cents: '3.20' is 320."""
    whole, _, rest = amount.partition(".")
    return int(whole) * 100 + int(rest or 0)


def shown(amount: int) -> str:
    """An amount in cents, for people."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 100}.{abs(amount) % 100:02}"
