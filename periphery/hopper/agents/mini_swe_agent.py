"""mini-swe-agent: a loop whose one tool is bash. It saves its whole trajectory after every step; that is read here."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from periphery.doors import Doors
from periphery.hopper.agent import Agent, Ending, How, Task
from periphery.hopper.agents.program import (
    Program,
    Run,
    fresh_folder,
    program_at,
    run_program,
    tell_answer,
    tell_command,
)

PROGRAM = "/opt/mini-swe-agent/bin/mini"
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
COMMAND_S = 300  # for one of its commands; its own 30 are few for a test run
ENDINGS: Mapping[str, tuple[How, str]] = {
    "Submitted": ("done", ""),
    "LimitsExceeded": ("stuck", "Its steps are used up."),
    "TimeExceeded": ("out_of_budget", "Its time is used up. It needs more time."),
    "RepeatedFormatError": ("stuck", "The model did not call its tool as it must, several times in a row."),
}


def make() -> Agent:
    """The agent.

    Raises:
        InvalidArgument: this image lacks it.
    """
    return Program(program_at("mini-swe-agent", PROGRAM), _session)


async def _session(program: Path, task: Task, doors: Doors, request: str) -> Ending:
    """Runs `mini`, its command line."""
    folder = fresh_folder(task, "mini-swe-agent")
    settings, record = folder / "lab.yaml", folder / "trajectory.json"
    steps = max(task.max_steps - doors.usage.requests, 1)
    settings.write_text(json.dumps(_settings(task, steps)))  # it is YAML too
    trajectory = _Trajectory(task, record)
    command = [str(program), "--yolo", "--exit-immediately", "--cost-limit", "0"]
    command += ["-c", "mini.yaml", "-c", str(settings), "-o", str(record), "-t", request]
    environment = {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_GLOBAL_CONFIG_DIR": str(folder),
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch one
    }
    return trajectory.ending(await run_program(task, doors, command, environment, record, trajectory.hear))


def _settings(task: Task, steps: int) -> Mapping[str, Any]:
    return {
        "agent": {"step_limit": steps},
        "environment": {"timeout": COMMAND_S},
        "model": {"model_name": f"openai/{task.model or 'default'}", "cost_tracking": "ignore_errors"},
    }


class _Trajectory:
    """What it has saved of its work, read as far as it is new."""

    def __init__(self, task: Task, path: Path) -> None:
        self._task = task
        self._path = path
        self._heard = 0  # messages
        self._status = self._why = ""
        self._words = ""  # the model's last
        self._commands: dict[str, tuple[str, float]] = {}  # by the call's id, with when it was made

    async def hear(self) -> None:
        """Tells what is new."""
        with suppress(OSError, ValueError):  # it is being written just now: then the next time
            saved = json.loads(self._path.read_bytes())
            messages = saved["messages"][self._heard :]
            self._heard += len(messages)
            for each in messages:
                await self._tell(each)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        extra = message.get("extra") or {}
        match message.get("role"):
            case "assistant":
                self._words = str(message.get("content") or "").strip() or self._words
                await tell_answer(self._task, self._words)
                for action in extra.get("actions", ()):
                    self._commands[action.get("tool_call_id", "")] = action["command"], extra.get("timestamp", 0.0)
            case "tool":
                command, since = self._commands.pop(message.get("tool_call_id", ""), ("", 0.0))
                if SUBMIT in command:  # how it says that it is done: no command of the work
                    return
                seconds = max(extra.get("timestamp", since) - since, 0.0)
                code = extra.get("returncode")
                output = str(extra.get("raw_output", ""))
                await tell_command(self._task, command, code if isinstance(code, int) else -1, seconds, output)
            case "exit":
                self._status = str(extra.get("exit_status", ""))
                self._why = str(extra.get("exception_str", ""))

    def ending(self, run: Run) -> Ending:
        """How it ended, by its own account."""
        if run.ran is None or not self._status:
            return Ending("stuck" if run.ran is None else "failed", self._words, run.failed)
        how, reason = ENDINGS.get(self._status, ("failed", f"It ended with {self._status}: {self._why[:600]}"))
        return Ending(how, self._words, reason)
