"""Runs at the door: lists, one of them, what it did, the same again; and what needs a person, until it is dismissed."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import fail_after
from typing_extensions import TypedDict

from core.grace.door.activity import _Told, _window
from core.lab import Lab
from core.rogers.entry import Entry
from core.rogers.retention import Retention, retain
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from tests.labs import a_home, opened
from tests.looking import Looker, looking


class Said(TypedDict):
    """What was said."""

    text: str


class Worker:
    """Tells of what it does."""

    @tool(effects="read")
    async def work(self, call: Call, *, goal: str, fails: bool = False) -> Said:
        """Does a little of everything."""
        await call.progress("$ ls", what="command", command="ls")
        await call.progress("ls: exit 1", what="command", command="ls", exit_code=1, seconds=0.25)
        await call.progress("a.py: +2 -1", what="edit", path="a.py", added=2, removed=float("nan"))
        await call.progress("The tests pass.", what="tests", passed=True)
        await call.progress("nothing", what=["not", "a", "word"])
        if fails:
            raise RuntimeError(f"no way after {time.time()} s")
        return {"text": goal}


class Lead:
    """Has another work."""

    @tool(effects="read")
    async def lead(self, call: Call, *, goal: str) -> Said:
        """Has it done."""
        question = Message(
            id=new_id(), recipient="worker", kind=KIND_CALL, tool="work", data=json.dumps({"goal": goal})
        )
        question.conversation = f"{call.message.conversation}/1"
        answer = await call.ctx.bus.ask(question)
        return {"text": json.loads(answer.data)["text"]}


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    with a_home() as home:
        async with opened(home, worker=Worker, lead=Lead) as lab:
            yield lab


@pytest.fixture
async def page(lab: Lab) -> AsyncIterator[Looker]:
    with fail_after(60):
        async with looking(lab.home) as looker:
            yield looker


async def ran(page: Looker, mad: str, tool: str, **arguments: Any) -> dict[str, Any]:
    """A call's run, once it is over."""
    body = {"recipient": mad, "kind": "call", "tool": tool, "arguments": arguments}
    async with page.following("runs") as stream:
        status, asked = await page.ask("POST", "/messages", body)
        assert status == 202, asked
        over: dict[str, Any] = (await stream.until("run", id=asked["run"], state="destroyed")).data
    return over


async def test_runs_are_found_by_their_mad_state_outcome_and_title_and_by_pages(page: Looker) -> None:
    runs = [await ran(page, "worker", "work", goal=f"mend number {number}") for number in range(5)]
    runs.append(await ran(page, "worker", "work", goal="break it", fails=True))
    newest = [each["id"] for each in reversed(runs)]

    async def found(**wanted: Any) -> list[str]:
        return [each["id"] for each in (await page.get("/runs", **wanted))["runs"]]

    assert (await found())[:6] == newest
    assert await found(limit=2) == newest[:2]
    assert await found(limit=2, before=newest[1]) == newest[2:4]
    assert await found(q="NUMBER 3") == [runs[3]["id"]]
    assert await found(outcome="failed", mad="worker") == [runs[5]["id"]]
    assert await found(state="live") == []
    assert await found(mad="nobody") == []
    assert (await page.ask("GET", "/runs?before=nothing"))[0] == 404
    assert (runs[0]["title"], runs[0]["asker"]) == ("work: mend number 0", "operator")


async def test_one_run_shows_its_own_messages_and_not_what_others_said_before_or_after(lab: Lab, page: Looker) -> None:
    body: dict[str, Any] = {"recipient": "worker", "kind": "call", "tool": "work", "conversation": "shared"}
    said = Message(id=new_id(), conversation="shared", kind=KIND_PROSE, text="before")
    await lab.rogers.publish(said, sender="operator")
    ids = []
    for goal in ("first", "second"):
        async with page.following("runs") as stream:
            _, asked = await page.ask("POST", "/messages", body | {"arguments": {"goal": goal}})
            await stream.until("run", id=asked["run"], state="destroyed")
        ids.append(asked["run"])
    for run, goal in zip(ids, ("first", "second"), strict=True):
        call, reply = (await page.get(f"/runs/{run}"))["messages"]
        assert (call["data"], reply["data"]) == ({"goal": goal}, {"text": goal})


