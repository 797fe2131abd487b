"""What a person would read on a page, as Markdown, with its links and tables.

It is made of Chromium's own snapshot of the page as it is laid out (`DOMSnapshot`), not of its HTML: so frames and
shadow trees are in their places, what scripts wrote is there, and what nobody can see is not. Text that is hidden, far
off the page, transparent, tiny, clipped away or of its background's colour is left out and counted: on a page that
means harm it is meant for models. No library that turns HTML into Markdown knows what is seen.

Markdown is made so that a page cannot speak in it: what would be a heading, a link or a quote in Markdown is escaped.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any
from urllib.parse import urljoin, urlsplit

from typing_extensions import TypedDict

from periphery.marco.printable import printable

MARKDOWN_CHARACTERS = 500_000
LINKS = 2000
STYLES = ("display", "visibility", "opacity", "font-size", "overflow-x", "overflow-y", "clip-path", "color")
TABLES = 100
ROWS = 2000
CELL_CHARACTERS = 2000
DEPTH = 400  # of nested elements that are told apart; below, their text is that of the innermost

_ELEMENT, _TEXT, _DOCUMENT = 1, 3, 9
_SKIPPED = frozenset(("HEAD", "SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "SVG", "CANVAS", "AUDIO", "VIDEO"))
_SKIPPED |= frozenset(("OBJECT", "EMBED", "DATALIST", "SELECT", "TEXTAREA"))
_BESIDE = frozenset(["NAV", "FOOTER", "ASIDE"])
_BESIDE_ROLES = frozenset(["navigation", "contentinfo", "complementary"])
_HEADINGS = {f"H{level}": level for level in range(1, 7)}
_INLINE = ("inline", "inline-block", "inline-flex", "inline-grid", "inline-table", "contents", "ruby", "none", "")
_ENOUGH = 0.4  # of the text: then `main` is what the page is about
_WORDS = 200  # characters: then what stands beside is left out
_LEAST_OPACITY, _LEAST_FONT, _FAR = 0.05, 3.0, 20_000.0
_SAME_COLOUR = 24  # summed difference of red, green and blue
_SIGNS = {"B": "**", "STRONG": "**", "EM": "*", "I": "*", "CODE": "`", "KBD": "`", "SAMP": "`"}
_UNSEEN = re.compile(r"[\x00-\x20]+")  # what a browser drops from an address, or nearly
_BLANK = re.compile(r"[ \t\r\n\f]+")
_ACTIVE = re.compile(r"([\\`*\[\]<])")
_BOUNDARY = re.compile(r"(?<!\w)_|_(?!\w)")
_OPENING = re.compile(r"^(?=[#>+=~|-])|^(\d+)(?=[.)])")
_NUMBER = re.compile(r"-?[\d.]+")


class Link(TypedDict):
    """A link that a person could see."""

    text: str
    url: str


class Table(TypedDict):
    """A table of data."""

    caption: str
    rows: list[list[str]]


@dataclass
class Reading:
    """What stands on a page."""

    markdown: str = ""
    text: str = ""  # the same without Markdown: what quotes are looked up in
    links: list[Link] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    hidden: int = 0  # characters that nobody sees


@dataclass
class _Node:
    """A node of the snapshot that matters here."""

    name: str
    type: int
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: "list[_Node]" = field(default_factory=list)
    display: str = ""  # how it is laid out; empty: not at all
    seen: bool = True  # false: it and all below it is out of sight
    base: str = ""  # the address that its links are relative to
    mute: bool = False  # what is in it is no text of the page


def extract(snapshot: Mapping[str, Any], *, whole: bool = False) -> Reading:
    """Reads a snapshot that was taken with `STYLES` and blended background colours.

    `whole` keeps what stands beside the subject, too: navigation, footers, asides.
    """
    root, hidden = _tree(snapshot)
    reading = Reading(hidden=hidden)
    start = root if whole else _subject(root)
    writer = _Writer(reading, beside=whole or _characters(start, beside=False) < _WORDS)
    writer.write(start)
    reading.markdown = writer.markdown[:MARKDOWN_CHARACTERS]
    reading.text = writer.text[:MARKDOWN_CHARACTERS]
    known: dict[str, Link] = {}
    for node in _all(root):
        if node.name == "A" and len(known) < LINKS and (url := _address(node)):
            text = _BLANK.sub(" ", _text_of(node)).strip()[:200]
            if url not in known or not known[url]["text"]:
                known[url] = Link(text=text, url=url)
    reading.links = list(known.values())
    return reading


def _tree(snapshot: Mapping[str, Any]) -> tuple[_Node, int]:
    """The page's document with the others in their places, and how many characters in it are hidden."""
    strings: Sequence[str] = snapshot["strings"]
    made = [_document(each, strings) for each in snapshot["documents"]]
    for _, contents, _ in made:
        for holder, index in contents:
            if 0 < index < len(made):
                holder.children = [made[index][0]]
    return made[0][0], sum(hidden for _, _, hidden in made)


