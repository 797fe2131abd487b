"""`madlab code`: has a goal reached in a copy of a repository, and shows the patch with what speaks for it; `steer`."""

import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.coding.asked import (
    AGENTS,
    DEFAULT_AGENT,
    GOAL_BLOB_BYTES,
    SHORTER,
    check_agent,
    opening_of,
    too_long,
)
from core.fiedler.store import NO_MODEL
from core.grace.cli import screen
from core.grace.cli.client import Client, Fault
from core.grace.cli.files import named
from core.grace.cli.life import Json
from core.grace.cli.runs import RunId, place, tell_waiting
from core.grace.cli.scanning import check_writable, failed
from core.home import Home
from protos.errors import Conflict, Error, InvalidArgument

if TYPE_CHECKING:
    from core.grace.cli.live import Live
    from core.grace.cli.packing import Source

SUCCEEDED = "succeeded"
UNFINISHED = frozenset({"out_of_budget", "timed_out", "stuck", "cancelled"})
FAILED, INTERRUPTED = 4, 130
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


class Wish(StrEnum):
    """What Ctrl-C is to mean."""

    DETACH = "d"
    CANCEL = "c"


def add_to(app: typer.Typer) -> None:
    app.command()(code)
    app.command()(resume)
    app.command()(steer)


def code(
    context: typer.Context,
    goal: Annotated[
        str, typer.Argument(metavar="GOAL", help="What shall be reached, in at most 64 KiB; - reads it from stdin.")
    ],
    repo: Annotated[Path, typer.Option(parser=named, metavar="PATH", help="The repository, or any directory.")] = Path(
        "."
    ),
    test: Annotated[str, typer.Option(metavar="CMD", help="What tests it; else it is detected.")] = "",
    model: Annotated[str, typer.Option(metavar="ALIAS", help="Which model; else the lab's default.")] = "",
    agent: Annotated[str, typer.Option(metavar="AGENT", help=f"Who writes: {', '.join(AGENTS)}.")] = DEFAULT_AGENT,
    budget: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The most that it may cost.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, metavar="N", help="The most tokens it may take.")] = None,
    time: Annotated[str, typer.Option(metavar="20m", help="The longest that it may take.")] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Whose programs the sandbox has.")] = "",
    attempts: Annotated[int, typer.Option(min=1, max=8, metavar="K", help="So many tries; the best counts.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the diff there instead.")] = None,
    json: Json = False,
) -> None:
    """Have code written in a sandbox, and get a tested patch. The directory itself is never touched."""
    from core.grace.cli.progress import progress

    client = Client.to(context.obj, waiting=tell_waiting)
    alias = _alias(client, model)  # is anybody there? Asked before any packing.
    words = _words(goal, "the goal")
    stored = _to_store(words)
    check_agent(agent)
    if out is not None:
        check_writable(out)
    source = _source(repo, context.obj)
    terms = {"usd": budget, "tokens": max_tokens, "seconds": seconds(time) if time else None, "image": image or None}
    arguments = {
        "name": source.name,
        "goal": opening_of(words) if stored else words,
        "test": test,
        "model": alias,
        "agent": agent,
        "attempts": attempts,
        "base": _base(repo),
        "repository": str(repo.resolve()),
    }
    with progress() as shown:
        what = f"Sending {source.what}"
        shown.show(what)
        blob = client.upload(
            lambda: shown.through(source.chunks(), what, source.size), name=source.name, media_type="application/x-tar"
        )
    blobs = [blob]
    arguments["source"] = blob["digest"]
    if stored:
        blobs.append(client.upload(lambda: [stored], name="goal.txt", media_type="text/plain"))
        arguments["goal_blob"] = blobs[-1]["digest"]
    _have_coded(client, arguments, blobs, terms, out, json=json)


