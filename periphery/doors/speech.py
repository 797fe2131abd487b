"""What it takes to speak a protocol: to read what a client asks, and to say the answer, streamed or whole."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from periphery.doors.blocks import Blocks, Step
from periphery.doors.faults import Fault
from periphery.doors.reading import Fields
from protos.v1.llm_pb2 import CompleteRequest


class Speaker(Protocol):
    """Says one answer in the words of one protocol."""

    def begin(self) -> Iterator[bytes]:
        """What comes before the first block."""
        ...

    def say(self, step: Step) -> Iterator[bytes]:
        """What is said of a step."""
        ...

    def end(self, blocks: Blocks) -> Iterator[bytes]:
        """What comes after the last block."""
        ...

    def fail(self, problem: Exception) -> Iterator[bytes]:
        """What is said, instead of the rest, of an answer that broke off."""
        ...

    def whole(self, blocks: Blocks) -> Mapping[str, Any]:
        """The answer to a client that did not ask for a stream."""
        ...


@dataclass(frozen=True)
class Asked:
    """What a client asks. The request's `model` is what the client calls it, and its `id` is still to be set."""

    request: CompleteRequest
    stream: bool
    speaker: Speaker


@dataclass(frozen=True)
class Tongue:
    """One protocol."""

    read: Callable[[Fields], Asked]
    fault: Callable[[Exception], Fault]


def event(body: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event."""
    line = f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
    return (f"event: {name}\n{line}" if name else line).encode()
