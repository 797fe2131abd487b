"""`madlab chart`: has Playfair draw a table or a diagram in a sandbox, and writes the picture to a file.

What comes back was made from the data of strangers. It is written to a file that cannot be run, and never opened here.
"""

import json as jsons
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Fault
from core.grace.cli.files import check_regular
from core.grace.cli.life import Json
from core.grace.cli.runs import tell_waiting
from core.grace.cli.scanning import failed, watch
from core.grace.cli.talk import fault
from protos.errors import InvalidArgument, NotFound

INPUT_BYTES = 256 * 1024**2
HEAD_BYTES = 65_536  # that are looked at before anything is sent
PICTURE_BYTES = 64 * 1024**2
RESULT_BYTES = 4 * 1024**2
DIAGRAMS = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}
SPECIFICATIONS = (".vl.json", ".vega-lite.json")
ENDINGS = {"svg": "svg", "png": "png", "vega-lite": "vl.json"}
_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Mark(StrEnum):
    """Kinds of charts."""

    BAR = "bar"
    LINE = "line"
    AREA = "area"
    SCATTER = "scatter"
    HISTOGRAM = "histogram"
    HEATMAP = "heatmap"
    PIE = "pie"
    BOX = "box"


class Format(StrEnum):
    """What is written."""

    SVG = "svg"
    PNG = "png"
    VEGA_LITE = "vega-lite"


class Input(StrEnum):
    """What the data is, where its name does not say."""

    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"
    DOT = "dot"
    MERMAID = "mermaid"
    SPEC = "vega-lite"


class Theme(StrEnum):
    """On which ground."""

    LIGHT = "light"
    DARK = "dark"


class Layout(StrEnum):
    """How Graphviz lays a graph out."""

    DOT = "dot"
    NEATO = "neato"
    FDP = "fdp"
    CIRCO = "circo"
    TWOPI = "twopi"


def add_to(app: typer.Typer) -> None:
    app.command()(chart)


