"""What should not have happened: `incidents`."""

from typing import Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json


def add_to(app: typer.Typer) -> None:
    app.command()(incidents)


def incidents(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="At most the newest N.")] = 50,
    json: Json = False,
) -> None:
    """List where a secret or a decoy key was seen, the way it took, and which run was ended for it."""
    found: list[dict[str, Any]] = Client.to(context.obj).get("/api/v1/incidents", limit=limit)["incidents"]
    if json:
        screen.data({"incidents": found})
        return
    if not found:
        screen.note("There are no incidents.")
    for each in found:
        who = each["run"] or each["mad"] or "somebody"
        ended = f" Ended: {', '.join(each['ended'])}." if each["ended"] else " Taken out; nobody was ended."
        screen.say(f"{screen.clock(each['at'])}  {who}: {each['what']} in {each['place']}.{ended}")
        for step in each["path"]:
            screen.say(f"    {step}")
