"""What a specification of somebody else's may hold, and what a model's form becomes."""

import json
from typing import Any

import pytest

from periphery.playfair.expressions import check_expression
from periphery.playfair.limits import Limits
from periphery.playfair.proposing import as_spec, form
from periphery.playfair.rules import check_fields, check_spec
from protos.errors import Error, Exhausted, InvalidArgument

SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "data": {"values": [{"a": "x", "b": 1}]},
    "mark": "bar",
    "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
}
KINDS = {"region": "nominal", "when": "temporal", "a.b['c']": "quantitative"}


def test_a_plain_specification_is_taken() -> None:
    check_spec(SPEC, Limits())
    check_spec(SPEC | {"transform": [{"filter": "datum.b > 0 && year(datum.a) === 2024"}]}, Limits())
    check_spec(SPEC | {"params": [{"name": "cut", "value": 3}], "transform": [{"filter": "datum.b > cut"}]}, Limits())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {"url": "http://evil"}}, "url"),
        ({"data": {"url": "data:text/csv,a"}}, "url"),
        ({"transform": [{"lookup": "a", "from": {"data": {"url": "/etc/passwd"}, "key": "a"}}]}, "url"),
        ({"mark": "image"}, "picture"),
        ({"mark": {"type": "image", "width": 9}}, "picture"),
        ({"layer": [{"mark": "image", "encoding": {"url": {"value": "http://evil"}}}]}, "picture|url"),
        ({"encoding": {"href": {"value": "javascript:alert(1)"}}}, "href"),
        ({"mark": {"type": "bar", "href": "http://evil"}}, "href"),
        ({"params": [{"name": "x", "bind": {"input": "range", "element": "#evil"}}]}, "bind"),
        ({"params": [{"name": "x", "select": {"type": "point", "on": "click[event.x]"}}]}, "select"),
        ({"config": {"signals": [{"name": "x", "update": "window.x"}]}}, "signals"),
        ({"data": {"graticule": True}}, "graticule"),
        ({"transform": [{"calculate": "datum.constructor", "as": "c"}]}, "constructor"),
        ({"title": {"text": {"expr": "fetch('http://evil')"}}}, "fetch"),
        ({"encoding": {"x": {"field": "a", "axis": {"labelExpr": "event.view.alert(1)"}}}}, "event"),
        ({"transform": [{"filter": "test(/(a+)+$/, datum.a)"}]}, "not allowed"),
        ({"transform": [{"filter": {"not": {"and": ["window.x"]}}}]}, "window"),
        ({"encoding": {"x": {"field": "a", "bin": {"maxbins": 10**9}}}}, "maxbins"),
        ({"width": 10**6}, "width"),
        ({"$schema": "https://vega.github.io/schema/vega/v5.json"}, "Vega"),
        ({"hconcat": [{"mark": "bar"}] * 100}, "views"),
    ],
)
def test_what_reaches_out_computes_or_multiplies_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check_spec(SPEC | change, Limits())


def showing(field: str, **more: Any) -> dict[str, Any]:
    """A specification that shows a field."""
    return {"mark": "bar", "encoding": {"x": {"field": field}, "y": {"aggregate": "count"}}, **more}


def test_a_field_that_is_no_column_is_refused_with_the_columns_there_are() -> None:
    columns = ["region", "unit.price", "meta"]
    with pytest.raises(InvalidArgument, match="shows a column 'regoin', which is not there") as refused:
        check_fields(showing("regoin"), columns)
    assert "'region'" in refused.value.next
    with pytest.raises(InvalidArgument, match="'nowhere'"):
        check_fields({"layer": [showing("region"), showing("nowhere")]}, columns)
    for spec in (
        showing("region"),
        showing("unit\\.price"),
        showing("meta.inner"),
        showing("made", transform=[{"calculate": "1", "as": "made"}]),
        {"layer": [showing("region"), showing("own", data={"values": [{"own": 1}]})]},
        {"repeat": {"column": ["region"]}, "spec": {"mark": "bar", "encoding": {"x": {"field": {"repeat": "column"}}}}},
    ):
        check_fields(spec | {"data": {"values": []}}, columns)