def chart(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="CSV, TSV, JSON, NDJSON, Parquet, Vega-Lite, DOT, Mermaid; - reads it."),
    ],
    request: Annotated[str, typer.Argument(metavar='"WHAT TO SHOW"', help='As "average price by month".')] = "",
    type: Annotated[Mark | None, typer.Option(help="Which kind of chart; else it is chosen.")] = None,
    x: Annotated[str, typer.Option(metavar="COL", help="The column from left to right.")] = "",
    y: Annotated[str, typer.Option(metavar="COL", help="The column upwards.")] = "",
    color: Annotated[str, typer.Option(metavar="COL", help="The column that makes the series.")] = "",
    title: Annotated[str, typer.Option(metavar="TEXT", help="The title; else it is made.")] = "",
    format: Annotated[Format | None, typer.Option(help="What to write; else as --out ends, or SVG.")] = None,
    theme: Annotated[Theme, typer.Option(help="On a light or a dark ground.")] = Theme.LIGHT,
    size: Annotated[str, typer.Option(metavar="WxH", help="In pixels.")] = "800x450",
    scale: Annotated[float, typer.Option(metavar="N", help="Of a PNG: 2 has twice the pixels each way.")] = 1.0,
    layout: Annotated[Layout, typer.Option(help="How a DOT graph is laid out.")] = Layout.DOT,
    input: Annotated[Input | None, typer.Option(help="What DATA is, where its name does not say.")] = None,
    spec: Annotated[Path | None, typer.Option(metavar="FILE", help="A Vega-Lite specification for DATA.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; - prints it. Else beside you.")] = None,
    model: Annotated[str, typer.Option(metavar="ALIAS", help="A model chooses; default is the lab's own.")] = "",
    cap: Annotated[list[str] | None, typer.Option(metavar="NAME=N", help="Move a cap: rows=3000000.")] = None,
    json: Json = False,
) -> None:
    """Draw a table as a chart, or a diagram from its source, in a sandbox and offline.

    Without a model the chart is chosen by plain rules: by what was asked for, the words of the request, the types of
    the columns. What was chosen, and why, is said; where the words name a column that is not there, a warning is.

      madlab chart sales.csv "revenue by month"
      madlab chart sales.parquet "top 10 products by revenue" --format png --out top.png
      madlab chart measures.csv --type scatter --x height --y weight --color sex --theme dark
      madlab chart architecture.mmd --out architecture.svg
    """
    from core.grace.cli.progress import progress

    wanted = format or _format_of(out)
    kind = input.value if input else _kind_of(data)
    place = _place(out, data, wanted)
    client = Client.to(context.obj, waiting=tell_waiting)
    client.get("/api/v1/status")  # is anybody there? Asked before anything is sent.
    with progress() as shown:
        blob = _send(client, data)
        common: dict[str, Any] = {"theme": theme.value, "scale": scale, "title": title, "caps": _caps(cap or ())}
        if kind in ("dot", "mermaid"):
            if wanted is Format.VEGA_LITE:
                raise InvalidArgument("a diagram is no Vega-Lite", next="write --format svg or png")
            tool = "create_diagram"
            arguments = {"source": blob["digest"], "syntax": kind, "layout": layout.value} | common
        else:
            tool = "create_chart"
            width, height = _sides(size)
            arguments = common | {"request": request, "width": width, "height": height, "model": model}
            arguments |= {"mark": type.value if type else "", "x": x, "y": y, "color": color}
            if kind == "vega-lite":
                arguments["spec"] = blob["digest"]
            else:
                arguments |= {"data": blob["digest"], "name": blob["name"], "input": kind}
        blobs = [blob]
        if spec is not None and tool == "create_chart":
            blobs.append(_send(client, spec))
            arguments["spec"] = blobs[1]["digest"]
        arguments["format"] = wanted.value
        message = {"recipient": "playfair", "kind": "call", "tool": tool, "arguments": arguments, "blobs": blobs}
        run = watch(client, client.publish(message)["run"], shown)
    said = _answer(run, tool)
    if said["kind"] == "fault":
        raise fault(said)
    if run["outcome"] != "succeeded":
        raise failed(run)
    result = _result(client, said, run["id"])
    _write(client, result["picture"], place)
    for each in result.get("warnings", [])[:30]:
        screen.note(f"Warning: {screen.plain(each)}")
    if json:
        screen.data({"run": run["id"], "written": "" if place is None else str(place)} | result)
        return
    for line in _told(result):
        screen.note(line)
    if place is not None:
        picture = result["picture"]
        screen.note(f"Written: {place} ({picture['width']}x{picture['height']}, {screen.size(picture['size'])})")


def _format_of(out: Path | None) -> Format:
    if out is None:
        return Format.SVG
    if out.name.endswith(SPECIFICATIONS):
        return Format.VEGA_LITE
    formats = {".png": Format.PNG, ".svg": Format.SVG, "": Format.SVG}
    try:
        return formats[out.suffix.lower()]
    except KeyError:
        raise InvalidArgument(f"{out}: a chart is not written as {out.suffix}", next="end it in .svg or .png") from None


def _kind_of(data: Path) -> str:
    """What Playfair should take it for; empty lets him look."""
    if data.name.endswith(SPECIFICATIONS):
        return "vega-lite"
    return DIAGRAMS.get(data.suffix.lower(), "")


