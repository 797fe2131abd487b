"""What was acknowledged survives a power cut, with only what had been synced left on the disk."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.rogers.journal import Journal
from core.rogers.pace import STALL_S
from core.rogers.verify import verify
from tests.fault.synced import STRACE, Call, Disk, read_trace
from tests.sizes import full

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace records the syncs; it is not installed")


@dataclass(frozen=True)
class Recorded:
    """A victim's life as the disk saw it."""

    directory: Path
    calls: list[Call]
    acks: list[tuple[int, str]]  # the line of the trace at which an id was told


def record(directory: Path, synchronous: str, stall_s: float = STALL_S) -> Recorded:
    directory.mkdir()
    trace = directory.with_suffix(".trace")
    orders = {"publishers": 3, "messages": 40, "synchronous": synchronous, "checkpoint_bytes": 200_000}
    orders["stall_s"] = stall_s
    victim = [sys.executable, "-m", "tests.fault.journal_victim", str(directory / "journal.db"), json.dumps(orders)]
    subprocess.run([*STRACE, "-o", str(trace), *victim], check=True, capture_output=True, timeout=60)
    calls = list(read_trace(trace))
    acks = []
    for call in calls:
        if call.name == "write" and call.arguments[0] == "1" and call.text(1).startswith(b"ack"):
            _, publisher, number, _ = call.text(1).decode().split()
            acks.append((call.began, f"{publisher}:{number}"))
    assert len(acks) == 3 * 40
    return Recorded(directory, calls, acks)


def cut(recorded: Recorded, line: int, target: Path, chance: random.Random | None) -> set[str]:
    """Builds what a cut at `line` leaves in `target`; returns the ids that had been acknowledged."""
    disk = Disk(recorded.directory)
    for call in recorded.calls:
        if call.ended < line:
            disk.feed(call)
    target.mkdir()
    disk.build(target, chance)
    return {id for told, id in recorded.acks if told < line}


def stored(journal: Path) -> set[str]:
    with closing(sqlite3.connect(journal)) as db:
        return {id for (id,) in db.execute("SELECT id FROM journal")}


@pytest.fixture(scope="module", params=[0, 1000], ids=["commits on the thread", "commits in the loop"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("power") / "lab", "FULL", request.param)


def test_every_acknowledged_message_is_there_after_a_power_cut(recorded: Recorded, tmp_path: Path) -> None:
    chance = random.Random(11)
    last = recorded.calls[-1].ended
    # Right after an acknowledgement is the hardest moment; the others fall into checkpoints, opening and closing.
    told = [line + 1 for line, _ in recorded.acks]
    moments = sorted(chance.sample(told, 60 if full() else 15) + chance.choices(range(last), k=60 if full() else 15))
    checked = 0
    for at, line in enumerate([*moments, last]):
        for kept in (None, chance):
            target = tmp_path / f"{at}-{'some' if kept else 'none'}"
            acknowledged = cut(recorded, line, target, kept)
            if not acknowledged:
                continue
            assert acknowledged <= stored(target / "journal.db"), f"lost by a cut at line {line}"
            found = verify(target / "journal.db")
            assert found.ok, (line, found.problems)
            checked += 1
    assert checked >= 30


async def test_a_journal_goes_on_after_a_power_cut(recorded: Recorded, tmp_path: Path) -> None:
    line = recorded.acks[60][0] + 1
    acknowledged = cut(recorded, line, tmp_path / "cut", random.Random(3))
    async with Journal(tmp_path / "cut" / "journal.db") as journal:
        rows = await journal.query("SELECT id FROM journal")
        assert acknowledged <= {id for (id,) in rows}
        assert (await journal.verify()).ok


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_a_sync_at_each_commit_the_same_test_fails(tmp_path: Path, synchronous: str) -> None:
    recorded = record(tmp_path / "lab", synchronous)
    lost = 0
    for at, (told, _) in enumerate(recorded.acks[5::30]):
        acknowledged = cut(recorded, told + 1, tmp_path / f"{at}", None)
        try:
            lost += not acknowledged <= stored(tmp_path / f"{at}" / "journal.db")
        except sqlite3.DatabaseError:  # not even a database is left
            lost += 1
    assert lost > 0, "then the test above would prove nothing"
