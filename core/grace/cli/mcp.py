"""`madlab mcp`: the lab for an MCP client that runs on this machine, over standard input and output."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.grace.cli import screen
from core.grace.cli.files import check_regular, named
from core.home import Home
from protos.errors import Denied, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from core.grace.cli.packing import Source

TOKEN = "MADLAB_TOKEN"


def add_to(app: typer.Typer) -> None:
    app.command()(mcp)


def mcp(
    context: typer.Context,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            parser=named,
            metavar="DIR",
            help="The client may name folders below DIR, and no others; may be given again.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Be the client whose token is in FILE, or in $MADLAB_TOKEN.")
    ] = None,
) -> None:
    """Serve the lab to an MCP client (Claude Code, Cursor, VS Code) that starts this command.

    The client may have those folders scanned or worked on that are below the current one, unless --root says others.
    It is the operator, or with a token (madlab client add) a client that may call what was named for it. What is for
    a person goes to stderr. How to register it with each editor stands in core/grace/gateway/README.md.
    """
    home, token = _running(context.obj), _token(token_file)

    import anyio  # the SDK takes a second: an editor that starts this without a lab is told before

    from core.grace.gateway.stdio import over_loopback, over_socket, serve

    roots = [each.expanduser().resolve() for each in root or [Path.cwd()]]

    async def run() -> None:
        async with over_loopback(_origin(home), token) if token else over_socket(home.api_socket) as door:
            tools = (await door.get("/tools"))["tools"]  # is anybody there? Asked before the client is.
            screen.note(f"madlab: lab {home.lab}, {len(tools)} tools, folders below {', '.join(map(str, roots))}")
            await serve(door, lambda path, history: _opened(Path(path), home, roots, history=history))

    anyio.run(run)


def _token(file: Path | None) -> str:
    """
    Raises:
        InvalidArgument: there is none in the file.
        OSError: it cannot be read.
    """
    if file:
        check_regular(file.expanduser(), streams=True)
    token = file.expanduser().read_text(encoding="utf-8").strip() if file else os.environ.get(TOKEN, "").strip()
    if file and not token:
        raise InvalidArgument(f"{file} holds no token", next="write into it what `madlab client add` prints")
    return token


def _origin(home: Home) -> str:
    """Where the lab listens on loopback.

    Raises:
        Unavailable: nowhere.
    """
    from core.config import load

    try:
        port = int((home.path / "port").read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise Unavailable(
            "the lab does not listen on loopback", next="see `[web]` in madlab.toml, and core.log"
        ) from None
    host = load(home).web.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _running(place: str | None) -> Home:
    """
    Raises:
        Unavailable: there is no such lab, or it is not running.
    """
    try:
        home = Home.find(place)
    except NotFound as error:
        raise Unavailable(error.message, next=error.next) from None
    if home.holder() is None:
        raise Unavailable(f"the lab in {home.path} is not running", next="start it with: madlab up")
    return home


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
