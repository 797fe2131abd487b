"""What the core forgets by policy, seen from outside."""

import json
from collections.abc import AsyncIterator

import pytest

from core.config import Config
from core.upkeep import tend_once
from protos.errors import NotFound
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.labs import ECHO, call, lab_of

SETTINGS = f'[residents.echo]\nclass = "{ECHO}"\n'


async def some_bytes() -> AsyncIterator[bytes]:
    yield b"linked once"


async def test_a_blob_goes_when_nothing_has_linked_it_for_long_and_a_linked_one_stays() -> None:
    async with lab_of(SETTINGS) as lab:
        blob = await lab.horace.put(some_bytes(), name="kept")
        message = Message(id=new_id(), conversation=new_id(), recipient="operator", kind=KIND_PROSE, text="look")
        message.blobs.append(blob)
        await lab.rogers.publish(message, sender="echo")
        await tend_once(lab.services, lab.config)
        assert (await lab.horace.stat(blob.digest)).size == blob.size
        await lab.horace.sweep((), idle_s=0)
        with pytest.raises(NotFound):
            await lab.horace.stat(blob.digest)


async def test_bodies_go_by_age_and_the_journal_still_verifies_and_says_how_many() -> None:
    async with lab_of(SETTINGS) as lab:
        reply = await call(lab, "echo", "say", text="soon forgotten")
        assert json.loads(reply.data)
        journal = lab.config.journal.model_copy(update={"messages_days": 1e-9})
        await tend_once(lab.services, Config.model_copy(lab.config, update={"journal": journal}))
        verification = await lab.journal.verify()
        assert verification.ok
        assert verification.bodies_removed == 2
        assert await lab.rogers.find(reply.id) is not None
