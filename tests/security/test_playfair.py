"""What strangers' data, specifications and diagrams do to Playfair: nothing but cost a sentence.

One worker takes all of it, in his own image and under the limits of his sandbox, and draws a plain chart at the end.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.playfair import Worker, a_worker

pytestmark = pytest.mark.docker

SAMPLES = Path(__file__).parents[1] / "integration/samples"
TYPED = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
PLAIN: dict[str, Any] = {"format": "vega-lite"}  # read and chosen, not drawn
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>javascript:alert(1)"


def short(given: object) -> str:
    """The name of a case: a long one would not fit into the environment."""
    return ascii(given)[:40]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with a_worker() as one:
        yield one
        assert one(text="a,b\nx,1\n", format="png").picture.startswith(b"\x89PNG")  # he is well after all of it


def harmless(svg: bytes) -> str:
    """The text of an SVG that only draws."""
    assert not re.search(rb"<!|<\?", svg)
    root = ElementTree.fromstring(svg)
    for each in root.iter():
        tag = each.tag.removeprefix("{http://www.w3.org/2000/svg}")
        assert tag not in ("script", "foreignObject", "image", "a", "animate", "set", "iframe"), tag
        assert "{" not in tag
        for name, value in each.attrib.items():
            assert not name.lower().startswith("on"), name
            assert name != "href" or value.startswith("#"), value
            assert not re.search(r"url\((?!\s*[\"']?#)", value), value
        if tag == "style":
            assert not re.search(r"@import|url\((?!\s*[\"']?#)|expression|@font-face", each.text or "")
    return "".join(root.itertext())


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"[" * 500_000 + b"]" * 500_000, {}),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {}),
        (b"PAR1" + b"\xff" * 2_000 + b"PAR1", {}),
        (b"PAR1", {}),
        (b"\x00" * 10_000, {}),
        (b"", {}),
        (b"\xff\xfe" + b"a,b\n".decode().encode("utf-16-le") + b"\x00", {}),
        (b'a\n"' + b"x" * 3_000_000, {}),
        (b"a,b\n" + b"1,2\n" * 50_000, {"caps": {"rows": 1_000}}),
        (b",".join(b"c%d" % at for at in range(3_000)) + b"\n", {}),
        (b"a\n" + b"".join(b"t%d\n" % at for at in range(250_000)), {}),
        (b"a,b\n1,2\n", {"caps": {"rows": 10**12}}),
        (b"a,b\n1,2\n", {"width": 10**6}),
        (b"a,b\n1,2\n", {"x": "__proto__"}),
    ],
    ids=short,
)
def test_data_that_is_wrong_on_purpose_is_refused_by_a_code_and_a_sentence(
    worker: Worker, content: bytes, arguments: dict[str, Any]
) -> None:
    answer = worker(data=content, **(PLAIN | arguments))
    assert answer.fault["code"] in TYPED, answer
    assert answer.fault["message"].endswith(".")
    assert answer.fault["next"]
    assert not answer.files


def test_a_parquet_file_that_unpacks_to_two_gigabytes_ends_for_want_of_memory_and_takes_nobody_along(
    worker: Worker,
) -> None:
    answer = worker(data=(SAMPLES / "bomb.parquet").read_bytes(), **PLAIN)
    assert answer.fault["code"] in TYPED, answer
    assert worker(text="a,b\nx,1\n", **PLAIN).result["rows"] == 1


def test_a_million_rows_are_a_chart(worker: Worker) -> None:
    rows = b"k,v\n" + b"".join(b"k%d,%d\n" % (at % 7, at) for at in range(1_000_000))
    answer = worker(data=rows, request="sum of v by k", **PLAIN)
    assert answer.result["rows"] == 1_000_000
    assert sum(each["y"] for each in json.loads(answer.picture)["data"]["values"]) == sum(range(1_000_000))


def test_numbers_that_are_none_or_without_end_are_left_out_and_told(worker: Worker) -> None:
    rows = "k,v\na,1e999999999\nb,NaN\nc,-Infinity\nd,1e308\ne,5\nf,1e-320\n"
    answer = worker(data=rows, request="v by k")
    assert "4 rows without 'v' were left out." in answer.result["notes"]
    assert re.search(r"NaN|Infinity|null|undefined", answer.picture.decode()) is None


def test_texts_of_strangers_are_text_in_the_picture(worker: Worker) -> None:
    rows = (
        f'"{EVIL.replace(chr(34), chr(34) * 2)}",v\n"=cmd|\'/c calc\'!A1",1\n"\u202eabc\u2066\x1b[31m",2\n"]]>&x;",3\n'
    )
    answer = worker(data=rows, title=EVIL)
    said = harmless(answer.picture)
    assert "<script>alert(1)</script>" in said
    assert "=cmd|'/c calc'!A1" in said
    assert "]]>&x;" in said
    assert not set("\u202e\u2066\x1b") & set(said)
    assert not set("\u202e\u2066\x1b") & set(json.dumps(answer.result, ensure_ascii=False))


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"url": "http://127.0.0.1/x.json"}},
        {"data": {"url": "file:///etc/passwd", "format": {"type": "csv"}}},
        {"mark": {"type": "image", "url": "file:///etc/passwd"}},
        {"transform": [{"calculate": "datum.a.constructor.constructor('while(1);')()", "as": "b"}]},
        {"encoding": {"href": {"value": "javascript:alert(1)"}}},
        {"data": {"sequence": {"start": 0, "stop": 10**12}}},
        {"encoding": {"x": {"field": "a", "bin": {"maxbins": 10**12}}}},
        {"layer": [{"mark": "bar"}] * 1_000},
        {"mark": "no such mark"},
        {"encoding": {"x": {"no such": "key"}}},
        {"width": 10**9},
        {"transform": [{"density": "a", "steps": 10**9}]},
    ],
    ids=short,
)
def test_a_specification_that_reaches_out_or_multiplies_is_refused(worker: Worker, change: dict[str, Any]) -> None:
    spec = {"data": {"values": [{"a": 1}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}} | change
    answer = worker(spec=json.dumps(spec), **PLAIN)
    assert answer.fault["code"] in TYPED, answer


def test_the_renderer_itself_loads_nothing(worker: Worker) -> None:
    """What our rules refuse before, asked of the renderer behind them."""
    import periphery.playfair.drawing as drawing

    source = Path(drawing.__file__).read_text()
    assert source.count("vegalite_to_svg(") == source.count("allowed_base_urls=[]") == 2


def test_a_chart_that_takes_too_long_is_ended(worker: Worker) -> None:
    fold = [{"fold": [f"c{at}" for at in range(60)]}] * 4  # sixty times as many rows, four times over
    spec = {
        "data": {"values": [{f"c{at}": at for at in range(60)}]},
        "transform": fold,
        "mark": "point",
        "encoding": {"x": {"field": "value", "type": "quantitative"}},
    }
    answer = worker(spec=json.dumps(spec), caps={"seconds": 1})
    assert answer.fault["code"] in TYPED, answer


@pytest.mark.parametrize(
    ("syntax", "source"),
    [
        ("dot", 'digraph { a [image="/etc/passwd"] }'),
        ("dot", 'digraph { graph [imagepath="/etc"]; a }'),
        ("dot", 'digraph { a [shape=epsf, shapefile="/etc/passwd"] }'),
        ("dot", 'digraph { graph [fontpath="/etc"]; a }'),
        ("dot", 'digraph { a [label=<<TABLE><TR><TD><IMG SRC="/etc/passwd"/></TD></TR></TABLE>>] }'),
        ("dot", 'digraph { "image"="/etc/passwd"; node ["image"="/etc/passwd"] a }'),
        ("dot", "graph {" + "subgraph {" * 20_000 + "}" * 20_000 + "}"),
        ("dot", "no graph"),
        ("dot", "x" * 300_000),
        ("mermaid", 'flowchart LR\n A["<img src=http://evil onerror=alert(1)>"]'),
        ("mermaid", "no diagram"),
        ("mermaid", "sequenceDiagram\n" + "loop x\n" * 5_000),
        ("mermaid", "x" * 300_000),
    ],
    ids=short,
)
def test_a_diagram_that_wants_files_or_is_none_is_refused(worker: Worker, syntax: str, source: str) -> None:
    answer = worker("create_diagram", source=source, syntax=syntax)
    assert answer.fault["code"] in TYPED, answer


@pytest.mark.parametrize(
    ("syntax", "source"),
    [
        (
            "dot",
            'digraph { a [URL="javascript:alert(1)", label="<script>alert(1)</script>"]; a -> b [href="http://evil"] }',
        ),
        ("dot", 'digraph { a [id="x\\" onload=\\"alert(1)", class="c\\" onclick=\\"x", tooltip="<script>"] }'),
        ("dot", 'digraph { a [label=<<TABLE HREF="javascript:alert(1)"><TR><TD>cell</TD></TR></TABLE>>] }'),
        (
            "dot",
            'digraph { stylesheet2="http://evil"; a [color="red;fill:url(http://evil)" fontname="x\\"/><script>"] }',
        ),
        ("mermaid", 'flowchart LR\n A-->B\n click A "javascript:alert(1)"\n click B href "http://evil" _blank'),
        (
            "mermaid",
            '%%{init: {"securityLevel": "loose", "htmlLabels": true}}%%\nflowchart LR\n A["<b onclick=alert(1)>x</b>"]',
        ),
        (
            "mermaid",
            "---\nconfig:\n  securityLevel: loose\n---\nflowchart LR\n A[x]:::c\n classDef c fill:url(http://evil)",
        ),
        (
            "mermaid",
            "sequenceDiagram\n participant A\n link A: Home @ javascript:alert(1)\n A->>A: <script>alert(1)</script>",
        ),
        ("mermaid", "flowchart LR\n A[x]\n style A fill:red;background:url(http://evil),stroke:expression(alert(1))"),
    ],
    ids=short,
)
def test_a_diagram_with_links_scripts_and_settings_is_drawn_without_them(
    worker: Worker, syntax: str, source: str
) -> None:
    answer = worker("create_diagram", source=source, syntax=syntax)
    if answer.fault:  # a renderer may not take it at all
        assert answer.fault["code"] in TYPED, answer
        return
    harmless(answer.picture)
    for word in (b"javascript:", b"http://evil", b'onclick="', b"<script"):
        assert word not in answer.picture
