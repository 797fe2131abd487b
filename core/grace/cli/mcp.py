"""`madlab mcp`: the lab for an MCP client that runs on this machine, over standard input and output."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.grace.cli import screen
from core.home import Home
from protos.errors import Denied, NotFound, Unavailable

if TYPE_CHECKING:
    from core.grace.cli.packing import Source


def add_to(app: typer.Typer) -> None:
    app.command()(mcp)


def mcp(
    context: typer.Context,
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="The client may name folders below DIR, and no others; may be given again."),
    ] = None,
) -> None:
    """Serve the lab to an MCP client (Claude Code, Cursor, VS Code) that starts this command.

    The client may have those folders scanned or worked on that are below the current one, unless --root says others.
    What is to be read by a person goes to stderr; how to register it stands in core/grace/gateway/README.md.
    """
    import anyio

    from core.grace.gateway.stdio import over_socket, serve

    home = _home(context.obj)
    roots = [each.expanduser().resolve() for each in root or [Path.cwd()]]

    async def run() -> None:
        async with over_socket(home.api_socket) as door:
            status = await door.get("/status")  # is anybody there? Asked before the client is.
            screen.note(f"madlab: lab {status['lab']}, folders below {', '.join(map(str, roots))}")
            await serve(door, lambda path, history: _opened(Path(path), home, roots, history=history))

    anyio.run(run)


def _home(place: str | None) -> Home:
    """
    Raises:
        Unavailable: there is no such lab.
    """
    try:
        return Home.find(place)
    except NotFound as error:
        raise Unavailable(error.message, next=error.next) from None


def _opened(path: Path, home: Home, roots: list[Path], *, history: bool) -> "Source":
    """What an MCP client wants to have looked at, made ready to be sent.

    Raises:
        Denied: it is not below a folder that this command was started for.
        Error: it cannot be packed.
    """
    from core.grace.cli.packing import open_source

    place = (roots[0] / path.expanduser()).resolve()  # a relative path is one below the first folder
    if not any(place.is_relative_to(each) for each in roots):
        raise Denied(
            f"{path} is not below {' or '.join(map(str, roots))}",
            next="name a folder below it, or have a person start: madlab mcp --root DIR",
        )
    return open_source(place, home, history=history, note=lambda text: screen.note(f"Note: {text}"))
