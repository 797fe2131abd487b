"""kill -9 while acts wait, are approved and begin: afterwards each is wholly before or wholly after."""

import json
import subprocess
import sys
from pathlib import Path

from tests.sizes import full


def test_kills_leave_no_approval_half_used_and_no_act_that_began_without_one(tmp_path: Path) -> None:
    rounds = 100 if full() else 12
    command = [sys.executable, "-m", "tests.fault.approval_kills", str(tmp_path / "journal.db"), str(rounds), "4"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["problems"] == []
    assert found["began"] > 0
    assert found["asked"] >= found["began"]
