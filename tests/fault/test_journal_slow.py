"""A slow disk keeps the publishers waiting, and nobody else in the event loop."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 5.0
SYNC_S = 0.1
STALL = 40  # beats, of some ninety that such a sync takes on a quiet machine


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace slows the disk down; it is not installed")
def test_commits_leave_the_loop_when_the_disk_is_slow(tmp_path: Path) -> None:
    inject = f"inject=fdatasync:delay_exit={SYNC_S * 1e6:.0f}"
    strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject]
    journal = [sys.executable, "-m", "tests.fault.journal_stalls", str(tmp_path / "journal.db"), f"{SECONDS}"]
    ended = subprocess.run([*strace, *journal, f"{STALL}"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["commits"] > 10, "everybody who publishes is served all the same"
    assert found["published"] > 5 * found["commits"], "and rides with the others"
    # The loop tries again after two seconds, and then after four.
    assert len(found["stalls"]) < 0.25 * found["commits"], found
