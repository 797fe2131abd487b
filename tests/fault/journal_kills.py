"""Kills a publishing journal process at random moments, many times over one journal, and counts what it finds.

`python -m tests.fault.journal_kills PATH ROUNDS SEED` prints one JSON object. It forks its victims, so that a round
costs milliseconds and not the import of the libraries; that is why it is a process of its own, with no thread in it.
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

import anyio

from core.rogers.verify import verify
from tests.fault.journal_victim import Orders, publish_until_the_end

PUBLISHERS = 8


def main(path: Path, rounds: int, seed: int) -> dict[str, object]:
    chance = random.Random(seed)
    acknowledged: dict[tuple[int, int], int] = {}
    found: dict[str, object] = {"rounds": rounds, "problems": (problems := [])}
    stored: dict[str, int] = {}
    unacknowledged = 0
    for turn in range(rounds):
        starts = [1 + max((n for p, n in acknowledged if p == each), default=-1) for each in range(PUBLISHERS)]
        # Most die publishing; some while they open what the one before left.
        seconds, opening = (chance.uniform(0.001, 0.03), True) if turn % 5 == 4 else (chance.uniform(0.001, 0.1), False)
        told = _one_life(path, starts, seconds, opening)
        for publisher, number, sequence in told:
            before = acknowledged.setdefault((publisher, number), sequence)
            if before != sequence:
                problems.append(f"round {turn}: {publisher}:{number} was {before} and is {sequence}")
        stored |= _rows(path, after=max(stored.values(), default=0))
        lost = [key for *key, sequence in told if stored.get(f"{key[0]}:{key[1]}") != sequence]
        if lost:
            problems.append(f"round {turn}: lost {lost[:5]}")
        unacknowledged += len(stored) - len(acknowledged)
    # And what was there after its own round is there after all of them.
    last = _rows(path)
    if last != stored:
        kept = len(last.items() & stored.items())
        problems.append(f"at the end there are {len(last)} entries, and {kept} of the {len(stored)} from before")
    with closing(_reading(path)) as db:
        bodies, different = db.execute("SELECT count(*), count(DISTINCT body) FROM body").fetchone()
    if bodies != different:
        problems.append(f"{bodies - different} said twice")
    checked = verify(path)
    problems += checked.problems
    return found | {
        "acknowledged": len(acknowledged),
        "durable_but_not_acknowledged": unacknowledged,
        "entries": checked.entries,
    }


def _rows(path: Path, after: int = 0) -> dict[str, int]:
    """The ids of the journal's entries, and their sequences."""
    with closing(_reading(path)) as db:
        if not _has_table(db):
            return {}
        return dict(db.execute("SELECT id, sequence FROM journal WHERE sequence > ?", (after,)))


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)  # recovers nothing


def _has_table(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'body'").fetchone() is not None


def _one_life(path: Path, starts: list[int], seconds: float, opening: bool) -> list[tuple[int, int, int]]:
    """Forks a victim, kills it after about `seconds` of life or of publishing, and returns what it acknowledged."""
    reading, writing = os.pipe()
    victim = os.fork()
    if victim == 0:
        os.close(reading)
        try:
            anyio.run(publish_until_the_end, path, Orders(publishers=PUBLISHERS, starts=starts), writing)
        finally:
            os._exit(1)
    os.close(writing)
    said = b""
    end = time.monotonic() + seconds if opening else None
    while True:
        left = 10.0 if end is None else max(0.0, end - time.monotonic())
        ready, _, _ = select.select([reading], [], [], left)
        if ready:
            chunk = os.read(reading, 65536)
            if not chunk:
                raise RuntimeError(f"the victim ended by itself, having said {said[-200:]!r}")
            said += chunk
        if end is None:
            end = time.monotonic() + seconds
        elif time.monotonic() >= end:
            break
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    acks = []
    for line in said.decode().splitlines():
        word, publisher, number, sequence = line.split()
        assert word == "ack", line
        acks.append((int(publisher), int(number), int(sequence)))
    return acks


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
