"""What waits for a person: `approvals`, `approve`, `deny`."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from core.grace.cli.runs import Follow, tell_waiting
from protos.errors import NotFound

Id = Annotated[str, typer.Argument(metavar="ID", help="As `madlab approvals` shows it: the beginning of an id.")]
SHOWN_CHARACTERS = 600  # of a detail


def add_to(app: typer.Typer) -> None:
    app.command()(approvals)
    app.command()(approve)
    app.command()(deny)


def approvals(
    context: typer.Context,
    follow: Follow = False,
    every: Annotated[bool, typer.Option("--all", help="Also what was answered or has expired.")] = False,
    json: Json = False,
) -> None:
    """List what waits for a person, in its exact form. With -f, go on with what comes."""
    client = Client.to(context.obj, waiting=tell_waiting)
    found = client.get("/api/v1/approvals", all=1 if every else None)["approvals"]
    if json and not follow:
        screen.data({"approvals": found})
        return
    if not found and not follow:
        screen.note("Nothing waits for a person.")
    for each in found:
        _show(each, as_json=json)
    if follow:
        known = {each["id"]: each["state"] for each in found}
        for each in client.follow("/api/v1/approvals"):
            if known.get(each["id"]) != each["state"] and (each["state"] == "pending" or each["id"] in known):
                known[each["id"]] = each["state"]
                _show(each, as_json=json)


def approve(
    context: typer.Context,
    id: Id,
    uses: Annotated[int, typer.Option("--for", min=1, max=1000, metavar="N", help="So many acts of this form.")] = 1,
    json: Json = False,
) -> None:
    """Let one act of exactly this form begin, or N."""
    found = Client.to(context.obj).post(_place(id) + "/approve", {"uses": uses})
    _answered(found, "approved" if uses == 1 else f"approved for {uses}", as_json=json)


def deny(context: typer.Context, id: Id, json: Json = False) -> None:
    """Refuse an act, also where it was approved and has not begun."""
    _answered(Client.to(context.obj).post(_place(id) + "/deny", {}), "denied", as_json=json)


def _place(id: str) -> str:
    """Where the door has an approval.

    Raises:
        NotFound: none can be called so: another place of the door would answer, in words about routes.
    """
    if not id or "/" in id:
        raise NotFound(f"There is no approval '{screen.plain(id[:64])}'.", next="See: madlab approvals")
    return "/api/v1/approvals/" + quote(id, safe="")


def _answered(found: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        screen.data(found)
    else:
        form = found["form"]
        screen.say(f"{what}: {form['kind']} {form['target']} by {form['principals'][-1]}")


def _show(approval: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.data_line(approval)
        return
    form = approval["form"]
    waits = ""
    if approval["state"] == "pending" and approval["waiting"] != 1:
        waits = f", {approval['waiting']} acts wait" if approval["waiting"] else ", nobody waits now"
    screen.say(f"{approval['short']}  {approval['state']}{waits}  {form['kind']} {form['target']}")
    screen.say(f"  who      {', '.join(form['principals'])}")
    for name, value in form["details"].items():
        text = str(value) if len(str(value)) <= SHOWN_CHARACTERS else f"{str(value)[:SHOWN_CHARACTERS]} …"
        screen.say(f"  {name:<8} {screen.plain(text)}")
    if form["taint"]:
        screen.say(f"  taint    {', '.join(form['taint'])}")
    screen.say(f"  why      rule {approval['rule']}: {approval['reason']}")
    screen.say(f"  digest   {approval['digest']}")
    asked, expires = screen.ago(approval["asked"]), screen.clock(approval["expires"])
    screen.say(f"  asked    {asked}, until {expires}")
    if approval["state"] == "pending":
        many = f" --for {approval['waiting']}" if approval["waiting"] > 1 else ""
        screen.say(f"  answer   madlab approve {approval['short']}{many}   or   madlab deny {approval['short']}")
