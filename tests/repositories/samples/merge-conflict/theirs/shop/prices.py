"""Prices of the shop."""


def price(net, tax=0.2, currency="EUR"):
    """What a customer pays, with the currency behind it."""
    return f"{net * (1 + tax)} {currency}"
