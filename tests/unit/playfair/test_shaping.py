"""The rows that a chart draws, and the specification that is written of them."""

from pathlib import Path
from typing import Any

import pytest

from periphery.playfair.choosing import Asked, Plan, choose
from periphery.playfair.limits import Limits
from periphery.playfair.profile import facts_of
from periphery.playfair.reading import read
from periphery.playfair.rules import check_spec
from periphery.playfair.shaping import Shaped, nice, shape
from periphery.playfair.spec import Look, describe, specification, title_of
from periphery.playfair.words import read_wish
from protos.errors import Exhausted

SALES = "day,region,sales\n2024-01-05,N,1\n2024-01-20,S,2\n2024-02-01,N,4\n2024-02-02,,8\n2024-03-01,S,\n"


def made(
    tmp_path: Path, content: str, request: str = "", limits: Limits | None = None, **asked: Any
) -> tuple[Plan, Shaped]:
    (tmp_path / "data").write_text(content)
    table, _ = read(tmp_path / "data", Limits())
    facts = facts_of(table)
    plan = choose(facts, read_wish(request, [each.name for each in facts]), Asked(**asked))
    return plan, shape(table, plan, limits or Limits())


def pairs(shaped: Shaped, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in keys) for row in shaped.rows]


def test_amounts_are_gathered_by_category_largest_first_and_rows_without_one_stay_visible(tmp_path: Path) -> None:
    plan, shaped = made(tmp_path, SALES, "sales by region")
    assert pairs(shaped, "x", "y") == [("N", 5.0), ("S", 2.0), ("(none)", 8.0)]
    assert title_of(plan, shaped) == "Total sales by region"
    assert describe(plan, shaped) == ("Bar chart: Total sales by region. Highest: (none), 8. Lowest: S, 2. 3 marks.")


def test_times_are_gathered_by_the_unit_that_was_asked_for(tmp_path: Path) -> None:
    plan, shaped = made(tmp_path, SALES, "average sales by month")
    assert pairs(shaped, "x", "y") == [(1704067200.0, 1.5), (1706745600.0, 6.0)]
    assert title_of(plan, shaped) == "Average sales by month"


def test_shares_are_of_the_whole_or_of_each_time(tmp_path: Path) -> None:
    _, shaped = made(tmp_path, "k,v\na,3\nb,1\n", "share of v by k")
    assert pairs(shaped, "x", "y") == [("a", 0.75), ("b", 0.25)]
    rows = "d,k,v\n" + "".join(f"2024-0{m}-01,{k},{v}\n" for m in (1, 2, 3) for k, v in (("a", 3), ("b", 1)))
    _, shaped = made(tmp_path, rows, "share of v by month and k")
    assert {(row["color"], row["y"]) for row in shaped.rows} == {("a", 0.75), ("b", 0.25)}


def test_many_categories_become_the_largest_and_one_for_the_rest_and_that_is_told(tmp_path: Path) -> None:
    content = "k,v\n" + "".join(f"k{at},{at}\n" for at in range(1, 31))
    _, shaped = made(tmp_path, content, "v by k")
    assert len(shaped.rows) == 20
    assert shaped.x_order[0] == "k30"
    assert shaped.rows[-1] == {"x": "Other", "y": float(sum(range(1, 12)))}
    assert shaped.notes == ["11 of 30 'k' are gathered as 'Other'."]
    _, top = made(tmp_path, content, "top 3 k by v")
    assert pairs(top, "x", "y") == [("k30", 30.0), ("k29", 29.0), ("k28", 28.0)]
    _, low = made(tmp_path, content, "lowest 2 k by v")
    assert pairs(low, "x") == [("k1",), ("k2",)]