def resume(
    context: typer.Context,
    run: RunId,
    model: Annotated[str, typer.Option(metavar="ALIAS", help="Another model than before.")] = "",
    budget: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The most that it may cost now.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, metavar="N", help="The most tokens it may take now.")] = None,
    time: Annotated[str, typer.Option(metavar="20m", help="The longest that it may take now.")] = "",
    json: Json = False,
) -> None:
    """Go on with a run that did not reach its goal: the same tree, goal and work so far, with new limits."""
    client = Client.to(context.obj, waiting=tell_waiting)
    before = client.get(place(run))
    kept = {each["name"]: each for each in before["artifacts"]}
    asked = next((each for each in before["messages"] if each["tool"] == "code" and each["kind"] == "call"), None)
    if before["mad"] != "foreman" or asked is None:
        raise InvalidArgument(f"the run {run} wrote no code", next="see: madlab runs")
    if before["outcome"] is None:
        raise Conflict(f"the run {run} is still at work", next=f"see: madlab logs -f {run}")
    if before["outcome"] == SUCCEEDED:
        raise Conflict(
            f"the run {run} succeeded: nothing is left to go on with",
            next=f'take its patch: madlab apply {run}   ask for more: madlab code "GOAL"   '
            "the same once more: Run again, on its page (madlab open)",
        )
    arguments = asked["data"] | {"resumes": run, "model": _alias(client, model or asked["data"].get("model", ""))}
    given = (arguments["source"], arguments.get("goal_blob"))
    blobs = [each for each in asked["blobs"] if each["digest"] in given]
    for name, argument in (("changes.tar", "changes"), ("deleted.json", "deleted")):
        if name in kept:
            arguments[argument] = kept[name]["digest"]
            blobs.append(kept[name])
    image = asked["terms"].get("image")
    terms = {"usd": budget, "tokens": max_tokens, "seconds": seconds(time) if time else None, "image": image}
    _have_coded(client, arguments, blobs, terms, None, json=json)


def _have_coded(
    client: Client,
    arguments: dict[str, Any],
    blobs: list[dict[str, Any]],
    terms: Mapping[str, Any],
    out: Path | None,
    *,
    json: bool,
) -> None:
    """Asks for code, follows the run, and tells what has come of it."""
    from core.grace.cli.branch import write_diff

    message = {
        "recipient": "foreman",
        "kind": "call",
        "tool": "code",
        "arguments": arguments,
        "blobs": blobs,
        "terms": {name: value for name, value in terms.items() if value is not None},
    }
    found = _watch(client, client.publish(message)["run"], json=json)
    if out is not None and any(each["name"] == "patch.diff" for each in found["artifacts"]):
        write_diff(client, found, out)
    if json:
        screen.data(as_json(found))
    else:
        _tell(client, found, out)
    if found["outcome"] != SUCCEEDED:
        raise failed(found, of_input=False)


def steer(
    context: typer.Context,
    run: RunId,
    remark: Annotated[str, typer.Argument(metavar="REMARK", help="What to say; - reads it from stdin.")],
    wait: Annotated[bool, typer.Option(help="Wait until it is acted on.")] = True,
    json: Json = False,
) -> None:
    """Say something to the agent of a run that is at work. It hears it at its next step."""
    client = Client.to(context.obj, waiting=tell_waiting)
    said = client.post(place(run) + "/remarks", {"text": _words(remark, "the remark")})
    if not json:
        screen.note(f"accepted: {said['id']}")
    state, idle = _await_remark(client, run, said, json=json) if wait else ("accepted", False)
    if json:
        screen.data(said | {"state": state})
    elif state == "acted_on":
        screen.say("acted on")
    if idle:
        why = f"the remark was delivered, and the agent of {run} answered without acting"
        raise Fault(
            "not_acted_on", why, next=f"see what it says: madlab logs {run}   then say it again, in other words"
        )
    if wait and state != "acted_on":
        raise Fault(
            "not_acted_on", f"the run {run} ended before it acted on the remark", next=f"see: madlab show {run}"
        )


