"""A gigabyte goes in and comes out, and the process stays small. Smaller sizes unless MADLAB_FULL is set."""

import json
import subprocess
import sys
from pathlib import Path

from tests.sizes import full

MIB = 1024 * 1024
SIZE = 1024 * MIB if full() else 192 * MIB
EXTRA = 64 * MIB

PROGRAM = """
import anyio, json, os, sys
from contextlib import aclosing
from pathlib import Path
from core.horace.store import Horace
from protos.tree import members, pack
from tests.unit.horace.ledger import Ledger

home, size = Path(sys.argv[1]), int(sys.argv[2])

def memory(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

async def counted():
    for place in range(size // 262144):
        yield place.to_bytes(8, "big") * 32768

async def packed(directory):
    stream = pack(directory, ["big"])
    while chunk := await anyio.to_thread.run_sync(next, stream, b""):
        yield chunk

async def read(horace, blob):
    got = 0
    async with aclosing(horace.get(blob.digest)) as chunks:
        async for chunk in chunks:
            got += len(chunk)
    return got

async def main():
    async with Horace(home / "files", Ledger(home / "ledger"), quota_bytes=4 * size) as horace:
        async def small():
            yield b"warm"
        await read(horace, await horace.put(small()))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = memory("VmRSS")
        blob = await horace.put(counted())
        got = await read(horace, blob)
        tree = home / "tree"
        tree.mkdir()
        os.truncate(os.open(tree / "big", os.O_CREAT | os.O_WRONLY), size)
        packed_size = (await horace.put(packed(tree))).size
        print(json.dumps({"extra": memory("VmHWM") - before, "got": got, "packed": packed_size}))

anyio.run(main)
"""


def extra_memory(directory: Path, size: int) -> int:
    """Bytes by which a process grows at most while `size` bytes go in and out, as a blob and as a tree."""
    directory.mkdir(exist_ok=True)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory, str(size)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    measured: dict[str, int] = json.loads(ended.stdout)
    assert measured["got"] == size
    assert measured["packed"] > size
    return measured["extra"]


def test_a_big_blob_and_a_big_tree_stay_within_64_mib_of_extra_memory(tmp_path: Path) -> None:
    extra = extra_memory(tmp_path, SIZE)
    print(f"{SIZE // MIB} MiB in and out: {extra / MIB:.1f} MiB of extra memory")
    assert extra < EXTRA
