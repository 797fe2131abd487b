"""Hopper's tools: what a message can ask of it."""

import errno
import shutil
import time
from math import inf
from pathlib import Path

from anyio import move_on_after, to_thread
from typing_extensions import TypedDict

from periphery.hopper import prompts
from periphery.hopper.agent import OWN, Agent, Ending, Ledger, Task, adapter
from periphery.hopper.asking import model_of
from periphery.hopper.controls import Control, plant
from periphery.hopper.detection import Project
from periphery.hopper.loop import Own
from periphery.hopper.redness import shows_fault
from periphery.hopper.shell import Tell
from periphery.hopper.small import Small
from periphery.hopper.testing import TestResult, heard_tests, project_of, run_tests, tell_tests, told
from periphery.hopper.tree import Tree
from periphery.hopper.workspace import Changes
from protos.blobs import read
from protos.errors import Denied, Error, Exhausted, InvalidArgument, Unavailable
from protos.tools import Call, tool
from protos.v1.message_pb2 import Blob
from protos.v1.session_pb2 import (
    OUTCOME_FAILED,
    OUTCOME_OUT_OF_BUDGET,
    OUTCOME_OUT_OF_DISK,
    OUTCOME_PARTIAL,
    OUTCOME_STUCK,
    OUTCOME_SUCCEEDED,
    Outcome,
)

WORKSPACE = Path("/workspace")
BEFORE_S = 600.0  # for the tests before, and at most a quarter of the time there is
GOAL_BLOB_BYTES = 64 * 1024
HAND_OVER_S = 30.0  # at the end, and at most a quarter of the time there is
FULL = "The workspace is full. It needs a larger `workspace_mb`."
COMMANDS = 200  # in the result; the last ones
OUTCOMES = {
    "partial": OUTCOME_PARTIAL,
    "failed": OUTCOME_FAILED,
    "stuck": OUTCOME_STUCK,
    "out_of_budget": OUTCOME_OUT_OF_BUDGET,
}


class Command(TypedDict):
    """A command that was run."""

    command: str
    exit_code: int
    seconds: float


class Worked(TypedDict):
    """What came of the work; `changes.tar` and `deleted.json` hang on the reply."""

    outcome: str  # succeeded, partial, failed, stuck, out_of_budget or out_of_disk: as it is claimed in the end
    reason: str
    summary: str
    agent: str
    model: str
    small: bool
    steps: int
    commands: list[Command]
    tests_before: TestResult | None
    tests_after: TestResult | None
    red_first: bool
    tokens_in: int
    tokens_out: int
    usd: float
    model_seconds: float
    command_seconds: float
    loop_seconds: float


class Tested(TestResult):
    """What a tree's tests came to, and whether they told of the failures that were put among them."""

    control: Control | None


class Hopper:
    """Takes a goal and a repository, works in its sandbox, hands back what changed."""

    def __init__(self, place: Path = WORKSPACE) -> None:
        self._place = place

    @tool(effects="write", steerable=True)
    async def work(
        self,
        call: Call,
        *,
        source: str,
        goal: str,
        test: str = "",
        model: str = "",
        agent: str = "hopper",
        role: str = "",
        notes: str = "",
        changes: str = "",
        max_steps: int = 60,
        goal_blob: str = "",
    ) -> Worked:
        """Works towards a goal on a packed tree, given as the digest of an attached blob.

        `test` is the command that tests it; left out, it is detected. `agent` is hopper, small, mini-swe-agent or
        codex. `changes` is the digest of an earlier `changes.tar` to begin from, `goal_blob` of a text that stands
        instead of `goal`, which is how it begins. What was changed hangs on the reply, however the work ended.
        """
        if goal_blob:
            text = await read(call.ctx.files, Blob(digest=goal_blob, name="goal_blob"), GOAL_BLOB_BYTES)
            goal = text.decode(errors="replace")
        return await _Work(call, self._place, model, agent, role).run(
            Tree(call.ctx.files, source, self._place, _teller(call)), goal, test, notes, changes, max_steps
        )

    @tool(effects="read", idempotent=True)
    async def test(
        self,
        call: Call,
        *,
        source: str,
        command: str = "",
        changes: str = "",
        deleted: str = "",
        timeout_s: int = 600,
        control: list[str] | None = None,
    ) -> Tested:
        """Runs the tests of a packed tree, with changes on top where they are given: digests of attached blobs.

        With `control`, each of these files of tests first gets a test that must fail; an empty list means those that
        are found.
        """
        tree = Tree(call.ctx.files, source, self._place, _teller(call))
        await tree.fill()
        await tree.begin_from(changes, deleted)
        project = await project_of(tree.shell, command)
        await call.progress(_detected(project), what="note")
        seconds = max(min(float(timeout_s), _deadline(call) - time.time() - 1), 1.0)
        planted = {} if control is None else await to_thread.run_sync(plant, tree.workspace.root, control)
        result, heard = await heard_tests(tree.shell, project, planted, given=bool(command), seconds=seconds)
        noticed = sorted(planted[each] for each in heard)
        if control is None:
            await tell_tests(call, result, "clean")
        else:
            what = f"Of {len(planted)} tests that must fail, put into files of tests, {len(noticed)} were told of."
            await call.progress(what, what="note")
        call.ctx.verdict.outcome = OUTCOME_SUCCEEDED
        call.ctx.verdict.reason = told(result)
        call.ctx.verdict.evidence = {"tests_after": result}
        seen = None if control is None else Control(planted=sorted(planted.values()), noticed=noticed)
        return Tested(**result, control=seen)


