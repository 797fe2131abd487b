"""Writes a plan and its rows down as a Vega-Lite specification, and says in words what the chart shows."""

import re
from dataclasses import dataclass
from typing import Any

from periphery.playfair.choosing import Channel, Plan
from periphery.playfair.profile import stamp
from periphery.playfair.shaping import MISSING, OTHER, Shaped
from periphery.playfair.theme import NARROW, THEMES, Name, config, font_size
from periphery.playfair.words import Unit

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
TITLE_CHARACTERS = 200
_AGGREGATES = {"sum": "Total", "mean": "Average", "median": "Median", "min": "Lowest", "max": "Highest"}
_FORMATS: dict[Unit, str] = {"year": "%Y", "quarter": "Q%q %Y", "month": "%b %Y", "week": "%d %b %Y", "day": "%d %b %Y"}


@dataclass(frozen=True)
class Look:
    """How a chart shall look."""

    width: int
    height: int
    theme: Name = "light"
    title: str = ""


def human(name: str) -> str:
    """A column's name as a person would write it."""
    plain = re.sub(r"\s+", " ", name.replace("_", " ")).strip()
    return plain[:1].upper() + plain[1:] if plain.islower() else plain


def label(channel: Channel) -> str:
    """What stands at an axis."""
    if not channel.column:
        return "Number of rows"
    name = human(channel.column)
    return f"{name} ({channel.label})" if channel.label and f"({channel.label})" not in name else name


def title_of(plan: Plan, shaped: Shaped) -> str:
    """What the chart shows, in a line."""
    value = plan.color if plan.mark == "heatmap" and plan.color else plan.y
    if plan.mark == "histogram":
        return f"Distribution of {human(plan.x.column)}"
    if plan.mark == "box":
        return f"{human(plan.y.column)} by {human(plan.x.column)}"
    if plan.mark == "scatter":
        return f"{human(plan.y.column)} and {human(plan.x.column)}"
    amount = human(value.column) if value.column else "Number of rows"
    if value.column and shaped.gathered and value.aggregate in _AGGREGATES:
        amount = (
            f"{_AGGREGATES[value.aggregate]} {amount[:1].lower() + amount[1:] if amount[1:2].islower() else amount}"
        )
    if plan.share:
        amount = f"Share of {amount[:1].lower() + amount[1:]}"
    other = plan.y if plan.mark == "heatmap" else plan.color
    dimension = plan.x.unit if plan.x.unit else human(plan.x.column)
    return f"{amount} by {dimension}" + (f" and {human(other.column)}" if other else "")


