"""What gets out of a picture that is taken apart and built anew: what draws, and nothing else."""

import re
from xml.etree import ElementTree

import pytest

from periphery.playfair.svg import rebuild
from protos.errors import Error, Exhausted, InvalidArgument

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="50">'


def rebuilt(inside: str) -> str:
    return rebuild(f"{HEAD}{inside}</svg>").text


def test_what_draws_is_kept_with_a_title_and_a_description() -> None:
    inside = (
        '<g transform="translate(1,2)"><path d="M0,0h1" fill="#0072b2"/><text x="1" font-size="12">a &lt; b</text></g>'
    )
    made = rebuild(HEAD + inside + "</svg>", title='Sales & "more"', description="Two marks.")
    root = ElementTree.fromstring(made.text)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title desc"
    found = {each.tag.rpartition("}")[2]: each for each in root.iter()}
    assert (found["title"].text, found["desc"].text, found["text"].text) == ('Sales & "more"', "Two marks.", "a < b")
    assert found["path"].attrib == {"d": "M0,0h1", "fill": "#0072b2"}
    assert (made.width, made.height, root.attrib["viewBox"]) == (100, 50, "0 0 100 50")
    assert made.words == ["a", "<", "b"]
    assert not made.dropped


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<script xlink:href='http://evil/x.js'/>",
        "<g onclick='alert(1)' onload='alert(1)'/>",
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml' onload='alert(1)'>evil</body></foreignObject>",
        "<image href='http://evil/x.png'/><image href='data:image/svg+xml;base64,evil'/>",
        "<use href='http://evil/x.svg#a'/><use xlink:href='data:image/svg+xml,evil'/>",
        "<a href='javascript:alert(1)'><rect width='1' height='1'/></a>",
        "<style>@import url(http://evil/x.css);</style>",
        "<style>@import 'http://evil';rect{fill:url(http://evil/x)}</style>",
        "<style>@font-face{font-family:evil;src:url(http://evil)}</style>",
        "<style>rect{fill:\\75rl(http://evil)}</style>",
        "<style>rect{background:url('http://evil')}</style>",
        "<rect style='fill:url(http://evil/x)'/><rect fill='url(http://evil)'/>",
        "<rect style='fill:URL( \"//evil/x\" )'/>",
        "<rect filter='url(http://evil#x)'/><rect mask='url(evil.svg#x)'/>",
        "<animate attributeName='href' to='javascript:alert(1)'/><set attributeName='onload' to='evil'/>",
        "<handler xmlns='http://www.w3.org/2001/xml-events'>evil</handler>",
        "<iframe src='http://evil'/><object data='http://evil'/><embed src='http://evil'/><link href='http://evil'/>",
        "<svg:script xmlns:svg='http://www.w3.org/2000/svg'>evil</svg:script>",
        "<linearGradient href='http://evil'/><pattern xlink:href='http://evil#x'/>",
        "<feImage href='http://evil'/><mpath href='http://evil'/><cursor href='http://evil'/>",
        "<style>rect{fill:red}</style><style><![CDATA[</style><script>evil</script>]]></style>",
        "<rect style='behavior:url(#evil);-moz-binding:url(http://evil)'/>",
        "<?xml-stylesheet href='http://evil'?>",
        "<text><![CDATA[<script>evil()</script>]]></text>",
    ],
)
def test_nothing_that_acts_or_reaches_out_is_left(inside: str) -> None:
    text = rebuilt(inside)
    ElementTree.fromstring(text)
    without_text = re.sub(r">[^<]*<", "><", re.sub(r"<style>(.*?)</style>", r"<\1>", text))
    for word in (
        "script",
        "evil",
        "http:",
        "javascript",
        "onload",
        "onclick",
        "@import",
        "data:",
        "foreign",
        "behavior",
    ):
        assert word not in without_text.replace("http://www.w3.org/2000/svg", ""), text


def test_what_was_left_out_is_counted() -> None:
    made = rebuild(HEAD + "<script/><script/><image/><a><rect/></a><rect onclick='x'/></svg>")
    assert made.dropped == {"<script>": 2, "<image>": 1, "<a>": 1, "onclick": 1}
    assert made.elements == {"svg": 1, "rect": 2}


def test_references_within_the_picture_are_kept() -> None:
    text = rebuilt(
        "<defs><marker id='m'/></defs><path marker-end='url(#m)' style='fill:url(\"#m\")'/><use xlink:href='#m'/>"
    )
    assert 'marker-end="url(#m)"' in text
    assert '<use href="#m">' in text
    assert "url(&quot;#m&quot;)" in text


def test_an_svg_within_one_is_a_group_where_it_would_only_cut_off() -> None:
    text = rebuilt("<svg x='0' y='0' width='9' height='5' viewBox='0 0 9 5'><text>longer than that</text></svg>")
    assert "<g><text>longer than that</text></g></svg>" in text
    assert rebuilt("<svg x='1' width='9' height='5' viewBox='0 0 9 5'/>").count("<svg") == 2


def test_rules_of_style_that_draw_are_kept() -> None:
    text = rebuilt(
        "<style>#d .node rect{fill:#eee;cursor:pointer}@keyframes x{from{opacity:0}to{opacity:1}}g{stroke:red}</style>"
    )
    assert "<style>#d .node rect{fill:#eee}g{stroke:red}</style>" in text


@pytest.mark.parametrize(
    "svg",
    [
        "",
        "<svg",
        "<html><body/></html>",
        '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + HEAD + "<text>&b;</text></svg>",
        '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + HEAD + "<text>&x;</text></svg>",
        HEAD.replace('width="100"', 'width="0"') + "</svg>",
        HEAD.replace('width="100"', 'width="1e99"') + "</svg>",
        HEAD + "<g>" * 1000 + "</g>" * 1000 + "</svg>",
    ],
)
def test_what_is_no_plain_svg_is_refused(svg: str) -> None:
    with pytest.raises((InvalidArgument, Exhausted)) as refused:
        rebuild(svg)
    assert isinstance(refused.value, Error)


def test_a_picture_of_graphviz_has_its_size_in_pixels_and_no_declaration() -> None:
    made = rebuild(
        '<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://x.test/x.dtd">\n<!-- by -->\n'
        '<svg width="127pt" height="206pt" viewBox="0.00 0.00 126.71 205.80" xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    )
    assert (round(made.width), round(made.height)) == (169, 274)
    assert 'viewBox="0.00 0.00 126.71 205.80"' in made.text
    assert made.text.startswith("<svg ")
