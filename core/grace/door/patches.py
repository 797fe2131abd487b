"""The door's routes for patches: what runs changed, what speaks for it, and a person's decision about it, once.

The diff is read back as data, bounded and with secrets covered. Applying does what `madlab apply` does, by the same
code: one commit on a new branch of the operator's repository, and nothing else there is touched. Each decision is
written down before anything is done and again with what came of it; where it could not be carried out, the patch waits
as before.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, Literal, cast

from anyio import CancelScope, from_thread, to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.coding.asked import REMARK_CHARACTERS
from core.coding.hunks import DIFF_BYTES, read_diff
from core.coding.landing import Coded, Landed, check_flags, directory, land, open_coded
from core.coding.repository import Repository, check_branch
from core.coding.telling import clean_room, mappings, plain, tests, warnings
from core.grace.door.again import arguments_again
from core.grace.door.answers import Answer
from core.grace.door.callers import caller_of, seen_run
from core.grace.door.desk import Made
from core.grace.door.edge import Empty, Strict, TermsBody, json_of, lab_of, number_of
from core.grace.door.routes import Endpoint, choice, number
from core.grace.door.shapes import message_json, run_json
from core.lab import Lab
from core.ports.bus import say
from core.products import PATCH, STATES, Decided, Deciding, Product, product_of, products, said
from core.run import Run
from protos.errors import Conflict, Error, InvalidArgument, NotFound
from protos.ids import id_from, new_id
from protos.v1.message_pb2 import KIND_CALL, Blob, Message, Terms

PAGE = 100
TOLD = 5  # files that do not fit, in a sentence
FOREMAN, TOOL = "foreman", "code"
OPERATOR = "operator"
EVIDENCE = (  # what of a run's evidence a page shows beside the diff
    *("tests_before", "tests_after", "clean_room", "clean_room_tests", "original_tests", "red_first", "tests_missing"),
    *("control", "summary", "review", "agent", "model", "small_model", "steps", "seconds", "attempts", "commands"),
)

State = Literal["waiting", "applied", "sent_back", "dropped"]


class _ApplyBody(Strict):
    """Where a patch shall land."""

    branch: Annotated[str, Field(max_length=250)] = ""  # else madlab/RUN
    repository: Annotated[str, Field(max_length=4096)] = ""  # else the one that the run was asked for
    below: Annotated[str, Field(max_length=4096)] | None = None  # else where in it the run was asked for
    accept_flags: bool = False  # although parts were refused, or it adds secrets


class _SendBackBody(Strict):
    """What shall be done differently."""

    remark: Annotated[str, Field(min_length=1, max_length=REMARK_CHARACTERS)]
    model: Annotated[str, Field(max_length=64)] = ""  # else the same
    terms: TermsBody | None = None  # else those that the run had


class _AppliedBody(Strict):
    """Where the operator's own `madlab apply` has put it."""

    branch: Annotated[str, Field(min_length=1, max_length=250)]
    repository: Annotated[str, Field(max_length=4096)]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


class DecisionAnswer(Answer):
    """A decision about a patch, and what came of it: a branch with a commit, or another run."""

    decision: Literal["apply", "send_back", "drop"]
    by: str
    at: float
    details: dict[str, Any]
    result: dict[str, Any]


class DecidedAnswer(Answer):
    """The state that a patch has got."""

    run: str
    state: State
    decision: DecisionAnswer


