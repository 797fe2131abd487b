"""`madlab client …`: programs that may come to the lab with a token of their own, and what each may."""

import re
from typing import Annotated, Any

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from core.grace.cli.secrets import seconds
from protos.errors import InvalidArgument

client = typer.Typer(
    help="Programs with a token of their own: an editor, a script, a CI.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the client is called.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(client, name="client")


@client.command("add")
def add(
    context: typer.Context,
    name: Name,
    may: Annotated[
        list[str] | None, typer.Option(metavar="MAD[.TOOL]", help="A tool it may call, or all of a MAD. Repeatable.")
    ] = None,
    sees: Annotated[
        str, typer.Option(metavar="own|all", help="Its own runs and conversations, or those of everybody.")
    ] = "own",
    ttl: Annotated[str, typer.Option(metavar="SPAN", help="How long its token is good: 12h, 30d.")] = "",
    json: Json = False,
) -> None:
    """Add a client, and print its token: this once.

    It is `client:NAME` in the policy, in grants and in the audit, and may call nothing but what --may names. For
    example: madlab client add ci --may mcnamara.scan --ttl 30d
    """
    if sees not in ("own", "all"):
        raise InvalidArgument(f"--sees: {screen.plain(sees[:40])!r} is neither own nor all.", next="Say one of them.")
    body: dict[str, object] = {"name": name, "may": may or [], "sees": sees}
    made = Client.to(context.obj).post("/api/v1/clients", body | ({"ttl_s": seconds(ttl)} if ttl else {}))
    if json:
        screen.data(made)
        return
    screen.say(made["token"])
    screen.note(f"This is shown once. {_sentence(made)}")


@client.command("list")
def list_clients(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that were revoked or have expired.")] = False,
    json: Json = False,
) -> None:
    """List the clients that have a token."""
    found = Client.to(context.obj).get("/api/v1/clients")["clients"]
    shown = [each for each in found if every or each["holds"]]
    if json:
        screen.data({"clients": shown})
        return
    screen.table(
        ("NAME", "SEES", "ADDED", "USED", "ENDS", "MAY"),
        [
            (
                each["name"],
                each["sees"],
                screen.clock(each["made"]),
                screen.ago(each["used"]) if each["used"] else "never",
                _ends(each),
                ", ".join(each["may"]) or "nothing",
            )
            for each in shown
        ],
    )


@client.command("show")
def show(context: typer.Context, name: Name, json: Json = False) -> None:
    """Show what a client may, and when it was here."""
    found = Client.to(context.obj).get(_at(name))
    if json:
        screen.data(found)
        return
    screen.say(f"{found['principal']}: {_sentence(found)}")
    used = screen.ago(found["used"]) if found["used"] else "never"
    screen.say(f"Added {screen.clock(found['made'])}, used {used}, ends {_ends(found)}.")


@client.command("revoke")
def revoke(context: typer.Context, name: Name, json: Json = False) -> None:
    """End a client's token at once, with whatever it follows. What it asked for goes on: see madlab cancel."""
    ended = Client.to(context.obj).post(f"{_at(name)}/revoke", {})
    if json:
        screen.data(ended)
    else:
        screen.note(f"The token of {ended['principal']} is worth nothing any more.")


def _sentence(found: dict[str, Any]) -> str:
    may = ", ".join(found["may"])
    sees = "sees everybody's runs and conversations" if found["sees"] == "all" else "sees its own runs only"
    return f"It may call {may or 'nothing yet (--may)'}, and {sees}."


def _ends(found: dict[str, Any]) -> str:
    if not found["holds"]:
        return "ended"
    return screen.clock(found["expires"]) if found["expires"] else "never"


def _at(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InvalidArgument(f"{screen.plain(name[:64])!r} is no name of a client.", next="See: madlab client list")
    return f"/api/v1/clients/{name}"
