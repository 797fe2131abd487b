"""The page: `open` it in a browser, and see or end the `sessions` that were opened so."""

import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.home import Home
from protos.errors import Conflict, InvalidArgument

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PAGE = "open.html"  # in the runtime directory


def add_to(app: typer.Typer) -> None:
    app.command("open")(open_page)
    app.add_typer(sessions)


def open_page(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--print", help="Print the address, and open nothing.")] = False,
    json: Json = False,
) -> None:
    """Open the lab's page in your browser.

    The address holds a ticket that is good once, for a minute. With --print it goes to standard output: for a browser
    on another machine, forward the port first (ssh -L PORT:127.0.0.1:PORT).
    """
    client = Client.to(context.obj)
    ticket = client.post("/api/v1/tickets", {})
    if json:
        screen.data(ticket)
    elif show:
        screen.say(ticket["url"])
    else:
        _open(Home.find(context.obj), ticket["url"])
        screen.note(f"The page is at {ticket['url'].partition('/#')[0]}, for this browser. See: madlab sessions")


def _open(home: Home, url: str) -> None:
    """Has a browser open `url` by way of a file that only this user can read: every user can read command lines."""
    place = home.runtime / PAGE
    content = (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>madlab</title>'
        f'<meta http-equiv="refresh" content="0; url={url}"><p>Opening the lab…'
    )
    place.unlink(missing_ok=True)
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(content)
    if not webbrowser.open(Path(place).as_uri()):
        place.unlink(missing_ok=True)
        raise Conflict("There is no browser to open here.", next="Print the address instead: madlab open --print")


sessions = typer.Typer(
    name="sessions",
    help="List or end the sessions of browsers that `madlab open` has let in.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@sessions.callback()
def list_sessions(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    json: Json = False,
) -> None:
    """List the sessions of browsers that `madlab open` has let in."""
    if context.invoked_subcommand:
        return
    found = Client.to(context.obj).get("/api/v1/sessions")["sessions"]
    shown = [each for each in found if every or each["holds"]]
    if json:
        screen.data({"sessions": shown})
        return
    screen.table(
        ("ID", "OPENED", "USED", "ENDS", "BROWSER"),
        [
            (
                each["id"],
                screen.clock(each["made"]),
                screen.ago(each["used"]) if each["used"] else "never",
                screen.clock(each["expires"]) if each["holds"] else "ended",
                each["about"],
            )
            for each in shown
        ],
    )


@sessions.command("revoke")
def revoke(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Which, as `madlab sessions` says.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every one.")] = False,
    json: Json = False,
) -> None:
    """End sessions at once: what they follow breaks off."""
    client = Client.to(context.obj)
    if every:
        ids = [each["id"] for each in client.get("/api/v1/sessions")["sessions"] if each["holds"]]
    elif not ids:
        raise InvalidArgument("No session is named.", next="Name some, or say --all; see: madlab sessions")
    ended = [client.post(f"/api/v1/sessions/{_one(each)}/revoke", {}) for each in ids or []]
    if json:
        screen.data({"ended": ended})
    else:
        screen.note(f"{len(ended)} session{'' if len(ended) == 1 else 's'} ended.")


def _one(id: str) -> str:
    if not id.isalnum():
        raise InvalidArgument(f"{screen.plain(id[:40])!r} is no session.", next="See: madlab sessions")
    return id
