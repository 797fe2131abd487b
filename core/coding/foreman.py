"""The foreman has code written by agents that nobody trusts, and finds out for himself what it is worth.

    the goal ─▶ tests of the untouched tree, in a clean sandbox ───────────────┐
            └─▶ K attempts side by side, each an agent in a sandbox of its own  │
                   │ the files that came out                                    │
                   ▼                                                            ▼
                the patch, computed and reviewed here ─▶ the proof: the original tree plus only
                                                         the patch, in another clean sandbox ─▶ the best
                                                         and once more with tests that must fail

He is a MAD of the core and a run like any other: what he asks of Hopper are calls in conversations within his own, with
ids made of his message's. So a core that dies in the middle is followed by one that asks the same again, and gets the
answers that were given meanwhile. He reads no code and asks no model: everything here is bytes, rules and evidence.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, cast

from anyio import Lock, create_task_group, from_thread, to_thread
from pydantic import Field
from typing_extensions import TypedDict

from core.coding.answers import claimed, ended, fitting, parsed, result_of_test, worked
from core.coding.asked import AGENTS, DEFAULT_AGENT, GOAL_BLOB_BYTES, REMARK_CHARACTERS, check_goal, image_of
from core.coding.changes import open_changes, restored
from core.coding.controls import judged, to_watch
from core.coding.evidence import Attempt, TestResult, as_json, best, missing_tests, outcome_of
from core.coding.patch import Patch, render
from core.fiedler.store import NO_MODEL
from core.run import Outcome
from protos.blobs import CHUNK_BYTES, read, store
from protos.errors import Error, InvalidArgument, NotFound
from protos.ids import id_from
from protos.llm import Llm
from protos.mad import Files
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, KIND_REPLY, Blob, Message, Terms
from protos.v1.session_pb2 import Outcome as WireOutcome

HAND = "hopper"  # the eMAD that works and tests in a sandbox
MOST_ATTEMPTS = 8
CHANGES, DELETED, GOAL = "changes.tar", "deleted.json", "goal.txt"
PROOF_SHARE, PROOF_S = 0.25, 600.0  # of the time that is left: kept back for the proof, and at most so much
DELETED_BYTES, RESULT_BYTES = 4 * 1024 * 1024, 1024 * 1024
QUESTION_BYTES = 16_000  # of a question's arguments: a message carries 16 KiB
SENT_BACK = "An earlier change for this goal is in the working tree. A person has read it and sent it back, saying:"
NO_HAND = f"Name the folder of {HAND} in `emads` of madlab.toml, build its image, and start the lab again."
NO_RESULT = "It answered with something that is no result."
Agent = Annotated[str, Field(json_schema_extra={"enum": ["", *AGENTS]})]  # empty: the default


class PatchSize(TypedDict):
    """A patch in numbers, and where it is."""

    files: int
    added: int
    removed: int
    blob: str


class Coded(TypedDict):
    """What has come of a goal."""

    outcome: str
    reason: str
    summary: str
    patch: PatchSize
    model: str


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    call: Call
    source: Blob
    goal: str
    whole_goal: tuple[Blob, ...]  # where it is too long for a message; `goal` is how it begins
    test: str
    model: str
    agent: str
    begun: tuple[Blob, ...] = ()  # changes.tar and deleted.json of the run that this one goes on from
    remark: str = ""  # of the person who sent that back

    @property
    def deadline(self) -> float:
        """Seconds since the epoch."""
        return self.call.ctx.assignment.deadline or time.time() + 24 * 3600

    @property
    def image(self) -> str:
        """Whose programs the sandboxes have."""
        return self.call.message.terms.image or image_of(self.agent)


@dataclass
class Came:
    """The files that came out of an attempt, as they are proved and kept."""

    patch: Patch
    changes: Blob  # as they were taken in here: what was refused is not among them
    deleted: Blob
    original: tuple[Blob, Blob] | None = None  # both with the tests as they were, where it changes any


class Foreman:
    """Has code written in sandboxes, proves the patch in a clean one, and keeps the best."""

    @tool(effects="write", idempotent=True, steerable=True)
    async def code(
        self,
        call: Call,
        *,
        source: str,
        goal: str,
        name: str = "",
        test: str = "",
        model: str = "",
        agent: Agent = DEFAULT_AGENT,
        attempts: int = 1,
        base: str = "",
        changes: str = "",
        deleted: str = "",
        remark: str = "",
        repository: str = "",
        resumes: str = "",
        goal_blob: str = "",
    ) -> Coded:
        """Has `goal` reached in the attached tree `source` and returns the best patch, proved or not.

        `test` is the command that tests the tree (empty: it is detected), `model` an alias (empty: the lab's default),
        `agent` who writes, `attempts` how many tries are made side by side, `name` and `base` what the tree is called
        and the commit it was taken from, for people. `changes` and `deleted` are what an earlier run on the same tree
        had come to, which is gone on from; `remark` is what the person says who sent that back. `repository` is the
        directory on the lab's machine that the tree was taken from, so that the patch finds back there; no worker is
        told of it. `resumes` is the run that this one goes on from, by which each is shown with the other. Where the
        goal is too long for a message, `goal_blob` is all of it, an attached text that agents are given, and `goal` is
        how it begins, for people.
        """
        attached = {each.digest: each for each in call.blobs}
        missing = [each for each in (source, changes, deleted, goal_blob) if each and each not in attached]
        if missing or not source or bool(changes) != bool(deleted):
            raise InvalidArgument(
                "source, changes, deleted, goal_blob: attach what you name.", next="Attach each blob to the call."
            )
        begun = tuple(_named(attached[each], name) for each, name in ((changes, CHANGES), (deleted, DELETED)) if each)
        check_goal(goal)
        if not 1 <= attempts <= MOST_ATTEMPTS:
            raise InvalidArgument(f"attempts: 1 to {MOST_ATTEMPTS} are made.", next="Choose fewer.")
        if len(remark) > REMARK_CHARACTERS:
            raise InvalidArgument(f"remark: it has at most {REMARK_CHARACTERS} characters.", next="Say it shorter.")
        if model:
            await _check_model(call.ctx.llm, model)
        whole = (_named(attached[goal_blob], GOAL),) if goal_blob else ()
        for each in whole:
            await _check_text(call.ctx.files, each)
        work = _Work(Job(call, attached[source], goal, whole, test, model, agent or DEFAULT_AGENT, begun, remark))
        try:
            return await work.done(attempts)
        except ExceptionGroup as group:  # several were told the same at once
            told, others = group.split(Error)
            if told is None or others is not None:
                raise
            raise _first_of(told) from None


@dataclass
class _Work:
    """One goal on its way."""

    job: Job
    before: TestResult | None = None
    before_trouble: str = ""
    untouched: TestResult | None = None  # the same with controls
    came: dict[int, Came] = field(default_factory=dict)
    measuring: Lock = field(default_factory=Lock)

    async def done(self, attempts: int) -> Coded:
        notes = await self._plan() if attempts > 1 else ""
        tries = [Attempt(number) for number in range(1, attempts + 1)]
        async with create_task_group() as tasks:
            tasks.start_soon(self._test_before)
            for each in tries:
                tasks.start_soon(self._try, each, notes)
        async with create_task_group() as tasks:
            if self.came:
                tasks.start_soon(self._test_untouched)
            for each in tries:
                tasks.start_soon(self._prove, each)
        async with create_task_group() as tasks:
            for each in tries:
                if each.proved:
                    tasks.start_soon(self._try_control, each)
        chosen = best(tries)
        if attempts > 1 and chosen.files:
            await self._review(chosen)
        return await self._hand_over(chosen, [each for each in tries if each is not chosen])

    # --- what is asked of Hopper

    async def _test_before(self) -> None:
        """The untouched tree, tested: what there was to begin with."""
        answer = await self._ask("before", "test", {"command": self.job.test}, (), share=0.5)
        if isinstance(answer, str):
            self.before_trouble = answer
        else:
            self.before = result_of_test(answer)

    async def _plan(self) -> str:
        """What a planner proposes: for several developers, so that they do not all begin with nothing."""
        notes = "Read what matters for the goal, change nothing, and finish with a plan."
        given = self._work_arguments("planner", notes)
        answer = await self._ask("plan", "work", given, (), share=0.2)
        return "" if isinstance(answer, str) else str(answer.get("summary", ""))[:4000]

    async def _try(self, attempt: Attempt, notes: str) -> None:
        """Has an agent work, and computes the patch of what came out."""
        several = f"You are developer {attempt.number} of several; choose your own way. " if notes else ""
        plan = f"{several}A planner proposes:\n{notes}" if notes else ""
        label = str(attempt.number)
        remarks = await self._remarks() if notes else ""
        sent_back = f"{SENT_BACK}\n{self.job.remark}\n" if self.job.remark else ""
        given = self._work_arguments("developer" if notes else "", f"{sent_back}{plan}\n{remarks}".strip())
        begun = self.job.begun
        if begun:
            given["changes"] = begun[0].digest
        message = await self._answer(self._question(label, "work", given, begun, share=1 - PROOF_SHARE))
        if message.kind == KIND_REPLY:
            said = await self._content(message) or {}
            attempt.worked, attempt.claimed = worked(said), claimed(said)
            attempt.reason = attempt.worked["reason"][:500]
        else:
            attempt.claimed, attempt.reason = ended(message), message.text[:500]
        await self._measure(attempt, message.blobs)

    async def _test_untouched(self) -> None:
        """The untouched tree with tests that must fail: what its test command makes of them."""
        if self.before and self.before["found"]:
            command = self.job.test or str(self.before["command"])
            answer = await self._ask("before.control", "test", {"command": command, "control": []}, (), share=0.9)
            self.untouched = None if isinstance(answer, str) else result_of_test(answer)

    async def _prove(self, attempt: Attempt) -> None:
        """The original tree plus only the patch, tested where no agent has been."""
        came = self.came.get(attempt.number)
        if came is None or not attempt.files:
            return
        attempt.proof = await self._test(f"{attempt.number}.proof", self._command, came.changes, came.deleted)
        attempt.missing = missing_tests(self.before, attempt.proof)
        if attempt.tests_changed and attempt.proved:
            command = str(attempt.proof["command"])  # as it was detected there, never as the author says
            came.original = await self._without(came, attempt.tests_changed)
            attempt.original = await self._test(f"{attempt.number}.original", command, *came.original)

    async def _try_control(self, attempt: Attempt) -> None:
        """The patched tree with tests that must fail; so, too, with the tests as they were, where they are changed."""
        came, watched = self.came[attempt.number], to_watch(self.untouched)
        ran: list[tuple[TestResult, TestResult]] = []

        async def run(label: str, plain: TestResult, changes: Blob, deleted: Blob) -> None:
            label = f"{attempt.number}.{label}"
            ran.append((plain, await self._test(label, self._command, changes, deleted, control=watched)))

        if watched and attempt.proof:
            async with create_task_group() as tasks:
                tasks.start_soon(run, "control", attempt.proof, came.changes, came.deleted)
                if came.original and attempt.original and not attempt.weakened:
                    tasks.start_soon(run, "original.control", attempt.original, *came.original)
        attempt.control = judged(self.before, self.untouched, ran)

    @property
    def _command(self) -> str:
        """The test command: what was asked for, or what was found on the untouched tree. Empty: there was none."""
        found = self.before["command"] if self.before and self.before["found"] else ""
        return self.job.test or str(found)

    async def _test(
        self, label: str, command: str, changes: Blob, deleted: Blob, *, control: Sequence[str] | None = None
    ) -> TestResult:
        given = {"command": command, "changes": changes.digest, "deleted": deleted.digest, "control": control}
        answer = await self._ask(label, "test", given, (changes, deleted), share=0.9)
        found = None if isinstance(answer, str) else result_of_test(answer)
        return found or _untested(command, answer if isinstance(answer, str) else NO_RESULT)

    async def _review(self, attempt: Attempt) -> None:
        """What a reviewer says of the best patch. It is kept beside the proof and does not outweigh it."""
        changes = self.came[attempt.number].changes
        notes = "The change to review is in the working tree. Read it, change nothing, and finish with what you think."
        given = self._work_arguments("reviewer", notes) | {"changes": changes.digest}
        answer = await self._ask("review", "work", given, [changes], share=0.5)
        attempt.review = answer if isinstance(answer, str) else str(answer.get("summary", ""))[:2000]

    def _work_arguments(self, role: str, notes: str) -> dict[str, Any]:
        job = self.job
        given = {"goal": job.goal, "test": job.test, "model": job.model, "agent": job.agent}
        if job.whole_goal:
            given["goal_blob"] = job.whole_goal[0].digest
        return given | {"role": role, "notes": notes}

    async def _remarks(self) -> str:
        """What people have said to this run before anybody was at work who could hear it."""
        asked, bus = self.job.call.message, self.job.call.ctx.bus
        said = await bus.history(asked.conversation, after=asked.sequence, limit=1000)
        heard = [each.text for each in said if each.kind == KIND_PROSE and not each.recipient]
        return "\n".join(f"The operator remarks: {each}" for each in heard)

    async def _ask(
        self, label: str, tool: str, arguments: Mapping[str, Any], blobs: Sequence[Blob], *, share: float
    ) -> Mapping[str, Any] | str:
        """What Hopper returned, or the sentence that says why it did not."""
        answer = await self._answer(self._question(label, tool, arguments, blobs, share=share))
        if answer.kind != KIND_REPLY:
            return answer.text
        found = await self._content(answer)
        return NO_RESULT if found is None else found

    async def _answer(self, question: Message) -> Message:
        """
        Raises:
            NotFound: the lab has no Hopper, or something that was attached is gone.
        """
        try:
            return await self.job.call.ctx.bus.ask(question)
        except NotFound as error:
            if HAND not in error.message:
                raise
            raise NotFound(f"Nobody is here to write and test the code. {error.message}", next=NO_HAND) from None

    def _question(
        self, label: str, tool: str, arguments: Mapping[str, Any], blobs: Sequence[Blob], *, share: float
    ) -> Message:
        asked, job = self.job.call.message, self.job
        left = job.deadline - time.time()
        return Message(
            id=id_from(asked.id, label),
            conversation=f"{asked.conversation}/{label}",
            recipient=HAND,
            kind=KIND_CALL,
            tool=tool,
            data=fitting({"source": job.source.digest} | dict(arguments), QUESTION_BYTES),
            blobs=[job.source, *blobs, *(job.whole_goal if "goal" in arguments else ())],
            terms=Terms(seconds=max(1.0, left * share, left - PROOF_S), image=job.image),
        )

    async def _content(self, reply: Message) -> Mapping[str, Any] | None:
        """The result of a call, however long; None where there is none that can be read."""
        if reply.data:
            return parsed(reply.data)
        blob = next((each for each in reply.blobs if each.name == "result.json"), None)
        if blob is None:
            return None
        try:
            return parsed((await read(self.job.call.ctx.files, blob, RESULT_BYTES)).decode())
        except (Error, UnicodeDecodeError):
            return None

    # --- what is computed here

    async def _measure(self, attempt: Attempt, blobs: Sequence[Blob]) -> None:
        """The patch of an attempt, from the files that came out."""
        named = {each.name: each for each in blobs}
        changes, deleted = named.get(CHANGES), named.get(DELETED)
        if changes is None or deleted is None:
            return
        files = self.job.call.ctx.files
        try:
            gone = _names(await read(files, deleted, DELETED_BYTES))
            async with self.measuring:  # one at a time: what a hostile one takes is taken once
                with TemporaryFile() as clean:
                    patch, gone = await to_thread.run_sync(
                        self._compute, _stream(files, changes), gone, clean, abandon_on_cancel=False
                    )
                    kept = await files.put(_from(clean), name=CHANGES, media_type="application/x-tar")
        except Error as error:  # no honest worker hands that over
            attempt.claimed, attempt.reason = Outcome.FAILED, f"What came out was refused: {error.message}"[:500]
            return
        attempt.files, attempt.added, attempt.removed = len(patch.files), patch.added, patch.removed
        attempt.refused, attempt.unlisted, attempt.flags = patch.refused, patch.unlisted, patch.flags
        attempt.tests_changed = sorted({*patch.tests_changed, *patch.steers_tests})
        self.came[attempt.number] = Came(patch, kept, await self._store_names(gone))

    def _compute(
        self, changes: Generator[bytes, None, None], gone: list[str], clean: IO[bytes]
    ) -> tuple[Patch, list[str]]:
        """In a thread: the patch, and into `clean` the changed files that it takes over."""
        source = _stream(self.job.call.ctx.files, self.job.source)
        with closing(source), closing(changes), open_changes(source, changes, gone) as found:
            patch = render(found)
            clean.writelines(found.pack())
            return patch, found.deleted

    async def _without(self, came: "Came", paths: Sequence[str]) -> tuple[Blob, Blob]:
        """The files of an attempt without some of them: those stay as they were."""
        files = self.job.call.ctx.files
        gone = [each for each in _names(await read(files, came.deleted, DELETED_BYTES)) if each not in paths]
        with TemporaryFile() as rest:
            changes = _stream(files, came.changes)
            await to_thread.run_sync(lambda: rest.writelines(restored(changes, paths)))
            kept = await files.put(_from(rest), name=CHANGES, media_type="application/x-tar")
        return kept, await self._store_names(gone)

    async def _store_names(self, names: Sequence[str]) -> Blob:
        files = self.job.call.ctx.files
        return await store(files, _json(names), name=DELETED, media_type="application/json")

    async def _hand_over(self, chosen: Attempt, others: Sequence[Attempt]) -> Coded:
        """Fixes the verdict, with everything that came of the best attempt as artifacts of the run."""
        call, came = self.job.call, self.came.get(chosen.number)
        outcome, reason = outcome_of(chosen)
        evidence = as_json(self.before, chosen, others) | {
            "source": self.job.source.digest,
            "model_alias": self.job.model,
        }
        if self.before_trouble:
            evidence["tests_before_trouble"] = self.before_trouble
        files, verdict = call.ctx.files, call.ctx.verdict
        diff = await store(files, came.patch.diff if came else b"", name="patch.diff", media_type="text/x-diff")
        verdict.artifacts.append(diff)
        if came is not None:
            verdict.artifacts.extend((came.changes, came.deleted))
            evidence["patch_report"] = came.patch.report()
        size: PatchSize = {
            "files": chosen.files,
            "added": chosen.added,
            "removed": chosen.removed,
            "blob": diff.digest,
        }
        evidence["patch"] = size
        told = _json({**evidence, "goal": self.job.goal})  # a person's words: in a file, which can be forgotten
        report = await store(files, told, name="evidence.json", media_type="application/json")
        verdict.artifacts.append(report)
        verdict.outcome, verdict.reason = WireOutcome.Value(f"OUTCOME_{outcome.upper()}"), reason
        verdict.evidence |= evidence
        return {
            "outcome": str(outcome),
            "reason": reason,
            "summary": evidence["summary"],
            "patch": size,
            "model": evidence["model"],
        }


async def _check_model(llm: Llm, alias: str) -> None:
    """
    Raises:
        InvalidArgument: nothing that writes has that name. Told before there is a sandbox that would find it out.
    """
    known = [each.alias for each in await llm.models() if each.chat]
    if alias not in known:
        there_are = f"There are: {', '.join(known)}." if known else NO_MODEL
        raise InvalidArgument(f"model: there is no {alias[:64]!r} to write code with.", next=there_are)


async def _check_text(files: Files, blob: Blob) -> None:
    """
    Raises:
        InvalidArgument: it is no text, or nothing, or longer than an agent is given.
    """
    try:
        if not (await read(files, blob, GOAL_BLOB_BYTES)).decode().strip():
            raise InvalidArgument("goal_blob: it is empty.", next="Say what shall be reached.")
    except UnicodeDecodeError:
        raise InvalidArgument("goal_blob: it is no text in UTF-8.", next="Save it as UTF-8.") from None


def _first_of(group: ExceptionGroup[Error]) -> Error:
    """The first error of a group of groups."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first


def _named(blob: Blob, name: str) -> Blob:
    return Blob(digest=blob.digest, size=blob.size, media_type=blob.media_type, name=name)


def _untested(command: str, why: str) -> TestResult:
    """A test run that did not come about, as one that did not pass."""
    return {
        "command": command,
        "detected": False,
        "found": True,
        "passed": False,
        "exit_code": -1,
        "seconds": 0.0,
        "timed_out": False,
        "tail": why[:4000],
        "counts": None,
    }


def _names(content: bytes) -> list[str]:
    """The list in a deleted.json; a worker wrote it, so it may be anything.

    Raises:
        InvalidArgument: it is no list of names.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArgument("deleted.json is no list of names.")
    return found


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()  # in ASCII: a name may be no UTF-8


async def _from(file: IO[bytes]) -> AsyncIterator[bytes]:
    """What was written to a file, from its start."""
    file.seek(0)
    while chunk := await to_thread.run_sync(file.read, CHUNK_BYTES):
        yield chunk


def _stream(files: Files, blob: Blob) -> Generator[bytes, None, None]:
    """A blob's bytes for a thread that computes with them, chunk by chunk from the event loop."""
    chunks = cast("AsyncGenerator[bytes, None]", files.get(blob.digest))

    async def following() -> bytes:
        return await anext(chunks, b"")

    try:
        while chunk := from_thread.run(following):
            yield chunk
    finally:
        from_thread.run(chunks.aclose)
