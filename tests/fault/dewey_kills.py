"""Kills a process that says, archives, restores and forgets, at random moments and many times; looks at what is left.

`python -m tests.fault.dewey_kills HOME ROUNDS SEED` prints one JSON object. It forks its victims and those who look
afterwards, as `vault_kills` does.
"""

import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from core.dewey.archives import Archives
from core.dewey.library import Library
from core.ports.links import LinksView
from core.rogers.bus import Rogers
from core.rogers.journal import Journal
from core.rogers.views import VIEWS
from core.runs import RunsView
from protos.errors import Conflict
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.fault.vault_kills import forked, rest, say, until_killed

LINES = 60  # of the conversation that comes and goes


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[tuple[Journal, Rogers, Archives, Library]]:
    """What Dewey needs of a lab."""
    async with (
        Journal(home / "journal.db", [*VIEWS, RunsView(), LinksView()]) as journal,
        Rogers(journal) as rogers,
    ):
        archives = Archives(journal, home / "archives", "lab")
        await archives.finish()
        rogers.filled = archives.filled
        async with Library(journal, home / "dewey.db", None, archives.filled_now) as library:
            yield journal, rogers, archives, library


async def said(rogers: Rogers, text: str, conversation: str) -> None:
    await rogers.publish(Message(id=new_id(), conversation=conversation, kind=KIND_PROSE, text=text), sender="operator")


async def work(home: Path, turn: int, out: int) -> None:
    """Says, archives, restores and forgets until it is killed; tells what was acknowledged."""
    async with opened(home) as (journal, rogers, archives, library):
        have = len(await rogers.history("c", limit=1000))
        for number in range(have, LINES):
            await said(rogers, f"the ostrich says {number}", "c")
        say(out, "ready")
        for number in range(1_000_000):
            archived = await journal.query("SELECT 1 FROM archive WHERE conversation = 'c' AND state = 'archived'")
            if not archived:
                say(out, "try", "archive")
                await archives.create(["c"])
                say(out, "archived")
            say(out, "try", "restore")
            await archives.restore("c")
            say(out, "restored")
            passing = f"p{turn}n{number}"
            await said(rogers, f"the dodo says {passing}", passing)
            if number % 2:
                await archives.create([passing])
            say(out, "try", "forget", passing)
            await archives.forget(passing)
            say(out, "forgotten", passing)
            if number % 5 == 4:
                with suppress(Conflict):  # of one that is still going on
                    await library.rebuild()


async def look(home: Path, turn: int, out: int) -> None:
    """Opens what is left and tells all of it, as one line."""
    async with opened(home) as (journal, rogers, archives, library):
        await library.caught_up()
        verified = await journal.verify()
        sql = "SELECT count(b.sequence), count(*) FROM journal j LEFT JOIN body b USING (sequence)"
        ((present, entries),) = await journal.query(f"{sql} WHERE j.conversation = 'c' AND j.kind = 'message'")
        dodos = [each.conversation for each in (await library.search("dodo", limit=100)).hits]
        sql = f"{sql} WHERE j.conversation = ? AND j.kind = 'message'"
        found: dict[str, Any] = {
            "verified": verified.ok,
            "problems": verified.problems,
            "archives": (await archives.verify()).ok,
            "present": present,
            "entries": entries,
            "archived": sum(each.count for each in await archives.listed() if each.conversation == "c"),
            "lines": [each.text for each in await rogers.history("c", limit=1000)],
            "found": (await library.search("ostrich", limit=100)).total,
            "dodos": sorted(dodos),
            "half": [each for each in dodos if not (await rogers.history(each))[0].text.startswith("the dodo")],
            "files": len(list((home / "archives").iterdir())),
            "listed": len(await archives.listed()),
        }
    say(out, json.dumps(found))


def main(home: Path, rounds: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    problems: list[str] = []
    forgotten: set[str] = set()
    caught: Counter[str] = Counter()  # what was under way when the kill came
    for turn in range(rounds):
        child, reading = forked(work, home, turn)
        told = until_killed(child, reading, chance.uniform(0.0, 0.5), at_once=turn % 6 == 5)
        lines = [line.split() for line in told.splitlines()]
        forgotten |= {line[1] for line in lines if line[0] == "forgotten"}
        if lines and lines[-1][0] == "try":
            caught[lines[-1][1]] += 1
        child, reading = forked(look, home, turn)
        left = rest(reading)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if status:
            problems.append(f"round {turn}: what is left cannot be opened")
            break
        problems += [f"round {turn}: {each}" for each in wrong(json.loads(left), forgotten)]
    return {"rounds": rounds, "problems": problems, "caught": dict(caught), "forgotten": len(forgotten)}


def wrong(found: dict[str, Any], forgotten: set[str]) -> list[str]:
    """What is neither wholly before nor wholly after."""
    problems = [] if found["verified"] else [f"the journal: {found['problems']}"]
    if not found["archives"]:
        problems.append("an archive cannot be used")
    if found["present"] + found["archived"] != found["entries"]:
        problems.append(f"{found['present']} in the table and {found['archived']} archived of {found['entries']}")
    if found["lines"] != [f"the ostrich says {at}" for at in range(found["entries"])]:
        problems.append("what was said reads otherwise")
    if found["found"] != found["entries"]:
        problems.append(f"{found['found']} of {found['entries']} are found")
    if back := forgotten.intersection(found["dodos"]):
        problems.append(f"forgotten and found: {sorted(back)}")
    if found["half"]:
        problems.append(f"half forgotten: {found['half']}")
    if found["files"] != found["listed"]:
        problems.append(f"{found['files']} files for {found['listed']} archives")
    return problems


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))) + "\n")
