"""Codex: OpenAI's command line agent, over its protocol of responses. It says what it does as a line of JSON each."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from periphery.doors import Doors
from periphery.hopper.agent import Agent, Ending, Task
from periphery.hopper.agents.program import (
    Program,
    Run,
    fresh_folder,
    program_at,
    run_program,
    tell_answer,
    tell_command,
)

PROGRAM = "/usr/local/lib/node_modules/@openai/codex/vendor/*/bin/codex"


def make() -> Agent:
    """The agent.

    Raises:
        InvalidArgument: this image lacks it.
    """
    return Program(program_at("codex", PROGRAM), _session)


async def _session(program: Path, task: Task, doors: Doors, request: str) -> Ending:
    """Runs `codex exec`, with its own fences down: it stands in a sandbox already."""
    folder = fresh_folder(task, "codex")
    (folder / "config.toml").write_text(_settings(task, doors))
    record = folder / "events.jsonl"
    events = _Events(task, record)
    command = [str(program), "exec", "--json", "--color", "never", "--skip-git-repo-check"]
    command += ["--dangerously-bypass-approvals-and-sandbox", "--", request]
    return events.ending(await run_program(task, doors, command, {"CODEX_HOME": str(folder)}, record, events.hear))


def _settings(task: Task, doors: Doors) -> str:
    return f"""\
model = {json.dumps(task.model or "default")}
model_provider = "lab"
check_for_update_on_startup = false
allow_login_shell = false
web_search = "disabled"

[model_providers.lab]
name = "the lab's doors"
base_url = {json.dumps(doors.openai)}
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 2
stream_max_retries = 3

[analytics]
enabled = false

[history]
persistence = "none"
"""


class _Events:
    """What it has told of its work, read as far as it is new."""

    def __init__(self, task: Task, path: Path) -> None:
        self._task = task
        self._path = path
        self._read = 0  # bytes
        self._words = ""  # the model's last
        self._completed = False
        self._why = ""  # it failed
        self._started: dict[str, float] = {}  # when items began, as it was heard, by id

    async def hear(self) -> None:
        """Tells what is new."""
        with suppress(OSError):
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, found, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(found)
            for line in whole.splitlines():
                with suppress(ValueError, KeyError, TypeError, AttributeError):  # a line that is none of these events
                    await self._tell(json.loads(line))

    async def _tell(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "item.started":
                self._started[event["item"]["id"]] = time.monotonic()
            case "item.completed":
                await self._tell_item(event["item"])
            case "turn.started":
                self._completed, self._why = False, ""
            case "turn.completed":
                self._completed = True
            case "turn.failed":
                self._why = str(event["error"]["message"])
            case "error":
                self._why = str(event["message"])

    async def _tell_item(self, item: Mapping[str, Any]) -> None:
        match item["type"]:
            case "agent_message":
                self._words = str(item["text"]).strip()
                await tell_answer(self._task, self._words)
            case "command_execution":
                code = item.get("exit_code")
                output = str(item.get("aggregated_output", ""))
                now = time.monotonic()
                seconds = now - self._started.pop(item["id"], now)
                code = code if isinstance(code, int) else -1
                await tell_command(self._task, str(item["command"]), code, seconds, output)
            case "file_change":
                for each in item["changes"]:
                    await self._task.call.progress(str(each["path"]), what="edit", path=str(each["path"]))
            case "todo_list":
                steps = [str(each["text"]) for each in item["items"]]
                await self._task.call.progress(" · ".join(steps)[:1000], what="plan", steps=steps)

    def ending(self, run: Run) -> Ending:
        """How it ended, by its own account."""
        if run.ran is None:
            return Ending("stuck", self._words, run.failed)
        if self._completed and run.ran.exit_code == 0:
            return Ending("done", self._words)
        return Ending("failed", self._words, f"It gave up: {self._why[:600]}" if self._why else run.failed)
