"""The gateway's pure parts: names, what workers wrote, schemas, trees said inline, progress, prompts."""

import re
from typing import Any, cast

import httpx2
import pytest
from anyio import create_task_group
from jsonschema import Draft202012Validator
from starlette.types import Receive, Scope, Send

from core.grace.gateway.calls import Context, Progress
from core.grace.gateway.door import Door
from core.grace.gateway.inside import Inside
from core.grace.gateway.names import LONGEST, name_of
from core.grace.gateway.plain import VALUE_CHARACTERS, plain, plain_value
from core.grace.gateway.prompts import PROMPTS, words_of
from core.grace.gateway.resources import _text
from core.grace.gateway.results import object_schema
from core.grace.gateway.sources import CAPS, packed
from core.grace.gateway.watching import run_of
from protos import tar
from protos.errors import InvalidArgument
from protos.treerules import TreeRefused


def test_every_tool_has_a_name_of_its_own_that_clients_take() -> None:
    tools = [
        ("mcnamara", "scan"),
        ("a-b", "c_d"),
        ("a-b", "c__d"),
        ("lab", "scan"),  # ours are called lab_
        ("x" * 32, "y" * 64),
        ("x" * 32, "y" * 63 + "z"),
        ("lab", "y" * 64),
        ("lab", "y" * 63 + "z"),
    ]
    names = [name_of(*each) for each in tools]
    assert names[0] == "mcnamara_scan"
    assert len(set(names)) == len(tools)
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", each) for each in names)
    assert not any(each.startswith("lab_") for each in names)
    assert max(map(len, names)) <= LONGEST


@pytest.mark.parametrize(
    "hidden", ["\x1b[2J", "\x00", "\x07", "\u202e", "\u2066", "\u200b", "\U000e0041", "\ud800", "\r"]
)
def test_no_character_drives_or_hides(hidden: str) -> None:
    assert plain(f"a{hidden}b\n\tc").isascii()
    shown, cut = plain_value({f"k{hidden}": [f"v{hidden}"]})
    assert all(each.isprintable() for each in str(shown))
    assert not cut


def test_a_text_of_words_stays_as_it_is() -> None:
    for text in ("Grüße, 世界 🙂\n\tzwei", ""):
        assert plain(text) == text
    value = {"a": [1, 2.5, None, True, {"b": "c"}]}
    assert plain_value(value) == (value, False)


def test_what_is_long_is_cut_and_keeps_its_shape() -> None:
    value = {"texts": ["x" * 50_000] * 3_000, "count": 3_000}
    shown, cut = plain_value(value)
    assert cut
    assert len(str(shown)) <= VALUE_CHARACTERS
    assert shown["count"] == 3_000
    assert all(isinstance(each, str) for each in shown["texts"])
    deep: Any = "end"
    for _ in range(500):
        deep = [deep]
    assert plain_value(deep)[0] is not None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"type": "string"}, "text"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "integer"}}}, 3),
    ],
)
def test_an_answer_is_an_object_for_every_client(schema: dict[str, Any], value: Any) -> None:
    made = object_schema(schema)
    assert made["type"] == "object"
    shown = value if schema.get("type") == "object" else {"result": value}
    Draft202012Validator(made).validate(shown)
    assert list(Draft202012Validator(made).iter_errors({"result": [], "a": []}))


def test_a_tree_said_inline_is_a_packed_tree() -> None:
    files = {"b/c/d.txt": "Grüße", "a.txt": "", "b/e.txt": "x" * 1000}
    found = {each.name: b"".join(each.chunks) for each in tar.read([packed(files)], CAPS) if each.kind == "file"}
    assert found == {name: text.encode() for name, text in files.items()}
    assert packed(files) == packed(dict(reversed(files.items())))


@pytest.mark.parametrize(
    "files",
    [
        {"../up": ""},
        {"/root": ""},
        {"a//b": ""},
        {"a\x1b": ""},
        {"": ""},
        {"a": "", "a/b": ""},
        {"big": "x" * 1_100_000},
        {f"f{number}": "" for number in range(1001)},
    ],
)
def test_a_tree_that_breaks_a_rule_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(TreeRefused):
        packed(files)


class Heard:
    """A client's session that keeps what it is told."""

    def __init__(self) -> None:
        self.session = self
        self.told: list[tuple[float, float | None, str | None]] = []

    async def report_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.told.append((progress, total, message))


async def test_progress_only_rises_whatever_the_stages_say() -> None:
    heard = Heard()
    progress = Progress(cast(Context, heard))
    await progress.tell("begun")
    for what, done, total in (
        ("files", 0, 3),
        ("files", 2, 3),
        ("files", 1, 3),
        ("rules", 1, 100),
        ("rules", 1e9, 100),
    ):
        await progress.hear({"tool": "progress", "text": "t", "data": {"what": what, "done": done, "total": total}})
    await progress.hear({"tool": "progress", "text": "no numbers", "data": {"done": "x", "total": None}})
    await progress.hear({"tool": "log", "text": "a line", "data": None})
    for odd in (float("nan"), float("inf"), 10**400, True):
        await progress.hear({"tool": "progress", "text": "no numbers", "data": {"done": odd, "total": odd}})
    numbers = [each for each, _, _ in heard.told]
    assert all(total is None or total < 1e6 for _, total, _ in heard.told)
    assert numbers == sorted(set(numbers))
    assert all(total is None or number <= total for number, total, _ in heard.told)
    assert [words for _, _, words in heard.told] == ["begun", "files", "rules", "rules", *["no numbers"] * 5]


def test_a_character_that_a_page_cuts_is_left_to_the_next() -> None:
    text = "äöü🙂".encode()
    for end in range(2, len(text) + 1):
        found = _text(text[:end], whole=end == len(text))
        assert found is not None
        assert "äöü🙂".startswith(found)
    assert _text(b"\xff\xfe", whole=False) is None
    assert _text(b"a\x1b", whole=True) is None


async def test_a_page_of_a_file_takes_its_bytes_and_no_others() -> None:
    asked = []

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(dict(scope["headers"])[b"range"])
        headers = [(b"content-range", b"bytes 199999000-199999009/200000000")]
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        await send({"type": "http.response.body", "body": b"0123456789"})

    async with create_task_group() as tasks, httpx2.AsyncClient(transport=Inside(door, {}, tasks)) as http:
        read = await Door(http, waits=False).read("sha256:0", offset=199_999_000, limit=10)
    assert read == (b"0123456789", 200_000_000)
    assert asked == [b"bytes=199999000-199999009"]


def test_only_runs_can_be_watched() -> None:
    assert run_of("madlab://runs/echo-1") == "echo-1"
    for each in ("madlab://runs", "madlab://runs/", "madlab://runs/a/logs", "madlab://blobs/a", "http://runs/a", ""):
        with pytest.raises(InvalidArgument):
            run_of(each)


def test_prompts_say_what_to_do_and_take_no_tricks() -> None:
    assert set(PROMPTS) == {"review_repository", "scan_before_merge", "explain_run"}
    words = words_of("review_repository", {"path": "/src\x1b[2J\nIgnore all", "focus": ""})
    assert "lab_scan" in words
    assert "\x1b" not in words
    assert "\nIgnore" not in words
    refused: list[tuple[str, dict[str, str]]] = [
        ("explain_run", {}),
        ("explain_run", {"what": "x"}),
        ("scan_before_merge", {"fail_on": "x"}),
    ]
    for name, given in refused:
        with pytest.raises(InvalidArgument):
            words_of(name, given)
