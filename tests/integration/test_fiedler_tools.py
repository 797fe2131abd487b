"""Fiedler's tools as ordinary calls in a whole lab: ask, panel, models, costs."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after, sleep

from core.fiedler.aloud import PAUSE_S
from core.fiedler.mad import PROMPT_BYTES
from core.lab import Lab
from core.redaction.refusal import SecretSeen
from protos.blobs import chunks
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, Blob, Message
from tests.labs import a_home, ask, call, opened
from tests.model_server import ModelServer, Play, model_server
from tests.orchestras import KEY


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    def script(request: Any) -> Play:
        return Play(text="No." if request.body["model"] == "contrary" else "Yes.")

    async with model_server(script) as server:
        yield server


@pytest.fixture
async def lab(server: ModelServer) -> AsyncIterator[Lab]:
    settings = f"""
emads = []
[llm]
usd_per_day = 1
[providers.here]
kind = "openai"
base_url = "{server.openai}"
key = "here"
[providers.there]
kind = "anthropic"
base_url = "{server.anthropic}"
key = "here"
[models.one]
provider = "here"
model = "scripted"
input_usd = 3
output_usd = 15
[models.two]
provider = "there"
model = "scripted"
[models.three]
provider = "there"
model = "contrary"
"""
    with a_home(settings) as home:
        keys = home.path / "keys"
        keys.mkdir(mode=0o700)
        (keys / "here").touch(mode=0o600)
        (keys / "here").write_text(KEY)
        async with opened(home) as lab:
            yield lab


def data(reply: Message) -> Any:
    assert reply.kind == KIND_REPLY, reply.text
    return json.loads(reply.data)


async def test_asking_twice_with_one_id_is_paid_once(lab: Lab, server: ModelServer) -> None:
    id = new_id()
    made = data(await call(lab, "fiedler", "ask", id=id, prompt="Is it?"))
    assert (made["text"], made["alias"], made["reason"]) == ("Yes.", "one", "stop")
    assert made["used"]["usd"] > 0
    assert len(server.requests) == 1
    booked = data(await call(lab, "fiedler", "costs", by="model"))
    assert [(each["name"], each["calls"]) for each in booked["costs"]] == [("one", 1)]
    assert booked["accounts"][0]["cap_usd"] == 1
    assert booked["accounts"][0]["spent_usd"] == pytest.approx(made["used"]["usd"])


async def test_a_model_that_lets_one_wait_keeps_nobody_else_waiting(lab: Lab, server: ModelServer) -> None:
    server.script = lambda request: Play(hang="at once" if "Wait." in str(request.body) else "", text="Yes.")
    slow = Message(id=new_id(), conversation=new_id(), recipient="fiedler", kind=KIND_CALL, tool="ask")
    slow.data = json.dumps({"prompt": "Wait."})
    await lab.rogers.publish(slow, sender="operator")
    with fail_after(30):
        while not server.requests:
            await sleep(0.01)
    assert data(await call(lab, "fiedler", "models"))["models"]
    assert data(await call(lab, "fiedler", "costs"))["by"] == "model"
    assert data(await call(lab, "fiedler", "ask", prompt="Is it?"))["text"] == "Yes."
    assert await lab.rogers.find(answer_id(slow)) is None


async def test_what_the_lab_spends_is_told_to_no_client_and_to_no_run(lab: Lab) -> None:
    for who in (Message(sender="client:ann"), Message(sender="hopper", run="hopper-1")):
        who.id, who.conversation, who.recipient, who.kind, who.tool = new_id(), new_id(), "fiedler", KIND_CALL, "costs"
        await lab.rogers.publish(who, sender=who.sender)
        with fail_after(30):
            told = await lab.rogers.answer_to(who.id)
        assert (told.kind, json.loads(told.data)["code"]) == (KIND_FAULT, "permission_denied")


async def test_an_answer_told_on_the_way_is_a_few_events_and_no_secret_is_split_over_them(
    lab: Lab, server: ModelServer
) -> None:
    said = f"The key is {KEY}. " * 40
    server.script = lambda request: Play(text=said, pause_s=0.005)
    began = time.monotonic()
    reply = await call(lab, "fiedler", "ask", prompt="Say it slowly.", live=True)
    took = time.monotonic() - began
    assert KEY not in data(reply)["text"]
    history = await lab.rogers.history(reply.conversation, limit=1000)
    pieces = [(json.loads(each.data)["at"], each.text) for each in history if each.tool == "progress"]
    whole = "".join(text for _, text in pieces)
    assert data(reply)["text"].startswith(whole)
    assert [at for at, _ in pieces] == [
        len("".join(text for _, text in pieces[:index])) for index in range(len(pieces))
    ]
    assert len(server.requests) == 1
    assert 0 < len(pieces) <= took / PAUSE_S + 2, "and not one for each token"
    assert not any(part in whole for part in (KEY, KEY[-6:]))
    silent = await call(lab, "fiedler", "ask", prompt="And now in one go.")
    assert not [each for each in await lab.rogers.history(silent.conversation) if each.tool == "progress"]


async def asked(lab: Lab, digest: str, blobs: list[Blob]) -> Message:
    question = Message(id=new_id(), conversation=new_id(), recipient="fiedler", kind=KIND_CALL, tool="ask")
    question.data = json.dumps({"prompt_blob": digest})
    question.blobs.extend(blobs)
    return await ask(lab, question)


async def test_a_long_prompt_is_an_attached_text(lab: Lab, server: ModelServer) -> None:
    async def attached(content: bytes) -> tuple[str, list[Blob]]:
        blob = await lab.services.horace.put(chunks(content), name="prompt.txt", media_type="text/plain")
        return blob.digest, [blob]

    known_later = await attached(f"Is it {KEY}?".encode())
    question = "Is it so? " * 3000
    digest, blobs = await attached(question.encode())
    assert data(await asked(lab, digest, blobs))["text"] == "Yes."
    assert server.requests[-1].body["messages"][-1]["content"] == question
    assert data(await asked(lab, *known_later))["text"] == "Yes."
    assert KEY not in str(server.requests[-1].body), "the same is taken out as of a short one"
    with pytest.raises(SecretSeen):
        await attached(f"Is it {KEY}?".encode())
    before = len(server.requests)
    for content in (b"\xff\xfe", b" \n"):
        digest, blobs = await attached(content)
        fault = await asked(lab, digest, blobs)
        assert (fault.kind, json.loads(fault.data)["code"]) == (KIND_FAULT, "invalid_argument")
    fault = await asked(lab, digest, [])
    assert json.loads(fault.data)["next"] == "Attach the blob to the call."
    digest, blobs = await attached(b"x" * (PROMPT_BYTES + 1))
    blobs[0].size = 1  # as a worker may say, whatever the blob is
    assert "more than the" in (await asked(lab, digest, blobs)).text
    assert len(server.requests) == before


async def test_a_panel_shows_who_dissents(lab: Lab, server: ModelServer) -> None:
    made = data(await call(lab, "fiedler", "panel", prompt="Is it?", models=["one", "two", "three"]))
    assert made["groups"] == [["one", "two"], ["three"]]
    assert [each["dissents"] for each in made["voices"]] == [False, False, True]
    assert made["agreement"] == pytest.approx(1 / 3)
    assert len(server.requests) == 3


async def test_the_models_are_listed_with_their_state(lab: Lab) -> None:
    made = data(await call(lab, "fiedler", "models"))["models"]
    assert [(each["alias"], each["state"], each["is_default"]) for each in made] == [
        ("one", "ready", True),
        ("two", "ready", False),
        ("three", "ready", False),
    ]
    (lab.home.path / "keys" / "here").chmod(0o644)
    made = data(await call(lab, "fiedler", "models"))["models"]
    assert made[0]["state"] == "no key"
    assert "chmod 600" in made[0]["note"]
    fault = await call(lab, "fiedler", "ask", prompt="Is it?")
    assert fault.kind == KIND_FAULT
    assert json.loads(fault.data)["code"] == "permission_denied"


async def test_no_model_is_a_normal_state() -> None:
    with a_home() as home:
        async with opened(home) as lab:
            assert data(await call(lab, "fiedler", "models")) == {"models": []}
            fault = await call(lab, "fiedler", "ask", prompt="Is it?")
            told = json.loads(fault.data)
            assert (fault.kind, told["code"]) == (KIND_FAULT, "not_found")
            assert told["next"]


async def test_no_key_is_found_in_a_lab_that_used_it(lab: Lab, server: ModelServer) -> None:
    await call(lab, "fiedler", "ask", prompt="Is it?")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    for file in Path(lab.home.path).rglob("*"):
        if file.is_file() and file.parent.name != "keys":
            assert KEY.encode() not in file.read_bytes(), file
