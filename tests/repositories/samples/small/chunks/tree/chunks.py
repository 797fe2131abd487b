"""Lists in pieces."""


def chunks(values, size):
    """The list in pieces of so many values; the last may be shorter."""
    return [values[at : at + size] for at in range(0, len(values) - size + 1, size)]