def specification(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    """The whole specification, its few rows within."""
    rows = [_times(row, plan) for row in shaped.rows]
    made: dict[str, Any] = {
        "$schema": SCHEMA,
        "width": look.width,
        "height": look.height,
        "autosize": {"type": "fit", "contains": "padding"},
        "title": {"text": (look.title or title_of(plan, shaped))[:TITLE_CHARACTERS]},
        "config": config(look.theme, look.width),
        "data": {"values": rows},
    }
    match plan.mark:
        case "histogram":
            made |= _histogram(plan)
        case "box":
            made |= _box(plan, shaped, look)
        case "scatter":
            made |= _scatter(plan, shaped, look)
        case "heatmap":
            made |= _heatmap(plan, shaped, look)
        case "pie":
            made |= _pie(plan, shaped, look)
        case "bar":
            made |= _bar(plan, shaped, look)
        case _:
            made |= _line(plan, shaped, look)
    return made


def _times(row: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """A row with its times in milliseconds, as Vega counts them."""
    changed = dict(row)
    if plan.x.kind == "temporal" and isinstance(row["x"], float):
        changed["x"] = row["x"] * 1000
    if plan.y.kind == "temporal" and isinstance(row.get("y"), float):
        changed["y"] = row["y"] * 1000
    return changed


def _is_time(channel: Channel) -> bool:
    return channel.kind == "temporal" and channel.unit != "weekday"


def _dimension(channel: Channel, order: list[str], field: str) -> dict[str, Any]:
    """The encoding of a direction that is no amount."""
    if _is_time(channel):
        made: dict[str, Any] = {"field": field, "type": "temporal", "scale": {"type": "utc"}, "title": None}
        if channel.unit in _FORMATS and channel.unit in ("year", "quarter"):
            made["axis"] = {"format": _FORMATS[channel.unit]}
        return made
    if channel.kind == "quantitative":
        return _amount(channel, field)
    return {"field": field, "type": "nominal", "sort": order, "title": label(channel)}


def _amount(
    channel: Channel, field: str, *, share: bool = False, log: bool = False, zero: bool = True
) -> dict[str, Any]:
    made: dict[str, Any] = {"field": field, "type": "quantitative", "title": label(channel)}
    if share:
        made["axis"] = {"format": ".0%"}
        made["title"] = f"Share of {label(channel)[:1].lower() + label(channel)[1:]}"
    else:
        made["axis"] = {"formatType": "number", "format": "~s"}
    if log:
        made["scale"] = {"type": "log"}
    elif not zero:
        made["scale"] = {"zero": False}
    return made


def _axis(values: list[float]) -> str:
    """A format for numbers of this size: whole thousands short, small ones as they are."""
    most = max((abs(each) for each in values), default=0.0)
    return (
        "~s"
        if most >= 10_000
        else "~g"
        if most < 1e-3
        else ",~f"
        if all(each == int(each) for each in values)
        else ",~r"
    )


def _color(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    assert plan.color is not None
    theme = THEMES[look.theme]
    if plan.color.kind != "nominal":
        return {"field": "color", "type": plan.color.kind, "title": label(plan.color)}
    order = shaped.color_order
    ordered = bool(plan.color.order) and len(order) > 2
    colors = [theme.series[at % len(theme.series)] for at in range(len(order))]
    if ordered:
        steps = theme.ramp[1:]
        colors = [steps[round(at * (len(steps) - 1) / (len(order) - 1))] for at in range(len(order))]
    colors = [theme.other if each in (OTHER, MISSING) else color for each, color in zip(order, colors, strict=True)]
    return {
        "field": "color",
        "type": "nominal",
        "title": None if look.width < NARROW else label(plan.color),
        "scale": {"domain": order, "range": colors},
        "sort": order,
    }


def _bar(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    amount = _amount(plan.y, "y", share=plan.share)
    if not plan.share:
        amount["axis"]["format"] = _axis([row["y"] for row in shaped.rows])
    upright = plan.x.kind != "nominal" or bool(shaped.x_order and plan.x.order) or plan.x.unit == "weekday"
    longest = max((len(each) for each in shaped.x_order), default=0)
    if upright and plan.x.order and longest * len(shaped.x_order) * font_size(look.width) * 0.62 > look.width * 0.8:
        upright = False
    place = _dimension(plan.x, shaped.x_order, "x")
    encoding: dict[str, Any] = {}
    if upright:
        mark: dict[str, Any] = {"type": "bar"}
        if _is_time(plan.x):
            count = max(2, len({row["x"] for row in shaped.rows}))
            mark["size"] = max(1, round(look.width * 0.55 / count))
            place["scale"] = {"type": "utc", "padding": mark["size"] * 0.7}
        else:
            place["axis"] = {"labelAngle": 0}
        encoding |= {"x": place, "y": amount}
    else:
        mark = {"type": "bar"}
        place["axis"] = {"ticks": False, "domain": False, "title": None}
        amount["axis"]["grid"] = True
        encoding |= {"y": place, "x": amount}
    if plan.color:
        encoding["color"] = _color(plan, shaped, look)
        encoding["order"] = {"field": "color", "type": "nominal", "sort": "ascending"}
        stacked = plan.stack or plan.y.aggregate in ("sum", "count")
        if stacked:
            (amount if upright else encoding["x"])["stack"] = "zero"
        else:
            amount["stack"] = None
            encoding["xOffset" if upright else "yOffset"] = {"field": "color", "sort": shaped.color_order}
    elif OTHER in shaped.x_order or MISSING in shaped.x_order:
        theme = THEMES[look.theme]
        plain = [theme.other if each in (OTHER, MISSING) else theme.series[0] for each in shaped.x_order]
        encoding["color"] = {
            "field": "x",
            "type": "nominal",
            "legend": None,
            "scale": {"domain": shaped.x_order, "range": plain},
        }
    return {"mark": mark, "encoding": encoding}


def _line(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    amounts = [row["y"] for row in shaped.rows]
    far = (
        bool(amounts) and min(amounts) > 0 and min(amounts) > max(amounts) * 0.6
    )  # a line may leave zero out, an area not
    amount = _amount(plan.y, "y", share=plan.share, log=plan.log, zero=not (far and plan.mark == "line"))
    if not plan.share:
        amount["axis"]["format"] = _axis(amounts)
    place = _dimension(plan.x, shaped.x_order, "x")
    if plan.x.kind == "nominal":
        place["axis"] = {"labelAngle": 0}
    series = len(shaped.color_order) or 1
    mark: dict[str, Any] = {"type": plan.mark}
    if plan.mark == "line" and len(shaped.rows) <= 40 * series:
        mark["point"] = {"size": 36}
    if plan.mark == "area":
        mark["line"] = series == 1
    encoding: dict[str, Any] = {"x": place, "y": amount}
    if plan.color:
        encoding["color"] = _color(plan, shaped, look)
        if plan.mark == "area":
            amount["stack"] = "normalize" if plan.share else "zero"
    return {"mark": mark, "encoding": encoding}


def _scatter(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    many = len(shaped.rows)
    size = round(max(18, min(90, 40_000 / max(many, 1))) * (0.6 if look.width < NARROW else 1))
    encoding = {}
    for way, channel in (("x", plan.x), ("y", plan.y)):
        values = [row[way] for row in shaped.rows]
        near = bool(values) and min(values) >= 0 and min(values) < max(values) * 0.3
        if channel.kind == "temporal":
            encoding[way] = _dimension(channel, [], way)
        else:
            encoding[way] = _amount(channel, way, log=plan.log and min(values, default=0) > 0, zero=near)
            encoding[way]["axis"]["format"] = _axis(values)
    if plan.color:
        encoding["color"] = _color(plan, shaped, look)
        if plan.color.kind == "nominal":
            encoding["shape"] = {
                "field": "color",
                "type": "nominal",
                "sort": shaped.color_order,
                "title": encoding["color"]["title"],
            }
            encoding["shape"]["scale"] = {"domain": shaped.color_order}
    opacity = 0.85 if many < 200 else 0.6 if many < 1000 else 0.4
    return {"mark": {"type": "point", "size": size, "opacity": opacity}, "encoding": encoding}


def _histogram(plan: Plan) -> dict[str, Any]:
    return {
        "mark": {"type": "bar", "binSpacing": 1, "cornerRadiusEnd": 1},
        "encoding": {
            "x": {
                "field": "x",
                "bin": "binned",
                "type": "quantitative",
                "title": label(plan.x),
                "axis": {"format": "~s", "grid": False},
            },
            "x2": {"field": "x2"},
            "y": {"field": "y", "type": "quantitative", "title": "Number of rows", "axis": {"format": "~s"}},
        },
    }


def _box(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    theme = THEMES[look.theme]
    place = {
        "field": "x",
        "type": "nominal",
        "sort": shaped.x_order,
        "title": None,
        "axis": {"ticks": False, "domain": False},
    }
    numbers = [row[each] for row in shaped.rows for each in ("low", "high")]
    amount = _amount(plan.y, "q1", zero=min(numbers, default=0.0) >= 0 and min(numbers) < max(numbers) * 0.4)
    amount["axis"] |= {"format": _axis(numbers), "grid": True}
    height = {"band": 0.55}
    return {
        "encoding": {"y": place},
        "layer": [
            {
                "mark": {"type": "rule", "color": theme.line, "strokeWidth": 1.5},
                "encoding": {"x": amount | {"field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {
                    "type": "bar",
                    "color": theme.series[0],
                    "opacity": 0.75,
                    "height": height,
                    "cornerRadiusEnd": 0,
                },
                "encoding": {"x": amount, "x2": {"field": "q3"}},
            },
            {
                "mark": {"type": "tick", "color": theme.text, "thickness": 2.5, "height": height},
                "encoding": {"x": amount | {"field": "y"}},
            },
        ],
    }


def _heatmap(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    assert plan.color is not None
    x = _dimension(plan.x, shaped.x_order, "x")
    y = _dimension(plan.y, shaped.y_order, "y")
    for each, channel in ((x, plan.x), (y, plan.y)):
        if channel.kind == "temporal" and channel.unit != "weekday":
            each.pop("scale", None)
            each |= {"type": "ordinal", "timeUnit": _HEAT_UNITS.get(channel.unit or "day", "utcyearmonthdate")}
        each["axis"] = {"domain": False, "ticks": False, "title": None}
    if plan.x.kind == "nominal":
        x["axis"]["labelAngle"] = -40 if max(map(len, shaped.x_order), default=0) * len(shaped.x_order) > 60 else 0
    values = [row["color"] for row in shaped.rows]
    color = {
        "field": "color",
        "type": "quantitative",
        "title": label(plan.color),
        "scale": {"range": list(THEMES[look.theme].ramp)},
        "legend": {"format": _axis(values)} | ({"direction": "horizontal"} if look.width < NARROW else {}),
    }
    return {"mark": {"type": "rect"}, "encoding": {"x": x, "y": y, "color": color}}


_HEAT_UNITS = {
    "year": "utcyear",
    "quarter": "utcyearquarter",
    "month": "utcyearmonth",
    "week": "utcyearmonthdate",
    "day": "utcyearmonthdate",
    "hour": "utcyearmonthdatehours",
}


def _pie(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    theme = THEMES[look.theme]
    names = {row["x"]: f"{row['x']}  {row['y']:.1%}" for row in shaped.rows}
    order = [names[each] for each in shaped.x_order]
    colors = [
        theme.other if each in (OTHER, MISSING) else theme.series[at % len(theme.series)]
        for at, each in enumerate(shaped.x_order)
    ]
    values = [row | {"label": names[row["x"]], "rank": shaped.x_order.index(row["x"])} for row in shaped.rows]
    return {
        "data": {"values": values},
        "mark": {"type": "arc", "innerRadius": round(min(look.width, look.height) * 0.16)},
        "encoding": {
            "theta": {"field": "y", "type": "quantitative", "stack": True},
            "order": {"field": "rank", "type": "quantitative"},
            "color": {
                "field": "label",
                "type": "nominal",
                "title": label(plan.x),
                "sort": order,
                "scale": {"domain": order, "range": colors},
            },
        },
    }


def describe(plan: Plan, shaped: Shaped) -> str:
    """The chart in words, for who cannot see it."""
    kind = {"pie": "Ring chart", "box": "Box plot", "scatter": "Scatter plot", "heatmap": "Heat map"}.get(
        plan.mark, plan.mark.capitalize() + ("" if plan.mark == "histogram" else " chart")
    )
    said = [f"{kind}: {title_of(plan, shaped)}."]
    key = "color" if plan.mark == "heatmap" else "y"
    amounts = [(row[key], row) for row in shaped.rows if isinstance(row.get(key), int | float)]
    if amounts and plan.mark != "scatter":
        most, least = max(amounts, key=lambda each: each[0]), min(amounts, key=lambda each: each[0])
        said.append(f"Highest: {_place(most[1], plan)}, {_said(most[0], plan)}.")
        if len(amounts) > 1:
            said.append(f"Lowest: {_place(least[1], plan)}, {_said(least[0], plan)}.")
    said.append(
        f"{len(shaped.rows):,} marks" + (f" in {len(shaped.color_order)} series." if shaped.color_order else ".")
    )
    return " ".join(said)[:1000]


def _place(row: dict[str, Any], plan: Plan) -> str:
    x = row["x"]
    text = stamp(x) if _is_time(plan.x) and isinstance(x, float) else f"{x:g}" if isinstance(x, float) else str(x)
    if plan.mark == "histogram":
        text = f"{row['x']:g} to {row['x2']:g}"
    return text[:60] + (f", {str(row['color'])[:60]}" if plan.mark != "heatmap" and row.get("color") else "")


def _said(value: float, plan: Plan) -> str:
    return f"{value:.1%}" if plan.share else f"{value:,.4g}" if abs(value) < 1e15 else f"{value:.3e}"
