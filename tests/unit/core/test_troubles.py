"""What went wrong is counted with what is equal to it, and nobody buries the others' under his own."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.app import open_journal
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.troubles import EACH, OTHERS, dismiss, troubles
from protos.errors import Conflict
from tests.labs import a_home


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    with a_home() as home:
        async with open_journal(home) as journal:
            yield journal


def entry(kind: str, entry_id: str, **body: Any) -> Entry:
    return Entry(entry_id, kind, json.dumps(body).encode(), at=1.0)


def failed(run: str, asker: str, reason: str) -> list[Entry]:
    """A run that was asked for, and failed."""
    known = {"mad": "echo", "conversation": "c", "trigger": "t", "trigger_sequence": 1, "state": "requested"}
    known |= {"created": 1.0, "parent": "", "terms": {}, "title": f"title of {run}", "asker": asker}
    ended = {"state": "destroyed", "outcome": "failed", "reason": reason}
    return [
        entry("run", f"run:{run}:requested", id=run, **known),
        entry("run", f"run:{run}:over", id=run, **ended),
    ]


async def test_incidents_and_the_runs_of_others_are_seen_however_many_ways_one_client_fails_in(
    journal: Journal,
) -> None:
    await journal.append(entry("incident", "i", run="r", mad="hopper", what="a decoy", place="web"))
    await journal.append(*failed("mine", "operator", "it broke"))
    words = [f"no {first}{second}" for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    for number, word in enumerate(words):
        await journal.append(*failed(f"echo-{number}", "client:ann", word))
    found = await troubles(journal, limit=200)
    assert (found[0].kind, found[0].what) == ("incident", "a decoy")
    assert [each.asker for each in found[1:]].count("operator") == 1
    hers = [each for each in found if each.asker == "client:ann"]
    assert len(hers) == EACH + 1
    (others,) = (each for each in hers if each.what == OTHERS)
    assert (others.count, others.detail) == (len(words) - EACH, words[-1])


async def test_the_others_are_dismissed_as_one_and_what_comes_then_is_new(journal: Journal) -> None:
    for number in range(EACH + 2):
        await journal.append(*failed(f"echo-{number}", "client:ann", f"no {'x' * (number + 1)}"))
    (others,) = (each for each in await troubles(journal) if each.what == OTHERS)
    with pytest.raises(Conflict):
        await dismiss(journal, others.id, seen=others.sequence - 1, by="operator")
    await dismiss(journal, others.id, seen=others.sequence, by="operator")
    await journal.append(*failed("again", "client:ann", "no x"), *failed("new", "client:ann", "no more"))
    found = {each.what: each for each in await troubles(journal)}
    assert found[OTHERS].count == 1
    assert found[OTHERS].run == "new"
    assert len(await troubles(journal)) == EACH + 1
