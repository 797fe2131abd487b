"""The MCP gateway over HTTP: the official client at `/mcp`, with the tokens of two clients."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import httpx2
import pytest
from anyio import Event, create_task_group, fail_after, sleep
from mcp import Client, MCPError
from mcp.client.subscriptions import ToolsListChanged
from mcp_types import ResourceLink, TextResourceContents, ToolListChangedNotification

from core.grace.gateway import watching
from core.lab import Lab
from core.registry import RegisteredTool
from core.run import Outcome
from tests.emads.echo import Echo
from tests.labs import a_home, opened
from tests.mcp_clients import MODES, Mode, Told, add_client, content_of, outcome_of, over_http
from tests.sizes import full

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed"),  # in the newer protocol
]

ROOT = Path(__file__).parents[2]
SETTINGS = f"""
emads = ["{ROOT / "periphery/mcnamara"}"]
[residents]
herald = {{ class = "tests.emads.echo:Echo" }}
"""
POLICY = """
[[rules]]
name = "looked-at"
kinds = ["bus.call"]
principals = ["client:stays", "client:leaves"]
targets = ["echo.say_later"]
verdict = "ask"
reason = "a person looks at it first"
"""
LIMIT_S = 120
AT_ONCE = 50 if full() else 12


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    """A lab whose echo runs in the core, and whose scanner in a sandbox."""
    with a_home(SETTINGS, images=("base", "mcnamara")) as home:
        (home.path / "policy.toml").write_text(POLICY)
        async with opened(home, echo=Echo) as lab:
            yield lab


@pytest.fixture(scope="module")
async def token(lab: Lab) -> str:
    """Of a client that may use two MADs."""
    return await add_client(lab, "editor", "echo", "mcnamara", "herald.say")


@pytest.fixture(scope="module")
async def other(lab: Lab) -> str:
    """Of a client that may say something back."""
    return await add_client(lab, "other", "echo.say")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Each protocol."""
    found: Mode = request.param
    return found


async def waiting(client: Client, told: Told, after_s: float = 300) -> None:
    """A call that takes long."""
    asked = {"text": "late", "after_s": after_s}
    await client.call_tool("echo_say_later", asked, progress_callback=told)


async def test_a_client_finds_the_tools_that_it_may_call(lab: Lab, token: str, other: str, mode: Mode) -> None:
    with fail_after(LIMIT_S):
        async with over_http(lab.web, token, mode=mode) as client:
            mine = {each.name: each for each in (await client.list_tools()).tools}
        async with over_http(lab.web, other, mode=mode) as client:
            theirs = {each.name for each in (await client.list_tools()).tools}
            refused = await client.call_tool("echo_keep", {"text": "not for me"})
            scan = await client.call_tool("lab_scan", {"files": {"a": "b"}})
    assert {each for each in mine if not each.startswith("lab_")} == {
        *(f"echo_{each}" for each in ("say", "say_later", "repeat", "count_bytes", "keep", "misbehave")),
        *("mcnamara_scan", "mcnamara_index_advisories", "herald_say"),
    }
    assert theirs == {"echo_say", "lab_say", "lab_read", "lab_cancel"}
    assert "path" not in mine["lab_scan"].input_schema["properties"]
    assert refused.structured_content["error"]["code"] == "NOT_FOUND"
    assert scan.structured_content["error"]["code"] == "PERMISSION_DENIED"


async def test_a_call_is_the_clients_own(lab: Lab, token: str, mode: Mode) -> None:
    with fail_after(LIMIT_S):
        async with over_http(lab.web, token, mode=mode) as client:
            result = await client.call_tool("echo_say", {"text": "hello"})
    assert content_of(result) == {"text": "hello"}
    assert result.meta is not None
    page = await lab.rogers.history(result.meta["madlab/conversation"], after=0, limit=10)
    assert page[0].sender == "client:editor"


async def test_progress_is_told_and_a_cancelled_call_ends_its_run(lab: Lab, token: str, mode: Mode) -> None:
    told = Told()
    with fail_after(LIMIT_S):
        async with over_http(lab.web, token, mode=mode) as client:
            async with create_task_group() as tasks:
                tasks.start_soon(waiting, client, told)
                await told.times(4)
                tasks.cancel_scope.cancel()
            assert await outcome_of(lab, told.run) == Outcome.CANCELLED
            assert content_of(await client.call_tool("echo_say", {"text": "on"})) == {"text": "on"}
    assert told.numbers == sorted(set(told.numbers))


async def test_a_tree_said_inline_is_scanned_and_its_report_read(lab: Lab, token: str) -> None:
    told = Told()
    with fail_after(LIMIT_S):
        async with over_http(lab.web, token) as client:
            files = {"bad.py": "import subprocess\n\n\ndef run(text):\n    subprocess.call(text, shell=True)\n"}
            result = await client.call_tool("lab_scan", {"files": files}, progress_callback=told)
            found = content_of(result)
            (report,) = (await client.read_resource(f"madlab://runs/{found['run']}/report")).contents
    assert found["counts"]["high"] + found["counts"]["medium"] + found["counts"]["low"] > 0
    assert isinstance(report, TextResourceContents)
    assert "bad.py" in {each["path"] for each in json.loads(report.text)["findings"]}
    assert any(total is not None for _, total, _ in told.heard)


