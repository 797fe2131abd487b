"""Units of length."""


def miles(kilometres):
    """Statute miles."""
    return kilometres / 1.609344
