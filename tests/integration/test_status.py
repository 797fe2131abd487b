"""What the status shows of things that went wrong, and of sandboxes that stand."""

import pytest
from anyio import fail_after, sleep

from core.grace.door.shapes import status_json
from core.policy.capabilities import RESIDENT_PORTS, Identity
from core.ports.bus import LocalBus
from core.ports.services import unlimited
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_FAULT, KIND_PROSE, Message
from tests.labs import ECHO, EMADS, call, lab_of


async def test_a_resident_that_died_is_shown_with_what_it_died_of() -> None:
    async with lab_of(f'[residents.echo]\nclass = "{ECHO}"\n') as lab:
        await call(lab, "echo", "misbehave", how="exit")
        (shown,) = [each for each in (await status_json(lab))["mads"] if each["name"] == "echo"]
        assert shown["restarts"] == 1
        assert "SystemExit" in shown["error"]


async def test_a_letter_to_nobody_is_shown_and_its_sender_hears_of_it() -> None:
    async with lab_of(f'[residents.echo]\nclass = "{ECHO}"\n') as lab:
        bus = LocalBus(lab.services, Identity(participant="echo", ports=RESIDENT_PORTS), unlimited())
        letter = Message(id=new_id(), conversation=new_id(), recipient="eko", kind=KIND_PROSE, text="anybody?")
        await bus.publish(letter)
        with fail_after(60):
            while not (letters := (await status_json(lab))["dead_letters"]):
                await sleep(0.02)
        assert [(each["id"], each["recipient"]) for each in letters] == [(letter.id, "eko")]
        with fail_after(60):
            while len(said := await lab.rogers.history(letter.conversation)) < 2:
                await sleep(0.02)
        assert (said[1].kind, said[1].recipient, said[1].sender) == (KIND_FAULT, "echo", "core")


@pytest.mark.docker
async def test_a_warm_sandbox_is_shown_before_it_has_a_run() -> None:
    async with lab_of(EMADS + "[profile.echo]\nwarm = 1\n", images=("base", "tests/emads/echo")) as lab:
        with fail_after(60):
            while not (shown := (await status_json(lab))["sandboxes"]) or not lab.pools["echo"].statistics().ready:
                await sleep(0.05)
        assert [(each["mad"], each["state"], each["run"]) for each in shown] == [("echo", "warm", None)]
