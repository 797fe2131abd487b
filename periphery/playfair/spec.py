"""Writes a plan and its rows down as a Vega-Lite specification, and says in words what the chart shows."""

import re
from dataclasses import dataclass
from typing import Any

from periphery.playfair.choosing import Channel, Plan
from periphery.playfair.profile import stamp
from periphery.playfair.shaping import MISSING, OTHER, Shaped
from periphery.playfair.theme import NARROW, THEMES, Name, config, font_size, ticks
from periphery.playfair.words import Unit

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
TITLE_CHARACTERS = 200
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_AGGREGATES = {"sum": "total", "mean": "average", "median": "median", "min": "lowest", "max": "highest"}
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


def _within(name: str) -> str:
    """A column's name in the middle of a line."""
    return re.sub(r"\s+", " ", name.replace("_", " ")).strip()


def label(channel: Channel) -> str:
    """What stands at an axis."""
    if not channel.column:
        return "Number of rows"
    name = human(channel.column)
    return f"{name} ({channel.label})" if channel.label and f"({channel.label})" not in name else name


def title_of(plan: Plan, shaped: Shaped) -> str:
    """What the chart shows, in a line."""
    x = _within(plan.x.column)
    match plan.mark:
        case "histogram":
            return f"Distribution of {x}"
        case "box":
            return f"{human(plan.y.column)} by {x}"
        case "scatter":
            return f"{human(plan.y.column)} and {x}"
    value, other = (plan.color, plan.y) if plan.mark == "heatmap" and plan.color else (plan.y, plan.color)
    amount = _within(value.column) if value.column else "number of rows"
    if value.column and shaped.gathered and value.aggregate in _AGGREGATES:
        amount = f"{_AGGREGATES[value.aggregate]} {amount}"
    if plan.share:
        amount = f"share of {amount}"
    return f"{amount[:1].upper()}{amount[1:]} by {plan.x.unit or x}" + (
        f" and {_within(other.column)}" if other else ""
    )


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
            made |= _histogram(plan, shaped)
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


def _few_times(shaped: Shaped, look: Look) -> dict[str, Any]:
    """An axis with a tick where there is a day or a month, where these are so few that Vega would set some between."""
    times = sorted({row["x"] for row in shaped.rows if isinstance(row["x"], float)})
    days = [stamp(each) for each in times]
    if not 0 < len(days) <= ticks(look.width) or not all(_DAY.fullmatch(each) for each in days):
        return {}
    axis: dict[str, Any] = {"values": [each * 1000 for each in times]}
    years = days[0][:4] != days[-1][:4]
    if not all(each.endswith("-01") for each in days):
        axis["format"] = "%d %b %Y" if years else "%d %b"
    elif years and not all(each.endswith("-01-01") for each in days):
        axis["format"] = "%b %Y"
    return axis


def _amount(
    channel: Channel, field: str, *, share: bool = False, log: bool = False, zero: bool = True
) -> dict[str, Any]:
    made: dict[str, Any] = {"field": field, "type": "quantitative", "title": label(channel)}
    if share:
        made["axis"] = {"format": ".0%"}
        made["title"] = f"Share of {label(channel)[:1].lower() + label(channel)[1:]}"
    else:
        made["axis"] = {}
    if log:
        made["scale"] = {"type": "log"}
    elif not zero:
        made["scale"] = {"zero": False}
    return made


def _axis(values: list[float]) -> dict[str, str]:
    """How numbers of this size are written: whole thousands short, small ones as they are."""
    most = max((abs(each) for each in values), default=0.0)
    if most >= 1e9:
        return {"labelExpr": "replace(format(datum.value, '~s'), 'G', 'B')"}  # nobody says giga of money or people
    if most >= 10_000 or 0 < most < 1e-3:
        return {"format": "~s" if most >= 1 else "~g"}
    return {"format": ",~f"}


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
    values = [row["y"] for row in shaped.rows]
    if not plan.share:
        amount["axis"] |= _axis(values)
    place = _dimension(plan.x, shaped.x_order, "x")
    encoding: dict[str, Any] = {}
    upright = _is_upright(plan, shaped, look)
    mark: dict[str, Any] = {"type": "bar"}
    if not upright:
        mark["height"] = {"band": _band(len(shaped.x_order), look)}
        place["axis"] = {"ticks": False, "domain": False, "title": None, "labelOverlap": False}
        amount["axis"] |= {"grid": True, "domain": False}
        encoding |= {"y": place, "x": amount}
    else:
        if _is_time(plan.x):
            count = max(2, len({row["x"] for row in shaped.rows}))
            mark["size"] = max(1, round(look.width * 0.55 / count))
            place["scale"] = {"type": "utc", "padding": mark["size"] * 0.7}
            place["axis"] = _few_times(shaped, look) | place.get("axis", {}) | {"grid": False}
        elif plan.x.kind == "nominal" or plan.x.unit == "weekday":
            place["axis"] = {"labelAngle": 0, "ticks": False}
        encoding |= {"x": place, "y": amount}
    if plan.color:
        encoding["color"] = _color(plan, shaped, look)
        if plan.stack or plan.y.aggregate in ("sum", "count"):
            amount["stack"] = "zero"
        else:
            amount["stack"] = None
            encoding["xOffset" if upright else "yOffset"] = {"field": "color", "sort": shaped.color_order}
        return {"mark": mark, "encoding": encoding}
    if OTHER in shaped.x_order or MISSING in shaped.x_order:
        theme = THEMES[look.theme]
        plain = [theme.other if each in (OTHER, MISSING) else theme.series[0] for each in shaped.x_order]
        scale = {"domain": shaped.x_order, "range": plain}
        encoding["color"] = {"field": "x", "type": "nominal", "legend": None, "scale": scale}
    if upright or min(values, default=0) < 0:
        return {"mark": mark, "encoding": encoding}
    return _with_figures(mark, encoding, values, plan, look)


