"""Known values are in nothing that a lab writes: messages, events, blobs, logs, errors."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anyio import fail_after

from core.home import Home
from core.lab import Lab
from core.redaction.canaries import Canaries, Who
from core.redaction.entries import Clerk
from core.redaction.redactor import Hit, Redactor
from core.redaction.refusal import SecretSeen
from core.rogers.entry import Entry
from core.turing.secret import Secret
from core.turing.vault import check_value
from protos.errors import InvalidArgument
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Blob, Message
from tests.commands import ECHO
from tests.labs import a_home, call, opened
from tests.security.forms import seen

VALUE = 'tok-7Fq2"Zs9\\Kd4/äRm'


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    with a_home() as home:
        async with opened(home) as lab:
            lab.services.redactor.learn("it", VALUE.encode())
            yield lab


def files_of(home: Home) -> bytes:
    """Everything that lies on the disk of a lab."""
    return b"\n".join(each.read_bytes() for each in home.path.rglob("*") if each.is_file() and not each.is_socket())


async def test_a_message_is_kept_and_delivered_without_it(lab: Lab) -> None:
    said = Message(id=new_id(), conversation="c", recipient="somebody", kind=KIND_PROSE, text=f"My key is {VALUE}, ok?")
    said.data = json.dumps({"key": VALUE, "basic": b64encode(f"me:{VALUE}".encode()).decode()})
    said.blobs.append(Blob(digest="sha256:" + "0" * 64, name=f"{VALUE}.txt"))
    async with lab.rogers.open_inbox("somebody") as inbox:
        await lab.rogers.publish(said, sender="operator")
        with fail_after(5):
            got = await anext(aiter(inbox))
    assert got.text == "My key is [secret it], ok?"
    assert json.loads(got.data)["key"] == "[secret it]"
    assert got.blobs[0].name == "[secret it].txt"
    assert seen(VALUE, files_of(lab.home)) == []
    assert (await lab.journal.verify()).ok


async def test_an_event_is_shown_without_it_before_it_is_durable(lab: Lab) -> None:
    async with lab.rogers.follow(after=None) as events:
        event = Message(id=new_id(), conversation="c", kind=KIND_EVENT, tool="log", text=f"$ echo {VALUE}")
        await lab.rogers.report([event], sender="somebody")
        with fail_after(5):
            assert (await anext(aiter(events))).text == "$ echo [secret it]"


async def test_what_an_act_says_of_itself_stays_json(lab: Lab) -> None:
    body = json.dumps({"id": "r", "reason": f"it said {VALUE}", "terms": {VALUE: [VALUE]}}).encode()
    await lab.journal.append(Entry("run:r:note:1", "note", body))
    rows = await lab.journal.query("SELECT body FROM body JOIN journal USING (sequence) WHERE id = 'run:r:note:1'")
    assert json.loads(rows[0][0]) == {
        "id": "r",
        "reason": "it said [secret it]",
        "terms": {"[secret it]": ["[secret it]"]},
    }


async def test_an_identity_that_holds_it_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidArgument, match="rule secret"):
        await lab.journal.append(Entry(f"run:{VALUE}", "note", b"{}"))


async def test_a_file_that_holds_it_is_refused_and_nothing_of_it_is_on_the_disk(lab: Lab) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000 + VALUE.encode()[:7]
        yield VALUE.encode()[7:] + b"y" * 100

    with pytest.raises(SecretSeen, match="the value of it") as refused:
        await lab.horace.put(chunks())
    assert refused.value.hits[0].offset == 3_000_000
    assert lab.horace.usage().blobs == 0
    assert seen(VALUE, files_of(lab.home)) == []


async def test_what_is_known_of_nothing_changes_nothing(lab: Lab) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"100% of a\\n & b\n"
        yield b"tok-7Fq2"

    blob = await lab.horace.put(chunks())
    assert b"".join([each async for each in lab.horace.get(blob.digest)]) == b"100% of a\\n & b\ntok-7Fq2"


async def test_a_secret_that_is_a_word_of_the_lab_or_a_name_in_it_does_not_stop_it() -> None:
    with a_home(ECHO) as home:
        async with opened(home) as lab:
            redactor, clean = lab.services.redactor, lab.journal.clean
            for word in ("operator", "requested", "conversation", "principals", "fiedler.", "web.fetch"):
                redactor.learn("silly", word.encode())
                with pytest.raises(InvalidArgument, match="plain word"):
                    check_value("silly", Secret(word.encode()))
            redactor.learn("number", b"1000000000")
            redactor.learn("name", b"talk-0815")
            answer = await call(lab, "echo", "say", text="operator, it is 1000000000")
            assert json.loads(answer.data) == {"text": "operator, it is [secret number]"}
            body = json.dumps({"id": "r", "state": "requested", "at": 1000000000, "conversation": "talk-0815"}).encode()
            kept = clean(Entry("r:1", "run", body, "talk-0815", "core", "r"))
            assert json.loads(kept.body) == json.loads(body) | {"at": 0}
            said = Message(id="m", conversation="talk-0815", text="talk-0815").SerializeToString()
            fault = Message.FromString(clean(Entry("m", "message", said, "talk-0815", "core", "x")).body)
            assert (fault.conversation, fault.text) == ("talk-0815", "[secret name]")
            with pytest.raises(InvalidArgument, match="rule secret"):
                clean(Entry("m", "message", said, "talk-0815", "somebody"))


async def test_a_short_value_is_in_no_field_either_and_each_find_is_told() -> None:
    redactor = Redactor()
    redactor.learn("it", b"hunter2-2026xy")
    redactor.learn("pin", b"49318275")
    clerk, told = Clerk(redactor), []
    clerk.noticed = lambda entry, hits: told.append({each.name for each in hits})
    given = {"hunter2-2026xy": ["hunter2-2026xy", 49318275, -49318275.0, 1493182750, True], "name": "hunter2-2026xy"}
    entry = clerk.clean(Entry("i", "act", json.dumps({"act": "files.put", **given}).encode()))
    mark = "[secret it]"
    assert json.loads(entry.body) == {"act": "files.put", mark: [mark, 0, 0, 1493182750, True], "name": mark}
    message = Message(id="1", tool="hunter2-2026xy", causation="49318275", text="x")
    entry = clerk.clean(Entry("1", "message", message.SerializeToString(), "c"))
    assert Message.FromString(entry.body) == Message(id="1", tool=mark, causation="[secret pin]", text="x")
    spanning = Redactor()
    spanning.learn("odd", b'y": "1", "z')
    clerk = Clerk(spanning)
    clerk.noticed = lambda entry, hits: told.append({each.name for each in hits})
    entry = Entry("i", "act", b'{"y": "1", "z": 2}')
    assert clerk.clean(entry) == entry
    assert told == [{"it", "pin"}, {"it", "pin"}, {"odd"}]


async def test_a_run_that_shows_several_uncertain_values_is_looking_for_them(lab: Lab) -> None:
    canaries, ended = Canaries(lab.services.redactor, lab.journal, None), Ended()
    canaries.lives = ended

    def show(who: Who, *names: str) -> None:
        canaries.seen(who, "a log", [Hit(each, "raw", 0, 9, certain=False) for each in names])

    guest = Who("somebody", "c", "run-1", guest=True)
    for _ in range(50):
        show(guest, "address", "port")  # everybody's default, said again and again
    show(Who("somebody", "c", "run-2", guest=True), "third")
    show(Who("foreman", "c", "run-3"), "address", "port", "third")
    assert ended == []
    show(guest, "third")
    assert ended == ["run-1"]


class Ended(list[str]):
    """The runs that were ended."""

    def who(self, sender: str, conversation: str) -> None:
        """Nobody is there."""

    def put_down(self, run: str, reason: str) -> None:
        """Notes it."""
        self.append(run)


def test_no_log_and_no_traceback_shows_it(tmp_path: Path) -> None:
    program = f"""
import logging, structlog, sys
from core.app import _log_as_json
from core.redaction.redactor import Redactor
value = {VALUE!r}
redactor = Redactor()
_log_as_json(redactor)
redactor.learn("it", value.encode())
structlog.get_logger().info("said", what=value, within={{"key": [value]}})
try:
    raise ValueError(value)
except ValueError:
    structlog.get_logger().exception("it failed")
sys.stderr.write("in two: " + value[:9])
sys.stderr.writelines([value[9:], chr(10)])
assert not hasattr(sys.stderr, "buffer") and not hasattr(sys.stderr, "detach")
logging.getLogger("library").warning("it was %s", value)
raise RuntimeError(value)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ran.stderr.count("[secret it]") >= 6
    assert seen(VALUE, ran.stderr.encode()) == []
    assert json.loads(ran.stderr.splitlines()[0])["within"] == {"key": ["[secret it]"]}
