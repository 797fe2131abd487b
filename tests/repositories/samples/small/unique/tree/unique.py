"""Lists without repetitions."""


def unique(values):
    """Each value once, in the order in which they first come."""
    return sorted(set(values))
