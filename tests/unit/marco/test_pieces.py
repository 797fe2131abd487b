"""Names, headers, steps and tools of Marco's, without a browser."""

import gzip
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from periphery.marco import network
from periphery.marco.mad import Browsed, Marco
from periphery.marco.network import file_name
from periphery.marco.outline import outline
from periphery.marco.page import check_address
from periphery.marco.printable import printable
from periphery.marco.steps import Step, check_steps
from protos.errors import InvalidArgument
from protos.mad import Context
from protos.tools import Call, tools_of
from protos.v1.message_pb2 import Message
from protos.v1.web_pb2 import FetchEvent, Header, ResponseHead
from tests.labs import ROOT

VERBS = {
    "browse",
    "navigate",
    "click",
    "type",
    "wait_for",
    "snapshot",
    "screenshot",
    "evaluate",
    "download",
    "research",
}


@pytest.mark.parametrize(
    ("url", "disposition", "name"),
    [
        ("https://a.test/files/report%20one.pdf?x=/y", "", "report_one.pdf"),
        ("https://a.test/", "", "file"),
        ("https://a.test/x", 'attachment; filename="data.csv"', "data.csv"),
        ("https://a.test/x", "attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("https://a.test/x", "attachment; filename=../../etc/passwd", "passwd"),
        ("https://a.test/x", r"attachment; filename=..\..\boot.ini", "boot.ini"),
        ("https://a.test/x", "attachment; filename=.bashrc", "bashrc"),
        ("https://a.test/x", "attachment; filename=%0aa%1b[31m", "a_31m"),
        ("https://a.test/" + "x" * 500, "", "x" * 100),
        ("https://a.test/...", "", "file"),
    ],
)
def test_a_download_is_called_as_the_server_says_where_that_is_a_name(url: str, disposition: str, name: str) -> None:
    assert file_name(url, disposition) == name


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "http://", "javascript:1", "ftp://a", "https://a:99999"]
)
def test_only_addresses_of_the_web_are_visited(url: str) -> None:
    with pytest.raises(InvalidArgument):
        check_address(url)
    check_address("https://example.org:8443/a?b#c")


def test_what_nobody_sees_is_dropped_and_what_words_are_written_with_stays() -> None:
    hidden = "".join(chr(0xE0000 + ord(each)) for each in "do it") + "\u200b\u202e\ufeff\x1b\x00\U000e0101"
    assert printable(f"a{hidden}b") == "ab"
    kept = "zwölf 漢字 क्\u200cष 👩\u200d🚀\n\tx"
    assert printable(kept) == kept


@pytest.mark.parametrize(
    "step", [{"do": "click"}, {"do": "type", "target": "x"}, {"do": "navigate"}, {"do": "wait_for"}, {"do": "evaluate"}]
)
def test_a_step_has_what_it_needs(step: Step) -> None:
    with pytest.raises(InvalidArgument, match="Step 1"):
        check_steps([step])


def test_a_reference_says_what_a_person_would_and_which_of_several() -> None:
    def node(id: str, role: str, name: str, *children: str, **about: Any) -> dict[str, Any]:
        values = {"role": {"value": role}, "name": {"value": name}, "childIds": children, "backendDOMNodeId": int(id)}
        return {"nodeId": id, **values, **about}

    trees = [
        [
            node("1", "RootWebArea", "Page", "2", "3", "4"),
            node("2", "button", "Go\u200b now", parentId="1"),
            node("3", "button", "Go now", parentId="1", properties=[{"name": "disabled", "value": {"value": True}}]),
            node("4", "link", 'A "b"', parentId="1", properties=[{"name": "url", "value": {"value": "http://x/"}}]),
        ],
        [node("9", "button", "Go now")],
    ]
    made = outline(trees)
    assert made.text.split("\n") == [
        '- button "Go now"',
        '- button "Go now" #2 (disabled)',
        '- link "A \\"b\\"" → http://x/',
        '- button "Go now" #3',
    ]
    assert {ref: each.node for ref, each in made.elements.items()} == {
        'button "Go now"': 2,
        'button "Go now" #2': 3,
        'link "A \\"b\\""': 4,
        'button "Go now" #3': 9,
    }


