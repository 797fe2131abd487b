"""The smallest MAD: says back what it is told. Other tools misbehave on request, so that containment can be shown."""

import time
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

from anyio import sleep, sleep_forever
from typing_extensions import TypedDict

from protos.blobs import store
from protos.ids import new_id
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_CALL, Message


class Said(TypedDict):
    """What was said."""

    text: str


class Sized(TypedDict):
    """What was counted."""

    bytes: int


class Echo:
    """A MAD without a Thought Engine."""

    @tool(effects="read", idempotent=True)
    async def say(self, call: Call, *, text: str) -> Said:
        """Says the text back."""
        return {"text": text}

    @tool(effects="read", idempotent=True)
    async def say_later(self, call: Call, *, text: str, after_s: float) -> Said:
        """Says the text back after a while, telling every tenth of a second that it is still there."""
        for step in range(int(after_s * 10)):
            await sleep(0.1)
            await call.progress(f"waited {step + 1} tenths", tenths=step + 1)
        return {"text": text}

    @tool(effects="read", idempotent=True)
    async def repeat(self, call: Call, *, text: str, times: int) -> Said:
        """Says the text many times over; a long answer travels as a blob."""
        return {"text": text * times}

    @tool(effects="read", idempotent=True)
    async def count_bytes(self, call: Call, *, source: str) -> Sized:
        """Reads the attached blob and counts its bytes, telling how far it is."""
        size = 0
        async for chunk in call.ctx.files.get(source):
            size += len(chunk)
            await call.progress(f"{size} bytes so far", bytes=size)
        return {"bytes": size}

    @tool(effects="write")
    async def keep(self, call: Call, *, text: str) -> Said:
        """Stores the text as an artifact of the run."""
        blob = await store(call.ctx.files, text.encode(), name="kept.txt", media_type="text/plain")
        call.ctx.verdict.artifacts.append(blob)
        call.ctx.verdict.evidence["kept"] = blob.size
        return {"text": blob.digest}

    @tool(effects="read")
    async def misbehave(self, call: Call, *, how: Literal["raise", "hang", "block", "exit", "fill"]) -> Said:
        """Raises, waits for ever, blocks its thread for ten minutes, fills its workspace, or ends its process."""
        match how:
            case "raise":
                raise RuntimeError("on request")
            case "hang":
                await sleep_forever()
            case "block":
                time.sleep(600)
            case "fill":
                with (Path(gettempdir()) / "full").open("wb") as file:
                    while True:
                        file.write(bytes(1024 * 1024))
            case "exit":
                raise SystemExit(7)
        return {"text": "unreachable"}


class Relay:
    """A MAD that has another one do the work."""

    @tool(effects="read")
    async def relay(self, call: Call, *, wanted: str, arguments: str) -> Said:
        """Calls a tool of echo, twice with one id, and says the answer back."""
        question = Message(id=new_id(), conversation=call.message.conversation, recipient="echo", kind=KIND_CALL)
        question.tool, question.data = wanted, arguments
        first = await call.ctx.bus.ask(question)
        again = await call.ctx.bus.ask(question)
        return {"text": (first.text or first.data) if first == again else "two answers"}
