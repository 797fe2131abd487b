"""Prices of the shop."""


def price(net, tax=0.2):
    """What a customer pays."""
    return str(net * (1 + tax))
