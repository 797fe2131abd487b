"""The work on strangers' bytes, in a process of its own: `python -m periphery.playfair.job WHAT`, JSON in, JSON out.

The worker that speaks with the core never parses data, a specification or a picture. What does can then run out of
time, of memory or of its mind, and the caller still gets a sentence. `read` is held to an address space of its own;
`draw` cannot be, since V8 reserves far more than it uses, and is the first that the kernel ends when memory is short.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from periphery.playfair.choosing import Asked, Plan, choose, misnamed
from periphery.playfair.limits import Limits
from periphery.playfair.profile import Facts, facts_of, sample
from periphery.playfair.reading import read
from periphery.playfair.shaping import shape
from periphery.playfair.spec import Look, describe, label, specification, title_of
from periphery.playfair.theme import font_size
from periphery.playfair.words import read_wish
from protos.errors import Error, InvalidArgument

SUGGESTED_ROWS = 50_000  # that a specification of somebody else's may be fed with


def main() -> None:
    """Runs one job and writes what came of it."""
    what = sys.argv[1]
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if what == "draw":
        from periphery.playfair.drawing import warm_up

        warm_up()  # while the data is still being read
    order = json.loads(sys.stdin.buffer.readline())
    limits = Limits.of(order["caps"])
    seconds = int(limits.seconds) + 5
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * 2, seconds * 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if what in ("read", "check"):
        most = order.get("memory_mb", 1024) * 1024**2
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        said = _JOBS[what](order, limits)
    except MemoryError:
        said = {
            "code": "RESOURCE_EXHAUSTED",
            "message": "The data needs more memory than there is.",
            "next": "Give less.",
        }
    except RecursionError:
        said = {"code": "INVALID_ARGUMENT", "message": "It is nested too deeply.", "next": "Make it flatter."}
    except Error as error:
        said = {"code": error.code, "message": error.message, "next": error.next}
    sys.stdout.write(json.dumps(said, allow_nan=False))
    sys.stdout.flush()
    os._exit(0)


def _read(order: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Reads a table and chooses a chart of it, or feeds the specification that somebody else has chosen."""
    from periphery.playfair.rules import check_fields, check_spec

    given = order.get("spec")
    if given is not None:
        if order.get("file") and isinstance(given, dict):
            given = given | {"data": {"values": []}}  # the data that came with it takes the place of its own
        check_spec(given, limits)
        if not order.get("file"):
            return {
                "spec": _dressed(given, order),
                "description": _described(given),
                "title": _title(given),
                "notes": [],
            }
    table, format = read(Path(order["file"]), limits, name=order["name"], format=order["format"])
    facts = facts_of(table)
    said: dict[str, Any] = {
        "format": format,
        "rows": table.rows,
        "columns": [each.as_json() for each in facts],
        "notes": table.notes,
    }
    if order.get("sample"):
        said["sample"] = sample(table)
    if given is not None:
        most = min(SUGGESTED_ROWS, limits.rows)
        if table.rows > most:
            raise InvalidArgument(
                f"The data has {table.rows:,} rows, and a specification is fed with {most:,} at most.",
                next="Aggregate beforehand, or leave the choice to Playfair, who aggregates while reading.",
            )
        check_fields(given, [each.name for each in facts])
        spec = _dressed(given, order)
        spec["data"] = {"values": _values(table, json.dumps(given))}
        return said | {"spec": spec, "description": _described(given), "title": _title(given)}
    bars = max(5, min(20, round((order["height"] - 90) / (font_size(order["width"]) * 1.45))))
    asked = Asked(order["mark"] or None, order["x"], order["y"], order["color"], bars)
    names = [each.name for each in facts]
    wish = read_wish(order["request"], names)
    # A model that is asked afterwards understands more than names, and may find the column that is meant.
    warnings = misnamed(names, wish, asked, strict=not order.get("sample"))
    plan = choose(facts, wish, asked)
    shaped = shape(table, plan, limits)
    look = Look(order["width"], order["height"], order["theme"], order["title"])
    spec = specification(plan, shaped, look)
    return said | {
        "spec": spec,
        "warnings": warnings,
        "notes": [*table.notes, *plan.notes, *shaped.notes, *_left_out(facts, plan)],
        "title": order["title"] or title_of(plan, shaped),
        "description": describe(plan, shaped),
        "chosen": {
            "mark": plan.mark,
            "x": label(plan.x),
            "y": label(plan.y),
            "color": label(plan.color) if plan.color else "",
            "aggregate": ((plan.color or plan.y) if plan.mark == "heatmap" else plan.y).aggregate or "",
            "marks": len(shaped.rows),
        },
    }


