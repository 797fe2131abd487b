"""What was said and done in a lab is found: by the door, by the MAD, by whoever may see it and by nobody else."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import create_task_group, fail_after, to_thread

from core.dewey.query import key
from core.grace.cli.client import Client
from core.grace.door.callers import THE_OPERATOR, Caller
from core.grace.door.search import sees
from core.lab import Lab
from core.policy.capabilities import Identity
from core.rogers.entry import Entry
from protos.errors import InvalidArgument
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY, TAINT_WEB, Blob, Message
from tests.labs import ask, lab_of

TITLE = "high sql-injection shop/db.py:7"
ECHO = '[residents]\necho = { class = "tests.emads.echo:Echo" }\n'


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    with fail_after(120):
        async with lab_of(ECHO) as lab:
            yield lab


async def say(lab: Lab, text: str, *, conversation: str = "", sender: str = "operator", **more: Any) -> str:
    """Something said to nobody who would answer."""
    said = Message(id=new_id(), conversation=conversation or new_id(), kind=KIND_PROSE, text=text, **more)
    await lab.rogers.publish(said, sender=sender)
    return str(said.id)


async def get(lab: Lab, path: str, **query: object) -> Any:
    """What the door answers, over its socket."""
    return await to_thread.run_sync(lambda: Client(lab.home).get(path, **query))


async def ids(lab: Lab, text: str, **fields: list[str]) -> list[str]:
    await lab.library.caught_up()
    return [each.id for each in (await lab.library.search(text, fields=fields)).hits]


async def test_the_door_finds_what_was_said_with_the_place_in_it(lab: Lab) -> None:
    conversation = new_id()
    id = await say(lab, "Where is the migration\nof core/app.py? #release", conversation=conversation)
    await say(lab, "nothing of the sort")
    await lab.library.caught_up()
    found = await get(lab, "/api/v1/search", q="core/app.py migration", tag="release")
    assert found["total"] == 1
    assert found["exact"]
    assert found["more"] == ""
    (hit,) = found["hits"]
    assert (hit["kind"], hit["id"], hit["conversation"], hit["sender"]) == ("message", id, conversation, "operator")
    assert "".join(text for text, _ in hit["snippet"]) == "Where is the migration of core/app.py? #release"
    assert [text for text, marked in hit["snippet"] if marked] == ["migration", "core", "app", "py"]
    assert found["counts"]["kind"] == {"message": 1}


async def test_bad_queries_are_one_sentence_and_never_a_fault_of_ours(lab: Lab) -> None:
    refused = []
    for text in ('"', '"" ""', "*", "NEAR(", "a AND", "x OR", "{title}:x", "-", "a\0b", "^a + b", "from:", "'; DROP--"):
        try:
            await get(lab, "/api/v1/search", q=text)
        except InvalidArgument as error:
            refused.append(error)
    assert all(each.message and each.next and "fts5" not in each.message for each in refused)
    for fields in ({"kind": "elephant"}, {"since": "tomorrowish"}, {"more": "no place"}):
        with pytest.raises(InvalidArgument):
            await get(lab, "/api/v1/search", q="x", **fields)
    with pytest.raises(InvalidArgument, match="32 may be"):
        await lab.library.search(" ".join(f"w{at}" for at in range(40)))


async def test_runs_acts_and_findings_are_found_beside_messages(lab: Lab) -> None:
    conversation, asked = new_id(), new_id()
    report = {"findings": [{"id": "f1", "rule": "sql-injection", "severity": "high", "path": "shop/db.py", "line": 7,
                            "message": "The query is built of what a visitor typed."}]}  # fmt: skip

    async def content() -> AsyncIterator[bytes]:
        yield json.dumps(report).encode()

    blob = await lab.horace.put(content(), name="report.json")
    call = Message(id=asked, conversation=conversation, kind=KIND_CALL, tool="scan", data="{}")
    await lab.rogers.publish(call, sender="operator")
    requested: dict[str, Any] = {"id": "mcnamara-1", "mad": "mcnamara", "conversation": conversation, "trigger": asked}
    requested |= {"trigger_sequence": 1, "state": "requested", "created": 1.0, "parent": "", "terms": {}}
    ended = {"id": "mcnamara-1", "state": "destroyed", "outcome": "failed", "reason": "the zeppelin burst"}
    await lab.journal.append(
        *(Entry(new_id(), "run", json.dumps(each).encode(), conversation) for each in (requested, ended))
    )
    reply = Message(id=f"{asked}.reply", conversation=conversation, kind=KIND_REPLY, in_reply_to=asked, tool="scan",
                    blobs=[Blob(digest=blob.digest, size=blob.size, name="report.json")])  # fmt: skip
    await lab.rogers.publish(reply, sender="mcnamara")
    act = {"act": "web.fetch", "step": "denied", "principals": ["run:mcnamara-1", "mad:mcnamara"], "rule": "no-web",
           "target": "https://example.org/quagga", "verdict": "deny", "taint": []}  # fmt: skip
    await lab.journal.append(Entry("act:1:denied", "act", json.dumps(act).encode(), conversation, "mcnamara-1"))
    await lab.library.caught_up()

    (run,) = (await lab.library.search("zeppelin")).hits
    assert (run.kind, run.id, run.title) == ("run", "mcnamara-1", "mcnamara: scan()")
    (finding,) = (await lab.library.search("visitor kind:finding")).hits
    assert (finding.id, finding.run, finding.title) == (
        "mcnamara-1:f1",
        "mcnamara-1",
        "high sql-injection shop/db.py:7",
    )
    assert "file" in finding.taint
    (denied,) = (await lab.library.search("quagga mad:mcnamara")).hits
    assert (denied.kind, denied.run) == ("act", "mcnamara-1")
    kinds = {each.kind for each in (await lab.library.search("run:mcnamara-1")).hits}
    assert kinds == {"message", "run", "finding", "act"}


async def test_a_client_finds_its_own_conversations_and_no_others(lab: Lab) -> None:
    mine = await say(lab, "a walrus of mine", conversation="a", sender="client:ann")
    inner = await say(lab, "a walrus within", conversation="a/1", sender="foreman")
    theirs = await say(lab, "a walrus of theirs", conversation="b", sender="client:ben")
    await lab.library.caught_up()
    ann = Caller(Identity("client:ann", frozenset(), outside=True))
    assert sees(THE_OPERATOR) is None
    found = await lab.library.search("walrus", sees=sees(ann))
    assert {each.id for each in found.hits} == {mine, inner}
    assert found.total == 2, "not even a count tells of others"
    assert set(await ids(lab, "walrus")) == {mine, inner, theirs}
    assert not (await lab.library.search("-nothing", sees=[key("owner", "client:eve")])).hits


async def test_the_mad_finds_reads_and_keeps_the_labels_of_what_it_found(lab: Lab) -> None:
    await say(lab, "the page says: narwhal", conversation="w", taint=[TAINT_WEB])
    await say(lab, "nothing of it", conversation="v")
    await lab.library.caught_up()

    async def tool(name: str, sender: str = "operator", **arguments: object) -> tuple[Message, Any]:
        question = Message(id=new_id(), conversation=new_id(), recipient="dewey", kind=KIND_CALL, tool=name)
        question.data = json.dumps(arguments)
        if sender != "operator":
            async with lab.rogers.follow(conversation=question.conversation) as messages:
                await lab.rogers.publish(question, sender=sender)
                async for each in messages:
                    if each.id == f"{question.id}.reply":
                        return each, json.loads(each.data)
        answer = await ask(lab, question)
        return answer, json.loads(answer.data)

    answer, told = await tool("search", query="narwhal")
    assert told["hits"][0]["conversation"] == "w"
    assert TAINT_WEB in answer.taint
    await lab.library.caught_up()
    answer, told = await tool("search", query="narwhal")
    assert len(told["hits"]) == 1, "what was looked for is not found itself"
    answer, told = await tool("read", conversation="w")
    assert [each["text"] for each in told["messages"]] == ["the page says: narwhal"]
    assert TAINT_WEB in answer.taint
    answer, told = await tool("status")
    assert told["error"] == ""
    assert TAINT_WEB not in answer.taint
    _, told = await tool("search", "client:eve", query="narwhal")
    assert told["hits"] == []
    _, told = await tool("read", "client:eve", conversation="w")
    assert told["code"] == "not_found"
    for name, arguments in (("archive", {"conversation": "w"}), ("status", {})):
        _, told = await tool(name, "client:eve", **arguments)
        assert told["code"] == "permission_denied"


async def test_the_index_is_made_anew_while_searches_go_on(lab: Lab) -> None:
    for at in range(300):
        await say(lab, f"okapi number {at}")
    await lab.library.caught_up()
    before = await lab.library.status()
    answers = 0
    async with create_task_group() as tasks:

        async def search() -> None:
            nonlocal answers
            while True:
                assert (await lab.library.search("okapi")).total == 300
                answers += 1

        tasks.start_soon(search)
        await lab.library.rebuild()
        await lab.library.rebuilt()
        tasks.cancel_scope.cancel()
    after = await lab.library.status()
    assert after.documents == before.documents
    assert after.rebuilding is None
    assert answers > 1
    assert not list(lab.home.path.glob("dewey.db.new*"))


async def test_pages_meet_everything_once_while_more_is_said(lab: Lab) -> None:
    said = [await say(lab, f"ibex {at}") for at in range(40)]
    await lab.library.caught_up()
    found, more = [], ""
    while True:
        page = await lab.library.search("ibex", limit=7, more=more)
        found += [each.id for each in page.hits]
        await say(lab, "ibex again")
        await lab.library.caught_up()
        more = page.more
        if not more:
            break
    assert sorted(found) == sorted(said)
