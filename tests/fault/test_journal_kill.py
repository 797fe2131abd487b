"""kill -9 at any moment loses no acknowledged message and duplicates none."""

import json
import subprocess
import sys
from pathlib import Path

ROUNDS = 100  # milliseconds each: victims are forked


def test_kills_lose_nothing_acknowledged_and_saying_it_again_doubles_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fault.journal_kills", str(tmp_path / "journal.db"), str(ROUNDS), "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["problems"] == []
    assert found["acknowledged"] > 5 * ROUNDS
    # Otherwise no kill fell between commit and acknowledgement, and saying it again proved little.
    assert found["durable_but_not_acknowledged"] > 0