async def test_what_a_run_did_is_told_with_those_that_worked_for_it(lab: Lab, page: Looker) -> None:
    run = await ran(page, "lead", "lead", goal="mend it")
    child = (await page.get("/runs", mad="worker", limit=1))["runs"][0]
    assert child["parent"] == run["id"]
    did = await page.get(f"/runs/{run['id']}/activity")
    tools = [(each["mad"], each["name"], each["outcome"]) for each in did["tools"]]
    assert tools == [("lead", "worker.work", "ok"), ("worker", "command", "exit 1"), ("worker", "tests", "ok")]
    assert did["tools"][0]["seconds"] >= 0
    assert did["tools"][1]["seconds"] == 0.25
    (file,) = did["files"]
    assert (file["run"], file["path"], file["how"], file["added"]) == (child["id"], "a.py", "edited", 2)
    assert file["removed"] is None
    assert did["usage"]["cpu"] is None
    assert "core" in did["usage"]["why"]
    assert [each["run"] for each in did["children"]] == [child["id"]]
    assert did["before"] is None


async def test_requests_and_models_are_told_from_their_acts_and_by_pages(lab: Lab, page: Looker) -> None:
    run = await ran(page, "worker", "work", goal="look around")
    where, id = run["conversation"], run["id"]

    def act(name: str, step: str, **body: Any) -> Entry:
        said = json.dumps(body | {"step": step}).encode()
        return Entry(f"act:{name}:{step}", "act", said, where, id, at=time.time())

    llm = {"act": "llm.complete", "attempt": "r.1"}
    started = {"request": "r", "number": 1, "mad": "worker", "run": id, "account": "", "alias": "smart"}
    started |= {"provider": "p", "model": "m", "digest": "d", "held_tokens": 9, "held_usd": 9}
    ended = {"outcome": "finished", "reason": "", "input": 10, "cached": 0, "cache_write": 0, "output": 5}
    ended |= {"reasoning": 0, "usd": 2_000_000_000_000, "assumed": 0}
    web = {"act": "web.fetch", "target": "https://user@example.org:8443/x?y", "details": {"method": "POST"}}
    await lab.journal.append(
        act("w1", "started", **web),
        act("w1", "outcome", act="web.fetch", status=200, bytes_sent=3, bytes_received=4),
        act("w2", "started", **web),
        act("w3", "denied", **web, reason="rule default: no."),
        act("w4", "started", **web),
        act("w4", "outcome", act="web.fetch", failed="PERMISSION_DENIED", why="it is private", address="10.0.0.1"),
        act("llm:r.1", "started", **llm, **started),
        act("llm:r.1", "first", **llm),
        act("llm:r.1", "outcome", **llm, **ended, request="r"),
        Entry(f"run:{id}:note:{new_id()}", "run", json.dumps({"id": id}).encode(), where, "core", "worker"),
    )
    did = await page.get(f"/runs/{id}/activity")
    done, open_, denied, inside = did["web"]
    assert (done["host"], done["status"], done["received"], done["outcome"]) == ("example.org", 200, 4, "done")
    assert (open_["outcome"], open_["status"]) == ("open", None)
    assert (denied["outcome"], denied["reason"]) == ("denied", "rule default: no.")
    assert (inside["outcome"], inside["reason"]) == ("failed: PERMISSION_DENIED", "it is private (10.0.0.1)")
    family = [await lab.runs.get(id)]
    client = _Told(family, hears_why=False)  # as a run, it could ask for one name after the other
    for row in (await _window(lab, family, 1 << 62, 500))[0]:
        client.hear(row)
    assert [each["reason"] for each in client.web] == ["", "", "rule default: no.", ""]
    (asked,) = did["llm"]
    assert (asked["model"], asked["input"], asked["output"], asked["usd"]) == ("m", 10, 5, 2.0)
    assert asked["first_s"] >= 0
    paged: dict[str, list[Any]] = {name: [] for name in ("tools", "files", "web", "llm")}
    before = 0
    while True:
        part = await page.get(f"/runs/{id}/activity", limit=3, **({"before": before} if before else {}))
        for name, items in paged.items():
            items[:0] = part[name]
        if part["before"] is None:
            break
        before = part["before"]
    assert paged["web"] == did["web"]
    assert paged["llm"] == did["llm"]
    assert paged["files"] == did["files"]


