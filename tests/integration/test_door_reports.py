"""Reports at the door: checked, filtered, compared, taken along, and accepted as a baseline."""

import csv
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import pytest
from anyio import create_task_group, current_time, sleep, to_thread

from core.grace.cli.client import Client
from core.grace.door.report_page import STYLE
from core.grace.reports import FINDINGS
from protos.errors import InvalidArgument, NotFound, Unavailable
from tests.integration.test_core_runs import ended
from tests.reporting import EVIL, Scans, a_finding, scans
from tests.security.test_surface import client
from tests.surface import Answer, Caller

TOKEN = "ghp_" + "a1B2c3D4e5" * 4


@pytest.fixture(scope="module")
async def at(anyio_backend: str) -> AsyncIterator[Scans]:
    async with scans() as found:
        yield found


async def get(at: Scans, place: str, **query: object) -> Any:
    return await to_thread.run_sync(lambda: Client(at.lab.home).get(f"/api/v1{place}?{urlencode(query)}"))


async def post(at: Scans, path: str, **body: object) -> Any:
    return await to_thread.run_sync(lambda: Client(at.lab.home).post(f"/api/v1{path}", body))


async def raw(at: Scans, path: str) -> tuple[dict[str, str], str]:
    """The headers and the text of an answer that is no JSON."""

    def read() -> tuple[dict[str, str], str]:
        client = Client(at.lab.home)
        with closing(client._open(10)) as connection, client._ask(connection, "GET", f"/api/v1{path}") as answer:
            return {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()

    return await to_thread.run_sync(read)


async def test_reports_are_listed_with_their_source_and_counts(at: Scans) -> None:
    run = await at.scan(a_finding(1), a_finding(2, severity="low"), name="listed")
    (first, *_) = (await get(at, "/reports"))["reports"]
    assert (first["run"]["id"], first["name"], first["findings"]) == (run.id, "listed", 2)
    assert first["counts"] == {"low": 1, "medium": 0, "high": 1, "critical": 0}


async def test_findings_are_filtered_and_the_worst_come_first(at: Scans) -> None:
    run = await at.scan(
        a_finding(1, severity="low", path="b.py"), a_finding(2, severity="critical", rule="key"), a_finding(3)
    )
    whole = await get(at, f"/runs/{run.id}/report")
    assert [each["id"] for each in whole["findings"]] == ["mcn-2", "mcn-3", "mcn-1"]
    assert (whole["total"], whole["matching"]) == (3, 3)
    assert whole["rules"] == [{"name": "B602", "count": 2}, {"name": "key", "count": 1}]
    assert whole["run"]["id"] == run.id
    for query, ids in (
        ({"severity": "low"}, ["mcn-1"]),
        ({"rule": "key"}, ["mcn-2"]),
        ({"path": "b.py"}, ["mcn-1"]),
        ({"q": "A SHELL"}, ["mcn-2", "mcn-3", "mcn-1"]),
        ({"limit": 1, "offset": 1}, ["mcn-3"]),
    ):
        found = await get(at, f"/runs/{run.id}/report", **query)
        assert [each["id"] for each in found["findings"]] == ids, query
    with pytest.raises(InvalidArgument):
        await get(at, f"/runs/{run.id}/report", severity="dire")


async def test_a_scan_is_set_against_the_one_before_it(at: Scans) -> None:
    before = await at.scan(a_finding(1), a_finding(2), name="compared")
    await at.scan(a_finding(9), name="another")
    now = await at.scan(a_finding(2), a_finding(3), name="compared")
    told = await get(at, f"/runs/{now.id}/report")
    assert told["previous"] == before.id
    against = (await get(at, f"/runs/{now.id}/report", against=before.id))["comparison"]
    assert (against["new"], against["still"]) == (["mcn-3"], 1)
    assert [each["id"] for each in against["gone"]] == ["mcn-1"]
    with pytest.raises(NotFound):
        await get(at, f"/runs/{now.id}/report", against="foreman-0000000000")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"findings": 1}', json.dumps({"run": 1}).encode()])
async def test_what_is_no_report_is_told_and_never_passed_on(at: Scans, content: bytes) -> None:
    at.raw = content
    try:
        run = await at.scan()
    finally:
        at.raw = None
    with pytest.raises(Unavailable, match="malformed"):
        await get(at, f"/runs/{run.id}/report")


async def test_the_code_around_a_finding_comes_from_the_tree_with_secrets_covered(at: Scans) -> None:
    code = "".join(f"line {number}\n" for number in range(1, 30)).replace("line 15\n", f"token = '{TOKEN}'\n")
    findings = a_finding(1, line=14), a_finding(2, path="gone.py"), a_finding(3, line=0)
    run = await at.scan(*findings, tree={"app.py": code.encode()})
    told = await get(at, f"/runs/{run.id}/report/code", finding="mcn-1")
    assert [each["number"] for each in told["lines"]] == [*range(8, 21)]
    assert told["lines"][6]["text"] == "line 14"
    assert TOKEN not in str(told)
    for id in ("mcn-2", "mcn-3", "mcn-4"):
        with pytest.raises(NotFound):
            await get(at, f"/runs/{run.id}/report/code", finding=id)


