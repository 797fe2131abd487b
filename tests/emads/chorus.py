"""A MAD that takes several messages at once, and can be made to keep one in hand while others come and go."""

import asyncio
import time

from anyio import Event, create_task_group, sleep_forever

from protos.blobs import store
from protos.mad import Context
from protos.serve import answer_to
from protos.tools import Call, tool
from protos.v1.message_pb2 import KIND_REPLY, Message
from tests.emads.echo import Echo, Said


class Chorus(Echo):
    """Echo, four messages at a time."""

    concurrency = 4

    def __init__(self) -> None:
        self._released = Event()
        self._held: Call | None = None

    @tool(effects="write")
    async def hold(self, call: Call, *, source: str = "") -> Said:
        """Reads a blob, tells that it has, and stores something of its own once it is released."""
        if source:
            async for _ in call.ctx.files.get(source):
                pass
        self._held = call
        await call.progress("held")
        await self._released.wait()
        blob = await store(call.ctx.files, call.message.id.encode(), name="own", media_type="text/plain")
        return {"text": blob.digest}

    @tool(effects="read")
    async def release(self, call: Call) -> Said:
        """Lets go what is held."""
        self._released.set()
        return {"text": "released"}

    @tool(effects="write")
    async def usurp(self, call: Call) -> Said:
        """Answers what is held in the place of who holds it."""
        assert self._held is not None
        await call.ctx.bus.publish(answer_to(self._held.message, KIND_REPLY, data="{}"))
        return {"text": "usurped"}

    @tool(effects="read")
    async def block_among_tasks(self, call: Call) -> Said:
        """Blocks its thread beside a task that waits, so that what interrupts it comes out as one of a group."""
        async with create_task_group() as tasks:
            tasks.start_soon(sleep_forever)
            time.sleep(600)
        return {"text": "unreachable"}

    @tool(effects="read")
    async def cancel_itself(self, call: Call) -> Said:
        """Ends as if somebody had cancelled it."""
        raise asyncio.CancelledError


class Listener(Chorus):
    """The same, and it ends when it hears the word; it answers nothing else."""

    async def handle(self, message: Message, ctx: Context) -> None:
        """Reads what is no call of a tool."""
        if message.text == "end":
            raise SystemExit(7)


class Soloist(Chorus):
    """The same, one message after the other."""

    concurrency = 1