def _left_out(facts: list[Facts], plan: Plan) -> Iterator[str]:
    """What a reader should know of rows without a value."""
    shown = {each.column for each in (plan.x, plan.y, plan.color) if each is not None}
    for each in facts:
        if each.name in shown and each.missing and each.kind != "nominal":
            yield f"{each.missing:,} rows without {each.name!r} were left out."


def _values(table: Any, text: str) -> list[dict[str, Any]]:
    """The rows of the columns that a specification names."""
    columns = [each for each in table.columns if json.dumps(each.name)[1:-1] in text]
    if not columns:
        raise InvalidArgument("The specification names no column of the data.", next="Use the columns' own names.")
    made: list[dict[str, Any]] = []
    for at in range(table.rows):
        row: dict[str, Any] = {}
        for each in columns:
            value = each.values[at]
            if each.kind == "nominal":
                row[each.name] = each.levels[int(value)] if value >= 0 else None
            else:
                row[each.name] = None if value != value else value * 1000 if each.kind == "temporal" else value
        made.append(row)
    return made


def _dressed(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """A specification with our size and theme where it has none of its own."""
    from periphery.playfair.theme import config

    spec = {key: value for key, value in given.items() if key != "usermeta"}
    single = not any(key in spec for key in ("hconcat", "vconcat", "concat", "facet", "repeat"))
    if single:
        if not isinstance(spec.get("width"), int | float):
            spec["width"] = order["width"]
        if not isinstance(spec.get("height"), int | float):
            spec["height"] = order["height"]
        encoding = spec.get("encoding", {})
        if not any(key in encoding for key in ("row", "column", "facet")):
            spec.setdefault("autosize", {"type": "fit", "contains": "padding"})
    ours = config(order["theme"], order["width"])
    theirs = spec.get("config", {})
    spec["config"] = ours | {
        key: (ours.get(key, {}) | value if isinstance(ours.get(key), dict) and isinstance(value, dict) else value)
        for key, value in theirs.items()
    }
    if order["title"]:
        spec["title"] = order["title"]
    return spec


def _title(spec: dict[str, Any]) -> str:
    title = spec.get("title", "")
    text = title.get("text", "") if isinstance(title, dict) else title
    return " ".join(map(str, text))[:200] if isinstance(text, list) else str(text)[:200]


def _described(spec: dict[str, Any]) -> str:
    return str(spec.get("description", ""))[:1000]


def _draw(order: dict[str, Any], limits: Limits) -> dict[str, Any]:
    from periphery.playfair.drawing import draw_chart, draw_dot, draw_mermaid, to_png, versions
    from periphery.playfair.glyphs import unshown

    notes: list[str] = []
    match order["syntax"]:
        case "vega-lite":
            picture = draw_chart(order["spec"], title=order["title"], description=order["description"])
        case "dot":
            picture, notes = draw_dot(order["source"], order["theme"], order["layout"], limits, title=order["title"])
        case _:
            picture, notes = draw_mermaid(order["source"], order["theme"], limits, title=order["title"])
    folder = Path(order["folder"])
    if order["png"]:
        (folder / "chart.png").write_bytes(to_png(picture, order["scale"], limits))
        if scripts := unshown(picture.text):
            listed = ", ".join(scripts)
            notes.append(f"No font here has {listed}, which a PNG shows as boxes: an SVG keeps them as text.")
    else:
        (folder / "chart.svg").write_text(picture.text, encoding="utf-8")
    if picture.dropped:
        listed = ", ".join(f"{name} ({count})" for name, count in picture.dropped.most_common(8))
        notes.append(f"Left out of the picture, since it does more than draw: {listed}.")
    return {
        "width": round(picture.width * (order["scale"] if order["png"] else 1)),
        "height": round(picture.height * (order["scale"] if order["png"] else 1)),
        "elements": picture.elements.total(),
        "notes": notes,
        "versions": versions(),
    }


def _check(order: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Whether a specification would be taken; diagrams are only drawn to find out."""
    from periphery.playfair.rules import check_spec

    check_spec(order["spec"], limits)
    return {}


def _about(order: dict[str, Any], limits: Limits) -> dict[str, Any]:
    del order
    from periphery.playfair.drawing import versions

    return {"versions": versions(), "limits": limits.as_words()}


_JOBS = {"read": _read, "draw": _draw, "diagram": _draw, "check": _check, "about": _about}


if __name__ == "__main__":
    main()
