"""The digest of what streams by is that of the whole, however it came and whenever it is asked for."""

import hashlib
import random

import pytest

from core.ports.hashing import GATHERED_BYTES, RunningDigest


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("sizes", [[], [1], [1 << 18] * 40, [GATHERED_BYTES * 3, 5, GATHERED_BYTES, 1 << 14]])
def test_it_is_the_digest_of_the_whole(sizes: list[int]) -> None:
    running, whole = RunningDigest(), b""
    for each in sizes:
        piece = random.randbytes(each)
        running.update(piece)
        whole += piece
    assert str(running) == str(running) == digest_of(whole)


def test_it_can_be_asked_for_in_the_middle_and_goes_on() -> None:
    running, whole = RunningDigest(), b""
    for number in range(200):
        piece = random.randbytes(random.choice((3, 40_000, 300_000)))
        running.update(piece)
        whole += piece
        if number % 17 == 0:
            assert str(running) == digest_of(whole)
    assert str(running) == digest_of(whole)


def test_many_at_once_do_not_get_mixed_up() -> None:
    all_of_them = [(RunningDigest(), bytes((number,)) * (1 << 18)) for number in range(20)]
    for _ in range(30):
        for running, piece in all_of_them:
            running.update(piece)
    assert [str(running) for running, _ in all_of_them] == [digest_of(piece * 30) for _, piece in all_of_them]