def alias_among(models: Iterable[Mapping[str, Any]], given: str) -> str:
    """The alias that `given` means: the lab's default where it is empty.

    Raises:
        InvalidArgument: the lab has no such model to write code with, or none at all.
    """
    talking = [each for each in models if "chat" in each["can"]]
    known = [each["alias"] for each in talking]
    if not known:
        raise InvalidArgument("the lab has no model to write code with", next=NO_MODEL)
    if given and given not in known:
        raise InvalidArgument(
            f"there is no model '{screen.plain(given[:64])}' to write code with", next=f"there are: {', '.join(known)}"
        )
    return given or next((each["alias"] for each in talking if each["is_default"]), "")


def _alias(client: Client, given: str) -> str:
    return alias_among(client.get("/api/v1/models")["models"], given)


def _words(given: str, what: str) -> str:
    """What a person wants to say.

    Raises:
        InvalidArgument: nothing.
    """
    words = sys.stdin.read() if given == "-" else given
    if not words.strip():
        raise InvalidArgument(f"{what} is empty", next="write a sentence")
    return words.strip()


def _to_store(goal: str) -> bytes:
    """The goal as a blob, where it is too long for a message; else nothing.

    Raises:
        InvalidArgument: it is longer than an agent is given.
    """
    if not too_long(goal):
        return b""
    content = goal.encode("utf-8", "replace")
    if len(content) > GOAL_BLOB_BYTES:
        raise InvalidArgument(
            f"The goal has {len(content):,} bytes, and at most {GOAL_BLOB_BYTES:,} are taken.", next=SHORTER
        )
    return content


def seconds(text: str) -> float:
    """A time span as people write it: 90s, 20m, 1h30m; a bare number is minutes.

    Raises:
        InvalidArgument: it is none, or there is nothing left of it.
    """
    words = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", words):
        words += "m"
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[smhd])", words)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not total or "".join(number + unit for number, unit in parts) != words:
        raise InvalidArgument(f"--time: '{screen.plain(text)}' is no time span", next="write 20m, 90s or 1h30m")
    return total


def as_json(run: Mapping[str, Any]) -> dict[str, Any]:
    """What programs rely on. Of a run that ended before it had them, numbers are 0 and tests null."""
    evidence, cost = run["evidence"] or {}, run["cost"] or {}
    patch = evidence.get("patch") or {}
    return {
        "run": run["id"],
        "outcome": run["outcome"],
        "patch": {name: patch.get(name, 0) for name in ("files", "added", "removed")} | {"blob": patch.get("blob")},
        "evidence": {name: evidence.get(name) for name in ("tests_before", "tests_after", "clean_room")},
        "cost": {"tokens": cost.get("tokens", 0), "usd": cost.get("usd", 0.0)},
        "model": evidence.get("model") or None,
        "alias": evidence.get("model_alias") or None,
    }


def _source(repo: Path, home: str | None) -> "Source":
    from core.grace.cli.packing import open_source

    if repo.is_file():
        raise InvalidArgument(f"{repo} is a file", next="name a repository or a directory")
    return open_source(repo, Home.find(home), history=False, note=lambda text: screen.note(f"Note: {text}"))


def _base(repo: Path) -> str:
    """The commit that a repository is at; empty where `repo` is not the top of one."""
    from core.coding.repository import Repository

    try:
        repository = Repository.find(repo)
        if repository.place == repo.resolve():
            return repository.head()
    except (Error, OSError):
        return ""
    below = repo.resolve().relative_to(repository.place)
    screen.note(
        f"Note: only what is below {repo} goes in, a part of the repository {repository.place}. "
        f"Later: madlab apply RUN --below {below}"
    )
    return ""


def _watch(client: Client, run: str, *, json: bool) -> dict[str, Any]:
    """Follows a run to its end and returns it. Ctrl-C asks whether to leave it or to cancel it; the next one leaves."""
    from core.grace.cli.live import live

    after, cancelling = 0, False
    while True:
        try:
            with live() as shown:
                _head(client, run, shown)
                for line in client.follow(place(run) + "/logs", after=after):
                    after = max(after, int(line["sequence"] or 0))
                    shown.hear(line)
            found: dict[str, Any] = client.get(place(run))
            return found
        except KeyboardInterrupt:
            if cancelling:
                raise
            if _wish() is Wish.DETACH:
                screen.note(f"{run} goes on. See it with: madlab logs -f {run}   End it with: madlab cancel {run}")
                if json:
                    screen.data(as_json(client.get(place(run))))
                raise typer.Exit(INTERRUPTED) from None
            cancelling = True
            screen.note(f"Cancelling {run}")
            with suppress(Conflict):  # it ended in this moment
                client.post(place(run) + "/cancel", {})


