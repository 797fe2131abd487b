"""The programs that read hostile files: what they get, and how they are ended."""

import os
import sys
from pathlib import Path
from time import monotonic

import anyio

from periphery.mcnamara.program import run


async def test_a_program_is_ended_in_time_with_everything_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    child = f"import time; held = open({str(alive)!r}, 'w'); time.sleep(100)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(100)"
    began = monotonic()
    with open(os.open(alive, os.O_RDONLY | os.O_NONBLOCK), "rb") as held:
        ended = await run([sys.executable, "-c", code], seconds=1.5)
        assert (ended.reason, monotonic() - began < 50) == ("timed_out", True)
        os.set_blocking(held.fileno(), True)
        with anyio.fail_after(30):  # it ends when nobody has the other end any more
            await anyio.to_thread.run_sync(held.read, abandon_on_cancel=True)


async def test_a_program_gets_no_more_memory_output_or_environment_than_it_may(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME_SECRET", "x")
    ended = await run([sys.executable, "-c", "import os; print(sorted(os.environ))"], seconds=60)
    assert b"HOME_SECRET" not in ended.output
    ended = await run([sys.executable, "-c", "x = bytearray(500 * 2**20)"], seconds=60, memory_mb=100)
    assert (ended.code, "MemoryError" in ended.errors) == (1, True)
    ended = await run([sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 2**20)"], seconds=60)
    assert ended.code != 0
    assert len(ended.output) <= 32 * 2**20
