"""What an operator says to a run while it works: read before each step, and told how far it has got.

A remark is prose without a recipient in the run's conversation. It is *delivered* when it is in what the model is
asked next. It is *acted on* when the step that answers it was carried out: a tool call that ran, or the agent's finish.
An answer that did nothing leaves it delivered, and that is told with a `note`. Whether the step was what the remark
wanted, nobody can say here.
"""

from protos.tools import Call
from protos.v1.message_pb2 import KIND_PROSE, Message

SENDER = "operator"
PAGE = 100
REMARK_CHARACTERS = 4000
IDLE = "the agent answered without acting"


class Remarks:
    """The remarks of one call's conversation."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._after = call.message.sequence
        self._waiting: list[Message] = []  # delivered, and not yet answered

    async def fresh(self) -> list[str]:
        """What was said since the last time, oldest first; it counts as delivered."""
        said = []
        while page := await self._call.ctx.bus.history(self._call.message.conversation, after=self._after, limit=PAGE):
            for each in page:
                self._after = max(self._after, each.sequence)
                if each.kind == KIND_PROSE and each.sender == SENDER and not each.recipient and each.text.strip():
                    said.append(each)
        for each in said:
            await self._tell(each, "delivered")
        self._waiting += said
        return [each.text[:REMARK_CHARACTERS] for each in said]

    async def answered(self, *, acted: bool) -> None:
        """The agent has taken a step with them before it; `acted`: something of it was carried out."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if acted:
                await self._tell(each, "acted_on")
            else:
                await self._tell(each, "delivered", note=IDLE)

    async def _tell(self, remark: Message, state: str, **more: str) -> None:
        about = {"what": "remark", "remark": remark.causation or remark.id, "state": state, **more}
        await self._call.progress(remark.text[:300], **about)
