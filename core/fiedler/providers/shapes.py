"""What both protocols have in common."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from anyio import move_on_after

from protos.v1 import llm_pb2 as pb

TOKENS = 1 << 40  # more was never used in one call; a figure above is a slip


GRACE_S = 2.0  # for what follows after the answer itself has ended: usage, and the end of the connection's turn
Piece = TypeVar("Piece")


async def next_of(stream: AsyncIterator[Piece], *, ended: bool) -> Piece | None:
    """The next piece, or None at the end. Once the answer itself has ended, what follows may be late or broken."""
    if not ended:
        return await anext(stream, None)
    try:
        with move_on_after(GRACE_S):
            return await anext(stream, None)
    except Exception:  # noqa: BLE001  the answer is whole; only its usage is lost, and lost usage is an ordinary case
        pass
    return None


def count(value: object) -> int | None:
    """A number of tokens, or None if that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < TOKENS else None


def parsed(schema: str) -> Any:
    """A JSON Schema of a request, which was checked when it came in; none is one that takes any object."""
    return json.loads(schema) if schema else {"type": "object", "properties": {}}


def joined_text(parts: Sequence[pb.Part]) -> str:
    """The text of a turn."""
    return "".join(each.text for each in parts)
