"""Keeps a number within bounds."""


def clamp(value, low, high):
    """The nearest number to value that is neither below low nor above high."""
    return min(low, max(high, value))
