"""What a person asks a model: from the command line or stdin, never nothing, and a blob where it is too long."""

import json
import sys
from typing import Any

from core.grace.cli.client import CHUNK, Client
from protos.errors import InvalidArgument

CARRIED_BYTES = 14_000  # of the arguments of a call, as JSON: a message carries 16 KiB


def words_of(given: str, what: str) -> str:
    """What was given, or where that is `-`, what is on stdin.

    Raises:
        InvalidArgument: there is nothing in it, or what is no text.
    """
    try:
        words = sys.stdin.read() if given == "-" else given
        words.encode()  # a byte that is no text comes as half a surrogate
    except UnicodeError:
        raise InvalidArgument(f"{what} is no text in UTF-8", next="save it as UTF-8") from None
    if not words.strip():
        raise InvalidArgument(f"{what} is empty", next="write a sentence, or - to read it from stdin")
    return words


def fitting(client: Client, arguments: dict[str, Any], name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The arguments of a call, and the blobs to attach: where they are too long, NAME is stored and named NAME_blob."""
    if len(json.dumps(arguments, ensure_ascii=False).encode()) <= CARRIED_BYTES:
        return arguments, []
    content = str(arguments[name]).encode()
    pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    blob = client.upload(lambda: pieces, name=f"{name}.txt", media_type="text/plain")
    rest = {key: value for key, value in arguments.items() if key != name}
    return rest | {f"{name}_blob": blob["digest"]}, [blob]