def _document(document: Mapping[str, Any], strings: Sequence[str]) -> tuple[_Node, list[tuple[_Node, int]], int]:
    """One document, the nodes of it that hold others, and how many of its characters are hidden."""
    nodes, layout = document["nodes"], document["layout"]
    base = _string(strings, document.get("baseURL", -1)) or _string(strings, document["documentURL"])
    places = {node: at for at, node in enumerate(layout["nodeIndex"])}
    blended = layout.get("blendedBackgroundColors", ())
    root = _Node("#document", _DOCUMENT, base=base)
    made: list[_Node] = []
    behind: list[str] = []  # the colour behind each node, as far as it is known
    hidden = 0
    for index, parent in enumerate(nodes["parentIndex"]):
        above = made[parent] if parent >= 0 else root
        type = nodes["nodeType"][index]
        name = _string(strings, nodes["nodeName"][index]).upper()
        at = places.get(index)
        node = _Node(name, type, base=base, seen=above.seen, mute=above.mute or name in _SKIPPED)
        behind.append(behind[parent] if parent >= 0 else "")
        if at is not None:
            look = dict(zip(STYLES, (_string(strings, each) for each in layout["styles"][at]), strict=False))
            node.display = look.get("display", "")
            behind[index] = (_string(strings, blended[at]) if at < len(blended) else "") or behind[index]
            bounds = layout["bounds"][at]
            if type == _TEXT:
                node.text = printable(_string(strings, layout["text"][at]))
                node.seen = above.seen and _text_is_seen(look, bounds, behind[index])
                hidden += 0 if node.seen else len(node.text.strip())
            elif type == _ELEMENT:
                node.seen = above.seen and _element_is_seen(look, bounds)
        elif type == _TEXT and not above.mute:
            hidden += len(_string(strings, nodes["nodeValue"][index]).strip())
        if type == _ELEMENT:
            pairs = nodes["attributes"][index]
            node.attributes = {
                _string(strings, pairs[each]): _string(strings, pairs[each + 1]) for each in range(0, len(pairs) - 1, 2)
            }
        made.append(node)
        if not (name.startswith("::") or node.mute or type not in (_ELEMENT, _TEXT)):
            above.children.append(node)
        elif type == _DOCUMENT:
            root = node
    inner = nodes.get("contentDocumentIndex", {"index": (), "value": ()})
    contents = [(made[at], index) for at, index in zip(inner["index"], inner["value"], strict=True) if made[at].seen]
    return root, contents, hidden


def _string(strings: Sequence[str], index: int) -> str:
    return strings[index] if index >= 0 else ""


def _element_is_seen(look: Mapping[str, str], bounds: Sequence[float]) -> bool:
    """Whether what is in it can be seen, for all that the element itself does."""
    clips = "visible" not in (look["overflow-x"], look["overflow-y"])
    clipped = (clips and min(bounds[2:]) <= 1) or look["clip-path"] in ("inset(50%)", "inset(100%)", "circle(0px)")
    return float(look["opacity"] or 1) >= _LEAST_OPACITY and not clipped


def _text_is_seen(look: Mapping[str, str], bounds: Sequence[float], behind: str) -> bool:
    x, y, width, height = bounds
    return (
        look["visibility"] == "visible"
        and x + width > 0
        and y + height > 0
        and x < _FAR
        and width > 0
        and height > 0
        and float(look["font-size"].removesuffix("px") or 0) >= _LEAST_FONT
        and not _same_colour(look["color"], behind)
    )


