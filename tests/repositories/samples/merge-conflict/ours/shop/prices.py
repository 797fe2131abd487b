"""Prices of the shop."""


def price(net, tax=0.2):
    """What a customer pays: rounded to cents."""
    return f"{round(net * (1 + tax), 2):.2f}"