async def test_a_file_stored_before_is_named_by_its_digest(lab: Lab, token: str, other: str) -> None:
    with fail_after(LIMIT_S):
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http:
            stored = await http.post(f"{lab.web}/api/v1/blobs?name=data.bin", content=b"1234567")
        digest = stored.json()["digest"]
        async with over_http(lab.web, token) as client:
            counted = await client.call_tool("echo_count_bytes", {"source": digest})
            kept = await client.call_tool("echo_keep", {"text": "to be read"})
            (link,) = [each for each in kept.content if isinstance(each, ResourceLink)]
            (content,) = (await client.read_resource(link.uri)).contents
        async with over_http(lab.web, other) as client:
            for uri in (f"madlab://blobs/{digest}", link.uri):
                with pytest.raises(MCPError, match="NOT_FOUND"):
                    await client.read_resource(uri)
    assert content_of(counted) == {"bytes": 7}
    assert isinstance(content, TextResourceContents)
    assert content.text == "to be read"


async def test_two_clients_do_not_see_each_others_runs(lab: Lab, token: str, other: str, mode: Mode) -> None:
    told = Told()
    with fail_after(LIMIT_S):
        async with (
            over_http(lab.web, token, mode=mode) as client,
            over_http(lab.web, other, mode=mode) as stranger,
            create_task_group() as tasks,
        ):
            tasks.start_soon(waiting, client, told)
            await told.times(1)
            uri = f"madlab://runs/{told.run}"
            assert uri in {each.uri for each in (await client.list_resources()).resources}
            assert uri not in {each.uri for each in (await stranger.list_resources()).resources}
            for each in (uri, f"{uri}/logs"):
                with pytest.raises(MCPError, match="NOT_FOUND"):
                    await stranger.read_resource(each)
            assert (await stranger.call_tool("lab_cancel", {"run": told.run})).is_error
            with pytest.raises(MCPError, match="NOT_FOUND"):
                await watched(stranger, uri, mode)
            assert (await lab.runs.get(told.run)).live
            tasks.cancel_scope.cancel()


async def watched(client: Client, uri: str, mode: Mode) -> None:
    """Asks to be told of a run."""
    if mode == "legacy":
        await client.subscribe_resource(uri)
    else:
        async with client.listen(resource_subscriptions=[uri]):
            pass


async def test_many_clients_at_once_are_each_answered_their_own(lab: Lab, token: str) -> None:
    answers: dict[int, str] = {}

    async def one(number: int) -> None:
        async with over_http(lab.web, token, mode=MODES[number % 2]) as client:
            result = await client.call_tool("herald_say", {"text": f"number {number}"})
            answers[number] = content_of(result)["text"]

    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            for number in range(AT_ONCE):
                tasks.start_soon(one, number)
    assert answers == {number: f"number {number}" for number in range(AT_ONCE)}


async def test_a_session_is_told_when_its_tools_change(
    lab: Lab, token: str, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    changed = Event()

    async def hear(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    with fail_after(LIMIT_S):
        async with over_http(lab.web, token, mode=mode, message_handler=hear) as client:
            await client.list_tools()
            if mode == "legacy":
                with another_tool(lab):
                    await changed.wait()
                return
            async with client.listen(tools_list_changed=True) as stream:
                with another_tool(lab):
                    async for event in stream:
                        assert event == ToolsListChanged()
                        break


async def test_a_call_that_waits_for_a_person_says_so_and_begins_then(lab: Lab) -> None:
    token, told, results = await add_client(lab, "stays", "echo"), Told(), []

    async def call(client: Client) -> None:
        asked = {"text": "seen", "after_s": 0.1}
        results.append(await client.call_tool("echo_say_later", asked, progress_callback=told))

    with fail_after(LIMIT_S):
        async with over_http(lab.web, token) as client, create_task_group() as tasks:
            tasks.start_soon(call, client)
            await told.times(1)
            await approve(lab)
    assert "a person has to approve it" in told.words[0]
    assert content_of(results[0]) == {"text": "seen"}


async def test_what_is_approved_when_nobody_waits_any_more_is_cancelled(lab: Lab) -> None:
    token, told = await add_client(lab, "leaves", "echo"), Told()
    with fail_after(LIMIT_S):
        async with over_http(lab.web, token) as client, create_task_group() as tasks:
            tasks.start_soon(waiting, client, told)
            await told.times(1)
            tasks.cancel_scope.cancel()
        await approve(lab)
        async with lab.rogers.follow() as messages:
            async for each in messages:
                if each.sender == "client:leaves":
                    break
        run = lab.runs.id_of("echo", each.id)
        while not await lab.runs.known(run):  # the dispatcher hears of the message as we do
            await sleep(0.01)
        assert await outcome_of(lab, run) == Outcome.CANCELLED


async def approve(lab: Lab) -> None:
    """What a person says to the one act that waits."""
    (waits,) = await lab.services.approvals.pending()
    await lab.services.approvals.approve(waits.id, by="operator", uses=1)


@contextmanager
def another_tool(lab: Lab) -> Iterator[None]:
    """For a while, echo has one tool more."""
    tools = cast(dict[str, RegisteredTool], lab.registry.mads["echo"].tools)
    tools["again"] = replace(tools["say"], schema=replace(tools["say"].schema, name="again"))
    try:
        yield
    finally:
        del tools["again"]
