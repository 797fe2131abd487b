"""Whose trace a request belongs to."""

import json

import pytest

from core.telemetry.traced import Traced

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def by(header: str, *, is_operator: bool = True) -> Traced:
    return Traced.by(header, route="/x", at=7.0, is_operator=is_operator)


def test_the_operators_trace_goes_on() -> None:
    traced = by(GOOD)
    assert (traced.trace.hex(), traced.parent.hex(), traced.linked) == (TRACE, SPAN, None)


def test_a_clients_trace_is_pointed_at_and_not_written_into() -> None:
    traced = by(GOOD, is_operator=False)
    assert (traced.trace, traced.parent) == (b"", b"")
    assert traced.linked == (bytes.fromhex(TRACE), bytes.fromhex(SPAN))


def test_a_span_that_nobody_records_is_no_parent() -> None:
    assert by(f"00-{TRACE}-{SPAN}-00").trace == b""


def test_a_later_version_may_say_more() -> None:
    assert by(f"cc-{TRACE}-{SPAN}-03-what-there-will-be").trace.hex() == TRACE


@pytest.mark.parametrize(
    "header",
    ["", "x", GOOD.upper(), f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
     f"{GOOD}-more", f"00-{TRACE}-{SPAN}-0", f"00-{TRACE[1:]}-{SPAN}-01", GOOD + "\n" + GOOD],
)  # fmt: skip
def test_what_is_damaged_is_as_if_it_were_not_there(header: str) -> None:
    assert by(header) == Traced(7.0, "/x")


@pytest.mark.parametrize("traced", [by(GOOD), by(GOOD, is_operator=False), by("")])
def test_it_survives_the_journal(traced: Traced) -> None:
    entry = traced.entry("m", "c", "operator")
    assert (entry.id, entry.kind, entry.sender) == ("trace:m", "trace", "operator")
    assert Traced.of(json.loads(entry.body)) == traced
