"""What the lab holds, as MCP resources: runs with their reports and logs, conversations, and the files of runs.

    madlab://runs                    the caller's runs, newest first
    madlab://runs/ID                 one: state, outcome, evidence, cost, files, its answer
    madlab://runs/ID/report          the report of a scan, or the patch of a coding run
    madlab://runs/ID/logs            what it wrote while it worked            ?after=SEQUENCE
    madlab://conversations           the last spoken in first
    madlab://conversations/ID        its messages                             ?after=SEQUENCE
    madlab://blobs/DIGEST            a file                                   ?offset=BYTES

Nothing is longer than a page: what goes on says where. Pages of the lab's own are JSON, whose texts are cleaned as all
that workers write is; a file comes bit for bit, as text only where it is UTF-8 without control characters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from mcp_types import Resource, ResourceTemplate

from core.grace.gateway.calls import ANSWERS
from core.grace.gateway.door import Door, quoted
from core.grace.gateway.plain import LINE_CHARACTERS, plain, plain_value
from protos.errors import Denied, InvalidArgument, NotFound

SCHEME = "madlab://"
JSON = "application/json"
PAGE_BYTES = 256 * 1024  # of a resource
TOOL_PAGE_BYTES = 40 * 1024  # of the same, read by a tool into a model's context
LISTED = 20  # runs and conversations that are listed by themselves
MESSAGES = 100  # of a conversation or a log, on a page
REPORTS = ("report.json", "patch.diff", "report.md")  # what a run's report is, the first that it left
CUT = "unexpected end of data"  # in Python's words: what is there is good so far
KINDS = "madlab://runs/ID, madlab://conversations/ID or madlab://blobs/DIGEST"


@dataclass(frozen=True)
class Page:
    """A part of what a resource holds: text, or bytes."""

    media_type: str
    text: str | None
    content: bytes
    size: int  # of the whole, where it is known; else of the page
    more: str = ""  # the sentence that names the next page


TEMPLATES = [
    ResourceTemplate(
        uri_template="madlab://runs/{id}",
        name="run",
        title="A run",
        description="State, outcome with evidence, cost, files and answer of a run. Can be subscribed to.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="madlab://runs/{id}/report",
        name="report",
        title="The report of a run",
        description="What a scan found (JSON), or the patch that was written (unified diff).",
    ),
    ResourceTemplate(
        uri_template="madlab://runs/{id}/logs{?after}",
        name="logs",
        title="The log of a run",
        description="What it wrote while it worked, in pages.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="madlab://conversations/{id}{?after}",
        name="conversation",
        title="A conversation",
        description="What was said in it, in pages.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="madlab://blobs/{digest}{?offset}",
        name="blob",
        title="A file",
        description="A file that a run left or was given, by its digest (sha256:…), in pages of 256 KiB.",
    ),
]


async def listed(door: Door) -> list[Resource]:
    """The two lists, and the newest of each."""
    found = [
        Resource(uri="madlab://runs", name="runs", title="Runs", description="Newest first.", mime_type=JSON),
        Resource(
            uri="madlab://conversations",
            name="conversations",
            title="Conversations",
            description="The last spoken in first.",
            mime_type=JSON,
        ),
    ]
    runs = (await door.get("/runs", limit=LISTED))["runs"]
    for each in runs:
        title = f"{plain(each['title'], LINE_CHARACTERS, lines=False)}: {each['outcome'] or each['state']}"
        found.append(Resource(uri=f"madlab://runs/{each['id']}", name=each["id"], title=title, mime_type=JSON))
    talks = await _conversations(door, runs)
    return found + [
        Resource(uri=f"madlab://conversations/{id}", name=id, title="A conversation", mime_type=JSON) for id in talks
    ]


async def _conversations(door: Door, runs: list[dict[str, Any]]) -> list[str]:
    """The conversations that were spoken in last; where the caller may not ask that, those of its runs."""
    try:
        return [str(each["id"]) for each in (await door.get("/conversations", limit=LISTED))["conversations"]]
    except Denied:
        return list(dict.fromkeys(str(each["conversation"]) for each in runs))


async def read(door: Door, uri: str, limit: int = PAGE_BYTES) -> Page:
    """What is at `uri`, at most `limit` bytes of it.

    Raises:
        InvalidArgument: it is none of ours.
        NotFound: there is none, or none that the caller may see.
        Error: what the lab says.
    """
    place, _, query = uri.removeprefix(SCHEME).partition("?")
    parts = [unquote(each) for each in place.rstrip("/").split("/")]
    if not uri.startswith(SCHEME) or not all(parts):
        raise InvalidArgument(f"{uri[:200]!r} is no resource of the lab", next=f"read {KINDS}")
    asked = dict(parse_qsl(query))
    match parts:
        case ["runs"]:
            return _json(await door.get("/runs", limit=MESSAGES), limit)
        case ["runs", id]:
            return _json(_run(await door.get(f"/runs/{quoted(id)}")), limit)
        case ["runs", id, "report"]:
            return await _report(door, id, _number(asked, "offset"), limit)
        case ["runs", id, "logs"]:
            return await _paged(door, f"/runs/{quoted(id)}/logs", "logs", uri, _number(asked, "after"), limit)
        case ["conversations"]:
            runs = (await door.get("/runs", limit=LISTED))["runs"]
            return _json({"conversations": await _conversations(door, runs)}, limit)
        case ["conversations", *rest] if rest:  # a conversation within another has a slash in its name
            path = f"/conversations/{quoted('/'.join(rest))}/messages"
            return await _paged(door, path, "messages", uri, _number(asked, "after"), limit)
        case ["blobs", digest]:
            return await _blob(door, digest, "", uri, _number(asked, "offset"), limit)
    raise InvalidArgument(f"{uri[:200]!r} is no resource of the lab", next=f"read {KINDS}")


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's page: its files as resources, and of what was said the answer."""
    files = [each | {"uri": f"madlab://blobs/{each['digest']}"} for each in run["artifacts"]]
    answers = [each for each in run["messages"] if each["kind"] in ANSWERS]
    about = {key: value for key, value in run.items() if key not in ("messages", "artifacts")}
    return about | {"artifacts": files, "answer": answers[-1] if answers else None}


