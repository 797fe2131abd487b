"""A core that kills itself with SIGKILL when a run has reached a state: `python -m tests.fault.dying_core HOME STATE`.

STATE is a state of the run table, or `up`: as soon as the core itself is ready.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence

import anyio

from core.home import Home
from core.lab import Lab
from core.rogers.entry import Row
from tests.labs import opened

BEGAN = time.time()


def dies_at(state: str, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.kind == "run" and json.loads(row.body or b"{}").get("state") == state:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(home: str, state: str) -> None:
    async with opened(Home.open(home)) as lab:
        await live(lab, state)


async def live(lab: Lab, state: str) -> None:
    if state == "up":
        os.kill(os.getpid(), signal.SIGKILL)
    lab.journal.on_commit(lambda rows: dies_at(state, rows))
    # A run may have come so far, and a little further, while the lab opened.
    sql = "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'run' AND j.at >= ?"
    if any(json.loads(body).get("state") == state for (body,) in await lab.journal.query(sql, (BEGAN,))):
        os.kill(os.getpid(), signal.SIGKILL)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