def routes() -> Iterator[Endpoint]:
    """The routes of this part of the door."""
    yield Endpoint(
        *("GET", "/patches", _patches, "The runs that left a patch, newest first, and what was decided."),
        query=(
            number("limit", f"so many, at most {PAGE}", default=25),
            number("before", "the `sequence` of the one to go on behind"),
            choice("state", "only those", "waiting", *STATES.values()),
        ),
    )
    yield Endpoint(
        *("GET", "/runs/{id}/patch", _patch, "A patch as files, hunks and lines, with what speaks for it."),
        query=(number("file", "the lines of this file alone, counted from 0, and more of them"),),
        clients=True,
    )
    yield Endpoint(
        *("POST", "/runs/{id}/patch/apply", _apply, "Puts the patch on a new branch of the operator's repository."),
        body=_ApplyBody,
        answer=DecidedAnswer,
    )
    yield Endpoint(
        *("POST", "/runs/{id}/patch/applied", _applied, "Writes down that the operator has applied the patch by hand."),
        body=_AppliedBody,
        answer=DecidedAnswer,
    )
    yield Endpoint(
        *("POST", "/runs/{id}/patch/send-back", _send_back, "Has it done again, from the patch and with a remark."),
        body=_SendBackBody,
        answer=DecidedAnswer,
        status=202,
    )
    yield Endpoint(
        *("POST", "/runs/{id}/patch/drop", _drop, "Decides that the patch is not taken."),
        body=Empty,
        answer=DecidedAnswer,
    )


# --- reading


async def _patches(request: Request) -> Response:
    lab = lab_of(request)
    limit, before = number_of(request, "limit", 25, PAGE, least=1), number_of(request, "before", 0, 2**62)
    state = request.query_params.get("state", "")
    found = await products(lab.journal, PATCH, limit=limit, before=before or None, state=state)
    runs = await lab.runs.some([each.run for each in found])
    return JSONResponse({"patches": [_product_json(lab, runs[each.run], each) for each in found]})


async def _patch(request: Request) -> Response:
    lab, only = lab_of(request), request.query_params.get("file")
    run, product = await _found(request)
    told = await _as_told(lab, run)
    digest = str(next(each for each in run.artifacts if each["name"] == PATCH)["digest"])
    place, trouble = None, ""  # where it lies on the lab's machine is nobody's business but the operator's
    if caller_of(request).is_operator and not only:
        place, trouble = await to_thread.run_sync(_remembered, told)
    asked = _asked_of(told)
    about = _product_json(lab, run, product) | {
        "goal": str(asked.get("goal", "")),
        "name": str(asked.get("name", "")),
        "base": str(asked.get("base", "")),
        "branch": f"madlab/{run.id}",
        "repository": None if place is None else {"path": str(place[0].place), "below": place[1]},
        "repository_trouble": trouble,
        "warnings": list(warnings(run.evidence)),
        "flags": mappings(run.evidence.get("flags")),
        "evidence": {each: run.evidence.get(each) for each in EVIDENCE},
        "said": {
            "before": tests(run.evidence.get("tests_before")),
            "after": tests(run.evidence.get("clean_room_tests") or run.evidence.get("tests_after")),
            "clean_room": clean_room(run.evidence),
        },
    }

    async def make() -> Callable[[], Iterator[str]]:
        diff = await _beginning(lab, digest)
        about["diff"] = {"digest": digest, "size": product.size, "read": len(diff)}
        return lambda: _one_file(run, diff, int(only)) if only else _all_files(about, diff)

    return Made(request, make)


def _one_file(run: Run, diff: bytes, number: int) -> Iterator[str]:
    files = read_diff(diff, number)
    if number >= len(files):
        raise NotFound(f"The patch of {run.id} has no file number {number}.", next="count from 0")
    yield json.dumps({"file": number, **files[number].as_json()})


def _all_files(about: Mapping[str, Any], diff: bytes) -> Iterator[str]:
    yield json.dumps({**about, "files": [each.as_json() for each in read_diff(diff)]})


def _product_json(lab: Lab, run: Run, product: Product) -> dict[str, Any]:
    """A patch in a list."""
    evidence, patch = run.evidence, run.evidence.get("patch")
    size: Mapping[str, Any] = patch if isinstance(patch, Mapping) else {}
    return {
        "run": run_json(lab, run),
        "sequence": product.sequence,
        "state": product.decided.state if product.decided else "waiting",
        "decision": _decision_json(product.decided) if product.decided else None,
        "goal": run.title.removeprefix("code: "),
        "size": {each: size.get(each, 0) for each in ("files", "added", "removed")},
        "clean_room": clean_room(evidence),
        "proved": evidence.get("clean_room") is True,
        "warnings": sum(1 for _ in warnings(evidence)),
    }


