"""The core is killed while a resident has several messages in hand: what was not done is, and nothing is done twice."""

import json
import os
import signal
import sqlite3
from contextlib import closing

from anyio import fail_after, sleep

from core.app import open_journal
from core.home import Home
from core.rogers.bus import Rogers
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_REPLY, Message
from tests.fault.dying_core import cores
from tests.labs import CHORUS, a_home, call, opened

LIMIT_S = 60


def asked(tool: str, **arguments: str) -> Message:
    data = json.dumps(arguments)
    return Message(id=new_id(), conversation=new_id(), recipient="chorus", kind=KIND_CALL, tool=tool, data=data)


async def until(home: Home, sql: str, *values: str) -> None:
    """Waits until the journal of another process has a row."""
    with fail_after(LIMIT_S), closing(sqlite3.connect(f"file:{home.path}/journal.db?mode=ro", uri=True)) as journal:
        while journal.execute(sql, values).fetchone() is None:
            await sleep(0.02)


async def test_a_kill_has_what_was_in_hand_done_again_and_not_what_was_answered_behind_it() -> None:
    holds, keeps = asked("hold"), asked("keep", text="once")
    with a_home(f'[residents.chorus]\nclass = "{CHORUS}"\n') as home:
        async with open_journal(home) as journal, Rogers(journal) as rogers:
            first = await rogers.publish(holds, sender="operator")
            await rogers.publish(keeps, sender="operator")
        with cores() as mother:
            core = mother.start(home)
            await until(home, "SELECT 1 FROM journal WHERE kind = 'event' AND conversation = ?", holds.conversation)
            await until(home, "SELECT 1 FROM journal WHERE id = ?", answer_id(keeps))
            os.kill(core.pid, signal.SIGKILL)
            assert core.ended(LIMIT_S) == -signal.SIGKILL
        async with opened(home) as lab:
            assert await lab.journal.cursor("chorus", "") < first
            told = "SELECT count(*) FROM journal WHERE kind = 'event' AND conversation = ?"
            with fail_after(LIMIT_S):
                while (await lab.journal.query(told, (holds.conversation,)))[0][0] < 2:
                    await sleep(0.02)
                await call(lab, "chorus", "release")
                assert (await lab.rogers.answer_to(holds.id)).kind == KIND_REPLY
                while await lab.journal.cursor("chorus", "") < first + 1:
                    await sleep(0.02)
            acts = "SELECT count(*) FROM journal WHERE kind = 'act' AND sender = 'chorus' AND id LIKE '%:started'"
            assert (await lab.journal.query(acts))[0][0] == 2, "one for each"
