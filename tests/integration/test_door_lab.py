"""The lab as it runs, at the door: who talks to whom, what is kept warm, and the doctor's card."""

import json
from typing import Any

from anyio import fail_after, sleep, to_thread

from core.grace.cli.client import Client
from core.grace.door.tally import EDGES, Tally
from core.lab import Lab
from core.rogers.entry import Row
from tests.labs import call, lab_of

ECHO = '[residents]\necho = { class = "tests.emads.echo:Echo" }\nrelay = { class = "tests.emads.echo:Relay" }\n'


async def get(lab: Lab, path: str) -> Any:
    return await to_thread.run_sync(Client(lab.home).get, f"/api/v1{path}")


async def test_the_map_shows_who_talks_to_whom_with_counts_and_times() -> None:
    async with lab_of(ECHO) as lab:
        arguments = json.dumps({"text": "hi"})
        for _ in range(3):
            await call(lab, "relay", "relay", wanted="say", arguments=arguments)
        told = await get(lab, "/lab/map")
        pool = await get(lab, "/lab/pool")
    nodes = {each["id"]: each for each in told["nodes"]}
    edges = {(each["from"], each["to"]): each for each in told["edges"]}
    asked, passed = edges["person:operator", "mad:relay"], edges["mad:relay", "mad:echo"]
    assert (asked["count"], asked["minute"], asked["failed"]) == (3, 3, 0)
    assert passed["count"] == 3
    assert asked["middle_ms"] > 0
    assert nodes["mad:echo"]["state"] == "running"
    assert {"person:operator", "port:llm", "port:web", "port:files", "port:secrets"} <= nodes.keys()
    assert pool == {"pools": [], "sandboxes": [], "counts": {"running": 0, "queued": 0}}


async def test_the_doctor_looks_when_asked_and_what_it_found_is_kept() -> None:
    async with lab_of(ECHO) as lab:
        before = await get(lab, "/lab/doctor")
        begun = await to_thread.run_sync(Client(lab.home).post, "/api/v1/lab/doctor", {})
        with fail_after(120):
            while (card := await get(lab, "/lab/doctor"))["running"]:
                await sleep(0.1)
    assert (before["at"], before["running"], before["checks"]) == (None, False, [])
    assert begun["running"]
    assert card["at"]
    assert {"python", "settings"} <= {each["name"] for each in card["checks"]}


def row(id: str, kind: str, sender: str, recipient: str = "", at: float = 0.0, body: Any = None) -> Row:
    return Row(1, id, kind, None if body is None else json.dumps(body).encode(), "c", sender, recipient, at)


def test_acts_lead_through_their_port_to_what_lies_beyond() -> None:
    tally = Tally(clock=lambda: 100.0)
    fetch = {"act": "web.fetch", "step": "started", "target": "https://pypi.org/simple/x", "principals": ["mad:marco"]}
    tally.committed([row("act:1:started", "act", "marco-0123456789", at=90.0, body=fetch)])
    ended = {"act": "web.fetch", "step": "outcome", "failed": "UNAVAILABLE"}
    tally.committed([row("act:1:outcome", "act", "marco-0123456789", at=90.5, body=ended)])
    tally.committed([row("act:2:denied", "act", "marco-0123456789", at=91.0, body=fetch | {"step": "denied"})])
    told = {(each["from"], each["to"]): each for each in tally.as_json()}
    assert told.keys() == {("mad:marco", "port:web"), ("port:web", "host:pypi.org")}
    assert [told["port:web", "host:pypi.org"][each] for each in ("count", "failed", "middle_ms")] == [2, 2, 500.0]


def test_what_is_a_minute_old_is_no_rate_any_more() -> None:
    now = [1000.0]
    tally = Tally(clock=lambda: now[0])
    for second in range(200):
        tally.committed([row(f"m{second}", "message", "operator", "echo", at=900.0 + second / 2)])
    assert tally.as_json()[0]["minute"] == 118
    now[0] = 2000.0
    assert (tally.as_json()[0]["minute"], tally.as_json()[0]["count"]) == (0, 200)


def test_a_flood_of_names_makes_room_for_itself() -> None:
    tally = Tally()
    for number in range(3 * EDGES):
        tally.committed([row(f"m{number}", "message", f"m{number}", "echo", at=1.0)])
    assert len(tally.as_json()) == EDGES