async def test_the_html_report_stands_alone_and_everything_in_it_is_text(at: Scans) -> None:
    evil = dict.fromkeys(("rule", "path", "snippet", "message", "fix", "cwe", "id"), EVIL)
    run = await at.scan(a_finding(1, **evil, scanners=[EVIL]), name=f"</title>{EVIL}")
    headers, text = await raw(at, f"/runs/{run.id}/report.html")
    assert "<img" not in text
    assert "<script" not in text
    assert text.count("&lt;img") >= 8
    assert "default-src &#x27;none&#x27;" in text
    assert STYLE in text
    assert "sandbox" in headers["content-security-policy"]
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_table_has_no_cell_that_a_spreadsheet_runs(at: Scans) -> None:
    nasty = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", " =2", 'a",=cmd|x', "\r=1"]
    run = await at.scan(*[a_finding(number, message=each) for number, each in enumerate(nasty)])
    headers, text = await raw(at, f"/runs/{run.id}/report.csv")
    rows = [*csv.reader(io.StringIO(text, newline=""))]
    assert headers["content-type"].startswith("text/csv")
    assert len(rows) == len(nasty) + 1
    assert {row[5] for row in rows[1:]} == {*(f"'{each}" for each in nasty if not each.startswith("a")), 'a",=cmd|x'}


async def test_json_and_sarif_are_taken_along(at: Scans) -> None:
    run = await at.scan(a_finding(1))
    told = json.loads((await raw(at, f"/runs/{run.id}/report.json"))[1])
    assert (told["run"], told["outcome"]) == (run.id, "succeeded")
    headers, text = await raw(at, f"/runs/{run.id}/report.sarif")
    assert json.loads(text)["version"] == "2.1.0"
    assert headers["content-type"].startswith("application/sarif+json")


async def test_what_a_person_accepts_becomes_a_baseline_and_stands_in_the_audit(at: Scans) -> None:
    until = str(date.today() + timedelta(days=30))
    old = {"version": 1, "accepted": [{"id": each, "reason": "r", "who": "ada", "until": until} for each in "ab"]}
    run = await at.scan(a_finding(1), a_finding(2), baseline_json=json.dumps(old))
    assert [each["id"] for each in (await get(at, f"/runs/{run.id}/report"))["accepted"]] == ["a", "b"]
    wish = {"id": "mcn-1", "reason": "a fixture", "until": until}
    made = await post(at, f"/runs/{run.id}/report/baseline", accept=[wish], withdraw=["b"])
    assert made == {"version": 1, "accepted": [old["accepted"][0], wish | {"who": "operator"}]}  # type: ignore[index]
    line = next(each for each in reversed((await get(at, "/audit"))["acts"]) if each["act"] == "report.baseline")
    assert (line["target"], line["outcome"], line["principal"]) == (run.id, "done", "operator")
    assert "a fixture" in line["details"]["accepted"]
    for bad in (
        wish | {"id": "mcn-9"},
        wish | {"reason": ""},
        wish | {"until": "2020-01-01"},
        wish | {"until": "soon"},
    ):
        with pytest.raises(InvalidArgument):
            await post(at, f"/runs/{run.id}/report/baseline", accept=[bad])


async def test_the_door_stays_quick_and_small_while_the_biggest_report_is_asked_for_by_many(at: Scans) -> None:
    run = await at.scan(*(a_finding(number, severity="low") for number in range(FINDINGS)), name="big")
    ann = await client(Caller(at.lab, unix=True), "big", ["mcnamara"], sees="all")
    operator = Caller(at.lab, unix=True)
    answers: list[Answer] = []
    waits: list[float] = []
    most = before = resident_bytes()

    async def asked() -> None:
        answers.append(await ann.ask("GET", f"/runs/{run.id}/report?q=zzz&against={run.id}"))

    async with create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(asked)
        while len(answers) < 8:
            began = current_time()
            assert (await operator.ask("GET", "/whoami")).status == 200
            waits.append(current_time() - began)
            most = max(most, resident_bytes())
            await sleep(0.02)
    assert [each.json["total"] for each in answers] == [FINDINGS] * 8
    assert median(waits) < 0.5, waits
    assert most - before < 256 * 1024**2


async def test_a_report_with_more_findings_than_a_scan_leaves_is_refused_with_a_sentence(at: Scans) -> None:
    run = await at.scan(*[a_finding()] * (FINDINGS + 1))
    with pytest.raises(Unavailable, match=f"too big: over {FINDINGS:,} findings"):
        await get(at, f"/runs/{run.id}/report")


async def test_a_client_reads_nothing_through_a_report_that_it_may_not_read_itself(at: Scans) -> None:
    until = str(date.today() + timedelta(days=30))
    old = {"version": 1, "accepted": [{"id": "private", "reason": "r", "who": "ada", "until": until}]}
    mine = await at.scan(a_finding(1), tree={"app.py": b"one\ntwo\nprivate\n"})
    operator = Caller(at.lab, unix=True)
    source = (await at.lab.rogers.find(mine.trigger)).blobs[0].digest  # type: ignore[union-attr]
    baseline = (await operator.ask("POST", "/blobs", json.dumps(old).encode())).json["digest"]
    ann = await client(operator, "ann", ["mcnamara"])
    arguments = {"source": source, "baseline_json": baseline}
    call = {"recipient": "mcnamara", "kind": "call", "tool": "scan", "arguments": arguments}
    at.findings = [a_finding(1)]
    run = await ended(at.lab, (await ann.ask("POST", "/messages", call)).json["run"])
    assert (await ann.ask("GET", f"/runs/{run.id}/report/code?finding=mcn-1")).status == 404
    assert (await ann.ask("GET", f"/runs/{run.id}/report")).json["accepted"] == []
    assert "private" not in (await ann.ask("GET", f"/runs/{run.id}/report.html")).body.decode()
    assert (await get(at, f"/runs/{run.id}/report/code", finding="mcn-1"))["lines"][2]["text"] == "private"


def resident_bytes() -> int:
    """Of this process, and so of the lab in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
