"""Playfair at work: every kind of chart in his own image, and whole runs as a person and a model meet them."""

import json
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest

from protos.v1.message_pb2 import KIND_FAULT, KIND_REPLY
from tests.commands import Madlab, a_lab
from tests.labs import ROOT, call, lab_of
from tests.model_server import ModelServer, Play, Request, model_server
from tests.orchestras import KEY
from tests.playfair import Worker, a_worker

pytestmark = pytest.mark.docker

SAMPLES = Path(__file__).parent / "samples"
EMADS = f'emads = ["{ROOT / "periphery/playfair"}"]\n'
SALES = "day,region,sales\n" + "".join(
    f"2024-{month:02}-01,{region},{month * 10 + at}\n"
    for month in range(1, 13)
    for at, region in enumerate(["North", "South", "West"])
)
SPEC = {
    "data": {"values": [{"a": "x", "b": 1}, {"a": "y", "b": 2}]},
    "mark": "bar",
    "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with a_worker() as one:
        yield one


def size_of(png: bytes) -> tuple[int, int]:
    """The size of a PNG whose pixels are all there."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, pixels, size, depth = 8, b"", (0, 0), 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        if kind == b"IHDR":
            width, height, bits, color = struct.unpack(">IIBB", body[:10])
            size, depth = (width, height), bits * {2: 3, 6: 4, 0: 1, 3: 1, 4: 2}[color] // 8
        pixels += body if kind == b"IDAT" else b""
        at += 12 + length
    assert len(zlib.decompress(pixels)) == size[1] * (size[0] * depth + 1)
    return size


def drawn(svg: bytes) -> tuple[ElementTree.Element, list[str], int]:
    """The root of an SVG, its texts, and how many marks it has."""
    root = ElementTree.fromstring(svg)
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("}text")]
    marks = sum(1 for each in root.iter() if each.attrib.get("role") == "graphics-symbol")
    return root, texts, marks


@pytest.mark.parametrize(
    ("request_", "mark", "marks", "words"),
    [
        ("sales by region", "bar", 3, {"North", "South", "West", "Total sales by region"}),
        ("sales by month and region", "line", 3, {"North", "South", "West"}),
        ("share of sales by month and region", "area", 3, {"0%", "100%"}),
        ("pie of sales by region", "pie", 3, {"Share of total sales by region"}),
        ("distribution of sales", "histogram", 10, {"Number of rows"}),
        ("distribution of sales by region", "box", 9, {"North", "South", "West"}),
        ("heatmap of sales by region and month", "heatmap", 36, {"North", "South", "West"}),
    ],
)
def test_each_kind_of_chart_has_its_marks_and_its_words(
    worker: Worker, request_: str, mark: str, marks: int, words: set[str]
) -> None:
    answer = worker(data=SALES, name="sales.csv", request=request_)
    assert not answer.fault, answer.fault
    assert answer.result["chosen"]["mark"] == mark
    root, texts, found = drawn(answer.picture)
    assert (root.attrib["width"], root.attrib["height"], root.attrib["role"]) == ("800", "450", "img")
    assert words - {each.split("  ")[0] for each in texts} == set()
    assert found >= marks
    assert answer.evidence["rows"] == 36
    assert answer.evidence["columns"] == 3
    assert answer.evidence["artifact"] == answer.result["picture"]["digest"]
    assert "vega-lite 6.4" in answer.evidence["renderer"]


def test_a_request_that_names_what_is_not_there_is_told_and_one_that_quotes_it_is_refused(worker: Worker) -> None:
    drawn_ = worker(data=SALES, request="sales by country", format="vega-lite")
    assert "no column 'country'" in " ".join(drawn_.result["warnings"])
    assert drawn_.evidence["warnings"][:1] == drawn_.result["warnings"]
    assert worker(data=SALES, request="sales by region", format="vega-lite").result["warnings"] == []
    refused = worker(data=SALES, request='"profit" by "country"')
    assert refused.fault["code"] == "INVALID_ARGUMENT"
    assert "'region'" in refused.fault["next"]


def test_a_png_has_the_size_that_was_asked_for_and_is_the_same_each_time(worker: Worker) -> None:
    once, again = (worker(data=SALES, format="png", width=360, height=300, theme="dark", scale=2) for _ in range(2))
    assert size_of(once.picture) == (720, 600)
    assert (once.result["picture"]["width"], once.result["picture"]["height"]) == (720, 600)
    assert once.picture == again.picture


def test_letters_that_a_png_shows_as_boxes_are_told_by_their_script(worker: Worker) -> None:
    names = {"中文": "Chinese", "かな": "Japanese", "한국": "Korean", "हिन्दी": "Devanagari", "ไทย": "Thai"}
    shown = ["Über ½ “x” …", "Жук", "עברית", "😀"]
    data = "k,v\n" + "".join(f"{each},{at}\n" for at, each in enumerate([*names, *shown], 1))
    listed = ", ".join(sorted(names.values()))
    told = [f"No font here has {listed}, which a PNG shows as boxes: an SVG keeps them as text."]
    assert worker(data=data, request="v by k", format="png").evidence["warnings"] == told
    assert worker(data=data, request="v by k", format="svg").evidence["warnings"] == []
    plain = "k,v\n" + "".join(f"{each},1\n" for each in shown)
    assert worker(data=plain, request="v by k", format="png").evidence["warnings"] == []


def test_parquet_is_read_as_what_its_types_say(worker: Worker) -> None:
    answer = worker(data=(SAMPLES / "sales.parquet").read_bytes(), request="sales by region", format="vega-lite")
    kinds = {each["name"]: each["kind"] for each in answer.result["columns"]}
    assert kinds == {
        "when": "temporal",
        "region": "nominal",
        "sales": "quantitative",
        "price": "quantitative",
        "day": "temporal",
        "ok": "nominal",
    }
    values = json.loads(answer.picture)["data"]["values"]
    assert {each["x"]: each["y"] for each in values} == {"N": 18.0, "S": 22.0, "(none)": 26.0}


def test_a_specification_that_was_written_can_be_drawn_again_and_is_the_same_picture(worker: Worker) -> None:
    first = worker(data=SALES, request="sales by month and region")
    spec = worker(data=SALES, request="sales by month and region", format="vega-lite")
    again = worker(data=spec.picture, into="spec")
    assert drawn(again.picture)[1:] == drawn(first.picture)[1:]


def test_a_specification_of_ones_own_is_drawn_with_its_data_or_with_other(worker: Worker) -> None:
    own = worker(spec=json.dumps(SPEC))
    assert {"x", "y"} <= set(drawn(own.picture)[1])
    other = worker(data="a,b\nfirst,1\nsecond,2\n", spec=json.dumps(SPEC | {"title": "Mine"}))
    assert {"first", "second", "Mine"} <= set(drawn(other.picture)[1])
    assert other.result["chosen"]["by"] == "specification"
    wrong = worker(data="a,c\nfirst,1\n", spec=json.dumps(SPEC))
    assert (wrong.fault["code"], wrong.fault["next"]) == ("INVALID_ARGUMENT", "There are: 'a', 'c'.")


def test_diagrams_are_drawn_with_their_words(worker: Worker) -> None:
    dot = worker("create_diagram", source='digraph { a -> b [label="leads to"]; b [label="größer"] }', syntax="dot")
    assert {"a", "größer", "leads to"} <= set(drawn(dot.picture)[1])
    for layout in ("neato", "fdp", "circo", "twopi"):
        made = worker("create_diagram", source="graph { a -- b -- c -- a }", syntax="dot", layout=layout)
        assert set(drawn(made.picture)[1]) == {"a", "b", "c"}, made.fault
    if "mermaid" not in worker("list_capabilities").result["syntaxes"]:
        pytest.skip("there is no Merman for this architecture")
    source = "sequenceDiagram\n  Core->>Playfair: draw this\n  Playfair-->>Core: a picture\n"
    mermaid = worker("create_diagram", source=source, syntax="mermaid", format="png", scale=2)
    assert size_of(mermaid.picture) == (mermaid.result["picture"]["width"], mermaid.result["picture"]["height"])
    mermaid = worker("create_diagram", source=source, syntax="mermaid", theme="dark")
    assert {"Core", "Playfair", "draw this", "a picture"} <= set(drawn(mermaid.picture)[1])
    again = worker("create_diagram", source=source, syntax="mermaid", theme="dark")
    assert mermaid.picture == again.picture


def test_what_can_be_drawn_is_told_without_drawing_it(worker: Worker) -> None:
    assert worker("validate", source=json.dumps(SPEC), syntax="vega-lite").result["valid"] is True
    wrong = worker("validate", source=json.dumps(SPEC | {"mark": "barre"}), syntax="vega-lite").result
    assert (wrong["valid"], "barre" in wrong["problem"]) == (False, True)
    assert worker("validate", source="digraph {", syntax="dot").result["valid"] is False
    able = worker("list_capabilities").result
    assert able["inputs"] == ["csv", "tsv", "json", "ndjson", "parquet"]
    assert {"vl-convert", "vega-lite", "graphviz", "arro3"} <= set(able["renderers"])
    assert able["caps"]["rows"] == 2_000_000


# Whole runs, in the lab.


def scripted(request: Request) -> Play:
    """A model that fills the form well, unless it is asked for nonsense."""
    if "nonsense" in json.dumps(request.body):
        return Play(text='{"mark": "image", "x": {"column": "https://evil"}}')
    way = {"aggregate": "none", "time_unit": "none", "bin": False}
    answer = {
        "why": "Parts of a whole over time.",
        "mark": "bar",
        "x": way | {"column": "day", "time_unit": "yearquarter"},
        "y": way | {"column": "sales", "aggregate": "sum"},
        "color": "region",
        "sort": "none",
        "title": "Sales by quarter",
    }
    return Play(text=json.dumps(answer))


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[ModelServer]:
    async with model_server(scripted) as server:
        yield server


async def test_a_model_chooses_and_what_it_says_wrong_is_replaced_and_told(
    model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = tmp_path_factory.mktemp("key") / "key"
    key.touch(mode=0o600)
    key.write_text(KEY)
    settings = f"""{EMADS}
[providers.here]
kind = "openai"
base_url = "{model.openai}"
key_file = "{key}"
[models.one]
provider = "here"
model = "scripted"
max_tokens = 2000
"""
    async with lab_of(settings, images=("playfair",)) as lab:
        good = await call(lab, "playfair", "create_chart", text=SALES, request="how sales went", model="one")
        assert good.kind == KIND_REPLY, good.text
        chart: dict[str, Any] = json.loads(good.data)
        assert chart["model"] == "scripted", chart["notes"]
        assert (chart["chosen"]["by"], chart["title"]) == ("model", "Sales by quarter")
        [blob] = [each for each in good.blobs if each.name == "chart.svg"]
        svg = b"".join([chunk async for chunk in lab.horace.get(blob.digest)])
        assert {"North", "South", "West", "Sales by quarter"} <= set(drawn(svg)[1])

        bad = await call(lab, "playfair", "create_chart", text=SALES, request="nonsense sales by region", model="one")
        assert bad.kind == KIND_REPLY, bad.text
        chart = json.loads(bad.data)
        assert (chart["model"], chart["chosen"]["by"], chart["chosen"]["mark"]) == ("", "request", "bar")
        assert any("model's choice was not used" in each for each in chart["notes"])
        asked = json.dumps([each.body for each in model.requests])
        assert "2024-01-01" in asked
        assert "2024-06-01" not in asked

        fault = await call(lab, "playfair", "create_chart", text=SALES, x="nowhere")
        assert (fault.kind, json.loads(fault.data)["code"]) == (KIND_FAULT, "invalid_argument")


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(EMADS, images=("base", "playfair"), limit_s=240) as lab:
        yield lab


def test_a_chart_of_a_file_is_written_beside_the_person_who_asked(madlab: Madlab, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(SALES)
    done = madlab("chart", "sales.csv", "sales by region", cwd=tmp_path)
    assert done.code == 0, done.err
    assert drawn((tmp_path / "sales.svg").read_bytes())[2] >= 3
    assert "Bar chart: Total sales by region." in done.err
    assert "Written: sales.svg (800x450," in done.err
    assert done.out == ""
    assert (tmp_path / "sales.svg").stat().st_mode & 0o777 == 0o600
    assert "Warning" not in done.err

    done = madlab("chart", "sales.csv", "sales by country", "--out", "other.svg", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "Warning: There is no column 'country', and the chart shows something else. There are: 'day'" in done.err

    out = tmp_path / "top.png"
    more = ("--type", "bar", "--x", "region", "--y", "sales", "--size", "360x300", "--theme", "dark")
    done = madlab("chart", tmp_path / "sales.csv", *more, "--out", out, "--json")
    assert done.code == 0, done.err
    assert size_of(out.read_bytes()) == (360, 300)
    assert done.json["chosen"]["mark"] == "bar"
    assert done.json["warnings"] == []
    run = madlab("show", done.json["run"], "--json").json
    assert (run["mad"], run["outcome"]) == ("playfair", "succeeded")
    assert run["evidence"]["artifact"] == done.json["picture"]["digest"]
    assert (run["evidence"]["rows"], run["evidence"]["columns"]) == (36, 3)


def test_a_diagram_is_known_by_its_name_and_mistakes_say_what_to_do(madlab: Madlab, tmp_path: Path) -> None:
    (tmp_path / "graph.dot").write_text("digraph { core -> playfair }")
    done = madlab("chart", tmp_path / "graph.dot", "--out", "-")
    assert done.code == 0, done.err
    assert {"core", "playfair"} <= set(drawn(done.out.encode())[1])
    (tmp_path / "x.csv").write_text("a,b\nx,1\n")
    wrong = madlab("chart", tmp_path / "x.csv", "--x", "nowhere", "--json")
    assert (wrong.code, "'a'" in wrong.error["next"]) == (2, True)
    (tmp_path / "junk.csv").write_bytes(Random(1).randbytes(5000))
    junk = madlab("chart", tmp_path / "junk.csv")
    assert junk.code == 2
    assert "holds binary data: expected was CSV" in junk.err
    assert "Run " not in junk.err, "it is not sent"
    (tmp_path / "sly.csv").write_bytes(bytes(range(1, 256)) * 20)
    sly = madlab("chart", tmp_path / "sly.csv", "--json")
    assert (sly.code, sly.error["code"]) == (2, "invalid_argument")
    assert "this is binary data" in sly.error["message"]
    for arguments in (
        [tmp_path / "none.csv"],
        [tmp_path / "x.csv", "--size", "big"],
        [tmp_path / "x.csv", "--cap", "rows"],
        [tmp_path / "x.csv", "--out", "x.jpg"],
    ):
        assert madlab("chart", *arguments).code == 2
