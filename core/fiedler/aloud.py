"""An answer told while it is given: its text as progress of the call that asked, in a few pieces a second.

The pieces are what the model's stream has come to behind Fiedler's strainer, so no secret is split over two of them.
They are events: delivered at once, forgotten after some days, and lost without harm, since the reply has the whole.
Where the answer breaks off there is no such reply, and they hold all there was.
"""

from contextlib import aclosing

from anyio import Event, create_task_group, move_on_after

from protos.errors import Error
from protos.llm import Completion
from protos.tools import Call
from protos.v1.llm_pb2 import CompleteRequest

PAUSE_S = 0.25  # between two pieces, however fast the model is
PIECE_CHARACTERS = 3000  # at most 12,000 bytes: an event carries 16 KiB, with what stands around the text


async def complete_aloud(call: Call, request: CompleteRequest) -> Completion:
    """The whole answer to `request`, told in pieces meanwhile; `at` is how many characters came before one.

    Raises:
        as `Llm.complete`.
    """
    completion, failure = Completion(), None
    more, over = Event(), Event()

    async def tell() -> None:
        nonlocal more
        told = 0
        while True:
            await more.wait()
            more = Event()
            while piece := completion.text[told : told + PIECE_CHARACTERS]:
                try:
                    await call.progress(piece, what="text", at=told)
                except Error:
                    return  # the reply has all of it
                told += len(piece)
            if over.is_set():
                return
            with move_on_after(PAUSE_S):
                await over.wait()

    async with create_task_group() as tasks:
        tasks.start_soon(tell)
        try:
            async with aclosing(call.ctx.llm.complete(request)) as events:  # type: ignore[type-var]
                async for each in events:
                    completion.take(each)
                    if each.HasField("text"):
                        more.set()
        except Error as error:  # told as itself, and not as one of a group
            failure = error
            over.set()
            more.set()  # no reply will have the rest
        else:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return completion
