from array import array

from summary import BLOCK, mean


def test_short_and_full_blocks(tmp_path):
    file = tmp_path / "numbers"
    for size in (1, BLOCK // 4, BLOCK // 4 + 1):
        numbers = array("I", range(size))
        file.write_bytes(numbers.tobytes())
        assert mean(file) == sum(numbers) / size
