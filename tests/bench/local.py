"""The local model in its sandbox, as a caller of Fiedler meets it: how long until it is there, how fast it reads and
writes, alone and side by side, what memory it takes, and how often it chooses the right one of eight tools.

Nothing here has a limit: it is what this machine gives. Without installed weights there is nothing to measure.
"""

import json
from contextlib import aclosing
from time import perf_counter

from anyio import create_task_group

from core.app import open_lab
from core.config import load
from core.fiedler.fiedler import Fiedler
from core.fiedler.ledger import Caller
from core.fiedler.store import Store
from protos.llm import Completion, prompt
from protos.v1 import llm_pb2 as pb
from sandbox.engines.docker.engine import DockerEngine
from tests.bench.figure import Figure
from tests.labs import a_home

OPERATOR = Caller("operator", "operator", "", "")
TOOLS = {
    "read": ("Reads a file.", {"path": "string"}),
    "write": ("Writes a whole file.", {"path": "string", "content": "string"}),
    "search": ("Finds the places where a pattern occurs in the files.", {"pattern": "string"}),
    "run": ("Runs a shell command.", {"command": "string"}),
    "run_tests": ("Runs the tests of the project.", {}),
    "git_diff": ("Shows what was changed.", {}),
    "git_commit": ("Commits what was changed.", {"message": "string"}),
    "finish": ("Ends the work.", {"summary": "string"}),
}
WANTED = [
    ("Show me what is in src/main.py.", "read"),
    ("Where is the function parse_date used?", "search"),
    ("Do the tests pass?", "run_tests"),
    ("What did you change so far?", "git_diff"),
    ("Create hello.txt that says hello.", "write"),
    ("List the processes of this machine.", "run"),
    ("Save your changes to git with the message 'Fix the date'.", "git_commit"),
    ("Everything is done: end the work.", "finish"),
    ("Open README.md and tell me what it says.", "read"),
    ("Find every TODO in the code.", "search"),
]


async def run() -> list[Figure]:
    """All of it, for the model that a new lab would use."""
    store = Store.locate()
    if store is None or not store.installed():
        return []
    with a_home(images=["llama"]) as home, home.locked():
        async with open_lab(home, load(home)) as lab:
            fiedler = lab.services.fiedler
            assert fiedler is not None
            name = fiedler.models()[0].model
            began = perf_counter()
            await ask(fiedler, prompt("Say yes."), 1)
            loaded = perf_counter() - began
            read = await reading(fiedler)
            written = await writing(fiedler, 1)
            together = await writing(fiedler, 2)
            right = await choosing(fiedler)
            (sandbox,) = (str(each["name"]) for each in lab.dispatcher.sandboxes())
            async with DockerEngine(home.lab).adopt(sandbox) as adopted:
                adopted.leave()
                memory = (await adopted.usage()).memory_bytes / 1e6
    return [
        Figure(f"{name}: first question to first answer, from nothing", loaded, "s"),
        Figure(f"{name}: a prompt is read", read, "tokens/s"),
        Figure(f"{name}: an answer is written", written, "tokens/s"),
        Figure(f"{name}: two answers side by side, together", together, "tokens/s"),
        Figure(f"{name}: memory of its sandbox", memory, "MB"),
        Figure(f"{name}: the right one of {len(TOOLS)} tools, of {len(WANTED)}", right, ""),
    ]


async def ask(fiedler: Fiedler, request: pb.CompleteRequest, max_tokens: int) -> tuple[Completion, float, float]:
    """The answer, and the seconds to its first piece and to its end."""
    request.sampling.max_tokens = max_tokens
    request.sampling.seed = 1
    completion, began, first = Completion(), perf_counter(), 0.0
    async with aclosing(fiedler.complete(request, OPERATOR)) as events:  # type: ignore[type-var]
        async for each in events:
            first = first or perf_counter() - began
            completion.take(each)
    return completion, first, perf_counter() - began


async def reading(fiedler: Fiedler) -> float:
    """Tokens of a prompt a second."""
    lines = "\n".join(f"def function_{number}(value): return value * {number} + 1" for number in range(40))
    completion, first, _ = await ask(fiedler, prompt(f"{lines}\nWhat is this?"), 1)
    return (completion.usage.input_tokens - completion.usage.cached_tokens) / first


async def writing(fiedler: Fiedler, side_by_side: int) -> float:
    """Tokens of answers a second."""
    made, spans = 0, []

    async def one(number: int) -> None:
        nonlocal made
        completion, first, whole = await ask(fiedler, prompt(f"Count from {number} to 1000, in words."), 100)
        made += completion.usage.output_tokens
        spans.append(whole - first)

    async with create_task_group() as tasks:
        for number in range(side_by_side):
            tasks.start_soon(one, number)
    return made / max(spans)


async def choosing(fiedler: Fiedler) -> int:
    """How often it chooses the right tool, with a call that can be used."""
    right = 0
    for question, wanted in WANTED:
        request = prompt(question, system="You work on a program in the directory where you are.")
        for name, (description, fields) in TOOLS.items():
            schema = {
                "type": "object",
                "properties": {field: {"type": kind} for field, kind in fields.items()},
                "required": [*fields],
                "additionalProperties": False,
            }
            request.tools.add(name=name, description=description, input_schema=json.dumps(schema))
        completion, _, _ = await ask(fiedler, request, 100)
        right += [each.name for each in completion.tool_calls] == [wanted]
    return right
