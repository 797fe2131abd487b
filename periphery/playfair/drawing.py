"""Specifications and sources become pictures: Vega-Lite by vl-convert, DOT by Graphviz, Mermaid by Merman.

Each picture is taken apart and built anew (`svg`) before anybody sees it, and a PNG is made of what was built. So
nothing that a renderer let through gets into the other format either.
"""

import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from periphery.playfair.limits import Limits
from periphery.playfair.svg import Cleaned, rebuild
from periphery.playfair.tables import clean
from periphery.playfair.theme import FONT, THEMES, Name
from protos.errors import InvalidArgument, Unavailable

VEGA_LITE = "6.4"
LAYOUTS = ("dot", "neato", "fdp", "circo", "twopi")
GRAPHVIZ = "/usr/bin/dot"
LAID_OUT, LETTERS = 16, 14  # pixels: Merman measures text a seventh narrower than Arial is, so it lays out for larger
_PLUGINS = """\
libgvplugin_core.so.6 core { device { svg:svg 1 } render { svg 1 } }
libgvplugin_dot_layout.so.6 dot_layout { layout { dot 0 } }
libgvplugin_neato_layout.so.6 neato_layout { layout { neato 0 fdp 0 circo 0 twopi 0 } }
"""
_DOT_FILES = re.compile(r"\b(image|imagepath|shapefile|fontpath|_background|stylesheet)\b[\"']?\s*=|<\s*img\b", re.I)
_DIRECTIVE = re.compile(r"%%\{.*?\}%%", re.S)
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
_ACTS = re.compile(r"^\s*(?:click|link|links|callback)\s.*$", re.M)
_RICH = re.compile(r"(?:\s|%%[^\n]*\n)*(?:stateDiagram|erDiagram)")  # whose plain labels stand left of their place
_INCLUDES = re.compile(r"\b(?:img|icon)\s*:|\burl\s*\(|\bsrc\s*=|@import|\bthemeCSS\b", re.I)


def draw_chart(spec: dict[str, Any], *, title: str, description: str) -> Cleaned:
    """
    Raises:
        InvalidArgument: Vega has something against it.
    """
    import vl_convert  # type: ignore[import-not-found]

    try:
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[])
    except ValueError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
        raise InvalidArgument(
            f"Vega-Lite cannot draw it: {clean(' '.join(lines[1:]) or ' '.join(lines), 300)}",
            next="Mend the specification, or leave the choice to us.",
        ) from None
    return rebuild(svg, title=title, description=description, font=FONT)


def warm_up() -> None:
    """Makes the engine ready, so that the first chart does not wait for it."""
    import vl_convert

    vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "bar"}, vl_version=VEGA_LITE, allowed_base_urls=[])


def to_png(svg: Cleaned, scale: float, limits: Limits) -> bytes:
    """
    Raises:
        Exhausted: it would have too many pixels.
    """
    import vl_convert

    pixels = math.ceil(svg.width * scale) * math.ceil(svg.height * scale)
    limits.check("pixels", pixels, f"The picture would have {pixels:,} pixels")
    made: bytes = vl_convert.svg_to_png(svg.text, scale=scale)
    return made


def draw_dot(source: str, theme: Name, layout: str, limits: Limits, *, title: str) -> tuple[Cleaned, list[str]]:
    """A graph in DOT, and what a reader should be told.

    Raises:
        InvalidArgument: it is no DOT, or wants files.
        Unavailable: Graphviz did not end in time, or is not here.
    """
    notes: list[str] = []
    if found := _DOT_FILES.search(source):
        raise InvalidArgument(
            f"The graph wants a file by {clean(found[0], 30)!r}: nothing is read but the source.", next="Leave it out."
        )
    if re.search(r"\b(?:href|url|target|\w+href|\w+url)\b\s*=", source, re.I):
        notes.append("Links were left out: a picture leads nowhere.")
    colors = THEMES[theme]
    letters = ["fontname=Arial", f"fontcolor={colors.text}"]
    command = [
        GRAPHVIZ,
        f"-K{layout}",
        "-Tsvg",
        *(f"-G{each}" for each in (*letters, f"bgcolor={colors.ground}", f"color={colors.line}", "pad=0.3")),
        *(
            f"-N{each}"
            for each in (*letters, "fontsize=13", "shape=box", "style=rounded,filled", f"fillcolor={colors.fill}")
        ),
        f"-Ncolor={colors.series[0]}",
        *(f"-E{each}" for each in (*letters, "fontsize=11", f"color={colors.line}", "arrowsize=0.8")),
    ]
    with _plugins() as folder:
        environment = {"GVBINDIR": folder, "PATH": "/usr/bin", "SERVER_NAME": "playfair", "GV_FILE_PATH": "/nowhere"}
        try:
            done = subprocess.run(
                command, input=source.encode(), env=environment, cwd=folder, capture_output=True, timeout=limits.seconds
            )
        except FileNotFoundError:
            raise Unavailable("Graphviz is not in this image.") from None
        except subprocess.TimeoutExpired:
            raise _too_long(limits) from None
    errors = clean(done.stderr.decode(errors="replace"), 400).replace(folder, "")
    if done.returncode or not done.stdout.strip():
        raise InvalidArgument(
            f"Graphviz cannot draw it: {errors or 'it ended without a word'}", next="Mend the source."
        )
    if errors:
        notes.append(f"Graphviz says: {errors}")
    return rebuild(done.stdout.decode(), title=title, font=FONT), notes


def _too_long(limits: Limits) -> InvalidArgument:
    return InvalidArgument(
        f"The layout takes more than {limits.seconds:g} s.", next="Draw less, or raise --cap seconds=N."
    )


