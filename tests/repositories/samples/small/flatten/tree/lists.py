"""Lists in lists."""


def flatten(values):
    """The values of a list and of all lists within, in order."""
    made = []
    for each in values:
        if isinstance(each, list):
            made.extend(each)
        else:
            made.append(each)
    return made
