"""The whole core is killed at random moments while people use it: every call has one answer, and none is lost."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import fail_after, sleep

from core.grace.cli.client import Client
from core.home import Home
from protos.errors import Error
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_REPLY, Message
from tests.fault.dying_core import Cores, cores
from tests.labs import ECHO, a_home, opened
from tests.sizes import full

KILLS = 10
LIVES_S = (0.3, 1.5) if full() else (0.2, 0.8)


@contextmanager
def a_core(mother: Cores, home: Home) -> Iterator[None]:
    """A core in a process of its own, ready; killed by signal 9 at the end."""
    core = mother.start(home)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            Client(home).get("/api/v1/status")
            break
        except Error:
            assert core.ended(within_s=0.02) is None, (home.path / "core.log").read_text()[-2000:]
    try:
        yield
    finally:
        os.kill(core.pid, signal.SIGKILL)
        assert core.ended(within_s=60) == -signal.SIGKILL


def say_until(home: Home, moment: float, asked: dict[str, bool], conversation: str) -> None:
    """Calls `echo.say` again and again; notes for each id whether the door acknowledged it."""
    client = Client(home)
    while time.monotonic() < moment:
        for id in [*(id for id, known in asked.items() if not known), new_id()]:
            asked.setdefault(id, False)
            body = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": id}}
            try:
                client.post("/api/v1/messages", body | {"id": id, "conversation": conversation})
                asked[id] = True
            except Error:
                return


async def test_ten_random_kills_of_the_core_lose_no_acknowledged_call_and_answer_each_once() -> None:
    conversation, asked = new_id(), dict[str, bool]()
    with a_home(f'[residents.echo]\nclass = "{ECHO}"\n') as home, cores() as mother:
        for _ in range(KILLS):
            with a_core(mother, home):
                say_until(home, time.monotonic() + random.uniform(*LIVES_S), asked, conversation)
        acknowledged = [id for id, known in asked.items() if known]
        assert len(acknowledged) > KILLS
        async with opened(home) as lab:
            with fail_after(60):
                while [id for id in acknowledged if await lab.rogers.find(answer_id(Message(id=id))) is None]:
                    await sleep(0.1)
            said = list[Message]()
            while page := await lab.rogers.history(conversation, after=said[-1].sequence if said else 0, limit=1000):
                said += page
            ids = [each.id for each in said]
            assert len(ids) == len(set(ids))
            assert set(acknowledged) <= set(ids)
            replies = {each.in_reply_to: each for each in said if each.kind == KIND_REPLY}
            for id in acknowledged:
                assert id in replies[id].data
            verification = await lab.journal.verify()
            assert verification.ok, verification.problems