@contextmanager
def _plugins() -> Iterator[str]:
    """A folder with the few plugins of Graphviz that are wanted: none that loads a picture."""
    with tempfile.TemporaryDirectory(prefix="graphviz-") as folder:
        for each in Path("/usr/lib").glob("*/graphviz/libgvplugin_*.so.6"):
            os.symlink(each, Path(folder, each.name))
        Path(folder, "config6a").write_text(_PLUGINS)
        yield folder


def draw_mermaid(source: str, theme: Name, limits: Limits, *, title: str) -> tuple[Cleaned, list[str]]:
    """A diagram in Mermaid, and what a reader should be told.

    Raises:
        InvalidArgument: it is no Mermaid that can be drawn.
        Unavailable: Merman is not here.
    """
    notes: list[str] = []
    for pattern, what in (
        (_FRONT, "Settings at the top were"),
        (_DIRECTIVE, "Directives were"),
        (_ACTS, "Clicks and links were"),
    ):
        source, count = pattern.subn("", source)
        if count:
            notes.append(f"{what} left out: how a diagram looks and what it may do is not its own to say.")
    if found := _INCLUDES.search(source):
        raise InvalidArgument(
            f"The diagram wants something from outside by {clean(found[0], 30)!r}.", next="Leave it out."
        )
    try:
        import merman  # type: ignore[import-not-found]
    except ImportError:
        raise Unavailable("Mermaid cannot be drawn on this machine's architecture.", next="Draw it in DOT.") from None
    try:
        svg = merman.Merman().render_svg(source, _mermaid_options(theme, rich=_RICH.match(source) is not None))
    except merman.MermanError.Binding as error:
        sentence = clean(str(getattr(error, "message", "") or error), 300)
        raise InvalidArgument(f"Mermaid cannot draw it: {sentence}", next="Mend the source.") from None
    svg = re.sub(rf"(font-size\s*[:=]\s*[\"']?){LAID_OUT}px", rf"\g<1>{LETTERS}px", svg)
    return _grounded(rebuild(svg, title=title, font=FONT), theme), notes


def _grounded(picture: Cleaned, theme: Name) -> Cleaned:
    """Mermaid's pictures with a ground of their own, as all the others have."""
    match = re.search(r'viewBox="([-\d.e]+)[ ,]+([-\d.e]+)[ ,]+([-\d.e]+)[ ,]+([-\d.e]+)"', picture.text)
    if match:
        x, y, width, height = (float(each) for each in match.groups())
        pad = 12
        box = f"{x - pad:g} {y - pad:g} {width + 2 * pad:g} {height + 2 * pad:g}"
        ground = f'<rect x="{x - pad:g}" y="{y - pad:g}" width="{width + 2 * pad:g}" height="{height + 2 * pad:g}" '
        text = picture.text.replace(match[0], f'viewBox="{box}"', 1)
        text = re.sub(
            r'(<svg[^>]*?) width="[^"]*" height="[^"]*"',
            rf'\1 width="{width + 24:g}" height="{height + 24:g}"',
            text,
            count=1,
        )
        at = text.index(">") + 1
        picture.text = text[:at] + ground + f'fill="{THEMES[theme].ground}"/>' + text[at:]
        picture.width, picture.height = width + 24, height + 24
    return picture


def _mermaid_options(theme: Name, *, rich: bool) -> str:
    """Settings of ours alone. `rich`: labels as HTML that becomes text again; else text from the beginning."""
    import json

    colors = THEMES[theme]
    letters = {"fontFamily": FONT, "fontSize": f"{LAID_OUT}px"}
    return json.dumps(
        {
            "site_config": {
                "theme": "base",
                "look": "classic",
                "layout": "dagre",
                "htmlLabels": rich,
                "securityLevel": "strict",
                "fontFamily": FONT,
                "flowchart": {"htmlLabels": rich},
                "themeVariables": letters
                | {
                    "darkMode": theme == "dark",
                    "background": colors.ground,
                    "primaryColor": colors.fill,
                    "primaryBorderColor": colors.series[0],
                    "primaryTextColor": colors.text,
                    "secondaryColor": colors.grid,
                    "tertiaryColor": colors.ground,
                    "secondaryTextColor": colors.text,
                    "tertiaryTextColor": colors.text,
                    "lineColor": colors.muted,
                    "textColor": colors.text,
                    "titleColor": colors.text,
                    "edgeLabelBackground": colors.ground,
                    "clusterBkg": colors.ground,
                    "clusterBorder": colors.line,
                    "noteBkgColor": colors.grid,
                    "noteTextColor": colors.text,
                    "noteBorderColor": colors.line,
                    **{f"pie{at + 1}": color for at, color in enumerate(colors.series)},
                },
            },
            "svg": {
                "pipeline": "resvg-safe",
                "diagram_id": "diagram",
                "scoped_css": ".edgeLabel rect,.labelBkg{opacity:1}",  # a line must not cross its own words
            },
            "resources": {"profile": "interactive"},
        }
    )


def versions() -> dict[str, str]:
    """The renderers that are here, with their versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name, package in (("vl-convert", "vl-convert-python"), ("merman", "merman"), ("arro3", "arro3-io")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    found["vega-lite"] = VEGA_LITE
    if Path(GRAPHVIZ).exists():
        said = subprocess.run([GRAPHVIZ, "-V"], capture_output=True, text=True, timeout=20).stderr
        match = re.search(r"version ([\d.]+)", said)
        found["graphviz"] = match[1] if match else "?"
    return found
