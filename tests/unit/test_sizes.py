"""What an ordinary run leaves out is written down."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ASKS = 'environ.get("MADLAB_' + 'FULL"'  # in two parts: this file does not ask


def test_each_test_that_is_smaller_in_an_ordinary_run_has_a_line_in_the_page_of_tests() -> None:
    table = (ROOT / "README.md").read_text().partition("## What only `./test.sh all` shows")[2]
    smaller = {
        str(each.relative_to(ROOT))
        for each in ROOT.rglob("*.py")
        if "\nfrom tests.sizes import full\n" in each.read_text() and each.parent.name != "bench"
    }
    assert len(smaller) > 20
    assert {each for each in smaller if f"`{each}`" not in table} == set()
    assert {each for each in table.split("`") if each.endswith(".py")} <= smaller, "it is whole by now"


def test_the_variable_is_asked_in_one_place() -> None:
    asking = {each.name for each in ROOT.rglob("*.py") if ASKS in each.read_text()}
    assert asking == {"sizes.py"}, "ask sizes.full(), which the page of tests is held to"