def _wish() -> Wish:
    """What a person wants who pressed Ctrl-C: asked where somebody can answer, else that the run be cancelled."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return Wish.CANCEL
    try:
        while True:
            print("\nDetach and let it go on, or cancel it? [d/c] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline().strip().lower()[:1]
            if answer in tuple(Wish) or not answer:
                return Wish(answer or "d")
    except KeyboardInterrupt:
        screen.note("")
        return Wish.DETACH


def _head(client: Client, run: str, shown: "Live") -> None:
    now = client.get(place(run))
    where = f"waits, {now['place']} in the queue" if now.get("place") else f"is {now['state']}"
    shown.show(f"{'run':<8}{run} {where}")


def _tell(client: Client, run: dict[str, Any], out: Path | None) -> None:
    """The diff on stdout, and what speaks for it on stderr."""
    from io import BytesIO

    from core.coding import telling
    from core.grace.cli import patches
    from core.grace.cli.limits import going_on
    from core.grace.cli.live import summary
    from core.grace.cli.models import money

    evidence = run["evidence"] or {}
    told = as_json(run)
    diff = next((each for each in run["artifacts"] if each["name"] == "patch.diff"), None)
    if diff and diff["size"] and out is None:
        content = BytesIO()
        client.download(diff["digest"], content)
        patches.show_diff(content.getvalue())
    model = told["model"] or "unknown"
    facts = [
        ("outcome", f"{run['outcome']}{': ' + run['reason'] if run['reason'] else ''}"),
        ("summary", " ".join(str(evidence.get("summary") or "-").split())[:400]),
        ("patch", summary(*(told["patch"][name] for name in ("files", "added", "removed")))),
        ("before", telling.tests(evidence.get("tests_before"))),
        ("after", telling.tests(evidence.get("tests_after"))),
        ("proof", telling.clean_room(evidence)),
        ("model", model + (": a small model, so read its work with care" if evidence.get("small_model") else "")),
        ("cost", f"{told['cost']['tokens']:,} tokens, {money(told['cost']['usd'])}"),
    ]
    lists = [("commands", patches.commands(evidence)), ("files", patches.files(evidence.get("patch_report")))]
    lists.append(("mind", telling.warnings(evidence)))
    screen.note("")
    last = ""
    for name, value in [*facts, *((name, value) for name, values in lists for value in values), ("run", run["id"])]:
        screen.note(f"{name if name != last else '':<10}{screen.plain(value)}")
        last = name
    if told["patch"]["files"]:
        where = f"It is in {out}. " if out else ""
        screen.note(f"{where}Put it on a branch with: madlab apply {run['id']}")
    if run["outcome"] in UNFINISHED:
        screen.note(going_on(run))


def _await_remark(client: Client, run: str, said: Mapping[str, Any], *, json: bool) -> tuple[str, bool]:
    """Follows a remark until somebody has acted on it, or all who heard it have answered without acting, or the run
    has ended; returns how far it came, and whether they answered so."""
    state, ours = "accepted", {said["id"], *said["runs"].values()}
    answered: set[str] = set()  # conversations of those who have heard it and answered
    listening = max(1, len(said["runs"].keys() - {run}))  # the run itself, or those that work for it
    for line in client.follow(place(run) + "/logs", after=said["sequence"]):
        fields = line["data"] if isinstance(line["data"], Mapping) else {}
        if line["tool"] == "progress" and fields.get("what") == "remark" and fields.get("remark") in ours:
            state = str(fields.get("state"))
            if state == "acted_on":
                return state, False
            if fields.get("note"):
                answered.add(line["conversation"])
                if len(answered) >= listening:
                    return state, True
                continue
            if not json:
                screen.note(state)
    return state, False