class _Work:
    """One call of `work`."""

    def __init__(self, call: Call, place: Path, model: str, agent: str, role: str) -> None:
        self._call = call
        self._place = place
        self._model = model
        self._agent = agent
        self._role = role
        self._ledger = Ledger()
        self._started = time.monotonic()
        self._full = False  # the disk

    async def run(self, tree: Tree, goal: str, test: str, notes: str, changes: str, max_steps: int) -> Worked:
        call = self._call
        if self._agent not in OWN:
            adapter(self._agent)  # says at once if there is none
        deleted = next((each.digest for each in call.blobs if each.name == "deleted.json"), "") if changes else ""
        files = await tree.fill()
        await tree.begin_from(changes, deleted)
        project = await project_of(tree.shell, test)
        await call.progress(f"{files:,} files. {_detected(project)}", what="note", files=files)
        left = _deadline(call) - time.time()
        before = await run_tests(tree.shell, project, given=bool(test), seconds=min(BEFORE_S, left / 4))
        await tell_tests(call, before, "before")

        agent, own = await self._choose(tree, project, before, given=bool(test))
        task = Task(
            goal=goal,
            root=tree.workspace.root,
            shell=tree.shell,
            call=call,
            llm=call.ctx.llm,
            model=self._model,
            test=project.test,
            deadline=_deadline(call) - _reserve(left, before),
            max_steps=max_steps,
            notes=notes,
            role=self._role,
            failing=before["tail"] if before["found"] and not before["passed"] else "",
            ledger=self._ledger,
        )
        ending = await self._worked(agent, task)
        found = await tree.changes()
        call.ctx.verdict.artifacts += await self._hand_over(tree, found)  # first: the tests may take what time is left
        after = ending.tests
        if after is None:
            after = before if not found else await self._after(tree, project, given=bool(test))
        red = _failed(before) or bool(own and own.red)
        if after is not None and after["passed"] and not red and own is None:
            until = _deadline(call) - 1
            red = await shows_fault(tree, project, after, given=bool(test), until=until)
        worked = self._summed_up(ending, tree, before, after, red_first=red and after is not None and after["passed"])
        self._conclude(ending, worked, found)
        return worked

    async def _choose(
        self, tree: Tree, project: Project, before: TestResult, *, given: bool
    ) -> tuple[Agent, Own | None]:
        """The agent that was asked for; for a small model the one that knows what such a model can do."""
        listed = await model_of(self._call.ctx.llm, self._model)
        self._ledger.small = listed.small
        if self._agent == "hopper" and listed.small:
            self._agent = "small"
            await self._call.progress(
                f"The model {listed.alias or listed.model} is small: it is asked for one function at a time, and only "
                "what passes the tests is kept.",
                what="note",
            )
        if self._agent == "small":
            return Small(project, before, given=given), None
        if self._agent == "hopper":
            own = Own(tree, project, before, given=given)
            return own, own
        await tree.repository.ready()  # such agents expect to find one
        return adapter(self._agent), None

    async def _worked(self, agent: Agent, task: Task) -> Ending:
        """How the agent ended, or was ended."""
        ending = None
        try:
            with move_on_after(task.deadline - time.time()):
                ending = await agent.work(task)
        except Exhausted as error:
            return Ending("out_of_budget", "", _sentence(error))
        except (Unavailable, Denied, InvalidArgument) as error:
            return Ending("failed", "", f"The model cannot be used: {_sentence(error)}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._full = True
            await to_thread.run_sync(shutil.rmtree, task.shell.home, True)  # room to hand over what there is
            return Ending("failed", "", FULL)
        if ending is None:
            return Ending("out_of_budget", "", "Its time is used up. It needs more time.")
        return ending

    async def _after(self, tree: Tree, project: Project, *, given: bool) -> TestResult | None:
        """What the tests come to in the end; nothing, where no time is left for them."""
        left = _deadline(self._call) - time.time() - 1
        if left < 1:
            return None
        if not project.test:
            project = await project_of(tree.shell, "")  # the agent may have written the first tests
        result = await run_tests(tree.shell, project, given=given, seconds=min(BEFORE_S, left))
        await tell_tests(self._call, result, "after")
        return result

    async def _hand_over(self, tree: Tree, found: Changes) -> list[Blob]:
        blobs, notes = await tree.hand_over(found)
        self._full = self._full or tree.full
        notes += [f"{number:,} added files are left out: {why}" for why, number in found.left_out.items()]
        for each in notes[:20]:
            await self._call.progress(each, what="note")
        return blobs

    def _summed_up(
        self, ending: Ending, tree: Tree, before: TestResult, after: TestResult | None, *, red_first: bool
    ) -> Worked:
        ledger = self._ledger
        commands = [
            Command(command=each.command[:400], exit_code=each.exit_code, seconds=round(each.seconds, 3))
            for each in tree.shell.ran
        ]
        taken = time.monotonic() - self._started
        return Worked(
            outcome="",
            reason="",
            summary=(ending.summary or ending.reason)[:8000],
            agent=self._agent,
            model=ledger.model or self._model,
            small=ledger.small,
            steps=ledger.steps,
            commands=commands[-COMMANDS:],
            tests_before=before,
            tests_after=after,
            red_first=red_first,
            tokens_in=ledger.tokens_in,
            tokens_out=ledger.tokens_out,
            usd=ledger.usd,
            model_seconds=round(ledger.model_seconds, 3),
            command_seconds=round(tree.shell.seconds, 3),
            loop_seconds=round(max(taken - ledger.model_seconds - tree.shell.seconds, 0.0), 3),
        )

    def _conclude(self, ending: Ending, worked: Worked, found: Changes) -> None:
        """Fills the verdict: the agent's word where it does not speak for itself, what was seen where it does."""
        verdict = self._call.ctx.verdict
        verdict.outcome, verdict.reason = _outcome(ending, worked["tests_after"], found, self._role)
        if self._full:
            verdict.outcome, verdict.reason = OUTCOME_OUT_OF_DISK, FULL
        worked["outcome"] = Outcome.Name(verdict.outcome).removeprefix("OUTCOME_").lower()
        worked["reason"] = verdict.reason
        evidence = {
            key: value for key, value in worked.items() if key not in ("summary", "commands", "outcome", "reason")
        }
        if worked["tests_after"] is None:
            del evidence["tests_after"]
        verdict.evidence = {**evidence, "commands": len(worked["commands"]), "files": len(found.written)}


def _outcome(ending: Ending, after: TestResult | None, found: Changes, role: str) -> tuple[Outcome.ValueType, str]:
    if ending.how != "done":
        return OUTCOMES[ending.how], ending.reason
    if not found and role not in prompts.READERS:
        return OUTCOME_FAILED, "It says that it is done, and has changed nothing."
    if role in prompts.READERS:
        return OUTCOME_SUCCEEDED, ending.reason
    if after is None:
        return OUTCOME_PARTIAL, "It says that it is done; no time was left to run the tests."
    if _failed(after):
        return OUTCOME_PARTIAL, f"It says that it is done. {told(after)}"
    return OUTCOME_SUCCEEDED, ending.reason or told(after)


def _failed(result: TestResult) -> bool:
    return result["found"] and not result["passed"]


def _sentence(error: Error) -> str:
    return f"{error.message} {error.next}".strip()


def _teller(call: Call) -> Tell:
    async def tell(text: str, fields: dict[str, object]) -> None:
        await call.progress(text, **fields)

    return tell


def _detected(project: Project) -> str:
    return f"Tests: {project.test} ({project.why})." if project.test else project.why


def _deadline(call: Call) -> float:
    """When the call must be over, in seconds since the epoch."""
    return min((each for each in (call.ctx.assignment.deadline, call.message.deadline) if each), default=inf)


def _reserve(left: float, before: TestResult) -> float:
    """What is kept of the time for the tests in the end, and for handing over."""
    if left == inf:
        return 0.0
    return min(HAND_OVER_S, left / 4) + min(2 * before["seconds"], left / 4)
