"""Playfair's tools: what a message can ask of it."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Literal

from typing_extensions import TypedDict

from periphery.playfair.children import started
from periphery.playfair.limits import Caps, Limits
from periphery.playfair.proposing import propose
from periphery.playfair.tables import clean
from protos.blobs import fetch, store
from protos.errors import Error, InvalidArgument
from protos.tools import Call, tool
from protos.v1.message_pb2 import Blob
from protos.v1.session_pb2 import OUTCOME_SUCCEEDED

SIDE = (120, 4000)  # pixels of a chart's width and height
SPEC_MEDIA = "application/vnd.vegalite.v6+json"
MEDIA = {"svg": "image/svg+xml", "png": "image/png", "vega-lite": SPEC_MEDIA}
ENDINGS = {"svg": "svg", "png": "png", "vega-lite": "vl.json"}

Format = Literal["svg", "png", "vega-lite"]
Theme = Literal["light", "dark"]
Mark = Literal["", "bar", "line", "area", "scatter", "histogram", "heatmap", "pie", "box"]


class Picture(TypedDict):
    """What was made: a blob that hangs on the reply. An SVG in it only draws; show it as an image all the same."""

    name: str
    digest: str
    size: int
    media_type: str
    width: int
    height: int


class Seen(TypedDict):
    """A column of the data."""

    name: str
    kind: str
    missing: int
    distinct: int


class Chosen(TypedDict):
    """What is shown, and how."""

    mark: str
    x: str
    y: str
    color: str
    aggregate: str
    marks: int
    by: Literal["request", "rules", "model", "specification"]


class Chart(TypedDict):
    """A chart, and everything that was decided on the way."""

    picture: Picture
    title: str
    description: str
    chosen: Chosen
    warnings: list[str]  # it is not what was asked for: a column that was named is not there
    notes: list[str]
    rows: int
    columns: list[Seen]
    renderer: str
    model: str


class Diagram(TypedDict):
    """A diagram."""

    picture: Picture
    title: str
    notes: list[str]
    renderer: str


class Checked(TypedDict):
    """Whether a specification or a source can be drawn."""

    valid: bool
    problem: str
    next: str


class Capabilities(TypedDict):
    """What Playfair can do, as it is here."""

    inputs: list[str]
    marks: list[str]
    formats: list[str]
    themes: list[str]
    syntaxes: list[str]
    layouts: list[str]
    renderers: dict[str, str]
    caps: dict[str, float]


class Playfair:
    """Draws charts and diagrams of what strangers wrote, inside the sandbox it runs in."""

    @tool(effects="read", idempotent=True)
    async def create_chart(
        self,
        call: Call,
        *,
        data: str = "",
        text: str = "",
        name: str = "",
        input: Literal["", "csv", "tsv", "json", "ndjson", "parquet"] = "",
        request: str = "",
        spec: str = "",
        mark: Mark = "",
        x: str = "",
        y: str = "",
        color: str = "",
        title: str = "",
        format: Format = "svg",
        theme: Theme = "light",
        width: int = 800,
        height: int = 450,
        scale: float = 1.0,
        model: str = "",
        caps: Caps = {},  # noqa: B006  it is only read
    ) -> Chart:
        """Draws a table as a chart: SVG, PNG or the Vega-Lite specification.

        The table is a blob (`data`, its digest) or short (`text`): CSV, TSV, JSON, JSON lines or Parquet. What to
        show is said in simple words (`request`, as "average price by month") or outright (`mark`, `x`, `y`, `color`:
        names of columns). What is not said is chosen by the columns' types, and told in `notes`; a column that the
        words name and that is not there is told in `warnings`. With `model` (an alias, or "default") a model chooses;
        where its answer is no chart the plain choice is drawn, and that is told.
        `spec` is a Vega-Lite specification to be drawn as it is, as JSON or as a digest, with its own data or with
        these. Nothing is ever loaded from an address.
        """
        began = monotonic()
        limits = Limits.of(caps)
        _check_sides(width, height, scale)
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="chart-")))
            drawing = await stack.enter_async_context(started("draw")) if format != "vega-lite" else None
            order: dict[str, Any] = {
                "caps": limits.as_words(),
                "file": await _data(call, folder, data, text, limits),
                "name": name or _name_of(call, data),
                "format": input,
                "request": request,
                "mark": mark,
                "x": x,
                "y": y,
                "color": color,
                "title": clean(title, 200),
                "theme": theme,
                "width": width,
                "height": height,
                "sample": bool(model),
            }
            by: Literal["request", "rules", "model", "specification"] = (
                "request" if mark or x or y or color or request else "rules"
            )
            if spec:
                order["spec"], by = await _spec(call, folder, spec, limits), "specification"
            if not order["file"] and not spec:
                raise InvalidArgument(
                    "There is no data.", next="Give data (a digest), text, or a spec with data within."
                )
            await call.progress("Reading the data", what="reading")
            found = await _run("read", order, limits)
            answered = ""
            if model and not spec:
                found, answered = await _ask_model(call, order, found, model, limits)
                by = "model" if answered else by
            specification = found["spec"]
            notes, warnings = list(found["notes"]), list(found.get("warnings", []))
            content = json.dumps(specification, ensure_ascii=False, allow_nan=False).encode()
            versions: dict[str, str] = {}
            size = (width, height)
            if drawing is not None:
                await call.progress("Drawing", what="drawing")
                drawn = await drawing.run(
                    {
                        "caps": limits.as_words(),
                        "syntax": "vega-lite",
                        "spec": specification,
                        "title": found["title"] or "Chart",
                        "description": found["description"],
                        "folder": str(folder),
                        "png": format == "png",
                        "scale": scale,
                    },
                    limits.seconds + 5,
                )
                notes += drawn["notes"]
                versions, size = drawn["versions"], (drawn["width"], drawn["height"])
                content = (folder / f"chart.{format}").read_bytes()
            picture = await _keep(call, content, format, size)
            renderer = _renderer(versions, "vl-convert", "vega-lite") or "none: the specification itself"
            columns = [Seen(**{key: each[key] for key in Seen.__annotations__}) for each in found.get("columns", [])]  # type: ignore[typeddict-item]
            _conclude(
                call, picture, renderer, [*warnings, *notes], began, rows=found.get("rows", 0), columns=len(columns)
            )
            chosen = found.get("chosen", {})
            return Chart(
                picture=picture,
                title=found["title"],
                description=found["description"],
                chosen=Chosen(
                    mark=chosen.get("mark", ""),
                    x=chosen.get("x", ""),
                    y=chosen.get("y", ""),
                    color=chosen.get("color", ""),
                    aggregate=chosen.get("aggregate", ""),
                    marks=chosen.get("marks", 0),
                    by=by,
                ),
                warnings=warnings,
                notes=notes,
                rows=found.get("rows", 0),
                columns=columns[:200],
                renderer=renderer,
                model=answered,
            )

    @tool(effects="read", idempotent=True)
    async def create_diagram(
        self,
        call: Call,
        *,
        source: str,
        syntax: Literal["dot", "mermaid"],
        layout: Literal["dot", "neato", "fdp", "circo", "twopi"] = "dot",
        title: str = "",
        format: Literal["svg", "png"] = "svg",
        theme: Theme = "light",
        scale: float = 1.0,
        caps: Caps = {},  # noqa: B006  it is only read
    ) -> Diagram:
        """Draws a diagram in DOT (by Graphviz, with a `layout`) or in Mermaid: SVG or PNG.

        `source` is the text itself or the digest of a blob. Links, clicks, HTML, pictures and settings in the source
        are not obeyed, and `notes` say so.
        """
        began = monotonic()
        limits = Limits.of(caps)
        _check_sides(SIDE[0], SIDE[0], scale)
        with TemporaryDirectory(prefix="diagram-") as directory:
            folder = Path(directory)
            drawn = await _draw_diagram(call, folder, source, syntax, layout, title, format, theme, scale, limits)
            content = (folder / f"chart.{format}").read_bytes()
            picture = await _keep(call, content, format, (drawn["width"], drawn["height"]), "diagram")
        renderer = _renderer(drawn["versions"], "graphviz" if syntax == "dot" else "merman")
        _conclude(call, picture, renderer, drawn["notes"], began)
        return Diagram(picture=picture, title=clean(title, 200), notes=drawn["notes"], renderer=renderer)

    @tool(effects="read", idempotent=True)
    async def validate(
        self,
        call: Call,
        *,
        source: str,
        syntax: Literal["vega-lite", "dot", "mermaid"],
        caps: Caps = {},  # noqa: B006  it is only read
    ) -> Checked:
        """Says whether a Vega-Lite specification, or a diagram's source, would be drawn, and if not, why.

        `source` is the text itself or the digest of a blob.
        """
        began = monotonic()
        limits = Limits.of(caps)
        checked = Checked(valid=True, problem="", next="")
        with TemporaryDirectory(prefix="check-") as directory:
            folder = Path(directory)
            try:
                if syntax == "vega-lite":
                    spec = await _spec(call, folder, source, limits)
                    await _run("check", {"caps": limits.as_words(), "spec": spec}, limits)
                else:
                    await _draw_diagram(call, folder, source, syntax, "dot", "", "svg", "light", 1.0, limits)
            except InvalidArgument as error:
                checked = Checked(valid=False, problem=error.message, next=error.next)
        blob = await store(
            call.ctx.files, json.dumps(checked).encode(), name="validation.json", media_type="application/json"
        )
        _conclude(call, _picture(blob, (0, 0)), "validation", [], began)
        call.ctx.verdict.artifacts.append(blob)
        return checked

    @tool(effects="read", idempotent=True)
    async def list_capabilities(self, call: Call) -> Capabilities:
        """Says what can be read and drawn here, with which renderers, and what the caps are."""
        began = monotonic()
        limits = Limits()
        about = await _run("about", {"caps": limits.as_words()}, limits)
        versions: dict[str, str] = about["versions"]
        found = Capabilities(
            inputs=["csv", "tsv", "json", "ndjson", *(["parquet"] if "arro3" in versions else [])],
            marks=["bar", "line", "area", "scatter", "histogram", "heatmap", "pie", "box"],
            formats=list(MEDIA),
            themes=["light", "dark"],
            syntaxes=[
                "vega-lite",
                *(["dot"] if "graphviz" in versions else []),
                *(["mermaid"] if "merman" in versions else []),
            ],
            layouts=["dot", "neato", "fdp", "circo", "twopi"],
            renderers=versions,
            caps=about["limits"],
        )
        blob = await store(
            call.ctx.files, json.dumps(found).encode(), name="capabilities.json", media_type="application/json"
        )
        _conclude(call, _picture(blob, (0, 0)), "none", [], began)
        call.ctx.verdict.artifacts.append(blob)
        return found


def _check_sides(width: int, height: int, scale: float) -> None:
    least, most = SIDE
    if not (least <= width <= most and least <= height <= most):
        raise InvalidArgument(f"A chart is {least} to {most} pixels wide and high.", next="See --size.")
    if not 0.25 <= scale <= 4:
        raise InvalidArgument("The scale is 0.25 to 4.", next="See --scale.")


def _name_of(call: Call, digest: str) -> str:
    return next((each.name for each in call.blobs if each.digest == digest), "")


async def _data(call: Call, folder: Path, digest: str, text: str, limits: Limits) -> str:
    """Where the data lies now; empty where there is none.

    Raises:
        NotFound: there is no such blob.
        Exhausted: it is over the cap.
    """
    if digest and text:
        raise InvalidArgument("Data is given twice.", next="Give data or text.")
    path = folder / "data"
    if text:
        path.write_text(text, encoding="utf-8")
    elif digest:
        known = next((each.size for each in call.blobs if each.digest == digest), 0)
        limits.check("bytes", known, f"The data has {known:,} bytes")
        size = await fetch(call.ctx.files, digest, path)
        limits.check("bytes", size, f"The data has {size:,} bytes")
    else:
        return ""
    return str(path)


async def _source(call: Call, folder: Path, given: str, limits: Limits) -> str:
    """A text that was given as it is, or as the digest of a blob."""
    if not given.startswith("sha256:"):
        limits.check("spec_bytes", len(given.encode()), f"The source has {len(given.encode()):,} bytes")
        return given
    path = folder / "source"
    size = await fetch(call.ctx.files, given, path)
    limits.check("bytes", size, f"The source has {size:,} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidArgument("The source is no UTF-8 text.", next="Mend it.") from None


async def _spec(call: Call, folder: Path, given: str, limits: Limits) -> Any:
    text = await _source(call, folder, given, limits)
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"The specification is no JSON: {clean(str(error), 200)}.", next="Mend it.") from None


async def _run(what: str, order: dict[str, Any], limits: Limits) -> dict[str, Any]:
    async with started(what) as job:
        return await job.run(order, limits.seconds + 5)


async def _draw_diagram(
    call: Call,
    folder: Path,
    source: str,
    syntax: str,
    layout: str,
    title: str,
    format: str,
    theme: str,
    scale: float,
    limits: Limits,
) -> dict[str, Any]:
    text = await _source(call, folder, source, limits)
    limits.check("spec_bytes", len(text.encode()), f"The source has {len(text.encode()):,} bytes")
    order = {
        "caps": limits.as_words(),
        "syntax": syntax,
        "source": text,
        "layout": layout,
        "theme": theme,
        "title": clean(title, 200) or "Diagram",
        "folder": str(folder),
        "png": format == "png",
        "scale": scale,
    }
    return await _run("diagram", order, limits)


async def _ask_model(
    call: Call, order: dict[str, Any], found: dict[str, Any], model: str, limits: Limits
) -> tuple[dict[str, Any], str]:
    """What came of the model's choice, and which model it was; the plain choice with a note where nothing did."""
    await call.progress("Asking a model", what="choosing")
    try:
        proposed, why, answered = await propose(
            call.ctx.llm, order["request"], found["columns"], found.pop("sample", []), model
        )
        made = await _run("read", order | {"spec": proposed}, limits)
    except (Error, ValueError) as error:
        said = error.message if isinstance(error, Error) else str(error)
        note = f"The model's choice was not used, the plain one was: {clean(said, 300)}"
        return found | {"notes": [*found["notes"], note]}, ""
    encoding = proposed["encoding"]
    made["chosen"] = {
        "mark": proposed["mark"],
        **{
            way: str(encoding.get(way, {}).get("title", encoding.get(way, {}).get("field", "")))
            for way in ("x", "y", "color")
        },
        "aggregate": str(next((each["aggregate"] for each in encoding.values() if "aggregate" in each), "")),
        "marks": 0,
    }
    made["notes"] = [*made["notes"], f"A model chose: {clean(why, 300)}"]
    return made, answered


async def _keep(call: Call, content: bytes, format: str, size: tuple[int, int], name: str = "chart") -> Picture:
    blob = await store(call.ctx.files, content, name=f"{name}.{ENDINGS[format]}", media_type=MEDIA[format])
    call.ctx.verdict.artifacts.append(blob)
    return _picture(blob, size)


def _picture(blob: Blob, size: tuple[int, int]) -> Picture:
    return Picture(
        name=blob.name,
        digest=blob.digest,
        size=blob.size,
        media_type=blob.media_type,
        width=size[0],
        height=size[1],
    )


def _renderer(versions: dict[str, str], *names: str) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _conclude(
    call: Call, picture: Picture, renderer: str, notes: list[str], began: float, rows: int = 0, columns: int = 0
) -> None:
    verdict = call.ctx.verdict
    verdict.outcome = OUTCOME_SUCCEEDED
    verdict.evidence = {
        "artifact": picture["digest"],
        "rows": rows,
        "columns": columns,
        "renderer": renderer,
        "warnings": notes[:50],
        "seconds": round(monotonic() - began, 2),
    }
