"""Runs of eMADs: `runs`, `show`, `logs`, `cancel`."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from protos.errors import NotFound

MOST = 1000  # runs that the door tells at once

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as `madlab runs` shows it.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")]


def add_to(app: typer.Typer) -> None:
    app.command("runs")(list_runs)
    app.command()(show)
    app.command()(logs)
    app.command()(cancel)


def list_runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="At most so many.")] = 50,
    mad: Annotated[str, typer.Option(metavar="MAD", help="Of this MAD alone.")] = "",
    top: Annotated[bool, typer.Option("--top", help="Without those that were begun for another run.")] = False,
    json: Json = False,
) -> None:
    """List runs, newest first."""
    client = Client.to(context.obj)
    found = {"runs": list(islice(_tops(client, mad), limit))} if top else _newest(client, limit=limit, mad=mad)
    if json:
        screen.data(found)
        return
    if mad and not found["runs"]:
        screen.note(f"There is no run of {mad}. Who there is says: madlab status")
    screen.table(
        ("RUN", "MAD", "STATE", "OUTCOME", "CREATED", "TOOK", "REASON"),
        [
            (
                each["id"],
                each["mad"],
                _state(each),
                each["outcome"] or "-",
                screen.ago(each["created"]),
                took(each),
                each["reason"],
            )
            for each in found["runs"]
        ],
    )


def show(context: typer.Context, run: RunId, json: Json = False) -> None:
    """Show one run: its outcome with the evidence, its cost, its files and what was said."""
    found: dict[str, Any] = Client.to(context.obj).get(place(run))
    if json:
        screen.data(found)
        return
    facts = [
        ("run", found["id"]),
        ("state", _state(found) + (f", {found['outcome']}" if found["outcome"] else "")),
        ("reason", found["reason"] or "-"),
        ("created", f"{screen.clock(found['created'])} ({screen.ago(found['created'])})"),
        ("took", took(found)),
        ("cost", _inline(found["cost"])),
        ("evidence", _inline(found["evidence"])),
        ("talk", found["conversation"]),
    ]
    if found["forgotten"]:
        when = f"{screen.clock(found['forgotten'])} ({screen.ago(found['forgotten'])})"
        facts.append(("forgotten", f"{when}: what was said is gone, with the evidence's words and the files"))
    links = [("resumes", found["resumes"]), ("resumed as", ", ".join(found["resumed_as"]))]
    facts += [each for each in links if each[1]]
    for name, value in facts:
        screen.say(f"{name:<10} {screen.plain(value)}")
    if found["artifacts"]:
        screen.say()
        screen.table(
            ("FILE", "SIZE", "DIGEST"),
            [(each["name"] or "-", screen.size(each["size"]), each["digest"]) for each in found["artifacts"]],
        )
    if found["packages"]:
        screen.say()
        screen.table(
            ("PACKAGE", "VERSION", "FROM", "DIGEST"),
            [(each["project"], each["version"], each["ecosystem"], each["digest"]) for each in found["packages"]],
        )
    screen.say()
    for message in found["messages"]:
        screen.say(one_line(message))


def logs(context: typer.Context, run: RunId, follow: Follow = False, json: Json = False) -> None:
    """Show what a run wrote while it worked. With -f until it ends."""
    client = Client.to(context.obj, waiting=tell_waiting)
    path = place(run) + "/logs"
    for line in client.follow(path) if follow else pages(client, path, "logs"):
        if json:
            screen.data_line(line)
        else:
            screen.say(f"{screen.clock(line['at'])}  {line['tool']:<8}  {screen.plain(line['text'])}")


def cancel(context: typer.Context, run: RunId, json: Json = False) -> None:
    """Ask a run to end. Its sandbox is destroyed in any case."""
    found = Client.to(context.obj).post(place(run) + "/cancel", {})
    if json:
        screen.data(found)
    else:
        screen.say(f"{found['id']} is {found['state']}" + (f", {found['outcome']}" if found["outcome"] else ""))


def _newest(client: Client, *, limit: int, mad: str, before: str = "") -> Any:
    return client.get("/api/v1/runs", limit=limit, mad=mad or None, before=before or None)


def _tops(client: Client, mad: str) -> Iterator[dict[str, Any]]:
    """The runs that were begun for no other, newest first, page by page."""
    before = ""
    while runs := _newest(client, limit=MOST, mad=mad, before=before)["runs"]:
        yield from (each for each in runs if each["parent"] is None)
        before = runs[-1]["id"]


def place(run: str) -> str:
    """Where the door has a run.

    Raises:
        NotFound: no run can be called so: another place of the door would answer, in words about routes.
    """
    if not run or "/" in run:
        raise NotFound(f"There is no run '{screen.plain(run[:64])}'.", next="See: madlab runs")
    return "/api/v1/runs/" + quote(run, safe="")


def tell_waiting(seconds: float) -> None:
    """Says that the core is away."""
    screen.note(f"The core does not answer; waiting up to {seconds:g} s for it to come back …")


def pages(client: Client, path: str, name: str) -> Iterator[dict[str, Any]]:
    """All messages that a place has now, page by page."""
    after = 0
    while found := client.get(path, after=after, limit=1000)[name]:
        yield from found
        after = found[-1]["sequence"]


def took(run: dict[str, Any]) -> str:
    """How long a run has worked."""
    if not run["started"]:
        return "-"
    return screen.span(run["ended"] - run["started"]) if run["ended"] else "since " + screen.ago(run["started"])


def one_line(message: dict[str, Any]) -> str:
    """A message as a line of a conversation."""
    what = message["kind"] + (f" {message['tool']}" if message["tool"] else "")
    said = message["text"] or _inline(message["data"])
    blobs = "".join(
        f" [{each['name'] or each['digest'][:19]} {screen.size(each['size'])}]" for each in message["blobs"]
    )
    heading = f"{screen.clock(message['at'])}  {message['sender']} → {message['recipient'] or 'all'}  {what}: "
    return screen.plain(heading + said + blobs)


def _state(run: dict[str, Any]) -> str:
    """The state, and for a run that waits its place in the queue."""
    return f"{run['state']} ({run['place']} in the queue)" if run.get("place") else str(run["state"])


def _inline(value: Any) -> str:
    import json

    if value in (None, {}, []):
        return "-"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else text[:500] + " …"
