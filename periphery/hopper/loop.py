"""Hopper's own agent: asks a model for its next calls, carries them out, tells it what came of them; until it ends.

::

    remarks ─▶ conversation ─▶ model ─▶ calls ─▶ toolbox ─▶ results ─┐
                    ▲                     │                           │
                    └── watch: in circles? ── steps left? ── finish? ─┘
                                                               └─▶ the tests run: does the claim hold?

A step is one answer of the model. The deadline is not the loop's: Hopper cancels it, and what is in the files by then
counts.
"""

import json
from errno import EDQUOT, ENOSPC

from periphery.hopper import editing, prompts
from periphery.hopper.agent import Ending, Task
from periphery.hopper.asking import ask, model_of, tell_model
from periphery.hopper.conversation import Conversation, Result
from periphery.hopper.detection import Project
from periphery.hopper.printable import printable
from periphery.hopper.redness import shows_fault
from periphery.hopper.remarks import Remarks
from periphery.hopper.testing import TestResult
from periphery.hopper.toolbox import OFFERS, Toolbox
from periphery.hopper.tree import Tree
from periphery.hopper.watch import Watch
from protos.errors import InvalidArgument
from protos.llm import Completion
from protos.v1.llm_pb2 import FINISH_LENGTH, FINISH_REFUSED, BrokenToolCall, ToolCall

CALLS = 16  # of one answer
CLAIMS = 3  # of being done, with tests that fail
IDLE_STEPS = 20  # without a change, before the model is asked to decide
LAST_STEPS = 5


class Own:
    """The agent `hopper`."""

    def __init__(self, tree: Tree, project: Project, before: TestResult | None, *, given: bool) -> None:
        self._tree = tree
        self._project = project
        self._before = before
        self._given = given
        self.red = False  # a test failed while nothing but tests was changed

    async def work(self, task: Task) -> Ending:
        """Works until the model ends it, goes in circles, or has no steps left."""
        toolbox = Toolbox(task, self._tree, self._project, self._given)
        try:
            return await _Work(task, toolbox, self._before).run()
        finally:
            self.red = toolbox.red


