"""kill -9 while conversations are archived, restored and forgotten, and while the index is made: before, or after."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from core.rogers.retention import Retention, retain
from tests.fault.dewey_kills import opened
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


async def test_what_a_killed_core_did_not_scrub_the_next_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fault.unscrubbed", str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    async with opened(tmp_path) as (journal, *_):
        unused = "SELECT freelist_count FROM pragma_freelist_count"
        assert (await journal.query(unused))[0][0] > 0, "pages that held words"
        await retain(journal, Retention())
        assert await journal.query(unused) == [(0,)], "the file was written anew"
        assert (await journal.verify()).ok
