"""Tools: typed methods of a MAD that a message can call by name.

    class Echo:
        @tool(effects="read", idempotent=True)
        async def say(self, call: Call, *, text: str) -> Said:
            "Says the text back."

The method's keyword arguments are its input schema, its return type (a `typing_extensions.TypedDict`) the output
schema; `protos.schema` derives both, the manifest carries them, and the core validates arguments before delivery.
So a worker needs no validator and no pydantic. Names, defaults and docstring are what a caller sees.
"""

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from protos.ids import new_id
from protos.mad import Context
from protos.v1.message_pb2 import KIND_EVENT, Blob, Message

Effects = Literal["read", "write", "outward"]
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True)
class Tool:
    """What a tool is apart from its code."""

    name: str
    effects: Effects
    idempotent: bool
    steerable: bool


@dataclass(frozen=True)
class Call:
    """One call as the tool sees it: the message, the ports, and ways to tell how it goes."""

    message: Message
    ctx: Context

    @property
    def blobs(self) -> Iterable[Blob]:
        """What the caller attached."""
        return self.message.blobs

    async def progress(self, text: str, **fields: object) -> None:
        """Tells people how far the work is: delivered at once, durable soon."""
        await self.ctx.bus.report([self._event("progress", text, fields)])

    async def log(self, text: str, **fields: object) -> None:
        """A line for the run's log."""
        await self.ctx.bus.report([self._event("log", text, fields)])

    def _event(self, topic: str, text: str, fields: dict[str, object]) -> Message:
        return Message(
            id=new_id(),
            conversation=self.message.conversation,
            kind=KIND_EVENT,
            tool=topic,
            causation=self.message.id,
            text=text,
            data=json.dumps(fields) if fields else "",
        )


def tool(*, effects: Effects, idempotent: bool = False, steerable: bool = False) -> Callable[[Method], Method]:
    """Marks a method as a tool.

    `effects` says what it can change: nothing, the lab's own things, or the world. A `steerable` one reads what the
    operator says to its run while it works.
    """

    def mark(method: Method) -> Method:
        method.__madlab_tool__ = Tool(method.__name__, effects, idempotent, steerable)  # type: ignore[attr-defined]
        return method

    return mark


def tools_of(mad: object) -> dict[str, Tool]:
    """The tools of a MAD or of its class, by name."""
    found = (getattr(getattr(mad, name), "__madlab_tool__", None) for name in dir(mad) if not name.startswith("__"))
    return {each.name: each for each in found if each is not None}
