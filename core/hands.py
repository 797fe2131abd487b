"""What a resident of the core has in hand, where it takes several messages at once: each in a context of its own.

A context has an identity of its own (`Identity.hand`), so what is read for one message marks what is said for that one
and no other; and its bus knows one message, so what it may answer is that one.

A message whose handling ends the resident is not handled again. Those that were in hand beside it are: they are given
again when the resident is back, and what has its answer already is only acknowledged.
"""

from asyncio import CancelledError, current_task
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from core.policy.capabilities import Identity
from core.ports.bus import LocalBus
from core.ports.context import context_for
from core.ports.services import Services, unlimited
from core.steps import Blocked, in_steps
from protos.mad import Context
from protos.serve import answer_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from protos.v1.session_pb2 import Assignment

STEP_LIMIT_S = 1.0  # how long a resident of the core may keep the thread

DEATHS = (Blocked, SystemExit, BaseExceptionGroup)  # no `Exception`, and none of them may reach the core
_numbers = count(1)  # of hands: none is ever given twice


class Fatal(Exception):
    """What handling a message has ended its resident by, as the cause of this."""


@dataclass
class Hands:
    """The messages that one resident has in hand. It outlives the resident's restarts."""

    services: Services
    identity: Identity  # of the resident as a whole
    killers: list[Message] = field(default_factory=list)  # whose handling has ended it, and not answered yet
    _given_up: set[str] = field(default_factory=set)  # ids of those it has ended by
    _open: set[int] = field(default_factory=set)
    _new: int = 0  # what comes behind this was said since the inbox was opened

    def context(self) -> Context:
        """What the resident's inbox is read with; nothing is said in it."""
        self._new = self.services.rogers.newest
        assignment = Assignment(participant=self.identity.participant)
        context = context_for(self.services, self.identity, assignment, unlimited())
        return replace(context, bus=LocalBus(self.services, self.identity, unlimited(), apart=True))

    async def take(self, message: Message, work: Callable[[Context], Coroutine[Any, Any, None]]) -> None:
        """Has `work` handle `message`, unless that was done.

        Raises:
            Fatal: it raised, kept the thread, or would end the process.
        """
        if message.id in self._given_up or (message.sequence <= self._new and await self._is_answered(message)):
            return
        identity = replace(self.identity, hand=next(_numbers))
        context = context_for(self.services, identity, Assignment(participant=identity.participant), unlimited())
        bus = context.bus
        assert isinstance(bus, LocalBus)
        self._open.add(identity.hand)
        try:
            await bus.given(message)
            await in_steps(work(context), STEP_LIMIT_S)
        except (Exception, *DEATHS) as death:
            self._give_up(message)
            raise Fatal from death
        except CancelledError as death:
            if (task := current_task()) is not None and not task.cancelling():  # nobody did, but it itself
                self._give_up(message)
                raise Fatal from death
            raise
        finally:
            bus.done_with(message.sequence)
            self._open.discard(identity.hand)
            if not self._open:
                self.services.taints.put_down(self.identity)

    def _give_up(self, message: Message) -> None:
        self.killers.append(message)
        self._given_up.add(message.id)

    async def _is_answered(self, message: Message) -> bool:
        """Whether the resident has answered it, or the core did in its place."""
        if message.kind not in (KIND_CALL, KIND_PROSE):
            return False
        answer = await self.services.rogers.find(answer_id(message))
        return answer is not None and answer.sender in (self.identity.participant, "core")