async def test_of_a_long_address_that_was_refused_the_rule_has_whole_segments(lab: Lab, page: Looker) -> None:
    form = {"principals": ["mad:worker"], "target": "https://site.test/a/bcd", "details": {"method": "GET"}}
    said = form | {"act": "web.fetch", "step": "denied", "rule": "default", "verdict": "deny", "taint": []}
    for name, cut in (("long", {"cut": {"target": "sha256:…"}}), ("short", {})):
        body = json.dumps(said | cut).encode()
        await lab.journal.append(Entry(f"act:{name}:denied", "act", body, "", "worker", at=time.time()))
    told = {name: (await page.get(f"/policy/explain/{name}"))["suggestion"] for name in ("long", "short")}
    assert 'paths = ["/a/bcd"]' in told["short"]
    assert 'paths = ["/a/"]' in told["long"]


async def test_the_same_again_is_a_new_run_of_the_same_call(lab: Lab, page: Looker) -> None:
    run = await ran(page, "worker", "work", goal="once more", fails=True)
    async with page.following("runs") as stream:
        status, again = await page.ask("POST", f"/runs/{run['id']}/retry")
        assert status == 202
        over = (await stream.until("run", id=again["run"], state="destroyed")).data
    assert over["id"] != run["id"]
    assert (over["title"], over["conversation"]) == (run["title"], run["conversation"])
    message = await lab.rogers.find(again["id"])
    first = (await lab.runs.get(run["id"])).trigger
    assert message is not None
    assert message.causation == first


async def test_what_cannot_be_said_again_is_refused_with_a_reason(lab: Lab, page: Looker) -> None:
    await ran(page, "lead", "lead", goal="mend it")
    child = (await page.get("/runs", mad="worker", limit=1))["runs"][0]
    status, said = await page.ask("POST", f"/runs/{child['id']}/retry")
    assert (status, "was a part of" in said["error"]["message"]) == (409, True)
    run = await ran(page, "worker", "work", goal="forgotten")
    await retain(lab.journal, Retention(messages_s=0.0), now=time.time() + 1)
    status, said = await page.ask("POST", f"/runs/{run['id']}/retry")
    assert (status, "is gone" in said["error"]["message"]) == (409, True)
    assert (await page.ask("POST", "/runs/nothing/retry"))[0] == 404


async def test_a_failed_run_waits_for_a_person_until_one_has_seen_it(page: Looker) -> None:
    for each in (await page.get("/attention"))["items"]:
        dismiss = acts_of(each, "Dismiss")
        await page.ask(dismiss["method"], dismiss["path"], dismiss["body"])
    await ran(page, "worker", "work", goal="one", fails=True)
    (item,) = (await page.get("/attention"))["items"]
    stale = acts_of(item, "Dismiss")
    await ran(page, "worker", "work", goal="two", fails=True)
    (item,) = (await page.get("/attention"))["items"]
    assert (item["kind"], item["count"]) == ("run", 2)
    status, said = await page.ask("POST", stale["path"], stale["body"])
    assert (status, "happened again" in said["error"]["message"]) == (409, True)
    dismiss = acts_of(item, "Dismiss")
    assert await page.ask("POST", dismiss["path"], dismiss["body"]) == (200, {"items": []})
    assert (await page.ask("POST", dismiss["path"], dismiss["body"]))[0] == 200, "twice is once"
    assert (await page.ask("POST", "/attention/run-nothing/dismiss", {"seen": 5}))[0] == 404


def acts_of(item: dict[str, Any], label: str) -> dict[str, Any]:
    """The act of that label."""
    return next(each for each in item["acts"] if each["label"] == label)
