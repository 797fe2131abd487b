"""What a person could act on, as lines of text: Chromium's accessibility tree, with references that last.

A reference is what a person would say: `button "Sign in"`, `link "Next" #2`. It is the element's role and name, and its
place among those of the same role and name. So it means the same when the page is visited again, and a run that keeps
nothing can be told by the next call what to click.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from periphery.marco.printable import printable

LINES = 2000
NAME_CHARACTERS = 80
ADDRESS_CHARACTERS = 300
ACTS = frozenset(("button", "checkbox", "combobox", "link", "listbox", "menuitem", "menuitemcheckbox", "option"))
ACTS |= frozenset(("menuitemradio", "radio", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox"))
ACTS |= frozenset(("treeitem", "DisclosureTriangle"))
MARKS = frozenset(("heading", "image", "img", "main", "navigation", "form", "search", "dialog", "alert", "status"))
MARKS |= frozenset(("table", "article", "region", "Iframe"))


@dataclass(frozen=True)
class Element:
    """Something on a page that can be acted on."""

    ref: str
    node: int  # Chromium's number of it, good while the document lives


@dataclass
class Outline:
    """A page's."""

    lines: list[str] = field(default_factory=list)
    elements: dict[str, Element] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)


def outline(trees: Iterable[Sequence[Mapping[str, Any]]]) -> Outline:
    """The outline of accessibility trees, one for each frame."""
    made = Outline()
    counts: dict[str, int] = {}
    for nodes in trees:
        known = {node["nodeId"]: node for node in nodes}
        stack = [(node, 0) for node in reversed(nodes) if "parentId" not in node]
        while stack and len(made.lines) < LINES:
            node, depth = stack.pop()
            shown = not node.get("ignored") and _line(made, counts, node, depth)
            below = [known[each] for each in node.get("childIds", ()) if each in known]
            stack += [(each, depth + bool(shown)) for each in reversed(below)]
    if len(made.lines) >= LINES:
        made.lines.append("… more than is shown")
    return made


def _line(made: Outline, counts: dict[str, int], node: Mapping[str, Any], depth: int) -> bool:
    """Adds a node's line, if it has one."""
    role = str(node.get("role", {}).get("value", ""))
    name = " ".join(printable(str(node.get("name", {}).get("value", ""))).split())[:NAME_CHARACTERS]
    if role not in ACTS and not (role in MARKS and name):
        return False
    ref = f"{role} {json.dumps(name, ensure_ascii=False)}"
    counts[ref] = counts.get(ref, 0) + 1
    if counts[ref] > 1:
        ref += f" #{counts[ref]}"
    if role in ACTS and "backendDOMNodeId" in node:
        made.elements[ref] = Element(ref, int(node["backendDOMNodeId"]))
    properties = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
    line = "  " * min(depth, 12) + "- " + ref
    if value := node.get("value", {}).get("value"):
        line += f" = {json.dumps(printable(str(value))[:NAME_CHARACTERS], ensure_ascii=False)}"
    states = [each for each in ("disabled", "checked", "selected", "expanded", "required") if _is(properties.get(each))]
    if states:
        line += f" ({', '.join(states)})"
    if role == "link" and str(properties.get("url", "")).startswith(("http://", "https://")):
        line += f" → {printable(str(properties['url']))[:ADDRESS_CHARACTERS]}"
    made.lines.append(line)
    return True


def _is(value: object) -> bool:
    return value is True or value == "true"
