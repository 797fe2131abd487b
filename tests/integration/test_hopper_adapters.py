"""Agents that are not ours, as their adapters see them: small programs that write what the real ones write."""

import json
import sys
import time
from pathlib import Path

import pytest
from anyio import fail_after

from periphery.hopper.agents import codex, mini_swe_agent
from protos.errors import InvalidArgument
from tests.integration.hopper_bench import BUGGY, RIGHT, WRONG, bench
from tests.model_server import Play

ASK = """
import json, os, sys, time, urllib.error, urllib.request
def ask(text="go on"):
    body = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    try:
        with urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return f"refused: {error.code}"
def tell(**event):
    print(json.dumps(event), flush=True)
def item(**fields):
    tell(type="item.completed", item={"id": "i", **fields})
"""  # noqa: E501
MEND = f"""
source = open("calc.py").read()
open("calc.py", "w").write(source.replace({WRONG!r}, {RIGHT!r}))
"""


def program(place: Path, code: str) -> str:
    path = place / "agent"
    path.write_text(f"#!{sys.executable}\n{ASK}{code}")
    path.chmod(0o755)
    return str(path)


async def test_what_codex_tells_becomes_progress_evidence_and_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
tell(type="turn.started")
print("no event at all", flush=True)
item(type="agent_message", text=ask(sys.argv[-1]))
item(type="todo_list", items=[{{"text": "look", "completed": False}}, {{"text": "mend", "completed": False}}])
{MEND}
item(type="file_change", changes=[{{"path": "calc.py", "kind": "update"}}])
item(type="command_execution", command="bash -c 'true'", aggregated_output="fine", exit_code=0, status="completed")
item(type="agent_message", text="It divides by the number of values.")
tell(type="turn.completed", usage={{}})
"""
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, code))
    async with bench([Play(text="I will look.")], tmp_path) as lab:
        done = await lab.work(BUGGY, agent="codex", notes="Mind the empty list.")
        asked = lab.server.requests[0].body["messages"][0]["content"]
    assert done.outcome == "succeeded", done.verdict.reason
    assert done.worked["summary"] == "It divides by the number of values."
    assert done.told("model") == ["I will look.", "It divides by the number of values."]
    assert [each["steps"] for each in done.fields("plan")] == [["look", "mend"]]
    assert [each["path"] for each in done.fields("edit")] == ["calc.py"]
    assert "bash -c 'true'" in [each["command"] for each in done.worked["commands"]]
    assert done.worked["steps"] == 1
    assert done.worked["tokens_in"] > 0
    assert done.worked["usd"] > 0
    assert "Mind the empty list." in asked
    assert "The mean of three values is wrong" in asked


async def test_what_the_operator_says_meanwhile_is_worked_on_when_the_agent_has_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
item(type="agent_message", text=ask(sys.argv[-1]))
{MEND}
tell(type="turn.completed", usage={{}})
"""
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, code))
    async with bench([Play(text="First."), Play(text="Second.")], tmp_path) as lab:
        lab.bus.say("Also mind the empty list.")
        done = await lab.work(BUGGY, agent="codex")
        asked = [request.body["messages"][0]["content"] for request in lab.server.requests]
    assert done.outcome == "succeeded", done.verdict.reason
    assert len(asked) == done.worked["steps"] == 2
    assert "empty list" not in asked[0]
    assert "Also mind the empty list." in asked[1]
    assert [each["state"] for each in done.fields("remark")] == ["delivered", "acted_on"]


async def test_an_agent_that_gives_up_has_failed_with_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = 'tell(type="turn.failed", error={"message": "the stream broke"}); sys.exit(1)'
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, code))
    async with bench([], tmp_path) as lab:
        done = await lab.work(BUGGY, agent="codex")
    assert done.outcome == "failed"
    assert "the stream broke" in done.verdict.reason


@pytest.mark.parametrize("agent", ["codex", "mini-swe-agent"])
async def test_an_agent_that_breaks_is_told_by_its_last_words(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "print('everything is fine'); raise RuntimeError('no such thing')")
    monkeypatch.setattr(codex, "PROGRAM", path)
    monkeypatch.setattr(mini_swe_agent, "PROGRAM", path)
    async with bench([], tmp_path) as lab:
        done = await lab.work(BUGGY, agent=agent)
    assert done.outcome == "failed"
    assert "RuntimeError: no such thing" in done.verdict.reason


