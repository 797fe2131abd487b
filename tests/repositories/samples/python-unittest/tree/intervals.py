"""Intervals as pairs of start and end."""


def merge(intervals):
    """The same ground covered by as few intervals as possible, in order."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def length(intervals):
    """How much ground they cover."""
    return sum(end - start for start, end in merge(intervals))
