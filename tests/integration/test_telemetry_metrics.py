"""`GET /metrics`: the whole lab in figures, read by Prometheus' own parser."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest
from anyio import fail_after, sleep
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from core.lab import Lab
from core.policy.acts import Act
from core.policy.capabilities import Identity
from core.ports.acting import acting
from protos.errors import Denied
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Message
from tests.labs import a_home, ask, opened

PLANTED = "planted-7f3a"


class Doer:
    """Works in the core, well or badly."""

    @tool(effects="read")
    async def work(self, call: Call, *, how: str) -> dict[str, str]:
        """Says how, or fails."""
        if how == "badly":
            raise RuntimeError(PLANTED)
        return {"how": how}


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    with a_home() as home:
        async with opened(home, doer=Doer) as lab:
            for how in ("well", "well", "badly"):
                asked = Message(id=new_id(), conversation=new_id(), recipient="doer", kind=KIND_CALL, tool="work")
                asked.data = json.dumps({"how": how})
                await ask(lab, asked)
                await _ended(lab)
            run = Identity("doer", frozenset({"web"}), lab.runs.id_of("doer", asked.id), "c")
            for place in range(3):
                act = Act("web.fetch", run.principals, f"https://{PLANTED}.test/{place}", {"method": "GET"})
                with pytest.raises(Denied):
                    async with acting(lab.services, run, act):
                        raise AssertionError
            yield lab


async def _ended(lab: Lab) -> None:
    with fail_after(60):
        while lab.dispatcher.counts()["running"]:
            await sleep(0.01)


async def page(lab: Lab, **headers: str) -> httpx2.Response:
    transport = httpx2.AsyncHTTPTransport(uds=str(lab.home.api_socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://lab") as client:
        return await client.get("/metrics", headers=headers)


def figures(text: str) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    families: list[Metric] = list(text_string_to_metric_families(text))
    assert len({each.name for each in families}) == len(families)
    for family in families:
        assert family.documentation
        for each in family.samples:
            found.setdefault(each.name, []).append((each.labels, each.value))
    return found


def one(found: dict[str, Any], name: str, **labels: str) -> float:
    (value,) = [value for have, value in found[name] if labels.items() <= have.items()]
    return float(value)


async def test_the_page_says_what_the_lab_did(lab: Lab) -> None:
    await page(lab)
    answer = await page(lab)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = figures(answer.text)
    assert one(found, "madlab_runs_ended_total", gen_ai_agent_name="doer", outcome="succeeded") == 2
    assert one(found, "madlab_runs_ended_total", gen_ai_agent_name="doer", outcome="failed") == 1
    assert one(found, "madlab_run_duration_seconds_count", outcome="failed") == 1
    assert one(found, "madlab_denials_total", act="web.fetch", rule="default") == 3
    assert one(found, "madlab_runs_queued") == one(found, "madlab_approvals_waiting") == 0
    assert one(found, "madlab_journal_lost_total") == one(found, "madlab_journal_sealed") == 0
    assert one(found, "madlab_journal_entries_total") > one(found, "madlab_journal_messages_total") >= 6
    assert one(found, "madlab_journal_commit_duration_seconds") > 0
    assert one(found, "process_resident_memory_bytes") > 1 << 20
    assert one(found, "http_server_request_duration_seconds_count", http_route="/metrics") >= 1
    assert PLANTED not in answer.text


async def test_promtool_finds_nothing_to_say(lab: Lab) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool here: Debian has it in the package prometheus")
    said = subprocess.run([promtool, "check", "metrics"], input=(await page(lab)).text, capture_output=True, text=True)
    assert said.stdout + said.stderr == ""


async def test_what_was_asked_for_is_no_label_and_a_wrong_method_neither(lab: Lab) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(lab.home.api_socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://lab") as client:
        for place in (f"/{PLANTED}", f"/api/v1/runs/{PLANTED}", f"/metrics?{PLANTED}=1"):
            assert (await client.get(place)).status_code in (400, 404)
        await client.request(PLANTED.replace("-", ""), "/metrics")
    found = figures((await page(lab)).text)
    labels = [each for each, _ in found["http_server_request_duration_seconds_count"]]
    assert PLANTED not in str(labels)
    assert {"/api/v1/runs/{id}", "/metrics", "other"} <= {each["http_route"] for each in labels}
    assert {each["http_request_method"] for each in labels} <= {"GET", "POST", "_OTHER"}


async def test_counting_twice_counts_once(lab: Lab) -> None:
    before, after = figures((await page(lab)).text), figures((await page(lab)).text)
    for name in ("madlab_runs_ended_total", "madlab_denials_total"):
        assert before[name] == after[name]
