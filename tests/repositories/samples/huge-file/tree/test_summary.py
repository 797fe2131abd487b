from array import array
from pathlib import Path

from summary import BLOCK, mean

READINGS = Path(__file__).parent / "data" / "readings.bin"


def test_all_readings_count():
    numbers = array("I", READINGS.read_bytes())
    assert len(numbers) * 4 % BLOCK, "the last block is short"
    assert mean(READINGS) == sum(numbers) / len(numbers)
