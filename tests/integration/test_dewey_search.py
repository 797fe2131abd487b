"""What was said and done in a lab is found: by the door, by the MAD, by whoever may see it and nobody else."""

from collections.abc import AsyncIterator

import pytest
from anyio import fail_after

from core.lab import Lab
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.labs import lab_of

ECHO = '[residents]\necho = { class = "tests.emads.echo:Echo" }\n'


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    with fail_after(120):
        async with lab_of(ECHO) as lab:
            yield lab


async def say(lab: Lab, text: str, *, conversation: str = "", sender: str = "operator", recipient: str = "echo") -> str:
    said = Message(id=new_id(), conversation=conversation or new_id(), recipient=recipient, kind=KIND_PROSE, text=text)
    await lab.rogers.publish(said, sender=sender)
    return str(said.id)


async def test_one(lab: Lab) -> None:
    id = await say(lab, "the quick brown fox")
    await lab.library.caught_up()
    found = await lab.library.search("brown fox")
    assert [each.id for each in found.hits] == [id]
