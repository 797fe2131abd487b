"""What Horace has acknowledged survives a kill at any moment, and a full disk is said and leaves nothing."""

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from anyio import sleep

from core.horace.store import Horace
from protos.errors import Exhausted
from tests.unit.horace.ledger import Ledger

KILLS = 100 if os.environ.get("MADLAB_FULL") else 8

PROGRAM = """
import anyio, os, sys
from pathlib import Path
from core.horace.store import Horace
from tests.unit.horace.ledger import Ledger

home = Path(sys.argv[1])

async def putting(horace, worker):
    for count in range(10**9):
        async def source():
            for _ in range(4):
                yield os.urandom(100_000) + count.to_bytes(8, "big")
        print((await horace.put(source())).digest, flush=True)

async def main():
    async with Horace(home / "files", Ledger(home / "ledger"), quota_bytes=10**12) as horace:
        async with anyio.create_task_group() as group:
            for worker in range(4):
                group.start_soon(putting, horace, worker)

anyio.run(main)
"""


async def test_a_kill_at_any_moment_loses_no_acknowledged_blob_and_leaves_no_half_one(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        await sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.stdout]
        process.stdout.close()
        process.wait()
        acknowledged.update(line.strip() for line in lines if re.fullmatch(r"sha256:\w{64}\n", line))
    async with Horace(tmp_path / "files", Ledger(tmp_path / "ledger"), quota_bytes=10**12) as horace:
        kept = set(await horace.digests())
        assert acknowledged <= kept
        assert len(kept) <= len(acknowledged) + KILLS * 4  # named, not yet acknowledged
        for digest in kept:
            assert await horace.verify(digest)
        assert list((tmp_path / "files" / "incoming").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    async def source(megabytes: int) -> AsyncIterator[bytes]:
        for _ in range(megabytes):
            yield bytes(1_000_000)

    async with Horace(small_disk / "files", Ledger(small_disk / "ledger"), quota_bytes=10**9) as horace:
        with pytest.raises(Exhausted, match="the disk is full"):
            await horace.put(source(8))
        assert horace.usage().bytes == horace.usage().blobs == 0
        assert [path for path in (small_disk / "files").rglob("*") if path.is_file()] == []
        await horace.put(source(2))
