"""What Horace has acknowledged survives a kill at any moment, and a full disk is said and leaves nothing."""

import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from anyio import sleep

from core.horace.store import Horace
from protos.errors import Exhausted
from tests.sizes import full
from tests.unit.horace.ledger import Ledger

KILLS = 100 if full() else 8

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


ONE_PUT = """
import anyio, sys
from pathlib import Path
from core.horace.store import Horace
from tests.unit.horace.ledger import Ledger

async def source():
    yield b"one small blob"

async def main():
    home = Path(sys.argv[1])
    async with Horace(home / "files", Ledger(home / "ledger"), quota_bytes=10**9) as horace:
        print((await horace.put(source())).digest, flush=True)

anyio.run(main)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows the order of the system calls")
def test_a_blob_is_synced_before_it_has_a_name_and_its_directory_before_it_is_acknowledged(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    watched = "trace=write,fsync,fdatasync,rename,renameat,renameat2"
    ended = subprocess.run(
        ["strace", "-f", "-y", "-e", watched, "-o", trace, sys.executable, "-c", ONE_PUT, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    digest = ended.stdout.strip()
    shard = str(tmp_path / "files" / "blobs" / digest[7:9])
    steps = {
        "written": r"write\(\d+<.*/incoming/\w+>, \"one small",
        "synced": r"fsync\(\d+<.*/incoming/\w+>",
        "named": rf"rename\w*\(.*{shard}/{digest[9:]}",
        "directory synced": rf"fsync\(\d+<{shard}>",
        "acknowledged": rf"write\(1<.*\"{digest[:20]}",
    }
    calls = trace.read_text().split("\n")
    places = [next((at for at, call in enumerate(calls) if re.search(each, call)), -1) for each in steps.values()]
    assert -1 not in places, dict(zip(steps, places, strict=True))
    assert places == sorted(places), dict(zip(steps, places, strict=True))
    between = calls[places[1] : places[2]]
    assert any(re.search(rf"fsync\(\d+<{Path(shard).parent}>", each) for each in between), "its directory is new"


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
