import pytest

from invoices.money import cents, shown
from invoices.totals import total


@pytest.mark.parametrize(("text", "amount"), [("3.20", 320), ("7", 700), ("19.5", 1950), ("0.05", 5)])
def test_amounts_are_read(text, amount):
    assert cents(text) == amount


def test_amounts_are_shown():
    assert shown(320) == "3.20"
    assert shown(-5) == "-0.05"


def test_lines_add_up():
    assert total([("1.5", 2), ("0.25", 4)]) == 400
