"""Has a conversation forgotten, and is killed before the journal's file holds no more of it: `python -m … HOME`."""

import os
import signal
import sys
from pathlib import Path

import anyio

from core.dewey.archives import Archives
from core.ports.links import LinksView
from core.rogers.bus import Rogers
from core.rogers.journal import Journal
from core.rogers.views import VIEWS
from core.runs import RunsView
from tests.fault.dewey_kills import said


class Dying(Journal):
    """Ends as a power cut would where it shall be scrubbed."""

    async def scrub(self, *, thorough: bool = False) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False


async def main(home: Path) -> None:
    journal = Dying(home / "journal.db", [*VIEWS, RunsView(), LinksView()])
    async with journal, Rogers(journal) as rogers:
        for _ in range(20):
            await said(rogers, "dodo " * 1000, "c")
        await Archives(journal, home / "archives", "lab").forget("c")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