def _same_colour(front: str, back: str) -> bool:
    colours = [[float(each) for each in _NUMBER.findall(colour)] for colour in (front, back)]
    if len(colours[0]) == 4 and colours[0][3] < _LEAST_OPACITY:
        return True
    if len(colours[0]) < 3 or len(colours[1]) < 3:
        return False
    return sum(abs(a - b) for a, b in zip(colours[0][:3], colours[1][:3], strict=True)) < _SAME_COLOUR


def _all(root: _Node) -> Iterator[_Node]:
    """Every node that is seen, in order."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.seen:
            yield node
            stack += reversed(node.children)


def _text_of(root: _Node) -> str:
    return "".join(each.text for each in _all(root))


def _characters(root: _Node, *, beside: bool = True) -> int:
    count, stack = 0, [root]
    while stack:
        node = stack.pop()
        if node.seen and (beside or not _stands_beside(node)):
            count += len(node.text.strip())
            stack += node.children
    return count


def _stands_beside(node: _Node) -> bool:
    return node.name in _BESIDE or node.attributes.get("role", "") in _BESIDE_ROLES


def _subject(root: _Node) -> _Node:
    """What the page is about, where it says so and that is enough of it; else the whole page."""
    least = _characters(root) * _ENOUGH
    found = [each for each in _all(root) if each.name == "MAIN" or each.attributes.get("role") == "main"]
    found = found or [each for each in _all(root) if each.name == "ARTICLE"]
    return found[0] if len(found) == 1 and _characters(found[0]) >= least else root


def _address(node: _Node) -> str:
    """Where a link leads; empty unless that is on the web."""
    try:
        url = urljoin(node.base, _UNSEEN.sub("", node.attributes.get("href", "")))
        return url[:2000] if urlsplit(url).scheme in ("http", "https") else ""
    except ValueError:
        return ""


class _Writer:
    """Writes Markdown, and beside it the same as plain text.

    A block is made of pieces of text that run on; it is written when another begins. The first line of the next block
    begins with `_first`, every other with `_rest`: the signs of quotes, lists and headings, and the room below them.
    """

    def __init__(self, reading: Reading, *, beside: bool) -> None:
        self._reading = reading
        self._beside = beside
        self._lines: list[str] = []
        self._plain: list[str] = []
        self._pieces: list[str] = []
        self._words: list[str] = []
        self._first = self._rest = self._before = ""
        self._glued = False  # the next block follows without an empty line

    @property
    def markdown(self) -> str:
        """All that was written."""
        return "\n".join(self._lines) + "\n" if self._lines else ""

    @property
    def text(self) -> str:
        """The same, plain."""
        return "\n".join(self._plain)

    def write(self, node: _Node) -> None:
        """Writes a node and all below it."""
        self._node(node, 0)
        self._end()

    def _node(self, node: _Node, depth: int) -> None:
        if not node.seen or (not self._beside and _stands_beside(node)):
            return
        if depth > DEPTH:
            self._say(_text_of(node))
        elif node.type == _TEXT:
            self._say(node.text)
        elif node.name == "BR":
            self._pieces.append("\n")
            self._words.append(" ")
        elif node.name == "IMG":
            if alt := printable(node.attributes.get("alt", "")).strip():
                self._say(f" {alt} ")
        elif node.name == "PRE":
            self._code(node)
        elif node.name == "TABLE" and self._table(node):
            return
        elif node.type == _ELEMENT and node.display in _INLINE and node.name != "IFRAME":
            self._run(node, depth)
        else:
            self._block(node, depth)

    def _block(self, node: _Node, depth: int) -> None:
        self._end()
        first, rest, lines = self._first, self._rest, len(self._lines)
        if node.name in _HEADINGS:
            self._first += "#" * _HEADINGS[node.name] + " "
        elif node.name == "BLOCKQUOTE":
            self._first, self._rest = first + "> ", rest + "> "
        elif node.name == "HR":
            self._put(["---"], "")
        number = 0
        for each in node.children:
            if each.name != "LI" or not each.seen:
                self._node(each, depth + 1)
                continue
            number += 1
            sign = f"{number}. " if node.name == "OL" else "- "
            self._end()
            outer, self._first, self._rest = self._rest, self._first + sign, self._rest + " " * len(sign)
            self._glued = number > 1
            self._block(each, depth + 1)
            self._first = self._rest = outer
        self._end()
        self._first, self._rest = first if len(self._lines) == lines else rest, rest

    def _run(self, node: _Node, depth: int) -> None:
        """Writes an element that runs on within a line."""
        sign = _SIGNS.get(node.name, "")
        url = _address(node) if node.name == "A" else ""
        start, lines = len(self._pieces), len(self._lines)
        for each in node.children:
            self._node(each, depth + 1)
        if not (sign or url) or len(self._lines) != lines:
            return  # it was no run: it held blocks, which are written
        inside = "".join(self._pieces[start:])
        if not inside.strip():
            return
        before, after = inside[: len(inside) - len(inside.lstrip())], inside[len(inside.rstrip()) :]
        whole = f"{sign}{inside.strip()}{sign}" if sign else f"[{inside.strip()}](<{url}>)"
        self._pieces[start:] = [before + whole + after]

    def _say(self, text: str) -> None:
        text = _BLANK.sub(" ", text)
        self._pieces.append(_escaped(text))
        self._words.append(text)

    def _end(self) -> None:
        """Writes the block that was begun."""
        lines = [_BLANK.sub(" ", each).strip(" ") for each in "".join(self._pieces).split("\n")]
        words = _BLANK.sub(" ", "".join(self._words)).strip()
        self._pieces, self._words = [], []
        if kept := [_OPENING.sub(_shielded, each) for each in lines if each]:
            self._put([f"{each}  " for each in kept[:-1]] + kept[-1:], words)

    def _put(self, lines: Sequence[str], words: str) -> None:
        if self._lines and not self._glued:
            self._lines.append(commonprefix((self._rest, self._before)).rstrip())  # noqa: RUF071  letter by letter
        self._before = self._rest
        self._lines += [self._first + lines[0], *(self._rest + each for each in lines[1:])]
        self._first, self._glued = self._rest, False
        if words:
            self._plain.append(words)

    def _code(self, node: _Node) -> None:
        self._end()
        text = _text_of(node).strip("\n")
        if text.strip():
            fence = "`" * max(3, 1 + max((len(each) for each in re.findall("`+", text)), default=0))
            self._put([fence, *text.split("\n"), fence], text)

    def _table(self, node: _Node) -> bool:
        """Writes a table of data; whether it is one, and not a way to lay out a page."""
        rows, caption = _cells(node)
        width = max((len(row) for row in rows), default=0)
        if len(rows) < 2 or width < 2:
            return False
        self._end()
        if len(self._reading.tables) < TABLES:
            self._reading.tables.append(Table(caption=caption, rows=rows))
        if caption:
            self._put([_OPENING.sub(_shielded, _escaped(caption))], caption)
        filled = [[_escaped(cell).replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in filled]
        lines.insert(1, "|" + " --- |" * width)
        self._put(lines, "\n".join(" ".join(row) for row in rows))
        return True


def _cells(table: _Node) -> tuple[list[list[str]], str]:
    """The rows of a table and its caption; none where it lays out a page."""
    rows: list[list[str]] = []
    caption = ""
    for each in _all(table):
        if each is not table and each.name in ("TABLE", "IFRAME"):
            return [], ""
        if each.name == "CAPTION":
            caption = _BLANK.sub(" ", _text_of(each)).strip()[:CELL_CHARACTERS]
        if each.name == "TR" and len(rows) < ROWS:
            cells = [cell for cell in each.children if cell.name in ("TD", "TH") and cell.seen]
            row = [_BLANK.sub(" ", " ".join(part.text for part in _all(cell))).strip() for cell in cells]
            if any(len(cell) > CELL_CHARACTERS for cell in row):
                return [], ""
            if row:
                rows.append(row)
    return rows, caption


def _escaped(text: str) -> str:
    """`text` as Markdown that says just that."""
    return _BOUNDARY.sub(r"\\_", _ACTIVE.sub(r"\\\1", text))


def _shielded(opening: "re.Match[str]") -> str:
    return f"{opening[1]}\\" if opening[1] else "\\"