def _decision_json(decided: Decided) -> dict[str, Any]:
    return {
        "decision": decided.decision,
        "by": decided.by,
        "at": decided.at,
        "details": dict(decided.details),
        "result": dict(decided.result),
    }


async def _found(request: Request) -> tuple[Run, Product]:
    """
    Raises:
        NotFound: there is no such run that the caller may see, or it left no patch, or that was forgotten.
    """
    lab = lab_of(request)
    run = await seen_run(lab, caller_of(request), request.path_params["id"])
    product = await product_of(lab.journal, run, PATCH)
    if product is None:
        raise NotFound(f"The run {run.id} left no patch.", next=f"See what it left: madlab show {run.id}")
    return run, product


async def _as_told(lab: Lab, run: Run) -> dict[str, Any]:
    """The run as the door tells of it, as far as applying needs it."""
    asked = await lab.rogers.find(run.trigger)
    return run_json(lab, run) | {
        "evidence": run.evidence,
        "artifacts": run.artifacts,
        "forgotten": run.forgotten or None,
        "messages": [message_json(asked)] if asked is not None else [],
    }


def _asked_of(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that the run was asked with; none where retention took them."""
    data = told["messages"][0]["data"] if told["messages"] else None
    return data if isinstance(data, Mapping) else {}


def _remembered(told: Mapping[str, Any]) -> tuple[tuple[Repository, str] | None, str]:
    """In a thread: the repository that the operator asked for, and where in it; or why it cannot be found.

    Only what the operator said is believed: a client could name any directory.
    """
    named = str(_asked_of(told).get("repository", ""))
    if not named or told["messages"][0]["sender"] != OPERATOR:
        return None, "Which repository it is for was not said."
    try:
        return _repository(named), ""
    except Error as error:
        return None, error.message


def _repository(named: str) -> tuple[Repository, str]:
    """The repository that a directory lies in, and where in it.

    Raises:
        InvalidArgument: it is no absolute path.
        NotFound: there is no repository.
        Conflict: it is of a kind that is not understood.
    """
    path = Path(named)
    if not path.is_absolute() or "\0" in named:
        raise InvalidArgument("repository: name a directory from the root on", next="for example /home/me/project")
    try:
        found, below = Repository.find(path), path.resolve()
    except OSError as error:
        raise InvalidArgument(f"repository: {error.strerror}", next="name a directory that the lab may read") from None
    return found, "" if below == found.place else below.relative_to(found.place).as_posix()


async def _beginning(lab: Lab, digest: str) -> bytes:
    content = bytearray()
    async with aclosing(lab.horace.get(digest)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            content += chunk
            if len(content) >= DIFF_BYTES:
                break
    return bytes(content[:DIFF_BYTES])


# --- deciding


async def _apply(request: Request) -> Response:
    lab, body = lab_of(request), await json_of(request, _ApplyBody)
    run, product = await _found(request)
    told = await _as_told(lab, run)
    branch = body.branch or f"madlab/{run.id}"
    check_branch(branch)
    coded = Coded.of(told)
    repository, below = await to_thread.run_sync(_place_of, told, body)
    asked = {"branch": branch, "repository": str(repository.place), "below": below}
    if (again := _again(product, "apply", asked)) is not None:
        return JSONResponse(again)
    async with _deciding(request, run, "apply", asked) as deciding:
        landed = await to_thread.run_sync(_land, lab, coded, repository, branch, below, body.accept_flags)
        if landed.planned.conflicts:
            await lab.journal.append(deciding.failed(Conflict.code))
            return _does_not_fit(run, landed)
        result = {"commit": landed.commit, "created": landed.created, "head": landed.planned.head}
        await lab.journal.append(deciding.done(result | {"merged": landed.planned.merged[:PAGE]}))
    return JSONResponse(await _now(lab, run))


async def _applied(request: Request) -> Response:
    """`madlab apply` is the operator's own process; what it did is told afterwards, so that nobody decides again."""
    lab, body = lab_of(request), await json_of(request, _AppliedBody)
    run, product = await _found(request)
    asked = {"branch": body.branch, "repository": body.repository}
    if (again := _again(product, "apply", asked)) is not None:
        return JSONResponse(again)
    async with _deciding(request, run, "apply", asked) as deciding:
        await lab.journal.append(deciding.done({"commit": body.commit, "created": True}))
    return JSONResponse(await _now(lab, run))


async def _send_back(request: Request) -> Response:
    lab, body = lab_of(request), await json_of(request, _SendBackBody)
    run, product = await _found(request)
    asked = {"remark": body.remark} | ({"model": body.model} if body.model else {})
    if (again := _again(product, "send_back", asked)) is not None:
        return JSONResponse(again, 202)
    message = await _once_more(lab, run, body)
    async with _deciding(request, run, "send_back", asked) as deciding:
        await say(lab.services, caller_of(request).identity, message)
        await lab.journal.append(deciding.done({"run": lab.runs.id_of(FOREMAN, message.id)}))
    return JSONResponse(await _now(lab, run), 202)


async def _drop(request: Request) -> Response:
    lab = lab_of(request)
    await json_of(request, Empty)
    run, product = await _found(request)
    if (again := _again(product, "drop", {})) is not None:
        return JSONResponse(again)
    async with _deciding(request, run, "drop", {}) as deciding:
        await lab.journal.append(deciding.done({}))
    return JSONResponse(await _now(lab, run))


@asynccontextmanager
async def _deciding(
    request: Request, run: Run, decision: Literal["apply", "send_back", "drop"], asked: Mapping[str, Any]
) -> AsyncIterator[Deciding]:
    """One decision: written down as begun, then carried out by the body, which writes down what came of it.

    Raises:
        Conflict: it is decided about, or just being.
    """
    lab, at_work = lab_of(request), cast("set[str]", request.app.state.deciding)
    if run.id in at_work:
        raise Conflict(f"The patch of {run.id} is just being decided about.", next="Look again in a moment.")
    caller = caller_of(request)
    deciding = Deciding(f"{run.id}-{new_id()}", run.id, run.conversation, decision, caller.name, asked)
    at_work.add(run.id)
    try:
        with CancelScope(shield=decision == "apply"):  # a branch that is begun is made; a call may wait for a person
            await lab.journal.append(deciding.started())
            try:
                yield deciding
            except Error as error:
                await lab.journal.append(deciding.failed(error.code))
                raise
            except Exception as error:  # our own mistake: the patch waits as before, and the door says what it says
                await lab.journal.append(deciding.failed(type(error).__name__))
                raise
    finally:
        at_work.discard(run.id)


def _again(product: Product, decision: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the same decision came to when it was made: making it twice is making it once.

    Raises:
        Conflict: another one was made.
    """
    decided = product.decided
    if decided is None:
        return None
    if (decided.decision, dict(decided.details)) != (decision, dict(asked)):
        raise Conflict(
            f"The patch of {product.run} was {said(decided.decision)} already, by {decided.by}.",
            next=f"See: madlab show {product.run}",
        )
    return {"run": product.run, "state": decided.state, "decision": _decision_json(decided)}


async def _now(lab: Lab, run: Run) -> dict[str, Any]:
    product = await product_of(lab.journal, run, PATCH)
    assert product is not None
    assert product.decided is not None
    return {"run": run.id, "state": product.decided.state, "decision": _decision_json(product.decided)}


def _does_not_fit(run: Run, landed: Landed) -> Response:
    """The refusal, with the files that stand in the way."""
    found = landed.planned.conflicts
    files = "1 file does" if len(found) == 1 else f"{len(found)} files do"
    told = "; ".join(f"{plain(each.path)[:200]} {each.why}" for each in found[:TOLD])
    error = {
        "code": Conflict.code,
        "message": f"{files} not fit HEAD ({landed.planned.head[:12]}): {told}. Nothing was written.",
        "next": "Commit what the run began with, or go back to where it began, and apply it again.",
    }
    conflicts = [
        {"path": each.path[:300], "why": each.why, "text": each.text[:8192].decode("utf-8", "backslashreplace")}
        for each in found[:PAGE]
    ]
    return JSONResponse({"error": error, "conflicts": conflicts}, 409)


def _place_of(told: Mapping[str, Any], body: _ApplyBody) -> tuple[Repository, str]:
    """In a thread: the repository, and the directory of it, that a patch shall land in."""
    if body.repository:
        repository, below = _repository(body.repository)
    else:
        place, trouble = _remembered(told)
        if place is None:
            raise InvalidArgument(f"{trouble}", next="name it as `repository`, a directory from the root on")
        repository, below = place
    return repository, below if body.below is None else directory(body.below)


def _land(lab: Lab, coded: Coded, repository: Repository, branch: str, below: str, accept_flags: bool) -> Landed:
    """In a thread: what `madlab apply` does."""
    with ExitStack() as stack:

        def fetch(digest: str) -> IO[bytes]:
            file = cast("IO[bytes]", stack.enter_context(TemporaryFile()))
            from_thread.run(_copy, lab, digest, file)
            file.seek(0)
            return file

        with open_coded([coded], fetch) as (changes, _):
            if not accept_flags:
                check_flags([coded], changes, "accept_flags")
            return land([coded], changes, repository, branch, below)


async def _copy(lab: Lab, digest: str, file: IO[bytes]) -> None:
    async with aclosing(lab.horace.get(digest)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            await to_thread.run_sync(file.write, chunk)


async def _once_more(lab: Lab, run: Run, body: _SendBackBody) -> Message:
    """The call that has the goal reached from where the run came to. The same remark makes the same message.

    Raises:
        Conflict: what the run began with is not kept any more.
        InvalidArgument: the arguments do not fit the tool any more.
    """
    asked = await lab.rogers.find(run.trigger)
    kept = {each["name"]: each for each in run.artifacts}
    arguments = json.loads(arguments_again(asked, by=OPERATOR)) if asked is not None and asked.kind == KIND_CALL else {}
    if asked is None or not arguments.get("source") or "changes.tar" not in kept:
        raise Conflict(f"What {run.id} began with is not kept any more.", next="Ask for it anew: madlab code")
    blobs = [each for each in asked.blobs if each.digest in (arguments["source"], arguments.get("goal_blob"))]
    for name, argument in (("changes.tar", "changes"), ("deleted.json", "deleted")):
        arguments[argument] = kept[name]["digest"]
        blobs.append(Blob(digest=str(kept[name]["digest"]), size=int(kept[name]["size"]), name=name))
    for each in blobs:
        await lab.horace.stat(each.digest)
    arguments |= {"resumes": run.id, "remark": body.remark} | ({"model": body.model} if body.model else {})
    lab.registry.check_call(FOREMAN, TOOL, arguments)
    label = hashlib.sha256(f"{body.model}\0{body.remark}".encode()).hexdigest()
    id = id_from(run.trigger, f"sent back {label}")
    message = Message(id=id, conversation=id, recipient=FOREMAN, kind=KIND_CALL, tool=TOOL, blobs=blobs)
    message.taint[:] = asked.taint
    message.data = json.dumps(arguments, ensure_ascii=False)
    if body.terms is not None:
        message.terms.CopyFrom(Terms(**body.terms.model_dump(exclude_none=True)))
    elif asked.HasField("terms"):
        message.terms.CopyFrom(asked.terms)
    return message