def _is_upright(plan: Plan, shaped: Shaped, look: Look) -> bool:
    """Whether bars stand: times and what has an order of its own do, where the names have room."""
    if plan.x.kind != "nominal" or plan.x.unit == "weekday":
        return True
    longest = max((len(each) for each in shaped.x_order), default=0)
    return bool(plan.x.order) and longest * len(shaped.x_order) * font_size(look.width) * 0.62 < look.width * 0.8


def _band(bars: int, look: Look) -> float:
    """The part of its place that a bar fills: few bars in a high chart stay slim."""
    return round(min(0.78, 52 * max(bars, 1) / (look.height * 0.75)), 2) if bars else 0.78


def _with_figures(
    mark: dict[str, Any], encoding: dict[str, Any], values: list[float], plan: Plan, look: Look
) -> dict[str, Any]:
    """Bars with their amounts at their ends, so that nobody has to read them off an axis."""
    form = ".1%" if plan.share else ".3s" if max(values, default=0) >= 10_000 else ",.4~r"
    shown = "replace(format(datum.y, '" + form + "'), 'G', 'B')"
    theme = THEMES[look.theme]
    axis = encoding["x"]["axis"] | {"labels": False, "ticks": False, "grid": False, "domain": False}
    letters = font_size(look.width) * 5  # as wide as the longest amount
    room = {"scale": {"domainMin": 0, "domainMax": max(values, default=1) * (1 + letters / (look.width * 0.55)) or 1}}
    return {
        "encoding": encoding | {"x": encoding["x"] | {"axis": axis} | room},
        "layer": [
            {"mark": mark},
            {
                "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 6, "color": theme.muted},
                "transform": [{"calculate": shown, "as": "shown"}],
                "encoding": {"text": {"field": "shown", "type": "nominal"}, "color": {"value": theme.muted}},
            },
        ],
    }


def _line(plan: Plan, shaped: Shaped, look: Look) -> dict[str, Any]:
    amounts = [row["y"] for row in shaped.rows]
    far = (
        bool(amounts) and min(amounts) > 0 and min(amounts) > max(amounts) * 0.6
    )  # a line may leave zero out, an area not
    amount = _amount(plan.y, "y", share=plan.share, log=plan.log, zero=not (far and plan.mark == "line"))
    if not plan.share:
        amount["axis"] |= _axis(amounts)
    place = _dimension(plan.x, shaped.x_order, "x")
    if plan.x.kind == "nominal":
        place["axis"] = {"labelAngle": 0}
    elif _is_time(plan.x):
        place["axis"] = _few_times(shaped, look) | place.get("axis", {})
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
            encoding[way]["axis"] |= _axis(values)
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


def _histogram(plan: Plan, shaped: Shaped) -> dict[str, Any]:
    ends = [row["x2"] for row in shaped.rows]
    across: dict[str, Any] = {
        "field": "x",
        "bin": "binned",
        "type": "quantitative",
        "title": label(plan.x),
        "axis": {"grid": False},
    }
    across["axis"] |= _axis(ends)
    upwards: dict[str, Any] = {"field": "y", "type": "quantitative", "title": "Number of rows", "stack": None}
    upwards["axis"] = _axis([row["y"] for row in shaped.rows])
    mark = {"type": "bar", "binSpacing": 1, "cornerRadiusEnd": 1}
    return {"mark": mark, "encoding": {"x": across, "x2": {"field": "x2"}, "y": upwards}}


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
    amount["axis"] |= _axis(numbers) | {"grid": True}
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
            each |= {
                "type": "ordinal",
                "sort": "ascending",
                "timeUnit": _HEAT_UNITS.get(channel.unit or "day", "utcyearmonthdate"),
            }
        if channel.kind == "quantitative":
            each.clear()
            each |= {"field": "x" if channel is plan.x else "y", "type": "ordinal", "sort": "ascending"}
        each["axis"] = {
            "domain": False,
            "ticks": False,
            "title": label(channel) if channel.kind == "quantitative" else None,
            "labelAngle": 0,
        }
    if plan.x.kind == "nominal":
        letters = max(map(len, shaped.x_order), default=0) * len(shaped.x_order)
        x["axis"]["labelAngle"] = -40 if letters * font_size(look.width) * 0.6 > look.width * 0.7 else 0
    values = [row["color"] for row in shaped.rows]
    color = {
        "field": "color",
        "type": "quantitative",
        "title": label(plan.color),
        "scale": {"range": list(THEMES[look.theme].ramp)},
        "legend": _axis(values) | ({"direction": "horizontal"} if look.width < NARROW else {}),
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
    if plan.mark == "histogram":
        return f"{row['x']:g} to {row['x2']:g}"
    text = str(x)
    if isinstance(x, float):
        text = _moment(x, plan.x.unit) if _is_time(plan.x) else f"{x:g}"
    second = row.get("y" if plan.mark == "heatmap" else "color")
    if isinstance(second, float):
        second = _moment(second, plan.y.unit) if _is_time(plan.y) else f"{second:g}"
    return text[:60] + (f", {str(second)[:60]}" if second else "")


def _moment(seconds: float, unit: Unit | None) -> str:
    """A time as far as it counts."""
    day = stamp(seconds)
    match unit:
        case "year":
            return day[:4]
        case "quarter":
            return f"Q{(int(day[5:7]) + 2) // 3} {day[:4]}"
        case "month":
            return day[:7]
    return day


def _said(value: float, plan: Plan) -> str:
    if plan.share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:,.4g}"
