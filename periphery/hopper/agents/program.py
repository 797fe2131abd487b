"""What the adapters share: a program of others is run in the tree, through the doors, and watched while it works.

It is run unmodified, as a child of the worker, and knows nothing of the lab: its model is a server on loopback, its
tree the folder that it stands in. What it does is read from the record that it writes itself, whenever that has grown.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from anyio import CancelScope, create_task_group, sleep

from periphery.doors import Doors, open_doors
from periphery.hopper import prompts
from periphery.hopper.agent import Ending, Task
from periphery.hopper.remarks import Remarks
from periphery.hopper.shell import Ran
from protos.errors import InvalidArgument

LOOK_S = 0.3  # between two looks at the record
SAID_BYTES = 4000  # of what it wrote on standard error, where it failed
TEXT_CHARACTERS = 400  # of what the model says, as progress
QUIET = {"COLUMNS": "200", "DO_NOT_TRACK": "1"}


Session = Callable[[Path, Task, Doors, str], Awaitable[Ending]]


@dataclass(frozen=True)
class Program:
    """An agent that is a program of others. `session` runs it once: where it is, for whom, through what, with what
    request."""

    path: Path
    session: Session

    async def work(self, task: Task) -> Ending:
        """See `Agent.work`."""
        async with open_doors(task.llm, model=task.model) as doors:
            return await in_sessions(task, lambda request: self.session(self.path, task, doors, request))


def program_at(name: str, place: str) -> Path:
    """The program of an agent, at `place`, which may have wildcards.

    Raises:
        InvalidArgument: this image lacks it.
    """
    found = next(iter(sorted(Path("/").glob(place.lstrip("/")))), None)
    if found is None:
        raise InvalidArgument(
            f"This image lacks the agent '{name}'.", next="Take the image hopper-agents, or agent=hopper."
        )
    return found


@dataclass(frozen=True)
class Run:
    """How a program's work ended."""

    ran: Ran | None  # None: it was ended here, because its steps are used up
    said: str  # the end of what it wrote on standard error

    @property
    def failed(self) -> str:
        """One sentence about an end that its record does not tell."""
        if self.ran is None:
            return "Its steps are used up."
        last = self.said.strip().splitlines()[-3:]
        return f"It ended ({self.ran.ending})" + (f": {' / '.join(last)[-600:]}" if last else " without a word.")


async def run_program(
    task: Task,
    doors: Doors,
    command: Sequence[str],
    environment: Mapping[str, str],
    record: Path,
    hear: Callable[[], Awaitable[None]],
) -> Run:
    """Runs an agent's program to its end; `hear` is called whenever `record` has grown, and once in the end.

    Its standard output goes to the record when it makes none itself. It is ended when its steps are used up.

    Raises:
        Exhausted: there is no budget for what it asked of a model; it is ended then, whatever it makes of it.
    """
    errors = record.with_name(f"{record.name}.errors")
    # A program is no line of shell: its words are passed as they are.
    quoted = ["/bin/sh", "-c", 'out=$1 err=$2; shift 2; exec "$@" >>"$out" 2>"$err"', "agent"]
    output = record if not any(str(record) in word for word in command) else record.with_name(f"{record.name}.output")
    ran = None

    async def look(scope: CancelScope) -> None:
        seen = None
        while True:
            await sleep(LOOK_S)
            book(task, doors)
            if doors.exhausted or doors.usage.requests > task.max_steps:
                scope.cancel()
                return
            now = _state(record)
            if now != seen:
                seen = now
                await hear()

    try:
        async with create_task_group() as tasks:
            with CancelScope() as scope:
                tasks.start_soon(look, scope)
                ran = await task.shell.run(
                    [*quoted, str(output), str(errors), *command],
                    seconds=max(task.deadline - time.time(), 1.0),
                    environment={**QUIET, **doors.environment(), **environment},
                    listed=False,
                )
            tasks.cancel_scope.cancel()
    finally:
        book(task, doors)
    await hear()
    if doors.exhausted:
        raise doors.exhausted
    return Run(ran, _tail(errors))


def fresh_folder(task: Task, name: str) -> Path:
    """A folder for what an agent keeps of one session, outside the tree."""
    task.shell.home.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(prefix=f"{name}-", dir=task.shell.home))


async def in_sessions(task: Task, session: Callable[[str], Awaitable[Ending]]) -> Ending:
    """Has an agent work on the goal, then on what the operator has said meanwhile: it cannot hear while it works."""
    remarks = Remarks(task.call)
    ending = await session(request_of(task))
    while ending.how == "done" and (said := await remarks.fresh()):
        ran = len(task.shell.ran)
        ending = await session(_again(task, said))
        await remarks.answered(acted=ending.how == "done" or len(task.shell.ran) > ran)
    return ending


def book(task: Task, doors: Doors) -> None:
    """Enters what went through the doors so far: whoever is cancelled has no last word."""
    usage, ledger = doors.usage, task.ledger
    ledger.steps = usage.requests
    ledger.tokens_in, ledger.tokens_out = usage.input_tokens, usage.output_tokens
    ledger.usd, ledger.model_seconds = usage.usd, usage.seconds


async def tell_answer(task: Task, text: str) -> None:
    """Tells people what the model said."""
    ledger = task.ledger
    await task.call.progress(
        " ".join(text.split())[:TEXT_CHARACTERS] or "(no words)",
        what="model",
        steps=ledger.steps,
        tokens=ledger.tokens_in + ledger.tokens_out,
        usd=ledger.usd,
    )


async def tell_command(task: Task, command: str, exit_code: int, seconds: float, output: str) -> None:
    """Tells people of a command that the agent ran, and lists it."""
    task.shell.ran.append(Ran(command, exit_code, seconds, output[-SAID_BYTES:]))
    await task.call.progress(
        f"$ {command[:1000]}",
        what="command",
        command=command[:1000],
        exit_code=exit_code,
        seconds=round(seconds, 3),
    )


def request_of(task: Task) -> str:
    """The goal, as somebody would put it to a developer who knows nothing of the lab."""
    parts = [task.goal.strip()]
    if task.notes.strip():
        parts.append(f"Notes:\n{task.notes.strip()}")
    if task.role:
        parts.append(prompts.ROLES.get(task.role, f"Your role: {task.role}."))
    if task.test:
        parts.append(f"The tests are run with `{task.test}`.")
    if task.failing:
        parts.append(f"They fail now, and end with:\n{task.failing.strip()}")
    parts.append(
        "You are in the root of the repository. There is no network, and nobody answers questions. Leave your work in "
        "the files, without committing it. Do not weaken tests that exist."
    )
    return "\n\n".join(parts)


def _again(task: Task, remarks: Sequence[str]) -> str:
    said = "\n".join(prompts.REMARK.format(text=each) for each in remarks)
    return f"{request_of(task)}\n\nWork on this is done already and is in the files. Now the operator says:\n{said}"


def _state(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return None


def _tail(path: Path) -> str:
    with suppress(OSError):
        return path.read_bytes()[-SAID_BYTES:].decode(errors="replace")
    return ""