def _sides(size: str) -> tuple[int, int]:
    """
    Raises:
        InvalidArgument: it is no size.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InvalidArgument(f"{size!r} is no size", next="write it as --size 800x450")
    return int(match[1]), int(match[2])


def _caps(given: Sequence[str]) -> dict[str, float]:
    """
    Raises:
        InvalidArgument: one is not NAME=NUMBER.
    """
    caps: dict[str, float] = {}
    for each in given:
        name, equals, number = each.partition("=")
        try:
            caps[name] = float(number) if name == "seconds" else int(number.replace("_", "").replace(",", ""))
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidArgument(f"{each!r} moves no cap", next="write it as --cap rows=3000000")
    return caps


def _place(out: Path | None, data: Path, format: Format) -> Path | None:
    """Where the picture goes; None is standard output. Without a name nothing that is there is written over.

    Raises:
        InvalidArgument: it cannot be written there.
    """
    if out is not None and str(out) == "-":
        return None
    if out is None:
        stem = re.sub(r"[^\w.()-]+", "_", data.name.partition(".")[0]).strip("_.-") or "chart"
        names = (f"{stem}{(number and f'-{number}') or ''}.{ENDINGS[format]}" for number in (0, *range(2, 1000)))
        out = next((Path(each) for each in names if not Path(each).exists()), Path(f"chart.{ENDINGS[format]}"))
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise InvalidArgument(f"{out} cannot be written", next="name a file in a directory of yours")
    return out


def _send(client: Client, path: Path) -> dict[str, Any]:
    """Stores a file, or what comes on standard input.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it cannot be read, is too large, or neither text nor Parquet.
    """
    try:
        content = sys.stdin.buffer.read(INPUT_BYTES + 1) if str(path) == "-" else _read(path)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", next="name a file of data, or - for standard input") from None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", next="mend its permissions") from None
    if len(content) > INPUT_BYTES:
        raise InvalidArgument(f"{path} is larger than {screen.size(INPUT_BYTES)}", next="aggregate it beforehand")
    head = content[:HEAD_BYTES]
    if b"\0" in head and not head.startswith((b"PAR1", b"\xff\xfe", b"\xfe\xff")):  # these begin UTF-16
        expected = "expected was CSV, TSV, JSON, JSON lines, Parquet, or a diagram or specification as text"
        raise InvalidArgument(f"{path} holds binary data: {expected}", next="save what it holds as CSV, and chart that")
    name = "data" if str(path) == "-" else path.name
    return client.upload(lambda: _chunks(content), name=name, media_type="application/octet-stream")


def _read(path: Path) -> bytes:
    check_regular(path, streams=True)
    with path.open("rb") as file:
        return file.read(INPUT_BYTES + 1)


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 256 * 1024):
        yield content[start : start + 256 * 1024]


def _answer(run: dict[str, Any], tool: str) -> dict[str, Any]:
    """What Playfair answered.

    Raises:
        Fault: he did not.
    """
    for each in reversed(run["messages"]):
        if each["kind"] in ("reply", "fault") and each["tool"] == tool:
            found: dict[str, Any] = each
            return found
    raise failed(run)


def _result(client: Client, said: dict[str, Any], run: str) -> dict[str, Any]:
    """The answer's data, looked at as what a stranger says.

    Raises:
        Fault: it is not what Playfair says.
    """
    found = said["data"]
    if not found:
        blob = next((each for each in said["blobs"] if each["name"] == "result.json"), None)
        if blob is not None and blob["size"] <= RESULT_BYTES:
            with TemporaryFile() as file:
                client.download(blob["digest"], file)
                file.seek(0)
                with suppress(ValueError, RecursionError):
                    found = jsons.loads(file.read())
    picture = found.get("picture") if isinstance(found, dict) else None
    if (
        not isinstance(picture, dict)
        or not all(isinstance(picture.get(each), int) for each in ("width", "height", "size"))
        or not _DIGEST.fullmatch(str(picture.get("digest")))
        or not 0 < picture["size"] <= PICTURE_BYTES
    ):
        raise Fault("no_result", f"the run {run} left a result without a picture", next=f"see: madlab show {run}")
    result: dict[str, Any] = found
    return result


def _write(client: Client, picture: dict[str, Any], place: Path | None) -> None:
    from core.grace.cli.pages import create

    if place is None:
        with TemporaryFile() as file:
            client.download(picture["digest"], file)
            file.seek(0)
            sys.stdout.buffer.write(file.read())
        return
    with os.fdopen(create(place), "wb+") as file:
        client.download(picture["digest"], file)


def _told(result: dict[str, Any]) -> Iterator[str]:
    """What a person should know of the picture."""
    if chosen := result.get("chosen"):
        yield screen.plain(result.get("description") or result.get("title"))
        by = f"{chosen.get('by')} {result.get('model') or ''}".strip()
        columns = len(result.get("columns", []))
        yield screen.plain(f"{result.get('rows', 0):,} rows, {columns} columns; chosen by the {by}")
    for each in result.get("notes", [])[:30]:
        yield f"Note: {screen.plain(each)}"
