"""kill -9 in the middle of a rotation, a grant, a use or a new key: afterwards it is as before, or as after."""

import json
import subprocess
import sys
from pathlib import Path

from tests.sizes import full


def test_kills_leave_the_vault_and_its_grants_wholly_before_or_wholly_after(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    rounds = 120 if full() else 16
    command = [sys.executable, "-m", "tests.fault.vault_kills", str(home), str(rounds), "11"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["problems"] == []
    # Otherwise no kill fell into the middle of anything, and little was shown.
    assert sum(found["caught"].values()) > rounds // 3, found
