"""The HTTP door as any program meets it: strict in what it takes, exact in what it says."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from protos.ids import new_id
from tests.commands import Madlab, a_lab


class Connection(http.client.HTTPConnection):
    """HTTP over the lab's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab() as lab:
        yield lab


def ask(madlab: Madlab, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One exchange: the status, and the JSON that every answer but a blob is."""
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    with closing(Connection(madlab.home.api_socket)) as connection:
        connection.request(method, "/api/v1" + path, raw, headers)
        answer = connection.getresponse()
        assert answer.headers["Madlab-Request-Id"]
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/nonsense", None, 404, "Not Found"),
        ("GET", "/../../etc/passwd", None, 404, "Not Found"),
        ("DELETE", "/runs", None, 405, "Method Not Allowed"),
        ("GET", "/runs?limit=-1", None, 400, "limit: '-1' is no whole number"),
        ("GET", "/runs?limit=99999999999999999999", None, 400, "limit: "),
        ("GET", "/runs/nothing", None, 404, "There is no run 'nothing'."),
        ("GET", "/blobs/nothing", None, 400, ""),
        ("GET", "/blobs/sha256:" + "0" * 64, None, 404, ""),
        ("GET", "/files/nothing", None, 404, "there is no file named 'nothing'"),
        ("PUT", "/files/advisories", {"digest": "sha256:" + "0" * 64}, 404, ""),
        ("PUT", "/files/..%2Fx", {"digest": "x"}, 404, ""),
        ("PUT", "/files/Upper", {"digest": "sha256:" + "0" * 64}, 400, ""),
        ("POST", "/messages", b"\xff", 400, "the body: "),
        ("POST", "/messages", b"[" * 5000, 400, ""),
        ("POST", "/messages", b"x" * 300_000, 400, "the body is over 262144 bytes"),
        ("POST", "/messages", {"recipient": "echo", "kind": "reply"}, 400, "kind: "),
        ("POST", "/messages", {"recipient": "echo", "kind": "call", "sender": "core"}, 400, "sender: "),
        ("POST", "/messages", {"recipient": 1, "kind": "call"}, 400, "recipient: "),
        ("POST", "/messages", {"recipient": "echo", "kind": "prose", "text": "x", "id": "1"}, 400, "id: "),
        ("POST", "/messages", {"recipient": "echo", "kind": "prose", "text": "x" * 20_000}, 400, "16"),
        ("POST", "/messages", {"recipient": "x\u001b[31m", "kind": "prose", "text": "x"}, 404, "no MAD"),
        (
            "POST",
            "/messages",
            {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": 1}},
            400,
            "text",
        ),
        (
            "POST",
            "/messages",
            {"recipient": "echo", "kind": "prose", "text": "x", "blobs": [{"digest": "sha256:" + "0" * 64}]},
            404,
            "",
        ),
        ("POST", "/runs/nothing/cancel", {}, 404, "There is no run 'nothing'."),
        ("POST", "/shutdown", {"runs": "explode"}, 400, "runs: "),
    ],
)
def test_what_is_wrong_is_refused_with_a_code_and_a_sentence(
    madlab: Madlab, method: str, path: str, body: Any, status: int, sentence: str
) -> None:
    found, said = ask(madlab, method, path, body)
    assert (found, set(said), set(said["error"])) == (status, {"error"}, {"code", "message", "next"})
    assert sentence in said["error"]["message"]
    assert "Traceback" not in json.dumps(said)


def test_the_sender_is_the_operator_whatever_a_client_says(madlab: Madlab) -> None:
    status, said = ask(madlab, "POST", "/messages", {"recipient": "echo", "kind": "prose", "text": "hello"})
    assert status == 202
    assert set(said) == {"id", "conversation", "sequence", "run"}
    assert said["run"] is None
    _, found = ask(madlab, "GET", f"/conversations/{said['conversation']}/messages")
    assert found["messages"][0]["sender"] == "operator"


def test_the_same_id_twice_is_one_message_and_the_first_counts(madlab: Madlab) -> None:
    message = {"recipient": "echo", "kind": "prose", "text": "once", "id": new_id(), "conversation": new_id()}
    first, second, third = (
        ask(madlab, "POST", "/messages", message | {"text": text}) for text in ("once", "once", "twice")
    )
    assert first == second == third
    _, found = ask(madlab, "GET", f"/conversations/{message['conversation']}/messages")
    assert [each["text"] for each in found["messages"] if each["kind"] == "prose"] == ["once"]


def test_a_blob_goes_in_and_comes_out_as_it_is(madlab: Madlab) -> None:
    content = bytes(range(256)) * 8192
    status, blob = ask(madlab, "POST", "/blobs?name=a.bin&media_type=text/html", content)
    assert (status, blob["digest"]) == (201, "sha256:" + sha256(content).hexdigest())
    with closing(Connection(madlab.home.api_socket)) as connection:
        connection.request("GET", f"/api/v1/blobs/{blob['digest']}")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/octet-stream"  # never what its maker declared
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.read() == content


def test_a_part_of_a_blob_is_all_that_is_sent(madlab: Madlab) -> None:
    content = bytes(range(256)) * 4096
    _, blob = ask(madlab, "POST", "/blobs", content)
    _, empty = ask(madlab, "POST", "/blobs", b"")
    size = len(content)
    for digest, said, status, part, told in (
        (blob["digest"], "bytes=1048570-", 206, content[1_048_570:], f"bytes 1048570-{size - 1}/{size}"),
        (blob["digest"], "bytes=3-9", 206, content[3:10], f"bytes 3-9/{size}"),
        (blob["digest"], f"bytes=0-{10**17}", 206, content, f"bytes 0-{size - 1}/{size}"),
        (blob["digest"], f"bytes={size}-", 416, None, f"bytes */{size}"),
        (blob["digest"], "bytes=9-3", 200, content, None),
        (blob["digest"], "bytes=0-1,5-6", 200, content, None),
        (blob["digest"], "lines=1-2", 200, content, None),
        (empty["digest"], "bytes=0-9", 200, b"", None),
    ):
        with closing(Connection(madlab.home.api_socket)) as connection:
            connection.request("GET", f"/api/v1/blobs/{digest}", headers={"Range": said})
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Content-Range"]) == (status, told), said
            assert part is None or answer.read() == part, said


@pytest.mark.parametrize(
    ("head", "body"),
    [(("Content-Length", "1000000"), b"x" * 200_000), (("Transfer-Encoding", "chunked"), b"4\r\nhalf\r\n")],
)
def test_an_upload_that_breaks_off_leaves_nothing(madlab: Madlab, head: tuple[str, str], body: bytes) -> None:
    before, incoming = ask(madlab, "GET", "/status")[1]["files"], madlab.home.path / "blobs" / "incoming"
    left = time.monotonic() + 60
    with closing(Connection(madlab.home.api_socket)) as connection:
        connection.putrequest("POST", "/api/v1/blobs")
        connection.putheader(*head)
        connection.endheaders(body)
        while not any(incoming.iterdir()) and time.monotonic() < left:
            time.sleep(0.01)
    while any(incoming.iterdir()) and time.monotonic() < left:
        time.sleep(0.01)  # the core hears of it a moment later
    assert ask(madlab, "GET", "/status")[1]["files"] == before


def test_a_named_file_has_versions(madlab: Madlab) -> None:
    for number, content in enumerate((b"one", b"two"), 1):
        _, blob = ask(madlab, "POST", "/blobs", content)
        status, version = ask(madlab, "PUT", "/files/notes", {"digest": blob["digest"]})
        assert (status, version["version"]) == (200, number)
        assert ask(madlab, "GET", "/files/notes") == (200, version)


def test_conversations_are_listed_the_last_spoken_in_first(madlab: Madlab) -> None:
    mine = [ask(madlab, "POST", "/messages", {"recipient": "echo", "kind": "prose", "text": "x"})[1] for _ in range(2)]
    _, said = ask(madlab, "GET", "/conversations?limit=2")
    assert {each["id"] for each in said["conversations"]} == {each["conversation"] for each in mine}


def test_a_stream_gives_the_past_then_the_present_and_ends_with_the_core() -> None:
    with a_lab() as lab:
        conversation = new_id()
        message = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": "x"}}
        ask(lab, "POST", "/messages", message | {"conversation": conversation})
        with closing(Connection(lab.home.api_socket)) as connection:
            path = f"/api/v1/conversations/{conversation}/messages"
            connection.request("GET", path, headers={"Accept": "text/event-stream"})
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "text/event-stream"
            lines = iter(answer.readline, b"")
            events = (json.loads(each[6:]) for each in lines if each.startswith(b"data: "))
            assert [next(events)["kind"] for _ in range(2)] == ["call", "reply"]
            ask(lab, "POST", "/messages", message | {"conversation": conversation})
            assert [next(events)["kind"] for _ in range(2)] == ["call", "reply"]
            assert lab("down").code == 0  # in order, although somebody listens
            assert list(events) == []


def test_who_does_not_read_does_not_hold_up_anybody(madlab: Madlab) -> None:
    conversation = new_id()
    message = {"recipient": "echo", "kind": "prose", "text": "x" * 15_000, "conversation": conversation}
    with closing(Connection(madlab.home.api_socket)) as sleeper:
        path = f"/api/v1/conversations/{conversation}/messages"
        sleeper.request("GET", path, headers={"Accept": "text/event-stream"})
        for _ in range(100):
            assert ask(madlab, "POST", "/messages", message)[0] == 202
        answer = sleeper.getresponse()
        told = (each for each in iter(answer.readline, b"") if b'"prose"' in each)
        assert len([next(told) for _ in range(100)]) == 100  # it comes late and misses nothing
