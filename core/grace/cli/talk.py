"""Speaking on the bus: `say`, `call`, `history`, `tools`."""

import mimetypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from core.grace.cli import screen
from core.grace.cli.client import CHUNK, Client, Fault
from core.grace.cli.files import check_regular
from core.grace.cli.life import Json
from core.grace.cli.runs import Follow, one_line, pages, tell_waiting
from protos.errors import InvalidArgument, Unavailable

ANSWERS = ("reply", "fault")
Conversation = Annotated[str | None, typer.Option(metavar="ID", help="Go on with this conversation.")]


def add_to(app: typer.Typer) -> None:
    app.command()(say)
    app.command()(call)
    app.command()(history)
    app.command()(tools)


def say(
    context: typer.Context,
    mad: Annotated[str, typer.Argument(metavar="MAD")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads it from stdin.")],
    conversation: Conversation = None,
    json: Json = False,
) -> None:
    """Say something to a MAD and wait for its answer."""
    client = Client.to(context.obj, waiting=tell_waiting)
    words = sys.stdin.read() if text == "-" else text
    answer = ask(client, {"recipient": mad, "kind": "prose", "text": words, "conversation": conversation or ""})
    if json:
        screen.data(answer)
    else:
        screen.say(answer["text"] or answer["data"])


def call(
    context: typer.Context,
    tool: Annotated[str, typer.Argument(metavar="MAD.TOOL")],
    arguments: Annotated[str, typer.Argument(metavar="[JSON]", help="Its arguments; - reads them from stdin.")] = "{}",
    attach: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Send a file along; may be given again.")
    ] = None,
    conversation: Conversation = None,
    json: Json = False,
) -> None:
    """Call a tool of a MAD and print its result as JSON. With --json, print the whole reply."""
    mad, dot, name = tool.partition(".")
    if not (mad and dot and name):
        raise InvalidArgument(f"{tool!r} names no tool", next="write MAD.TOOL; see: madlab tools")
    message = {
        "recipient": mad,
        "kind": "call",
        "tool": name,
        "arguments": read_object(sys.stdin.read() if arguments == "-" else arguments),
        "conversation": conversation or "",
    }
    client = Client.to(context.obj, waiting=tell_waiting)
    files = [upload_file(client, each) for each in attach or []]
    answer = ask(client, message | {"blobs": files})
    screen.data(answer if json else answer["data"])
    if not json:
        for blob in answer["blobs"]:
            screen.note(f"{blob['name'] or 'a file'}: {screen.size(blob['size'])}, {blob['digest']}")


def history(
    context: typer.Context,
    conversation: Annotated[str, typer.Argument(metavar="CONVERSATION")],
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Read a conversation. With -f, go on with what comes."""
    client = Client.to(context.obj, waiting=tell_waiting)
    path = f"/api/v1/conversations/{quote(conversation, safe='')}/messages"
    for message in client.follow(path) if follow else pages(client, path, "messages"):
        if json:
            screen.data_line(message)
        else:
            screen.say(one_line(message))


def tools(
    context: typer.Context,
    mad: Annotated[str | None, typer.Argument(metavar="[MAD]")] = None,
    json: Json = False,
) -> None:
    """List every tool of every MAD; of one MAD with its schemas."""
    found = Client.to(context.obj).get("/api/v1/tools", mad=mad)["tools"]
    if json:
        screen.data(found)
    elif mad is None:
        screen.table(("TOOL", "WHAT IT DOES"), [(each["name"], each["description"].split("\n")[0]) for each in found])
    else:
        for each in found:
            screen.say(f"{each['name']}\n  {screen.plain(each['description'])}")
            for side in ("input_schema", "output_schema"):
                screen.say(f"  {side}")
                for line in _schema_lines(each[side]):
                    screen.say(f"    {line}")


def ask(
    client: Client, message: dict[str, Any], hear: Callable[[dict[str, Any]], None] = lambda event: None
) -> dict[str, Any]:
    """Publishes a message and returns its answer. `hear` is called with what is told on the way.

    Raises:
        Fault: the answer is one.
        Error: the lab refuses the message.
    """
    said = client.publish(message)
    path = f"/api/v1/conversations/{quote(said['conversation'], safe='')}/messages"
    with screen.patience():
        for each in client.follow(path, after=said["sequence"]):
            if each["in_reply_to"] == said["id"] and each["kind"] in ANSWERS:
                if each["kind"] == "fault":
                    raise fault(each)
                return dict(each)
            hear(each)
    raise Unavailable("the lab ended the conversation without an answer", next="see: madlab runs")


def fault(message: dict[str, Any]) -> Fault:
    """A fault as the error it tells of. What a worker wrote is shown, and decides nothing."""
    said = message["data"] if isinstance(message["data"], dict) else {}
    text = str(said.get("message") or message["text"] or "the MAD could not answer")
    return Fault(str(said.get("code") or "fault"), screen.plain(text), next=screen.plain(said.get("next") or ""))


def upload_file(client: Client, path: Path) -> dict[str, Any]:
    """Stores a file as a blob.

    Raises:
        InvalidArgument: it is no regular file.
        OSError: it cannot be read.
    """
    check_regular(path)

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return client.upload(chunks, name=path.name, media_type=kind)


def read_object(text: str) -> dict[str, Any]:
    import json

    try:
        value = json.loads(text)
        json.dumps(value)  # as it will be sent; the writer's stack is the shorter one
    except RecursionError:
        raise InvalidArgument(
            "the arguments are nested too deeply", next="write a flatter object, or attach a file"
        ) from None
    except ValueError as error:
        raise InvalidArgument(
            f"the arguments are no JSON: {error}", next='write an object: {"text": "hello"}'
        ) from None
    if not isinstance(value, dict):
        raise InvalidArgument("the arguments are no JSON object", next='write one: {"text": "hello"}')
    return value


def _schema_lines(schema: dict[str, Any]) -> Iterator[str]:
    import json

    yield from json.dumps(schema, indent=2, ensure_ascii=False).split("\n")
