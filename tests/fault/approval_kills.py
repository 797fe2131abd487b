"""Kills a process in which acts wait, are approved and begin, at random moments, and looks at what it left.

`python -m tests.fault.approval_kills PATH ROUNDS SEED` prints one JSON object. It forks its victims, so that a round
costs milliseconds; that is why it is a process of its own, with no thread in it.
"""

import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
from anyio import create_task_group

from core.policy.acts import Act
from core.policy.approvals import ApprovalsView
from core.policy.capabilities import Identity
from core.policy.policy import Policy
from core.policy.rules import parse_policy
from core.policy.taint import TaintView
from core.ports.acting import acting
from core.ports.services import Services
from core.registry import Registry
from core.rogers.bus import Rogers
from core.rogers.journal import Journal
from core.rogers.verify import verify
from core.rogers.views import VIEWS
from protos.errors import Error

ACTS = 8  # that wait at once
ASK = '[[rules]]\nname = "ask"\nkinds = ["files.put"]\nprincipals = ["*"]\nverdict = "ask"\n'


async def live(path: Path, turn: int, says: int) -> None:
    """Acts and approves until it is killed; says which approvals and acts it was told to be durable."""
    policy = Policy([parse_policy(ASK, "ask.toml")])
    async with Journal(path, [*VIEWS, ApprovalsView(), TaintView()]) as journal, Rogers(journal) as rogers:
        services = Services(journal, rogers, cast(Any, None), Registry([]), policy=policy)
        async with services.approvals, create_task_group() as tasks:

            async def act(number: int) -> None:
                who = Identity("echo", frozenset({"files"}), run=f"echo-{number}", conversation="c")
                for step in range(1_000_000):
                    # Every third is the last one again: two that come at once, or one that a kill cut off.
                    target = f"{turn}-{number}-{step - step % 3}"
                    async with acting(services, who, Act("files.put", who.principals, target)) as added:
                        os.write(says, f"began {added.id}\n".encode())

            for number in range(ACTS):
                tasks.start_soon(act, number)
            while True:
                for each in await services.approvals.pending():
                    try:
                        await services.approvals.approve(each.id, by="operator")
                    except Error:
                        continue
                    os.write(says, f"approved {each.id}\n".encode())
                await anyio.lowlevel.checkpoint()


def main(path: Path, rounds: int, seed: int) -> dict[str, object]:
    chance, problems = random.Random(seed), list[str]()
    approved, began = 0, 0
    for turn in range(rounds):
        said = _one_life(path, turn, chance.uniform(0.01, 0.15))
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            states = {
                id: (state, uses, used)
                for id, state, uses, used in db.execute("SELECT id, state, uses, used FROM approvals")
            }
            ids = {str(row[0]) for row in db.execute("SELECT id FROM journal WHERE kind IN ('approval', 'act')")}
        started = {each.split(":")[1] for each in ids if each.startswith("act:") and each.endswith(":started")}
        uses = [each.split(":") for each in ids if ":used:" in each]
        if sorted(each[3] for each in uses) != sorted(started):
            problems.append(f"round {turn}: {len(uses)} uses and {len(started)} acts that began")
        for what, id in said:
            if what == "approved" and states[id][0] != "approved":
                problems.append(f"round {turn}: {id} was approved and is {states[id]}")
            if what == "began" and id not in started:
                problems.append(f"round {turn}: {id} began and is not there")
        if wrong := [each for each in states.values() if each[1] + each[2] != (each[0] == "approved")]:
            problems.append(f"round {turn}: neither before nor after: {wrong[:3]}")
        approved, began = len(states), len(started)
    problems += verify(path).problems
    return {"problems": problems, "asked": approved, "began": began}


def _one_life(path: Path, turn: int, seconds: float) -> list[tuple[str, str]]:
    """Forks a victim, kills it `seconds` after its first word, and returns what it said."""
    reading, writing = os.pipe()
    victim = os.fork()
    if victim == 0:
        os.close(reading)
        try:
            anyio.run(live, path, turn, writing)
        finally:
            os._exit(1)
    os.close(writing)
    said, end = b"", time.monotonic() + 30
    while (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            if not said:
                end = time.monotonic() + seconds
            chunk = os.read(reading, 65536)
            if not chunk:
                raise RuntimeError(f"the victim ended by itself, having said {said[-200:]!r}")
            said += chunk
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    words = [line.split(" ") for line in said.decode().splitlines()]
    return [(each[0], each[1]) for each in words]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
