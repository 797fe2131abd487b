"""Averages."""


def mean(values):
    """The mean of a list of numbers; 0 of an empty one."""
    return sum(values) / len(values)
