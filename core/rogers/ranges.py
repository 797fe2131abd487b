"""Sequences as a short text, and back: "1-5,9,12-13"."""

from collections.abc import Iterable, Iterator

from protos.errors import InvalidArgument


def format_ranges(sequences: Iterable[int]) -> str:
    """Rising sequences as text."""
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in _runs(sequences))


def parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """From and to of each range, both included.

    Raises:
        InvalidArgument: it is no such text.
    """
    try:
        pairs = [each.partition("-") for each in text.split(",") if each]
        return tuple((int(low), int(high or low)) for low, _, high in pairs)
    except ValueError:
        raise InvalidArgument(f"{text[:40]!r} are no sequences") from None


def _runs(sequences: Iterable[int]) -> Iterator[tuple[int, int]]:
    low = high = None
    for each in sequences:
        if high is not None and each == high + 1:
            high = each
            continue
        if low is not None and high is not None:
            yield low, high
        low = high = each
    if low is not None and high is not None:
        yield low, high
