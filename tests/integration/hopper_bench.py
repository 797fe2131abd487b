"""Hopper at work in this process: a real Fiedler before a model server of ours, files and bus in memory."""

import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after

from core.fiedler.ledger import Caller
from core.fiedler.money import picodollars
from core.fiedler.settings import Model
from periphery.hopper import Hopper
from periphery.hopper.mad import HAND_OVER_S, Worked
from protos.llm import Llm
from protos.mad import Context, Verdict
from protos.tools import Call
from protos.tree import members
from protos.v1 import llm_pb2 as pb
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from protos.v1.session_pb2 import Assignment, Outcome
from tests.model_server import ModelServer, Play, Request, Script, model_server
from tests.orchestras import Hall, a_model, hall
from tests.unit.mcnamara.lab import MemoryBus, MemoryFiles, packed, write

CALLER = Caller("run-1", "hopper", "c", "run-1", "run:run-1")
MODEL = a_model(max_tokens=4000, context_tokens=100_000, bytes_per_token=3)

# A small library with a seeded fault, and the test that shows it.
BUGGY = {
    "calc.py": "def mean(values):\n    return sum(values) / (len(values) - 1)\n",
    "test_calc.py": "from calc import mean\n\n\ndef test_mean():\n    assert mean([1, 2, 3]) == 2\n\n\ntest_mean()\n",
}
FAST = "for each in test_*.py; do python3 -S $each || exit 1; done"  # starting pytest takes a second on a busy machine
PLENTY_S = 240.0  # of which the tests before may take a quarter
WRONG, RIGHT = "(len(values) - 1)", "len(values)"


def acts(*calls: tuple[str, Mapping[str, Any]], text: str = "") -> Play:
    """An answer that calls tools."""
    return Play(text=text, calls=[(name, json.dumps(arguments)) for name, arguments in calls])


def finish(summary: str = "Divided by the number of values.", *, done: bool = True) -> Play:
    """An answer that ends the work."""
    return acts(("finish", {"summary": summary, "done": done}))


def mend() -> tuple[str, dict[str, Any]]:
    """The call that mends `BUGGY`."""
    return ("edit", {"path": "calc.py", "old": WRONG, "new": RIGHT})


def results(request: Request) -> list[str]:
    """What came of the tools' calls so far, as the model was shown it."""
    return [each["content"] for each in request.body["messages"] if each["role"] == "tool"]


def said(request: Request) -> str:
    """Everything that the model was shown."""
    return json.dumps(request.body["messages"], ensure_ascii=False)


@dataclass
class Port(Llm):
    """Fiedler with one caller's account."""

    hall: Hall

    def complete(self, request: pb.CompleteRequest) -> AsyncIterator[pb.CompletionEvent]:
        return self.hall.fiedler.complete(request, CALLER)

    async def embed(self, request: pb.EmbedRequest) -> pb.EmbedReply:
        return await self.hall.fiedler.embed(request, CALLER)

    async def models(self) -> Sequence[pb.Model]:
        return self.hall.fiedler.models()

    async def costs(self, by: str = "model", *, since: float = 0.0) -> pb.CostsReply:
        return await self.hall.fiedler.ledger.report(by, CALLER, since=since)


