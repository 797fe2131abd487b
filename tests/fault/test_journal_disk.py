"""A failed sync or a full disk: nobody is acknowledged, the journal seals itself and says so, and reading goes on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import fail_after

from core.rogers.entry import Entry
from core.rogers.journal import Journal
from protos.errors import Unavailable
from tests.fault.synced import STRACE, Call, Disk, read_trace
from tests.sizes import full

# One publisher, and every commit made in one place, so that the same call does the same thing each time.
MESSAGES = 120
ORDERS = {"publishers": 1, "messages": MESSAGES, "checkpoint_bytes": 300_000}
STALL_S = {"thread": 0, "loop": 1000}
Places = dict[tuple[str, str, str], list[int]]  # per home of the commits, call and file, which call of its thread it is


def run_victim(path: Path, home: str, *inject: str) -> tuple[list[str], list[Call]]:
    """What a victim says, and its calls, one of which may be made to fail."""
    path.parent.mkdir(parents=True)
    trace = path.parent.with_suffix(".trace")
    victim = [sys.executable, "-m", "tests.fault.journal_victim", str(path)]
    victim.append(json.dumps(ORDERS | {"stall_s": STALL_S[home]}))
    faults = [word for fault in inject for word in ("-e", f"inject={fault}")]
    ended = subprocess.run([*STRACE, *faults, "-o", str(trace), *victim], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    if inject:
        assert "(INJECTED)" in trace.read_text(), "the fault came too late to happen"
    return ended.stdout.splitlines(), list(read_trace(trace))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """`("thread", "fdatasync", "journal.db-wal"): [3, 4, 6, ...]`: strace counts the calls of each thread apart."""
    found: Places = {}
    for home in STALL_S:
        _, calls = run_victim(tmp_path_factory.mktemp("places") / "lab" / "journal.db", home)
        names: dict[int, str] = {}
        counts: dict[tuple[str, str], int] = {}
        for call in calls:
            at = counts[call.thread, call.name] = counts.get((call.thread, call.name), 0) + 1
            if call.name == "openat" and call.result >= 0:
                names[call.result] = Path(call.text(1).decode()).name
            elif call.name in ("fsync", "fdatasync", "pwrite64"):
                found.setdefault((home, call.name, names[int(call.arguments[0])]), []).append(at)
    return found


FAILURES = [
    ("thread", "fdatasync", "journal.db-wal", "EIO", 0.3),  # a commit's
    ("loop", "fdatasync", "journal.db-wal", "EIO", 0.7),
    ("thread", "fdatasync", "journal.db", "EIO", 0.5),  # a checkpoint's
    ("thread", "fdatasync", "journal.db", "EIO", 0.8),
    ("thread", "fdatasync", "journal.db", "EIO", 0.99),  # of the last checkpoint, at closing
    ("thread", "pwrite64", "journal.db-wal", "EIO", 0.4),
    ("loop", "pwrite64", "journal.db-wal", "ENOSPC", 0.6),
    ("thread", "pwrite64", "journal.db", "EIO", 0.5),
    ("loop", "fsync", "journal.db.head.new", "EIO", 0.0),
]
SOME = FAILURES if full() else FAILURES[::2] + FAILURES[1:2]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace injects the faults; it is not installed")
@pytest.mark.parametrize(("home", "call", "file", "error", "where"), SOME)
def test_a_disk_that_fails_once_seals_the_journal(
    tmp_path: Path, places: Places, home: str, call: str, file: str, error: str, where: float
) -> None:
    ordinals = places[home, call, file]
    when = ordinals[int(where * len(ordinals))]
    lines, calls = run_victim(tmp_path / "lab" / "journal.db", home, f"{call}:error={error}:when={when}")
    acknowledged = {}
    for line in lines:
        if line.startswith("ack"):
            _, publisher, number, sequence = line.split()
            acknowledged[f"{publisher}:{number}"] = int(sequence)
    if where < 0.99:
        assert lines[-2].startswith("sealed "), lines[-2:]
        assert lines[-1].startswith("read "), "reading goes on"
        assert len(acknowledged) <= int(lines[-1].split()[1])
        assert len(acknowledged) < MESSAGES
    failed = next(each.ended for each in calls if each.name == call and each.result < 0)
    later = [each.name for each in calls if each.began > failed and each.name in ("pwrite64", "ftruncate", "unlink")]
    assert later == [], "after one failed write, none"
    # And so it is when the power goes right afterwards, with all that a failed sync did not write lost for good.
    disk = Disk(tmp_path / "lab")
    for each in calls:
        disk.feed(each)
    (tmp_path / "cut").mkdir()
    disk.build(tmp_path / "cut")
    stored, left = reopened(tmp_path / "lab" / "journal.db", tmp_path / "cut" / "journal.db")
    assert acknowledged.items() <= stored.items()
    assert acknowledged.items() <= left.items()


def reopened(*paths: Path) -> list[dict[str, int]]:
    """What a new process finds in each, with a disk that works again."""
    code = (
        "import anyio, json, sys, pathlib\n"
        "from core.rogers.journal import Journal\n"
        "async def main():\n"
        "    for path in sys.argv[1:]:\n"
        "        async with Journal(pathlib.Path(path)) as journal:\n"
        "            assert (await journal.verify()).ok\n"
        "            print(json.dumps(dict(await journal.query('SELECT id, sequence FROM journal'))))\n"
        "anyio.run(main)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs takes root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
async def test_a_full_disk_seals_the_journal_and_room_opens_it_again(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    acknowledged: list[str] = []
    with fail_after(60):
        async with Journal(path) as journal:

            async def fill() -> None:
                for at in range(10_000):
                    await journal.append(Entry(f"{at}", "message", b"x" * 1000, "c", "hopper"))
                    acknowledged.append(f"{at}")

            with pytest.raises(Unavailable, match=r"sealed.*full") as refused:
                await fill()
            assert "restart" in refused.value.next
            assert journal.sealed is not None
            with pytest.raises(Unavailable, match="sealed"):
                await journal.append(Entry("more", "act"))
            assert journal.append_soon(Entry("soon", "event")) == 0
            assert journal.statistics().lost == 1
            assert await journal.query("SELECT count(*) FROM journal") == [(len(acknowledged),)]
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        async with Journal(path) as journal:
            rows = await journal.query("SELECT id FROM journal ORDER BY sequence")
            assert [id for (id,) in rows][: len(acknowledged)] == acknowledged
            await journal.append(Entry("more", "act"))
            assert (await journal.verify()).ok