def test_size_depth_and_rows_are_capped() -> None:
    with pytest.raises(Exhausted, match="bytes"):
        check_spec(SPEC | {"description": "x" * 300_000}, Limits())
    deep: dict[str, Any] = {"mark": "bar"}
    for _ in range(100):
        deep = {"layer": [deep]}
    with pytest.raises(InvalidArgument, match="levels"):
        check_spec(deep, Limits())
    with pytest.raises(Exhausted, match="rows"):
        check_spec(SPEC | {"data": {"values": [{"a": 1}] * 11}}, Limits(rows=10))
    with pytest.raises(Exhausted, match="steps"):
        check_spec(SPEC | {"data": {"sequence": {"start": 0, "stop": 1, "step": 1e-9}}}, Limits())
    wrong: Any
    for wrong in ([], "x", None, 3):
        with pytest.raises(InvalidArgument):
            check_spec(wrong, Limits())


@pytest.mark.parametrize(
    "text",
    ["datum.a * 2", "datum['b c'] > 1 ? 'x' : 'y'", "round(datum.a / 10) * 10", "format(datum.y, '.1f')", "-1.5e3", ""],
)
def test_plain_expressions_are_taken(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "datum.a.constructor",
        "datum['const' + 'ructor']['x']('y')",
        "datum.a.toString()",
        "[1][0]",
        "'a'.length",
        "(1).x",
        "datum.a['x']",
        "datum.a[0]",
        "(datum.a)(1)",
        "toString.call(1)",
        "replace(datum.a, /x/g, '')",
        "`x`",
        "a = 1",
        "'\\u0063onstructor'",
        "window",
        "this",
        "new Date",
        "x" * 1000,
        ["not", "text"],
    ],
)
def test_expressions_that_could_do_more_are_refused(text: object) -> None:
    with pytest.raises(InvalidArgument):
        check_expression(text)


def answer(**change: Any) -> dict[str, Any]:
    nothing = {"column": "", "aggregate": "none", "time_unit": "none", "bin": False}
    plain = {"why": "", "mark": "bar", "x": nothing, "y": nothing, "color": "", "sort": "none", "title": "T"}
    ways = {key: nothing | value if isinstance(value, dict) else value for key, value in change.items()}
    return plain | ways


def test_a_filled_form_becomes_a_specification_that_passes_the_rules() -> None:
    said = answer(
        x={"column": "when", "time_unit": "yearmonth"},
        y={"column": "a.b['c']", "aggregate": "mean"},
        color="region",
    )
    spec = as_spec(said, KINDS)
    check_spec(spec | {"data": {"values": []}}, Limits())
    assert spec["encoding"]["x"]["timeUnit"] == "utcyearmonth"
    assert spec["encoding"]["y"]["field"] == "a\\.b\\[\\'c\\'\\]"
    assert spec["encoding"]["color"] == {"field": "region", "type": "nominal"}


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        answer(),
        answer(mark="image", x={"column": "region"}),
        answer(x={"column": "elsewhere"}),
        answer(x={"column": "region"}, color="elsewhere"),
        answer(x="region", y=3),
    ],
)
def test_a_form_that_means_no_chart_of_these_columns_is_none(said: Any) -> None:
    with pytest.raises(ValueError, match=r"it names|there is no column"):
        as_spec(said, KINDS)


def test_the_form_lets_a_model_name_the_columns_and_nothing_else() -> None:
    schema = form(["a", "b"])
    assert schema["properties"]["x"]["properties"]["column"]["enum"] == ["", "a", "b"]
    assert json.dumps(schema).count("additionalProperties") == 3
    assert issubclass(InvalidArgument, Error)