class TalkingBus(MemoryBus):
    """Remembers what is said, events among it, with a sequence as a journal has."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: Callable[[Message], None] = lambda event: None

    async def report(self, events: Iterable[Message]) -> None:
        for each in events:
            self._append(each)
            self.events.append(each)
            self.heard(each)

    def say(self, text: str, *, sender: str = "operator") -> Message:
        """A remark."""
        remark = Message(id=f"remark-{len(self.messages)}", conversation="c", kind=KIND_PROSE, text=text, sender=sender)
        self._append(remark)
        return remark

    async def history(self, conversation: str, *, after: int = 0, limit: int = 100) -> Sequence[Message]:
        return [each for each in self.messages if each.sequence > after][:limit]

    def _append(self, message: Message) -> None:
        message.sequence = len(self.messages) + 1
        self.messages.append(message)


@dataclass
class Done:
    """What came of a call."""

    worked: Worked
    verdict: Verdict
    events: list[Message]
    changed: dict[str, bytes] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        return Outcome.Name(self.verdict.outcome).removeprefix("OUTCOME_").lower()

    def told(self, what: str) -> list[str]:
        """The texts of one kind of progress."""
        return [each.text for each in self.events if json.loads(each.data or "{}").get("what") == what]

    def fields(self, what: str) -> list[dict[str, Any]]:
        """The fields of one kind of progress."""
        found = [json.loads(each.data or "{}") for each in self.events]
        return [each for each in found if each.get("what") == what]


@dataclass
class Bench:
    """Hopper, and everything it can reach."""

    place: Path
    server: ModelServer
    hall: Hall
    files: MemoryFiles = field(default_factory=MemoryFiles)
    bus: TalkingBus = field(default_factory=TalkingBus)

    async def work(
        self,
        tree: Mapping[str, str | bytes] | str,
        *,
        goal: str = "The mean of three values is wrong: mend it.",
        within_s: float = 90,
        agent_s: float = 0,
        test: str = FAST,
        **arguments: Any,
    ) -> Done:
        """Calls `work`; `agent_s` is what the agent has of the time. The tests before and after it have plenty."""
        call = self.call(PLENTY_S if agent_s else 0)
        if agent_s:
            self._shorten(call, agent_s)
        with fail_after(within_s):
            worked = await Hopper(self.place / "sandbox").work(
                call, source=self.keep(tree), goal=goal, test=test, **arguments
            )
        verdict = call.ctx.verdict
        assert [each.name for each in verdict.artifacts] == ["changes.tar", "deleted.json"]
        changes, deleted = (self.files.blobs[each.digest] for each in verdict.artifacts)
        changed = {each.name: b"".join(each.chunks) or each.target.encode() for each in members([changes])}
        return Done(worked, verdict, self.bus.events, changed, json.loads(deleted))

    async def test(self, tree: Mapping[str, str | bytes], **arguments: Any) -> Any:
        """Calls `test`."""
        with fail_after(60):
            return await Hopper(self.place / "sandbox").test(self.call(), source=self.keep(tree), **arguments)

    def _shorten(self, call: Call, agent_s: float) -> None:
        """Moves the deadline once the tests before have ended: behind the agent's time and what is kept for the end."""
        began = time.time()

        def hear(event: Message) -> None:
            fields = json.loads(event.data or "{}")
            if fields.get("what") == "tests" and fields["when"] == "before":
                tests_s = time.time() - began  # and some of what came before them
                call.ctx.assignment.deadline = time.time() + agent_s + HAND_OVER_S + 2 * tests_s

        self.bus.heard = hear

    def keep(self, tree: Mapping[str, str | bytes] | str) -> str:
        """The digest of a packed tree."""
        if isinstance(tree, str):
            return tree
        folder = Path(tempfile.mkdtemp(dir=self.place))
        return self.files.keep(packed(write(folder, tree)))

    def call(self, seconds: float = 0) -> Call:
        """A call as a tool gets it; `seconds` is what the run has."""
        deadline = time.time() + seconds if seconds else 0
        assignment = Assignment(participant="hopper", run="run-1", conversation="c", deadline=deadline)
        ctx = Context(bus=self.bus, files=self.files, assignment=assignment, llm=Port(self.hall))
        return Call(Message(id="m", conversation="c", kind=KIND_CALL), ctx)


def python(place: Path) -> str:
    """A folder with a `python3` whose pytest loads no plugins: ours take a second."""
    folder = place / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "python3"
    program.write_text(f'#!/bin/sh\nPYTEST_DISABLE_PLUGIN_AUTOLOAD=1 exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(folder)


@asynccontextmanager
async def bench(
    script: Script | Sequence[Play] | Play,
    place: Path,
    *,
    model: Model = MODEL,
    usd: float | None = None,
    tokens: int | None = None,
    failures: int = 5,
) -> AsyncIterator[Bench]:
    """A bench with one model, what it may cost, and after how many failures it rests."""
    async with (
        model_server(script) as server,
        hall(server, place, {"one": model}, default="one", failures=failures) as opened,
    ):
        cap = None if usd is None else picodollars(usd)
        await opened.ledger.open_account("run:run-1", cap_usd=cap, cap_tokens=tokens)
        with pytest.MonkeyPatch.context() as patch:  # the commands shall find the Python that has pytest
            patch.setenv("PATH", os.pathsep.join([python(place), str(Path(sys.executable).parent), os.environ["PATH"]]))
            yield Bench(place, server, opened)
