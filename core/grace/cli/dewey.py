"""What Dewey knows: `search`, `index status|rebuild`, `archive list|create|restore|verify`, `forget`."""

import re
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from protos.errors import InvalidArgument

NO = 1
UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
LOOK_S = 0.2  # between two looks at how far a rebuild has come


def add_to(app: typer.Typer) -> None:
    app.command()(search)
    app.command()(forget)
    index = typer.Typer(help="The index of the search; it can always be made anew.", no_args_is_help=True)
    index.command()(status)
    index.command()(rebuild)
    app.add_typer(index, name="index")
    archive = typer.Typer(help="Conversations in compressed files, and back.", no_args_is_help=True)
    archive.command("list")(list_archives)
    archive.command()(create)
    archive.command()(restore)
    archive.command()(verify)
    app.add_typer(archive, name="archive")


def search(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="QUERY...", help="What to look for.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="message, run, finding or act.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """Find what was said and done: messages, runs, findings, acts.

    Words, "a phrase", begin*, -not, this OR that, and fields: from:hopper to: mad: kind: tag: conversation: run:
    before:2026-11-22 after:7d. For example: madlab search from:hopper '"import error"' after:2d
    """
    # A word that the shell has taken out of its quotation marks was a phrase.
    text = " ".join(f'"{each}"' if " " in each and not re.search(r'["\s][\w-]*:|"', each) else each for each in words)
    found = Client.to(context.obj).get("/api/v1/search", q=text, kind=kind or None, limit=limit)
    if json:
        screen.data(found)
        return
    if not found["hits"]:
        screen.note("Nothing was found.")
        raise typer.Exit(NO)
    for each in found["hits"]:
        _show(each)
    total = f"{found['total']:,}" + ("" if found["exact"] else " or more")
    screen.note(f"{len(found['hits'])} of {total}, in {found['took_ms']:.0f} ms")


def _show(hit: dict[str, Any]) -> None:
    from rich.text import Text

    place = hit["run"] or hit["conversation"]
    head = f"{screen.clock(hit['at'])}  {hit['kind']:<8} {hit['title']}  [{place or hit['id']}]"
    line = Text("    ")
    for text, marked in hit["snippet"]:
        line.append(screen.plain(text), style="bold" if marked else "")
    screen.say(screen.plain(head))
    screen.say(line)


def status(context: typer.Context, json: Json = False) -> None:
    """Say how far the index has come, and how large it is."""
    found = Client.to(context.obj).get("/api/v1/index")
    if json:
        screen.data(found)
        return
    behind = f"{found['lag']:,} entries behind" if found["lag"] else "up to date"
    screen.say(f"{found['documents']:,} things can be found, {screen.size(found['bytes'])}, {behind}")
    if found["rebuilding"] is not None:
        screen.say(f"It is being made anew: {found['rebuilding']:.0%}")
    if found["error"]:
        screen.say(f"It does not follow the journal: {screen.plain(found['error'])}")
    raise typer.Exit(NO if found["error"] else 0)


def rebuild(context: typer.Context, json: Json = False) -> None:
    """Make the index anew from the journal. Searches go on with the old one until it is done."""
    client = Client.to(context.obj)
    found = client.post("/api/v1/index/rebuild", {})
    shown = -1
    while found["rebuilding"] is not None:
        share = int(found["rebuilding"] * 100)
        if share // 10 > shown // 10:
            screen.note(f"{share} %")
            shown = share
        time.sleep(LOOK_S)
        found = client.get("/api/v1/index")
    if json:
        screen.data(found)
    else:
        screen.say(f"{found['documents']:,} things can be found.")


def list_archives(context: typer.Context, json: Json = False) -> None:
    """List what is in the archive."""
    found = Client.to(context.obj).get("/api/v1/archives")
    if json:
        screen.data(found)
        return
    if not found["archives"]:
        screen.say("Nothing is archived.")
    for each in found["archives"]:
        screen.say(_line(each))


def create(
    context: typer.Context,
    conversation: Annotated[str, typer.Argument(metavar="[CONVERSATION]", help="One conversation.")] = "",
    idle: Annotated[str, typer.Option(metavar="SPAN", help="All without a word for so long: 12h, 30d, 8w.")] = "",
    json: Json = False,
) -> None:
    """Put conversations into the archive. They can be read and searched as before.

    For example: madlab archive create --idle 30d
    """
    if bool(conversation) == bool(idle):
        raise InvalidArgument(
            "name a conversation, or say --idle SPAN", next="for example: madlab archive create --idle 30d"
        )
    body: dict[str, object] = {"conversation": conversation} if conversation else {"idle_s": _span(idle)}
    found = Client.to(context.obj).post("/api/v1/archives", body)
    if json:
        screen.data(found)
        return
    for each in found["archives"]:
        screen.say(_line(each))
    screen.note(f"{len(found['archives']):,} archived.")


def restore(
    context: typer.Context,
    conversation: Annotated[str, typer.Argument(metavar="ID", help="A conversation, or one archive.")],
    json: Json = False,
) -> None:
    """Bring a conversation back from the archive, bit for bit. It stays until it is archived again."""
    found = Client.to(context.obj).post("/api/v1/archives/restore", {"conversation": conversation})
    if json:
        screen.data(found)
    else:
        screen.say(f"{found['entries']:,} entries are back.")


def verify(context: typer.Context, json: Json = False) -> None:
    """Compare every archive with the hash chain of the journal: is it what was said?"""
    found = Client.to(context.obj).get("/api/v1/archives/verify")
    if json:
        screen.data(found)
    else:
        word = "all as they were" if found["ok"] else "DAMAGED"
        screen.say(f"{found['archives']:,} archives with {found['entries']:,} entries: {word}")
        for each in found["problems"]:
            screen.say(f"  {screen.plain(each)}")
    raise typer.Exit(0 if found["ok"] else NO)


def forget(
    context: typer.Context,
    conversation: Annotated[str, typer.Argument(metavar="CONVERSATION", help="Which one.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove what was said in a conversation for good, and the files that nothing else links.

    What stays: who spoke to whom and when, what models cost, how its runs ended, and the proof of what was removed.
    """
    if not yes:
        typer.confirm(
            f"Forget conversation {conversation} and all within it? This cannot be undone.", abort=True, err=True
        )
    found = Client.to(context.obj).post(f"/api/v1/conversations/{quote(conversation, safe='/')}/forget", {})
    if json:
        screen.data(found)
    else:
        screen.say(
            f"Gone: {found['bodies']:,} bodies, {found['archives']:,} archives, {found['blobs']:,} files."
            f" The proof is entry {found['sequence']:,} of the journal."
        )


def _line(archive: dict[str, Any]) -> str:
    return screen.plain(
        f"{screen.clock(archive['ended'])}  {archive['count']:>7,} entries  {screen.size(archive['bytes']):>9}"
        f"  {archive['conversation']}  [{archive['id']}]"
    )


def _span(text: str) -> float:
    """Seconds.

    Raises:
        InvalidArgument: it is no span.
    """
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if span is None:
        raise InvalidArgument(f"--idle: {text[:40]!r} is no span", next="write 30m, 12h, 30d or 8w")
    return int(span[1]) * UNITS_S[span[2]]
