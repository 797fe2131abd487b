"""`madlab scan`: sends what shall be scanned, follows the run, prints the report."""

import json
import os
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client, Fault
from core.grace.cli.files import check_regular, named
from core.grace.cli.runs import place, tell_waiting
from core.grace.cli.talk import fault
from core.home import Home
from protos.errors import Conflict, Exhausted, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from core.grace.cli.packing import Source
    from core.grace.cli.progress import Progress
    from core.grace.reports import Report

BASELINE_BYTES = 4 * 1024**2
REPORT_BYTES = 64 * 1024**2
GREEN = ("succeeded", "partial")
NO, FAILED = 1, 4


class Format(StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"


class Threshold(StrEnum):
    """From which severity on a finding makes the command say no."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def add_to(app: typer.Typer) -> None:
    app.command()(scan)


def scan(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(parser=named, metavar="PATH", help="A directory, a git repository, or an archive.")
    ],
    format: Annotated[Format, typer.Option(help="How to print the report.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report there instead.")] = None,
    fail_on: Annotated[Threshold | None, typer.Option(help="Exit with 1 if anything is at least so bad.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if the scan was partial.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(parser=named, metavar="FILE", help="Findings that a person accepts.")
    ] = None,
    history: Annotated[bool, typer.Option(help="Look into the git history too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as --format json does.")] = False,
) -> None:
    """Scan a directory, a git repository or an archive in a sandbox."""
    from core.grace.cli.progress import progress

    format = Format.JSON if as_json else format
    client = Client.to(context.obj, waiting=tell_waiting)
    client.get("/api/v1/status")  # is anybody there? Asked before any packing.
    accepted = read_baseline(baseline) if baseline else ""
    if out is not None:
        check_writable(out)
    source = _open(path, context.obj, history)
    with progress() as shown:
        shown.show(f"Sending {source.what}")
        message = _send(client, source, accepted, shown, history=history)
        run = watch(client, client.publish(message)["run"], shown)
    if run["outcome"] not in GREEN:
        raise failed(run)
    raise typer.Exit(_judge(client, run, format, out, fail_on, strict=strict))


def watch(client: Client, run: str, shown: "Progress") -> dict[str, Any]:
    """Follows a run to its end and returns it. The first Ctrl-C asks it to end, the second leaves it."""
    try:
        _follow(client, run, shown)
    except KeyboardInterrupt:
        shown.show(f"Cancelling {run}")
        with suppress(Conflict):  # it ended in this moment
            client.post(place(run) + "/cancel", {})
        _follow(client, run, shown)
    found: dict[str, Any] = client.get(place(run))
    return found


def failed(run: dict[str, Any], *, of_input: bool = True) -> Fault:
    """What to say of a run that is not green: where its MAD found a mistake in what was asked for, that.

    `of_input` False: what could be wrong with that was looked at before the run.
    """
    for each in run["messages"]:
        if of_input and run["outcome"] == "failed" and each["kind"] == "fault" and each["sender"] == run["mad"]:
            told = fault(each)
            if told.is_mistake:
                return Fault(told.said, told.message, next=f"{told.next} See: madlab show {run['id']}".strip())
    reason = screen.plain(run["reason"] or "no reason was given")
    return Fault(
        str(run["outcome"]),
        f"the run {run['id']} ended {run['outcome']}: {reason}",
        next=f"see: madlab show {run['id']}",
    )


def _follow(client: Client, run: str, shown: "Progress") -> None:
    now = client.get(place(run))
    shown.show(f"Run {run} waits, {now['place']} in the queue" if now.get("place") else f"Run {run} is {now['state']}")
    for line in client.follow(place(run) + "/logs"):
        if line["tool"] == "progress":
            fields = line["data"] if isinstance(line["data"], dict) else {}
            what, done, total = (fields.get(key) for key in ("what", "done", "total"))
            if isinstance(done, int) and isinstance(total, int):
                shown.show(screen.plain(what or line["text"]), done, total)
            else:
                shown.show(screen.plain(line["text"]))


def _open(path: Path, home: str | None, history: bool) -> "Source":
    from core.grace.cli.packing import open_source

    return open_source(path, Home.find(home), history=history, note=lambda text: screen.note(f"Note: {text}"))


def _send(client: Client, source: "Source", accepted: str, shown: "Progress", *, history: bool) -> dict[str, Any]:
    """Stores what shall be scanned, and returns the message that asks for it."""
    what = f"Sending {source.what}"
    blobs = [
        client.upload(
            lambda: shown.through(source.chunks(), what, source.size), name=source.name, media_type="application/x-tar"
        )
    ]
    arguments = {"source": blobs[0]["digest"], "kind": source.kind, "name": source.name, "history": history}
    if accepted:
        blobs.append(client.upload(lambda: [accepted.encode()], name="baseline.json", media_type="application/json"))
        arguments["baseline_json"] = blobs[1]["digest"]
    return {"recipient": "mcnamara", "kind": "call", "tool": "scan", "arguments": arguments, "blobs": blobs}


def read_baseline(path: Path) -> str:
    """The text of a baseline, read by McNamara's own rule so that a slip is told before anything is sent.

    Raises:
        InvalidArgument: it cannot be read, or is no baseline.
    """
    from protos import baseline

    try:
        check_regular(path, streams=True)
        with path.open("rb") as file:
            text = file.read(BASELINE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the baseline {path} cannot be read: {error}", next=baseline.FORM) from None
    if len(text) > BASELINE_BYTES:
        raise InvalidArgument(f"the baseline {path} is larger than {screen.size(BASELINE_BYTES)}", next=baseline.FORM)
    try:
        baseline.read(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error.message}", next=error.next) from None
    return text


def check_writable(out: Path) -> None:
    """Looked at before any work is done.

    Raises:
        InvalidArgument: a report cannot be written there.
    """
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise InvalidArgument(f"{out} cannot be written", next="name a file in a directory of yours")


def _judge(
    client: Client, run: dict[str, Any], format: Format, out: Path | None, fail_on: Threshold | None, *, strict: bool
) -> int:
    """Prints or writes the report, and returns the exit code.

    Raises:
        Fault: the run left no report, or none of the shape that one has.
        Exhausted: it cannot be written.
    """
    from core.grace.cli import report
    from core.grace.reports import Severity

    found = parsed(_artifact(client, run, "report.json"), run)
    if format is Format.SARIF:
        text = json.dumps(json.loads(_artifact(client, run, "report.sarif")), indent=2)
    else:
        text = found.model_dump_json(indent=2)
    if out is not None:
        try:
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise Exhausted(
                f"{out} cannot be written: {error.strerror}", next="make room, or name another file"
            ) from None
        screen.note(f"The report is in {out}")
    elif format is not Format.TABLE:
        print(text)
    if format is Format.TABLE:
        report.show(found, run["reason"])
    if report.says_no(found, Severity(fail_on) if fail_on else None):
        return NO
    return FAILED if strict and run["outcome"] == "partial" else 0


def parsed(content: bytes, run: dict[str, Any]) -> "Report":
    """The report of a run.

    Raises:
        Fault: it is not of the shape that a report has. The lab was reached: it is the worker that failed.
    """
    from core.grace.reports import parse

    try:
        return parse(content, run)
    except Unavailable as error:
        raise Fault("no_result", error.message, next=error.next) from None


def _artifact(client: Client, run: dict[str, Any], name: str) -> bytes:
    """A file that the run left.

    Raises:
        Fault: there is none of that name, or it is far too big.
    """
    found = next((each for each in run["artifacts"] if each["name"] == name), None)
    if found is None or found["size"] > REPORT_BYTES:
        what = "no" if found is None else "an oversized"
        raise Fault("no_result", f"the run {run['id']} left {what} {name}", next=f"see: madlab show {run['id']}")
    with TemporaryFile() as file:
        client.download(found["digest"], file)
        file.seek(0)
        return file.read()
