"""Ids and errors of the contract."""

import time

import pytest

from protos.errors import BY_CODE, Error
from protos.ids import is_uuid, new_id


def test_ids_are_version_7_and_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert is_uuid(first)
    assert is_uuid(second)
    assert first < second
    assert len({new_id() for _ in range(1000)}) == 1000


ID = "01a201a5-a7b5-7e87-a5ca-4960cd2fc87d"


@pytest.mark.parametrize(
    "wrong", ["", "x", ID.upper(), ID + "x", ID[:-1] + "g", "../" + ID[3:], ID.replace("7e", "4e")]
)
def test_what_is_no_id_is_seen(wrong: str) -> None:
    assert not is_uuid(wrong)


def test_every_code_is_a_status_of_grpc() -> None:
    import grpc

    for code, kind in BY_CODE.items():
        assert grpc.StatusCode[code]
        assert issubclass(kind, Error)