async def test_what_mini_swe_agent_saves_becomes_progress_evidence_and_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
path = sys.argv[sys.argv.index("-o") + 1]
messages = [{{"role": "user", "content": sys.argv[sys.argv.index("-t") + 1]}}]
def save(**message):
    messages.append(message)
    with open(path, "w") as file:
        file.write(json.dumps({{"messages": messages}}, indent=2))
def step(words, command, code):
    calls = [{{"command": command, "tool_call_id": words}}]
    save(role="assistant", content=words, extra={{"actions": calls, "timestamp": 10.0}})
    save(role="tool", content="…", tool_call_id=words,
         extra={{"raw_output": "said", "returncode": code, "timestamp": 12.5}})
step(ask(), "sed -i x calc.py", 0)
{MEND}
step("It is mended.", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", -1)
save(role="exit", content="", extra={{"exit_status": "Submitted", "submission": ""}})
"""
    monkeypatch.setattr(mini_swe_agent, "PROGRAM", program(tmp_path, code))
    async with bench([Play(text="I will mend it.")], tmp_path) as lab:
        done = await lab.work(BUGGY, agent="mini-swe-agent")
    assert done.outcome == "succeeded", done.verdict.reason
    assert done.worked["summary"] == "It is mended."
    assert done.told("model") == ["I will mend it.", "It is mended."]
    [command] = [each for each in done.worked["commands"] if each["command"].startswith("sed")]
    assert (command["exit_code"], command["seconds"]) == (0, 2.5)
    assert not [each for each in done.worked["commands"] if "COMPLETE_TASK" in each["command"]]


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        ("LimitsExceeded", "stuck", "steps are used up"),
        ("RepeatedFormatError", "stuck", "did not call its tool"),
        ("TimeExceeded", "out_of_budget", "needs more time"),
        ("APIConnectionError", "failed", "APIConnectionError: away"),
    ],
)
async def test_every_end_of_mini_swe_agent_has_its_outcome(
    status: str, outcome: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = {"role": "exit", "content": "", "extra": {"exit_status": status, "exception_str": "away"}}
    code = f"open(sys.argv[sys.argv.index('-o') + 1], 'w').write({json.dumps({'messages': [last]})!r})"
    monkeypatch.setattr(mini_swe_agent, "PROGRAM", program(tmp_path, code))
    async with bench([], tmp_path) as lab:
        done = await lab.work(BUGGY, agent="mini-swe-agent")
    assert done.outcome == outcome
    assert reason in done.verdict.reason


async def test_an_agent_without_end_is_ended_when_its_steps_are_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"{MEND}\nwhile True: ask(); time.sleep(0.05)"
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, code))
    async with bench(lambda _: Play(text="Yes."), tmp_path) as lab:
        done = await lab.work(BUGGY, agent="codex", max_steps=5)
        asked = len(lab.server.requests)
    assert done.outcome == "stuck"
    assert "steps are used up" in done.verdict.reason
    assert list(done.changed) == ["calc.py"]  # what it has done so far is handed over
    assert asked < 50


async def test_an_agent_that_does_not_take_no_for_an_answer_is_out_of_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, "while True: ask(); time.sleep(0.05)"))
    async with bench(lambda _: Play(text="Yes."), tmp_path, tokens=4500) as lab:
        done = await lab.work(BUGGY, agent="codex", max_steps=10_000)
    assert done.outcome == "out_of_budget"


async def test_an_agent_that_sleeps_is_ended_with_its_time_and_its_children_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(marker)!r}).touch(); time.sleep(0.05)"
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    code = f"import subprocess\n{start}\ntime.sleep(99)"
    monkeypatch.setattr(codex, "PROGRAM", program(tmp_path, code))
    async with bench([], tmp_path) as lab:
        done = await lab.work(BUGGY, agent="codex", agent_s=10)
    assert done.outcome == "out_of_budget"
    assert "needs more time" in done.verdict.reason
    seen = marker.stat().st_mtime_ns
    time.sleep(0.3)
    assert marker.stat().st_mtime_ns == seen


@pytest.mark.parametrize("agent", ["codex", "mini-swe-agent"])
async def test_an_image_without_the_agent_says_so_before_any_work(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex, "PROGRAM", str(tmp_path / "nowhere/*/codex"))
    monkeypatch.setattr(mini_swe_agent, "PROGRAM", str(tmp_path / "nowhere/mini"))
    async with bench([], tmp_path) as lab:
        with fail_after(60), pytest.raises(InvalidArgument, match="lacks the agent"):
            await lab.work(BUGGY, agent=agent)
