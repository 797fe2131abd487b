"""A secret value shows itself to nobody who does not ask for it by name."""

import copy
import json
import logging
import pickle  # noqa: TID251  to see that it refuses
import traceback
from dataclasses import dataclass

import pytest

from core.turing.secret import Secret

VALUE = b"tok-5e8d1c0b7a"


@pytest.mark.parametrize(
    "attempt",
    [
        str,
        bytes,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        hash,
        len,
        iter,
        lambda secret: f"{secret}",
        lambda secret: f"{secret:>20}",
        lambda secret: "%s" % secret,  # noqa: UP031  one more way to text
        lambda secret: "{}".format(secret),  # noqa: UP032
        lambda secret: "".join([secret]),
        lambda secret: vars(secret),
    ],
)
def test_there_is_no_way_to_write_it_down_by_accident(attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(TypeError) as caught:
        attempt(Secret(VALUE, name="token"))
    assert VALUE.decode() not in "".join(traceback.format_exception(caught.value))


def test_what_looks_at_it_sees_its_name() -> None:
    @dataclass
    class Holder:
        credential: Secret

    secret = Secret(VALUE, name="token")
    assert repr(secret) == "Secret(token, hidden)"
    assert VALUE.decode() not in repr([Holder(secret), {"a": (secret,)}])


def test_a_log_of_it_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("tests").info("got %r", Secret(VALUE, name="token"))
    assert "Secret(token, hidden)" in caplog.text
    assert VALUE.decode() not in caplog.text


def test_it_is_compared_with_its_like_only() -> None:
    assert Secret(VALUE) == Secret(VALUE, name="other name")
    assert Secret(VALUE) != Secret(VALUE + b"x")
    assert Secret(VALUE) != VALUE


def test_wiping_leaves_nothing_in_its_own_buffer() -> None:
    secret = Secret(VALUE, name="token", version=3)
    header = secret.within(b"Bearer ", b"")
    with secret:
        assert secret.reveal() == VALUE
    assert secret.reveal() == b""
    assert (header.reveal(), header.name, header.version) == (b"Bearer " + VALUE, "token", 3)