class _Work:
    """One task on its way."""

    def __init__(self, task: Task, toolbox: Toolbox, before: TestResult | None) -> None:
        self._task = task
        self._toolbox = toolbox
        self._before = before
        self._remarks = Remarks(task.call)
        self._watch = Watch()
        self._claims = 0
        self._asked_for_red = False
        self._idle = 0  # steps since the last change

    async def run(self) -> Ending:
        task, toolbox = self._task, self._toolbox
        model = await model_of(task.llm, task.model)
        listing = editing.read(task.root, ".")
        opening = prompts.opening(task, toolbox.project, self._before, listing)
        conversation = Conversation(prompts.system(task.role), opening, OFFERS, model)
        while task.ledger.steps < task.max_steps:
            for each in await self._remarks.fresh():
                conversation.say(prompts.REMARK.format(text=each))
            completion = await ask(task, conversation.request(task.model))
            task.ledger.steps += 1
            await tell_model(task)
            if words := printable(completion.text).strip():
                await task.call.progress(words[:2000], what="note")
            if completion.finished.reason == FINISH_REFUSED or completion.refusal:
                await self._remarks.answered(acted=False)
                said = completion.refusal or completion.text
                return Ending("failed", said.strip(), "The model refuses to work on this.")
            results, more = await self._act(completion)
            await self._remarks.answered(acted=any(not each.failed for each in results))
            if toolbox.finished is not None:
                ending, objection = await self._judge()
                unheard = await self._remarks.fresh()
                if ending is not None and not unheard:
                    return ending
                more += [objection] if objection else []
                more += [prompts.REMARK.format(text=each) for each in unheard]
            if self._watch.stuck:
                return Ending("stuck", self._said(), self._watch.stuck)
            conversation.answered(completion, results, [*more, *(await self._hints())])
        return Ending("stuck", self._said(), f"Its {task.max_steps} steps are used up. It needs more steps.")

    async def _act(self, completion: Completion) -> tuple[list[Result], list[str]]:
        """Carries out what the model asks for; returns the results, and what else it should be told."""
        results = [_unusable(each) for each in completion.broken_tool_calls]
        for each in completion.broken_tool_calls:
            self._watch.broke(each.problem)
        for place, call in enumerate(completion.tool_calls):
            if self._toolbox.finished is not None:
                results.append(Result(call, "Not done: you had finished.", failed=True))
            elif place >= CALLS:
                results.append(Result(call, prompts.TOO_MANY, failed=True))
            else:
                results.append(await self._use(call))
        words = []
        if completion.finished.reason == FINISH_LENGTH:
            words.append(prompts.CUT_OFF)
        elif not results:
            self._watch.said_only()
            words.append(prompts.NO_CALL)
        return _with_own_ids(results), words

    async def _use(self, call: ToolCall) -> Result:
        try:
            text = await self._toolbox.use(call.name, json.loads(call.arguments or "{}"))
            failed = False
        except InvalidArgument as error:
            text, failed = f"{error.message} {error.next}".strip(), True
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise  # that is for Hopper to say
            text, failed = f"{call.name} could not be done: {error.strerror}.", True
        except (ValueError, TypeError) as error:  # a NUL in a command, half a character, 1.0 for 1
            text, failed = f"{call.name} could not be done: {error}.", True
        text = printable(text)
        changed = self._toolbox.changed and not failed
        if not changed and self._watch.knows(call.name, call.arguments, text):
            changed = await self._toolbox.moved()  # by a command, perhaps
        self._idle = 0 if changed else self._idle
        warning = self._watch.did(call.name, call.arguments, text, failed=failed, changed=changed)
        return Result(call, f"{text}\n\n{warning}" if warning else text, failed)

    async def _judge(self) -> tuple[Ending | None, str]:
        """What becomes of a `finish`: an ending, or what the model has to hear."""
        finish, self._toolbox.finished = self._toolbox.finished, None
        assert finish is not None
        if not finish.done:
            return Ending("failed", finish.summary, "The agent says that it cannot meet the goal."), ""
        if self._task.role in prompts.READERS or not self._toolbox.project.test:
            return Ending("done", finish.summary), ""
        result = self._toolbox.tests or await self._toolbox.test()
        if result["found"] and not result["passed"]:
            self._claims += 1
            if self._claims >= CLAIMS:
                reason = "It says that it is done, again and again, and the tests fail."
                return Ending("partial", finish.summary, reason, result), ""
            return None, prompts.not_green(result, CLAIMS - self._claims - 1)
        if await self._needs_red(result):
            self._asked_for_red = True
            return None, prompts.NO_RED
        return Ending("done", finish.summary, tests=result), ""

    async def _needs_red(self, green: TestResult) -> bool:
        """Whether to ask, once, for a test that shows the fault."""
        toolbox, task = self._toolbox, self._task
        if toolbox.red or self._before is None or not self._before["passed"] or task.role not in ("", "developer"):
            return False
        given, until = toolbox.given, task.deadline
        toolbox.red = await shows_fault(toolbox.tree, toolbox.project, green, given=given, until=until)
        return not toolbox.red and not self._asked_for_red

    async def _hints(self) -> list[str]:
        self._idle += 1
        left = self._task.max_steps - self._task.ledger.steps
        hints = []
        if left == LAST_STEPS:
            hints.append(prompts.FEW_STEPS.format(left=left))
        if self._idle % IDLE_STEPS == 0 and self._task.role not in prompts.READERS and not await self._toolbox.moved():
            hints.append(prompts.NOTHING_CHANGED.format(steps=self._idle))
        return hints

    def _said(self) -> str:
        """What can be said of work that its agent did not end."""
        plan = "; ".join(self._toolbox.steps)
        return f"The work was not ended. The plan was: {plan}" if plan else "The work was not ended."


def _unusable(broken: BrokenToolCall) -> Result:
    """A call that could not be used, in a form that a provider takes back."""
    call = ToolCall(id=broken.call.id or "call", name=_plain(broken.call.name), arguments="{}")
    wrote = f" You wrote: {broken.call.arguments[:500]}" if broken.call.arguments not in ("", "{}") else ""
    return Result(call, f"{broken.problem}{wrote} Correct it and call again.", failed=True)


def _plain(name: str) -> str:
    """A name that every protocol takes."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in name)[:64] or "none"


def _with_own_ids(results: list[Result]) -> list[Result]:
    """With ids that are unique within the answer: some servers give all their calls the same."""
    taken: set[str] = set()
    for place, each in enumerate(results):
        if each.call.id in taken:
            each.call.id = f"{each.call.id}-{place}"
        taken.add(each.call.id)
    return results
