"""Conversations at the door: which there are, by their last word or by tag, and one of them, both ways."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import to_thread

from core.grace.cli.client import Client
from core.grace.door import talks
from core.lab import Lab
from protos.errors import NotFound
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Message
from tests.labs import call, lab_of

ECHO = '[residents]\necho = { class = "tests.emads.echo:Echo" }\n'


@asynccontextmanager
async def a_lab() -> AsyncIterator[Lab]:
    async with lab_of(ECHO) as lab:
        yield lab


async def get(lab: Lab, path: str) -> Any:
    return await to_thread.run_sync(Client(lab.home).get, f"/api/v1{path}")


async def says(lab: Lab, conversation: str, text: str, *, kind: Any = KIND_PROSE, sender: str = "operator") -> int:
    message = Message(id=new_id(), conversation=conversation, kind=kind, text=text, tool="log" if kind else "")
    return await lab.rogers.publish(message, sender=sender)


async def listed(lab: Lab, query: str = "") -> list[str]:
    return [each["id"] for each in (await get(lab, f"/conversations{query}"))["conversations"]]


async def test_what_was_spoken_in_last_comes_first_and_what_is_within_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_lab() as lab:
        for name in ("a", "b", "c"):
            await says(lab, name, f"about {name}")
        assert await listed(lab) == ["c", "b", "a"]
        await says(lab, "a/1", "within", kind=KIND_EVENT)
        assert await listed(lab) == ["a", "c", "b"]
        (first,) = (await get(lab, "/conversations?limit=1"))["conversations"]
        assert (first["id"], first["title"], first["sender"]) == ("a", "about a", "operator")
        assert await listed(lab, f"?before={first['last']}") == ["c", "b"]
        monkeypatch.setattr(talks, "MOST", 2)  # the third is asked of the journal
        await says(lab, "c", "again")
        assert await listed(lab) == ["c", "a", "b"]


async def test_a_tag_finds_the_conversations_in_which_it_was_said() -> None:
    async with a_lab() as lab:
        await says(lab, "a", "this is for the #Release of tuesday")
        await says(lab, "b", "no tag: a#release, #12, # Heading, &#x41; /#up")
        await says(lab, "c/1", "within, #release-2 and #release")
        assert await listed(lab, "?tag=release") == ["c", "a"]
        assert await listed(lab, "?tag=%23RELEASE&limit=1") == ["c"]
        assert await listed(lab, "?tag=up") == []
        (c,) = [each for each in (await get(lab, "/conversations"))["conversations"] if each["id"] == "c"]
        assert sorted(c["tags"]) == ["release", "release-2"]


async def test_a_flood_of_tags_in_one_message_counts_a_few() -> None:
    async with a_lab() as lab:
        await says(lab, "a", " ".join(f"#t{number}" for number in range(1000)))
        rows = await lab.journal.query("SELECT count(*) FROM tag")
        assert rows == [(16,)]


async def test_one_conversation_is_read_from_either_end() -> None:
    async with a_lab() as lab:
        numbers = [await says(lab, "a", f"word {number}") for number in range(5)]
        await says(lab, "a/1", "within")
        newest = (await get(lab, f"/conversations/a/messages?before={10**17}&limit=2"))["messages"]
        assert [each["text"] for each in newest] == ["word 3", "word 4"]
        earlier = (await get(lab, f"/conversations/a/messages?before={numbers[3]}&limit=2"))["messages"]
        assert [each["text"] for each in earlier] == ["word 1", "word 2"]
        within = (await get(lab, "/conversations/a%2F1/messages"))["messages"]
        assert [each["text"] for each in within] == ["within"]
        about = await get(lab, "/conversations/a/about")
        assert (about["title"], about["inner"], about["runs"]) == ("word 0", ["a/1"], [])
        with pytest.raises(NotFound):
            await get(lab, "/conversations/nowhere/about")


async def test_a_call_is_titled_by_what_it_asks_for() -> None:
    async with a_lab() as lab:
        await call(lab, "echo", "say", conversation="a", text="hello #there")
        about = await get(lab, "/conversations/a/about")
        assert about["title"].startswith("say")
        assert (about["sender"], about["recipient"]) == ("operator", "echo")
