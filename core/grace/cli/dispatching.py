"""`madlab dispatch FILE.toml`: a batch of jobs, side by side, in their order, within one budget, and once each.

    waits ──▶ what it waits for is done? ──▶ is there money left? ──▶ at work ──▶ done | failed
                      │ no: it failed                │ no
                      ▼                              ▼
                   skipped                        skipped

Nothing is remembered here: a job's id follows from what it says (`batch`), so the same file again finds what was asked
before, waits for what is still at work, and asks for the rest. Ctrl-C leaves the jobs to the lab.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Fault, Unreachable
from core.grace.cli.life import Json
from core.grace.cli.runs import pages, place
from core.grace.cli.talk import fault
from core.home import Home
from protos.errors import Error, InvalidArgument, NotFound, Unavailable
from protos.ids import id_from

if TYPE_CHECKING:
    from concurrent.futures import Future

    from core.grace.cli.batch import Batch, Job

GREEN = ("succeeded", "partial")
FAILED = 4
ENDING_S = 30.0  # from a job's answer until its run has its outcome
LOOK_S = 0.2


class State(StrEnum):
    """How a job stands."""

    WAITING = "waiting"
    AT_WORK = "at work"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


OVER = frozenset({State.DONE, State.FAILED, State.SKIPPED})


@dataclass
class Result:
    """One job, and what came of it."""

    name: str
    state: State = State.WAITING
    run: str | None = None
    outcome: str | None = None
    message: str = ""  # its id
    conversation: str = ""
    seconds: float | None = None
    usd: float = 0.0
    tokens: int = 0
    why: str = ""  # it did not go well
    data: Any = None
    held: float = field(default=0.0, repr=False)  # dollars set aside while it works
    found: bool = False  # it had been asked for before
    over: bool = field(default=False, repr=False)  # it had been answered before, too

    @property
    def is_read(self) -> bool:
        """Whether it is only being read what had come of it before."""
        return self.over and self.state is State.AT_WORK


def add_to(app: typer.Typer) -> None:
    app.command()(dispatch)


def dispatch(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The batch.")],
    round: Annotated[str, typer.Option(metavar="TEXT", help="Another round: every job anew, once.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only say what would be done, and what is wrong.")] = False,
    json: Json = False,
) -> None:
    """Run a batch of jobs: calls, scans and code, side by side and in their order. The same file again goes on."""
    from core.grace.cli.batch import read_batch

    batch = read_batch(file)
    if check:
        _check(batch, file, context.obj)
        home = None
        with suppress(NotFound):
            home = Home.find(context.obj)
        _tell(batch, _waiting(batch, round, home), json=json)
        return
    client = Client.to(context.obj)
    client.get("/api/v1/status")  # is anybody there? Asked before any job is
    home = Home.find(context.obj)
    results = _waiting(batch, round, home)
    with _shown(results) as tell:
        _Dispatch(batch, results, home, file.resolve().parent, tell, client).run()
    _tell(batch, results, json=json)
    begun = [each for each in results.values() if not each.over and each.state is not State.SKIPPED]
    if not begun and any(each.over for each in results.values()):
        screen.note("Nothing was begun: the batch had ended before. To have it done anew: --round TEXT")
    bad = [each for each in results.values() if each.state is not State.DONE]
    if bad:
        again = "change what failed, or say --round TEXT: a job that says the same is not asked for twice"
        raise Fault(
            "jobs_failed", f"{len(bad)} of {len(results)} jobs are not done: {', '.join(x.name for x in bad[:8])}",
            next=again if any(each.over for each in bad)
            else "mend what failed and give the same file again: what is done is not done twice",
        )  # fmt: skip


def _waiting(batch: "Batch", round: str, home: Home | None) -> dict[str, Result]:
    """The jobs in their order, none begun. Their ids are those of one lab; without a home there are none yet."""
    from core.grace.cli.batch import order

    return {name: Result(name, message=batch.id(home.lab, round, name) if home else "") for name in order(batch.jobs)}


def _check(batch: "Batch", file: Path, place: str | None) -> None:
    """
    Raises:
        InvalidArgument: the lab cannot do what a job asks for; every mistake is named with its job and field.
    """
    from core.grace.cli.checking import wrong

    lab = None
    try:
        client = Client.to(place)
        lab = client.get("/api/v1/tools")["tools"], client.get("/api/v1/models")["models"]
    except Unreachable as error:
        screen.note(f"Not checked: the tools and their arguments, and the models; {error.message} ({error.next})")
    if said := wrong(batch, file.resolve().parent, lab):
        raise InvalidArgument(f"{file}: {'; '.join(said)}", next="mend it; what a tool takes says: madlab tools MAD")


class _Dispatch:
    """One batch at work. Jobs work in threads, each with a client of its own; everything else happens in one."""

    def __init__(
        self,
        batch: "Batch",
        results: Mapping[str, Result],
        home: Home,
        folder: Path,
        tell: "_Tell",
        client: Client,
    ) -> None:
        """`client` asks what was done before."""
        self._batch, self._results, self._home, self._folder, self._tell = batch, results, home, folder, tell
        self._client = client
        self._spent = 0.0

    def run(self) -> None:
        """Until every job is over."""
        from concurrent.futures import FIRST_COMPLETED, wait

        at_work: dict[Future[None], Result] = {}
        try:
            while any(each.state not in OVER for each in self._results.values()):
                for result in self._ready(len(at_work)):
                    at_work[self._begun(result)] = result
                self._tell(self._results)
                if not at_work:
                    continue
                ended, _ = wait(at_work, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                for each in ended:
                    self._end(each, at_work.pop(each))
        except KeyboardInterrupt:
            screen.note("Left. What is at work goes on in the lab; the same command takes it up again.")
            raise

    def _begun(self, result: Result) -> "Future[None]":
        """A job in a thread that nobody waits for who leaves: those of a pool would be waited for at the exit."""
        from concurrent.futures import Future
        from threading import Thread

        future: Future[None] = Future()

        def work() -> None:
            try:
                self._work(result)
            except BaseException as error:  # noqa: BLE001  as a pool does: whoever waits is told
                future.set_exception(error)
            else:
                future.set_result(None)

        Thread(target=work, daemon=True).start()
        return future

    def _ready(self, at_work: int) -> Iterator[Result]:
        """The jobs that may begin now; those that never may are skipped."""
        for result in self._results.values():
            if result.state is not State.WAITING:
                continue
            before = [self._results[each] for each in self._batch.jobs[result.name].after]
            if bad := [each.name for each in before if each.state in (State.FAILED, State.SKIPPED)]:
                result.state, result.why = State.SKIPPED, f"it waits for {', '.join(bad)}"
            elif all(each.state is State.DONE for each in before) and at_work < self._batch.batch.at_once:
                result.over = self._is_over(result)
                result.held = 0.0 if result.over else self._share(result)
                if self._batch.batch.usd is not None and result.held <= 0 and not result.over:
                    result.state, result.why = State.SKIPPED, "the batch's budget is spent"
                    continue
                at_work += 1
                result.state = State.AT_WORK
                yield result

    def _is_over(self, result: Result) -> bool:
        """Whether a job was asked for before and has its answer: then it is told how it ended, and never at work."""
        talk = _talk(id_from(result.message, "conversation"))
        with suppress(Error):  # what keeps it from being asked keeps the job from being asked for: that tells it
            return any(_answers(each, result.message) for each in pages(self._client, talk, "messages"))
        return False

    def _share(self, result: Result) -> float:
        """What a job may spend: its own cap, or an even share of what is neither spent nor held."""
        whole, own = self._batch.batch.usd, self._batch.jobs[result.name].usd
        if whole is None:
            return own or 0.0
        left = whole - self._spent - sum(each.held for each in self._results.values() if each.state is State.AT_WORK)
        waiting = sum(each.state is State.WAITING for each in self._results.values())
        return max(min(left, own if own is not None else left / max(waiting, 1)), 0.0)

    def _end(self, ended: "Future[None]", result: Result) -> None:
        error = ended.exception()
        if error is None:
            result.state = State.DONE if result.outcome in (None, *GREEN) and not result.why else State.FAILED
        elif isinstance(error, Error | OSError):
            result.state, result.why = State.FAILED, screen.plain(getattr(error, "message", None) or error)
        else:
            raise error
        self._spent += result.usd
        result.held = 0.0

    def _work(self, result: Result) -> None:
        """Asks for a job, unless that was done before, and waits for what comes of it."""
        job, client = self._batch.jobs[result.name], Client(self._home)
        client.get("/api/v1/status")  # from here on it waits for a core that restarts
        began = time.monotonic()
        asked = self._asked(client, job, result)
        result.conversation, result.run = asked["conversation"], asked["run"]
        try:
            result.data = _answer(client, asked)
        except Fault as error:
            result.why = error.message
        if result.run:
            self._close(client, result, began)
        else:
            result.seconds = round(time.monotonic() - began, 3)

    def _close(self, client: Client, result: Result, began: float) -> None:
        """What the run came to, and what it took."""
        while True:
            run = client.get(place(str(result.run)))
            if run["outcome"] is not None or time.monotonic() - began > 86_400:
                break
            time.sleep(LOOK_S)
        result.outcome = run["outcome"]
        result.usd, result.tokens = float(run["cost"].get("usd") or 0), int(run["cost"].get("tokens") or 0)
        result.seconds = run["cost"].get("wall_s")
        if result.outcome not in GREEN:
            result.why = result.why or str(run["reason"])

    def _asked(self, client: Client, job: "Job", result: Result) -> dict[str, Any]:
        """The message of a job: the one that was said before, or now."""
        conversation = id_from(result.message, "conversation")
        with suppress(NotFound):
            for each in client.get(_talk(conversation), limit=100)["messages"]:
                if each["id"] == result.message:
                    result.found = True  # said again it is said once, and its run is told
                    again = {name: each[name] for name in ("id", "conversation", "recipient", "kind", "tool", "blobs")}
                    return dict(client.publish(again | {"arguments": each["data"] or {}, "terms": each["terms"]}))
        terms = {"usd": result.held or job.usd, "tokens": job.tokens, "seconds": job.seconds}
        message = self._message(client, job) | {"id": result.message, "conversation": conversation}
        message |= {"kind": "call", "terms": {name: each for name, each in terms.items() if each is not None}}
        return dict(client.publish(message))

    def _message(self, client: Client, job: "Job") -> dict[str, Any]:
        """Who shall do what; what it is about is stored in the lab before."""
        if job.call:
            mad, _, tool = job.call.partition(".")
            return {"recipient": mad, "tool": tool, "arguments": job.arguments}
        from core.grace.cli.packing import open_source

        path = self._folder / (job.scan or job.code or "")
        source = open_source(path, self._home, history=job.history, note=lambda _: None)
        blob = client.upload(source.chunks, name=source.name, media_type="application/x-tar")
        arguments: dict[str, Any] = {"source": blob["digest"], "name": source.name}
        if job.scan:
            arguments |= {"kind": source.kind, "history": job.history}
            return {"recipient": job.mad, "tool": "scan", "arguments": arguments, "blobs": [blob]}
        for name in ("goal", "test", "model", "agent"):
            if value := getattr(job, name):
                arguments[name] = value
        arguments["repository"] = str(path.resolve())
        return {"recipient": job.mad, "tool": "code", "arguments": arguments, "blobs": [blob]}


def _talk(conversation: str) -> str:
    return f"/api/v1/conversations/{quote(conversation, safe='')}/messages"


def _answers(message: Mapping[str, Any], asked: str) -> bool:
    return message["in_reply_to"] == asked and message["kind"] in ("reply", "fault")


def _answer(client: Client, asked: Mapping[str, Any]) -> Any:
    """What the answer holds.

    Raises:
        Fault: it is one.
    """
    for each in client.follow(_talk(asked["conversation"])):
        if _answers(each, asked["id"]):
            if each["kind"] == "fault":
                raise fault(each)
            return each["data"] if each["data"] is not None else each["text"]
    raise Unavailable("the lab ended the conversation without an answer", next="see: madlab runs")


class _Tell:
    """Says how far it is, a line for each change."""

    def __init__(self) -> None:
        self._told: dict[str, State] = {}

    def __call__(self, results: Mapping[str, Result]) -> None:
        for each in results.values():
            if each.is_read:
                continue
            if self._told.get(each.name, State.WAITING) != each.state:
                self._told[each.name] = each.state
                self.say(each)

    def say(self, result: Result) -> None:
        """One line."""
        why = f": {result.why.splitlines()[0][:160]}" if result.why else ""
        run = f" ({result.run})" if result.run else ""
        before = " before" if result.over else ""
        screen.note(f"{result.state:<8} {result.name}{run}{before}{why}")


@contextmanager
def _shown(results: Mapping[str, Result]) -> Iterator[_Tell]:
    """Lines, and on a terminal a last one that moves."""
    if not screen.is_lively(sys.stderr):
        yield _Tell()
        return
    console = screen.console(error=True)
    with screen.moving(), console.status("", spinner="dots") as status:

        class Moving(_Tell):
            def __call__(self, results: Mapping[str, Result]) -> None:
                super().__call__(results)
                states = Counter(each.state for each in results.values() if not each.is_read)
                told = ", ".join(f"{states[each]} {each}" for each in State if states[each])
                spent = sum(each.usd for each in results.values())
                status.update(screen.plain(f"{told}" + (f", {spent:.4f} $" if spent else "")))

        yield Moving()


def _tell(batch: "Batch", results: Mapping[str, Result], *, json: bool) -> None:
    if json:
        from protos.money import total

        jobs = [
            {name: value for name, value in asdict(each).items() if name not in ("held", "over")}
            for each in results.values()
        ]
        ok = all(each.state is State.DONE for each in results.values())
        screen.data(
            {"batch": batch.batch.name, "ok": ok, "usd": total(each.usd for each in results.values()), "jobs": jobs}
        )
        return
    screen.table(
        ("JOB", "STATE", "OUTCOME", "TOOK", "COST", "RUN", "WHY"),
        [
            (
                each.name, str(each.state) + (" before" if each.over else ""),
                each.outcome or "-", screen.span(each.seconds), f"{each.usd:.4f} $" if each.usd else "-",
                each.run or "-", each.why,
            )
            for each in results.values()
        ],
    )  # fmt: skip