def test_a_distribution_has_bins_that_people_count_in(tmp_path: Path) -> None:
    _, shaped = made(tmp_path, "v\n" + "".join(f"{at / 10}\n" for at in range(100)), "distribution of v")
    assert (shaped.step, len(shaped.rows), sum(row["y"] for row in shaped.rows)) == (1.0, 10, 100)
    _, one = made(tmp_path, "v\n5\n5\n", "distribution of v")
    assert pairs(one, "x", "x2", "y") == [(4.5, 5.5, 2)]
    assert [nice(each) for each in (0.3, 1.0, 1.1, 4.9, 70.0)] == [0.5, 1.0, 2.0, 5.0, 100.0]


def test_a_box_plot_has_the_five_numbers_and_tells_of_those_outside(tmp_path: Path) -> None:
    content = "k,v\n" + "".join(f"a,{at}\n" for at in (1, 2, 3, 4, 5, 100))
    _, shaped = made(tmp_path, content, type_ := "box plot of v by k")
    assert type_
    [row] = shaped.rows
    assert (row["low"], row["q1"], row["y"], row["q3"], row["high"]) == (1, 2.25, 3.5, 4.75, 5)
    assert shaped.notes == ["1 values beyond 1.5 times the middle half are not drawn."]


def test_a_cloud_of_points_is_thinned_out_evenly_and_that_is_told(tmp_path: Path) -> None:
    content = "a,b\n" + "".join(f"{at},{at}\n" for at in range(0, 60_000, 3))
    _, shaped = made(tmp_path, content, "a vs b", mark="scatter")
    assert len(shaped.rows) == 2000
    assert shaped.notes == ["2,000 of 20,000 points are drawn, evenly chosen."]


def test_more_marks_than_the_cap_are_refused(tmp_path: Path) -> None:
    content = "a,b\n" + "".join(f"{at}.5,{at}\n" for at in range(300))
    with pytest.raises(Exhausted, match="marks"):
        made(tmp_path, content, mark="line", x="a", limits=Limits(marks=100))


@pytest.mark.parametrize("mark", ["line", "bar"])
@pytest.mark.parametrize(
    ("days", "form"),
    [
        (["2024-02-01", "2024-03-01", "2024-04-01"], ""),
        (["2023-11-01", "2023-12-01", "2024-01-01"], "%b %Y"),
        (["2022-01-01", "2023-01-01", "2024-01-01"], ""),
        (["2024-01-08", "2024-01-15", "2024-01-22"], "%d %b"),
        (["2023-12-25", "2024-01-01", "2024-01-08"], "%d %b %Y"),
    ],
)
def test_few_times_have_a_tick_each_and_none_between(tmp_path: Path, mark: str, days: list[str], form: str) -> None:
    plan, shaped = made(tmp_path, "day,v\n" + "".join(f"{each},{at}\n" for at, each in enumerate(days)), mark=mark)
    spec = specification(plan, shaped, Look(1600, 400))
    axis = spec["encoding"]["x"]["axis"]
    assert axis["values"] == [row["x"] for row in spec["data"]["values"]]
    assert (len(axis["values"]), axis.get("format", "")) == (3, form)


def test_many_times_and_hours_have_the_usual_ticks(tmp_path: Path) -> None:
    for content in (
        "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 29)),
        "2024-01-01 10:00,1\n2024-01-01 11:00,2\n2024-01-01 12:00,3\n",
    ):
        plan, shaped = made(tmp_path, f"day,v\n{content}", mark="line")
        assert "values" not in specification(plan, shaped, Look(1600, 400))["encoding"]["x"]["axis"]


REQUESTS = [
    "sales by region",
    "sales by month",
    "sales by month and region",
    "share of sales by month and region",
    "pie of sales by region",
    "distribution of sales",
    "distribution of sales by region",
    "heatmap of sales by region and day",
    "how many by weekday",
    "",
]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("look", [Look(360, 300, "dark"), Look(1600, 900)])
def test_what_is_written_is_a_specification_that_our_own_rules_take(tmp_path: Path, request_: str, look: Look) -> None:
    plan, shaped = made(tmp_path, SALES, request_)
    spec = specification(plan, shaped, look)
    check_spec(spec, Limits())
    assert (spec["width"], spec["height"]) == (look.width, look.height)
    assert spec["title"]["text"]
    assert describe(plan, shaped)
