"""Which chart is chosen, and why: pure rules over facts, words and what was asked for."""

import pytest

from periphery.playfair.choosing import Asked, Plan, choose, misnamed
from periphery.playfair.profile import Facts
from periphery.playfair.words import read_wish
from protos.errors import InvalidArgument

WHEN = Facts("order_date", "temporal", 1000, 0, 300, 1.7e9, 1.75e9)
REGION = Facts("region", "nominal", 1000, 0, 4)
PRODUCT = Facts("product", "nominal", 1000, 0, 60)
REVENUE = Facts("revenue", "quantitative", 1000, 0, 900, 0.5, 900.0)
PRICE = Facts("unit_price", "quantitative", 1000, 0, 500, 1.0, 99.0, unit="USD")
NUMBER = Facts("order_id", "quantitative", 1000, 0, 1000, 1, 1000, whole=True)
DAY = Facts("weekday", "nominal", 1000, 0, 3, order=("Mon", "Tue", "Wed"))
SALES = [NUMBER, WHEN, REGION, PRODUCT, REVENUE, PRICE]


def chosen(request: str, facts: list[Facts] = SALES, **asked: str) -> Plan:
    return choose(facts, read_wish(request, [each.name for each in facts]), Asked(**asked))  # type: ignore[arg-type]


def shown(plan: Plan) -> tuple[str, str, str, str, str]:
    """The mark, x, y, color and how amounts are gathered."""
    value = plan.color if plan.mark == "heatmap" and plan.color else plan.y
    return plan.mark, plan.x.column, plan.y.column, plan.color.column if plan.color else "", value.aggregate or ""


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("revenue by month", ("line", "order_date", "revenue", "", "sum")),
        ("average unit price by product", ("bar", "product", "unit_price", "", "mean")),
        ("unit price per region", ("bar", "region", "unit_price", "", "mean")),
        ("top 10 products by revenue", ("bar", "product", "revenue", "", "sum")),
        ("how many orders by region", ("bar", "region", "", "", "count")),
        ("share of revenue by region", ("bar", "region", "revenue", "", "sum")),
        ("share of revenue over time by region", ("area", "order_date", "revenue", "region", "sum")),
        ("pie of revenue by region", ("pie", "region", "revenue", "", "sum")),
        ("revenue vs unit price", ("scatter", "unit_price", "revenue", "", "")),
        ("distribution of unit price", ("histogram", "unit_price", "", "", "count")),
        ("distribution of revenue by region", ("box", "region", "revenue", "", "")),
        ("how are regions distributed", ("bar", "region", "", "", "count")),
        ("heatmap of revenue by region and product", ("heatmap", "region", "product", "revenue", "sum")),
        ("revenue by region and product", ("bar", "region", "revenue", "product", "sum")),
        ("median revenue by weekday", ("bar", "order_date", "revenue", "", "median")),
    ],
)
def test_simple_words_of_a_request_are_understood(request_: str, expected: tuple[str, ...]) -> None:
    assert shown(chosen(request_)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([WHEN, REVENUE], ("line", "order_date", "revenue", "", "sum")),
        ([WHEN, REVENUE, REGION], ("line", "order_date", "revenue", "region", "sum")),
        ([REGION, REVENUE], ("bar", "region", "revenue", "", "sum")),
        ([REGION, PRICE], ("bar", "region", "unit_price", "", "mean")),
        ([REVENUE, PRICE], ("scatter", "unit_price", "revenue", "", "")),
        ([PRICE], ("histogram", "unit_price", "", "", "count")),
        ([REGION], ("bar", "region", "", "", "count")),
        ([WHEN], ("line", "order_date", "", "", "count")),
        ([NUMBER, REGION], ("bar", "region", "", "", "count")),
    ],
)
def test_without_words_the_types_decide_and_each_choice_is_told(facts: list[Facts], expected: tuple[str, ...]) -> None:
    plan = chosen("", facts)
    assert shown(plan) == expected
    assert plan.notes or (len(facts) == 2 and expected[0] == "scatter")


def test_what_is_asked_for_outright_comes_before_the_words() -> None:
    plan = chosen("revenue by month", mark="bar", x="Region", y="unit_price", color="product")
    assert shown(plan) == ("bar", "region", "unit_price", "product", "mean")


def test_a_column_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InvalidArgument) as refused:
        chosen("", x="regoin")
    assert "'region'" in refused.value.next


def test_many_categories_are_cut_and_an_order_of_their_own_is_kept() -> None:
    assert chosen("revenue by product").x.most == 20
    top = chosen("bottom 5 products by revenue")
    assert (top.x.most, top.only_top, top.lowest) == (5, True, True)
    ordered = chosen("", [DAY, REVENUE])
    assert (ordered.x.order, ordered.x.most) == (("Mon", "Tue", "Wed"), 0)


def test_times_that_are_too_many_are_gathered_and_a_unit_that_was_said_is_kept() -> None:
    many = Facts("at", "temporal", 100_000, 0, 5000, 1.6e9, 1.7e9)
    plan = chosen("", [many, REVENUE])
    assert plan.x.unit == "week"
    assert any("gathered by week" in each for each in plan.notes)
    assert chosen("revenue by quarter", [many, REVENUE]).x.unit == "quarter"


def test_a_chart_that_the_data_has_not_the_columns_for_is_replaced_and_that_is_told() -> None:
    plan = chosen("", [REGION, REVENUE], mark="heatmap")
    assert plan.mark == "bar"
    assert any("heatmap" in each for each in plan.notes)


def test_data_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="any value"):
        chosen("", [Facts("a", "nominal", 0, 5, 0)])


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("revenue by country", ["country"]),
        ("profit by country", ["profit", "country"]),
        ("revenue by sales channel in 2024", ["sales channel"]),
        ("total_cost by region", ["total_cost"]),
        ("revenue by 'country'", ["country"]),
        ("weight vs revenue", ["weight"]),
        ("revenue against height", ["height"]),
        ("revenue per store and region", ["store"]),
        ("revenue by month", []),
        ("revenue over time", []),
        ("revenue over the last two years", []),
        ("Average unit price by 'Region'", []),
        ("number of rows per product", []),
        ("share of revenue by the quarter", []),
        ("the products' revenue, don't sort", []),
        ("revenue by region and show the total", []),
    ],
)
def test_a_request_that_names_a_column_which_is_not_there_is_told_so(request_: str, told: list[str]) -> None:
    names = [each.name for each in SALES]
    assert [each.split("'")[1] for each in misnamed(names, read_wish(request_, names))] == told


def test_who_misspells_a_column_hears_what_is_called_nearly_so_and_else_what_there_is() -> None:
    names = [each.name for each in SALES]
    [near] = misnamed(names, read_wish("revenue by regoin", names))
    assert near.endswith("Called nearly so: 'region'.")
    [far] = misnamed(names, read_wish("revenue by country", names))
    assert "There are: 'order_id'" in far
    assert not misnamed(names, read_wish("profit by country", names), Asked(x="region", y="revenue"))


def test_a_request_that_quotes_columns_and_names_none_that_is_there_is_refused() -> None:
    names = [each.name for each in SALES]
    quoted = read_wish('"profit" by "country"', names)
    with pytest.raises(InvalidArgument, match="no column 'profit' or 'country'") as refused:
        misnamed(names, quoted)
    assert "'region'" in refused.value.next
    assert len(misnamed(names, quoted, Asked(x="region"))) == 2
    assert len(misnamed(names, quoted, strict=False)) == 2  # a model is asked
    assert len(misnamed(names, read_wish('revenue by "country"', names))) == 1
