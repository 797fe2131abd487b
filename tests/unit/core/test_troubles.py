"""What went wrong is counted with what is equal to it, and nobody buries the others' under his own."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.app import open_journal
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from core.troubles import EACH, OTHERS, TroublesView, dismiss, troubles
from protos.errors import Conflict
from protos.v1.message_pb2 import KIND_PROSE, Message
from tests.labs import a_home


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    with a_home() as home:
        async with open_journal(home) as journal:
            yield journal


def entry(kind: str, entry_id: str, **body: Any) -> Entry:
    return Entry(entry_id, kind, json.dumps(body).encode(), body.get("conversation", "c"), at=1.0)


def failed(run: str, asker: str, reason: str) -> list[Entry]:
    """A run that was asked for, and failed."""
    known = {"mad": "echo", "conversation": "c", "trigger": "t", "trigger_sequence": 1, "state": "requested"}
    known |= {"created": 1.0, "parent": "", "terms": {}, "asker": asker}
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


async def test_the_words_of_a_trouble_go_with_the_conversation(journal: Journal) -> None:
    said = Message(id="t", kind=KIND_PROSE, text="the words of a person").SerializeToString()
    await journal.append(
        Entry("t", "message", said, "c", "operator", "echo"), *failed("one", "operator", "it quotes them")
    )
    (seen,) = await troubles(journal)
    assert (seen.title, seen.detail) == ("the words of a person", "it quotes them")
    await journal.append(entry("retention", "gone", conversation="c"))
    (seen,) = await troubles(journal)
    assert (seen.title, seen.detail, seen.what) == ("", "", "failed")


async def test_what_failed_before_there_was_such_a_list_is_nobodys_trouble(tmp_path: Path) -> None:
    requested, over = failed("going on", "operator", "at last")
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.append(
            *failed("old", "operator", "long ago"), entry("dismissal", "d", item="x", seen=1), requested
        )
    async with Journal(tmp_path / "journal.db", [TroublesView()]) as journal:
        assert await troubles(journal) == []
        await journal.append(over)
        assert [each.run for each in await troubles(journal)] == ["going on"]
        before = await troubles(journal)
        await journal.rebuild("troubles")
        assert await troubles(journal) == before