async def _report(door: Door, id: str, offset: int, limit: int) -> Page:
    run = await door.get(f"/runs/{quoted(id)}")
    left = {each["name"]: each for each in run["artifacts"]}
    name = next((each for each in REPORTS if each in left), None)
    if name is None:
        there = ", ".join(sorted(left)) or ("no files" if run["outcome"] else "nothing yet")
        raise NotFound(f"the run {id} has no report; it left {there}", next=f"read madlab://runs/{id}")
    uri = f"madlab://runs/{id}/report"
    return await _blob(door, left[name]["digest"], left[name]["media_type"], uri, offset, limit)


async def _paged(door: Door, path: str, name: str, uri: str, after: int, limit: int) -> Page:
    """As many messages as fit, at least one; each cleaned, and cut where it is long."""
    found = (await door.get(path, after=after, limit=MESSAGES))[name]
    taken: list[str] = []
    for each in found:
        text = json.dumps(plain_value(each, limit // 2)[0], ensure_ascii=False)
        if taken and sum(map(len, taken)) + len(text) > limit:
            break
        taken.append(text)
    text = f'{{"{name}": [' + ",\n ".join(taken) + "]}"
    more = ""
    if len(taken) < len(found) or len(found) == MESSAGES:
        more = f"There may be more: {uri.partition('?')[0]}?after={found[len(taken) - 1]['sequence']}"
    return Page(JSON, text, text.encode(), len(text.encode()), more)


async def _blob(door: Door, digest: str, media_type: str, uri: str, offset: int, limit: int) -> Page:
    content, size = await door.read(digest, offset=offset, limit=limit)
    text = _text(content, whole=offset + len(content) >= size)
    taken = content if text is None else text.encode()
    more = ""
    if offset + len(taken) < size:
        end = offset + len(taken)
        more = f"These are bytes {offset:,} to {end:,} of {size:,}. Go on: {uri.partition('?')[0]}?offset={end}"
    kind = media_type or ("application/octet-stream" if text is None else "text/plain")
    return Page(kind, text, taken, size, more)


def _text(content: bytes, *, whole: bool) -> str | None:
    """Bytes as text where they are: UTF-8, a character cut at the end left to the next page, nothing that drives."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        if whole or error.reason != CUT or not error.start:
            return None
        text = content[: error.start].decode()
    return text if all(each.isprintable() or each in "\n\r\t" for each in text) else None


def _json(value: Any, limit: int) -> Page:
    """A page of the lab's own; what workers wrote in it is cleaned, and cut where it is long."""
    shown, cut = plain_value(value, limit)
    text = json.dumps(shown, ensure_ascii=False, indent=1)
    more = "What is long in it was cut: ask for one thing of it." if cut else ""
    return Page(JSON, text, text.encode(), len(text.encode()), more)


def _number(asked: Mapping[str, str], name: str) -> int:
    """
    Raises:
        InvalidArgument: it is no whole number.
    """
    text = asked.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument(f"{name}: {text[:40]!r} is no whole number", next="leave it out or mend it")
    return int(text)
