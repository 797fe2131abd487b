"""Publishes for some seconds and tells how often, and how long, everything else in the event loop had to wait.

`python -m tests.fault.journal_stalls PATH SECONDS STALL` prints one JSON object; `STALL` is what counts as a stall, in
beats of a thread that has nothing to do but to sleep for a millisecond, again and again: where the machine gives this
process no time, there are none.
"""

import json
import sys
import time
from pathlib import Path
from threading import Thread

import anyio

from core.rogers.journal import Journal
from tests.fault.journal_victim import entry

PUBLISHERS = 8


async def main(path: Path, seconds: float, stall: int) -> dict[str, object]:
    stalls: list[int] = []
    beats = published = 0
    end = time.monotonic() + seconds

    def beat() -> None:
        nonlocal beats
        while True:
            time.sleep(0.001)
            beats += 1

    async def tick() -> None:
        while True:
            before = beats
            await anyio.sleep(0.001)
            if (waited := beats - before) > stall:
                stalls.append(waited)

    Thread(target=beat, daemon=True).start()

    async with Journal(path) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)

        async def publish(publisher: int) -> None:
            nonlocal published
            number = 0
            while time.monotonic() < end:
                await journal.append(entry(publisher, number, 300))
                number += 1
                published += 1

        async with anyio.create_task_group() as publishers:
            for publisher in range(PUBLISHERS):
                publishers.start_soon(publish, publisher)
        tasks.cancel_scope.cancel()
    return {"published": published, "commits": journal.statistics().commits, "stalls": stalls}


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
