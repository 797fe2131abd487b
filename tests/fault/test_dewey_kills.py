"""kill -9 while conversations are archived, restored and forgotten, and while the index is made: before, or after."""

import json
import subprocess
import sys
from pathlib import Path

from tests.sizes import full


def test_kills_leave_each_conversation_wholly_there_archived_or_forgotten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    rounds = 120 if full() else 12
    command = [sys.executable, "-m", "tests.fault.dewey_kills", str(home), str(rounds), "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["problems"] == []
    # Otherwise no kill fell into the middle of anything, and little was shown.
    assert sum(found["caught"].values()) > rounds // 3, found
