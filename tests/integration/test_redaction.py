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
from core.redaction.refusal import SecretSeen
from core.rogers.entry import Entry
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


@pytest.mark.parametrize(
    "word", ["operator", "requested", "conversation", "principals", "fiedler.", "web.fetch", "1000000000"]
)
async def test_a_secret_that_is_a_word_of_the_lab_does_not_stop_it(word: str) -> None:
    with a_home(ECHO) as home:
        async with opened(home) as lab:
            lab.services.redactor.learn("silly", word.encode())
            answer = await call(lab, "echo", "say", text=f"It is {word}, is it not?")
            assert json.loads(answer.data) == {"text": "It is [secret silly], is it not?"}
            assert (answer.sender, answer.recipient) == ("echo", "operator")
            body = json.dumps({"id": word, "state": "requested", "principals": [word], "at": 1000000000}).encode()
            assert lab.journal.clean(Entry("act:1", "act", body)).body == body
            said = json.dumps({"reason": f"because of {word}!"}).encode()
            assert b"[secret silly]" in lab.journal.clean(Entry("act:1", "act", said)).body


def test_no_log_and_no_traceback_shows_it(tmp_path: Path) -> None:
    program = f"""
import logging, structlog
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
logging.getLogger("library").warning("it was %s", value)
raise RuntimeError(value)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ran.stderr.count("[secret it]") >= 5
    assert seen(VALUE, ran.stderr.encode()) == []
    assert json.loads(ran.stderr.splitlines()[0])["within"] == {"key": ["[secret it]"]}