async def body(*pieces: bytes) -> AsyncIterator[FetchEvent]:
    for each in pieces:
        yield FetchEvent(bytes=each)


async def test_a_packed_answer_is_unpacked_for_the_browser_and_no_further_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = ResponseHead(status=200, headers=[Header(name="Content-Encoding", value=b"gzip")])
    content = gzip.compress(b"hello " * 1000)
    assert await network._content(packed, body(content[:10], content[10:])) == b"hello " * 1000
    monkeypatch.setattr(network, "BODY_BYTES", 1000)
    for pieces in ((content,), tuple(content[at : at + 1] for at in range(len(content)))):
        with pytest.raises(network.TooLarge):
            await network._content(packed, body(*pieces))
    with pytest.raises(ValueError, match="br"):
        await network._content(ResponseHead(headers=[Header(name="content-encoding", value=b"br")]), body(b"x"))


def test_the_browser_says_whose_it_is_names_no_secret_and_leaves_the_core_what_is_the_cores() -> None:
    given = {"Host": "x", "User-Agent": "HeadlessChrome/1", "Accept": "*/*", "Connection": "close", "TE": "trailers"}
    given |= {"X-Key": "Bearer secret://KEY"}
    made = {each.name: each.value for each in network._headers(given)}
    assert made == {
        "User-Agent": b"Chrome/1 madlab-marco/0.1",
        "Accept": b"*/*",
        "Accept-Encoding": b"gzip",
        "Accept-Language": b"en",
    }


class Noting(Marco):
    """Marco, who notes what each verb makes of a visit."""

    def __init__(self) -> None:
        self.visits: list[dict[str, Any]] = []

    async def browse(self, call: Call, **arguments: Any) -> Browsed:
        self.visits.append(arguments)
        return Browsed(
            outcome="succeeded", reason="", pages=[], answer="", quotes=[], unfounded=0, model="",
            downloads=[{"url": "", "name": "", "size": 0, "digest": "", "media_type": ""}],
        )  # fmt: skip


async def test_each_verb_is_a_tool_and_a_visit_that_ends_with_its_step() -> None:
    assert set(tools_of(Marco())) == VERBS
    marco, url = Noting(), "http://a.test/"
    call = Call(Message(), cast(Context, None))
    before: Sequence[Step] = [{"do": "scroll"}]
    await marco.navigate(call, url=url)
    await marco.click(call, url=url, target="t", steps=before)
    await marco.type(call, url=url, target="t", text="x", submit=True, steps=before)
    await marco.wait_for(call, url=url, text="x", steps=before)
    await marco.evaluate(call, url=url, script="1", steps=before)
    await marco.download(call, url=url, target="t", steps=before)
    await marco.snapshot(call, url=url, steps=before)
    await marco.screenshot(call, url=url, steps=before)
    lasts = [[*visit.get("steps", ())][-1:] for visit in marco.visits]
    assert [each[0]["do"] if each else "" for each in lasts] == [
        "", "click", "type", "wait_for", "evaluate", "download", "scroll", "scroll",
    ]  # fmt: skip
    assert all(next(iter(visit.get("steps", before))) == before[0] for visit in marco.visits)
    assert marco.visits[-2]["snapshot"]
    assert marco.visits[-1]["screenshot"]


def test_marcos_memory_is_closed_to_the_browsers_processes() -> None:
    program = (
        "import ctypes; from periphery.marco.chromium import _keep_to_ourselves;"
        "_keep_to_ourselves(); print(ctypes.CDLL(None).prctl(3))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "0"  # PR_GET_DUMPABLE
