"""Sums up a file of measurements: 32-bit numbers, little-endian."""

import sys
from array import array
from pathlib import Path

BLOCK = 65536


def mean(path: Path) -> float:
    """The mean of all numbers in a file, read block by block."""
    total = count = 0
    with path.open("rb") as file:
        while len(block := file.read(BLOCK)) == BLOCK:
            numbers = array("I", block)
            if sys.byteorder == "big":
                numbers.byteswap()
            total += sum(numbers)
            count += len(numbers)
    return total / count
