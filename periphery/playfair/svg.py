"""Takes an SVG apart and builds another from what is on a list: nothing else of it gets out.

The renderers are good programs fed with the data of strangers. So their output is parsed (no entity, no declaration of
a document's own, no processing instruction), and each element, attribute and line of style is written anew if it is
known to draw and to do nothing else: no script, no event, no link, no foreign object, no picture, no font, no address
of any kind but `#id` within the picture. What was dropped is counted. Whoever shows it should all the same show it as
an image, never as markup of a page.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from xml.parsers import expat

from periphery.playfair.limits import DEPTH
from protos.errors import Exhausted, InvalidArgument

ELEMENTS = 400_000
CHARACTERS = 64 * 1024**2
SVG = "http://www.w3.org/2000/svg"

_ELEMENTS = frozenset(
    str.split(
        "svg g defs title desc path rect circle ellipse line polyline polygon text tspan textPath clipPath mask "
        "marker linearGradient radialGradient stop pattern symbol use filter feDropShadow feGaussianBlur feOffset "
        "feMerge feMergeNode feFlood feComposite feBlend feColorMatrix style"
    )
)
_ATTRIBUTES = frozenset(
    str.split(
        "id class role aria-label aria-roledescription aria-hidden aria-labelledby x y x1 y1 x2 y2 cx cy r rx ry "
        "fx fy d points width height viewBox preserveAspectRatio transform dx dy rotate textLength lengthAdjust "
        "offset version markerWidth markerHeight markerUnits refX refY orient patternUnits patternTransform "
        "patternContentUnits gradientUnits gradientTransform spreadMethod clipPathUnits maskUnits maskContentUnits "
        "filterUnits primitiveUnits in in2 result mode operator stdDeviation type values k1 k2 k3 k4 startOffset "
        "method spacing style"
    )
)
_STYLES = frozenset(
    str.split(
        "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-dasharray stroke-dashoffset "
        "stroke-linecap stroke-linejoin stroke-miterlimit opacity color font font-family font-size font-style "
        "font-weight font-variant text-anchor text-decoration dominant-baseline alignment-baseline baseline-shift "
        "letter-spacing word-spacing writing-mode visibility display clip-path clip-rule mask filter marker-start "
        "marker-mid marker-end stop-color stop-opacity flood-color flood-opacity paint-order shape-rendering "
        "text-rendering transform transform-origin transform-box rx ry vector-effect mix-blend-mode "
        "white-space line-height text-align overflow"
    )
)
_REFERENCE = re.compile(r"url\(\s*(['\"]?)#([\w.-]+)\1\s*\)")
_FORBIDDEN = re.compile(r"url\s*\(|\\|expression|javascript|@|<|>|/\*|&|image-set|src\s*\(|attr\s*\(", re.I)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.I)
_SELECTOR = re.compile(r"[\w\s#.,:*>+~()\[\]=\"'^$|-]{1,500}")
_ID = re.compile(r"[\w.:-]{1,200}")


@dataclass
class Cleaned:
    """An SVG that only draws."""

    text: str
    width: float
    height: float
    elements: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)  # that can be read in it


def rebuild(svg: str, *, title: str = "", description: str = "", font: str = "") -> Cleaned:
    """The same picture, from what is allowed; with a title and a description for who cannot see it.

    Raises:
        InvalidArgument: it is no SVG, or declares entities.
        Exhausted: it is far too large.
    """
    if len(svg) > CHARACTERS:
        raise Exhausted(
            f"The picture has {len(svg):,} characters, and at most {CHARACTERS:,} are kept.", next="Draw less."
        )
    builder = _Builder(title, description, font)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.EntityDeclHandler = builder.entity
    parser.ProcessingInstructionHandler = builder.instruction
    try:
        parser.Parse(svg, True)
    except expat.ExpatError as error:
        raise InvalidArgument(f"The picture is no well-formed SVG: {error}.") from None
    return builder.done()


class _Builder:
    def __init__(self, title: str, description: str, font: str) -> None:
        self._out: list[str] = []
        self._stack: list[str] = []
        self._skipping = 0  # how deep within something that was dropped
        self._style: list[str] | None = None
        self._words: list[str] = []
        self._heading, self._description, self._font = title, description, font
        self._elements: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._size = (0.0, 0.0)

    def doctype(self, name: str, system: str | None, public: str | None, internal: int) -> None:
        del name, system, public
        if internal:
            raise InvalidArgument("The picture declares things of its own (a DTD).")

    def entity(self, *about: object) -> None:
        del about
        raise InvalidArgument("The picture declares entities.")

    def instruction(self, target: str, data: str) -> None:
        del data
        self._dropped[f"<?{target[:20]}?>"] += 1

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipping:
            self._skipping += 1
            return
        if len(self._stack) > DEPTH * 4 or self._elements.total() > ELEMENTS:
            raise Exhausted("The picture has too many elements, or too deep.", next="Draw less.")
        root = not self._stack
        if name not in _ELEMENTS or (root and name != "svg") or (name in ("title", "desc") and len(self._stack) == 1):
            if root:
                raise InvalidArgument("The picture is no SVG.")
            if name == "a":  # what a link surrounds is drawn all the same
                self._dropped["<a>"] += 1
                self._stack.append("g")
                self._out.append("<g>")
                return
            if name not in ("title", "desc"):
                self._dropped[f"<{name[:20]}>"] += 1
            self._skipping = 1
            return
        self._elements[name] += 1
        if name == "svg" and not root and _changes_nothing(attributes):
            name, attributes = "g", {}  # it would only cut off what a renderer measured too short
        self._stack.append(name)
        if name == "style":
            self._style = []
            return
        kept = self._attributes(name, attributes)
        if root:
            kept = self._root(kept, attributes)
        self._out.append(
            "<" + name + "".join(f' {key}="{escape(value, quote=True)}"' for key, value in kept.items()) + ">"
        )
        if root:
            if self._heading:
                self._out.append(f'<title id="title">{escape(self._heading)}</title>')
            if self._description:
                self._out.append(f'<desc id="desc">{escape(self._description)}</desc>')

    def _root(self, kept: dict[str, str], given: dict[str, str]) -> dict[str, str]:
        box = [_number(each) for each in re.split(r"[\s,]+", given.get("viewBox", "").strip()) if each]
        width, height = _number(given.get("width", "")), _number(given.get("height", ""))
        if len(box) == 4 and (not width or not height or given["width"].strip().endswith(("%", "pt"))):
            points = 4 / 3 if given.get("width", "").strip().endswith("pt") else 1.0
            width, height = box[2] * points, box[3] * points
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise InvalidArgument("The picture has no size.")
        self._size = (width, height)
        kept = {key: value for key, value in kept.items() if key not in ("style", "role", "width", "height", "version")}
        kept |= {"width": f"{width:g}", "height": f"{height:g}", "role": "img"}
        kept.setdefault("viewBox", f"0 0 {width:g} {height:g}")
        labels = [name for name, there in (("title", self._heading), ("desc", self._description)) if there]
        for each in ("aria-label", "aria-roledescription", "aria-labelledby"):
            kept.pop(each, None)
        return {"xmlns": SVG} | kept | ({"aria-labelledby": " ".join(labels)} if labels else {})

    def _attributes(self, element: str, given: dict[str, str]) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in given.items():
            if name == "style":
                if made := self._declarations(value):
                    kept["style"] = made
            elif name in ("href", "xlink:href"):
                if element in ("use", "textPath", "linearGradient", "radialGradient", "pattern") and re.fullmatch(
                    r"#[\w.-]+", value
                ):
                    kept["href"] = value
                else:
                    self._dropped["href"] += 1
            elif name == "font-family" and self._font:
                kept[name] = self._font
            elif name in _STYLES:
                if self._is_plain(value):
                    kept[name] = value
                else:
                    self._dropped[name] += 1
            elif name in _ATTRIBUTES:
                if name == "id" and not _ID.fullmatch(value):
                    continue
                kept[name] = value
            elif name not in _QUIET and not name.startswith(("data-", "aria-", "xmlns")):
                self._dropped[name[:30]] += 1
        return kept

    def _is_plain(self, value: str) -> bool:
        rest = _REFERENCE.sub("", value)
        return not _FORBIDDEN.search(rest) and not _ADDRESS.search(rest)

    def _declarations(self, text: str) -> str:
        kept = []
        for each in text.split(";"):
            name, colon, value = each.partition(":")
            name, value = name.strip().lower(), value.strip()
            if not colon or not value:
                continue
            if name not in _STYLES or not self._is_plain(value):
                if name not in _QUIET_STYLES:
                    self._dropped[f"style {name[:30]}"] += 1
                continue
            if name == "font-family" and self._font:
                value = self._font
            kept.append(f"{name}:{value}")
        return ";".join(kept)

    def end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
            return
        element = self._stack.pop()
        if self._style is not None:
            sheet = self._sheet("".join(self._style))
            self._style = None
            self._out.append(f"<style>{escape(sheet, quote=False)}</style>" if sheet else "")
            return
        if element in ("text", "title", "desc"):
            self._words.append(" ")
        self._out.append(f"</{element}>")

    def _sheet(self, text: str) -> str:
        """The rules of a style sheet, anew: plain selectors and known properties, no rule that begins with @."""
        rules: list[str] = []
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        at = 0
        while (brace := text.find("{", at)) >= 0:
            selector = text[at:brace].strip()
            close = text.find("}", brace)
            if close < 0:
                break
            if selector.startswith("@"):
                self._dropped[
                    "@" + re.sub(r"[^\w-]", "", selector[1:21].split()[0] if selector[1:].split() else "")
                ] += 1
                at = _past(text, brace)
                continue
            body = self._declarations(text[brace + 1 : close])
            if body and _SELECTOR.fullmatch(selector):
                rules.append(f"{selector}{{{body}}}")
            at = close + 1
        return "".join(rules)

    def characters(self, text: str) -> None:
        if self._skipping:
            return
        if self._style is not None:
            self._style.append(text)
        elif self._stack and self._stack[-1] in ("text", "tspan", "textPath", "title", "desc"):
            self._out.append(escape(text, quote=False))
            if self._stack[-1] in ("text", "tspan", "textPath"):
                self._words.append(text)

    def done(self) -> Cleaned:
        words = " ".join("".join(self._words).split())
        return Cleaned("".join(self._out), *self._size, self._elements, self._dropped, words.split(" "))


_QUIET = frozenset(("pointer-events", "cursor", "xml:space", "xml:lang", "name", "tabindex", "target", "rel"))
_QUIET_STYLES = frozenset(
    str.split(
        "cursor pointer-events height width vertical-align animation max-width margin padding background scale "
        "background-color border border-radius z-index position text-shadow box-shadow transition "
        "transition-duration user-select border-bottom justify-content align-items dy"
    )
)


def _changes_nothing(given: dict[str, str]) -> bool:
    """Whether an SVG within one has its own places just where the outer has them."""
    box = [_number(each) for each in re.split(r"[\s,]+", given.get("viewBox", "").strip()) if each]
    size = [_number(given.get(each, "")) for each in ("width", "height")]
    return len(box) == 4 and box == [0.0, 0.0, *size] and not any(_number(given.get(each, "")) for each in ("x", "y"))


def _past(text: str, brace: int) -> int:
    depth = 0
    for at in range(brace, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at + 1
    return len(text)


def _number(text: str) -> float:
    match = re.match(r"\s*(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text, re.I)
    return float(match[1]) if match else 0.0
