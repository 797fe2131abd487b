"""The programs that read hostile files: what they get, and how they are ended."""

import sys
from pathlib import Path
from time import monotonic

import anyio

from periphery.mcnamara.program import run


async def test_a_program_is_ended_in_time_with_everything_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    began = monotonic()
    ended = await run([sys.executable, "-c", code], seconds=0.7)
    assert (ended.reason, monotonic() - began < 50) == ("timed_out", True)
    await anyio.sleep(1.5)
    assert not mark.exists()


async def test_a_program_gets_no_more_memory_output_or_environment_than_it_may(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME_SECRET", "x")
    ended = await run([sys.executable, "-c", "import os; print(sorted(os.environ))"], seconds=60)
    assert b"HOME_SECRET" not in ended.output
    ended = await run([sys.executable, "-c", "x = bytearray(500 * 2**20)"], seconds=60, memory_mb=100)
    assert (ended.code, "MemoryError" in ended.errors) == (1, True)
    ended = await run([sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 2**20)"], seconds=60)
    assert ended.code != 0
    assert len(ended.output) <= 32 * 2**20
