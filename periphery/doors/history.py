"""Makes of a client's history one that every provider takes, and tells the same story.

Turns of one side that follow each other are one turn, since a call and its neighbours belong together. A call that
the model got wrong has no place in most protocols, though it stood in the stream that the client kept: it, and the
answer it got, are told in words.
"""

from collections.abc import Iterable

from periphery.doors.reading import is_object
from protos.v1.llm_pb2 import ROLE_ASSISTANT, ROLE_USER, Part, Role, Turn


class History:
    """Turns in the making."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._broken: dict[str, str] = {}  # the id of a call that was none → its tool

    def add(self, role: Role.ValueType, parts: Iterable[Part]) -> None:
        """Adds what one side said; nothing said adds nothing."""
        said = [self._told(each) for each in parts]
        if not said:
            return
        if self._goes_on(role, said):
            self.turns[-1].parts.extend(said)
        else:
            self.turns.append(Turn(role=role, parts=said))

    def _goes_on(self, role: Role.ValueType, said: Iterable[Part]) -> bool:
        """Whether this belongs to the turn before: more of an assistant's, or more results of the same calls."""
        last = self.turns[-1] if self.turns else Turn()
        if role == ROLE_ASSISTANT:
            return last.role == role
        return role == last.role == ROLE_USER and all(each.HasField("tool_result") for each in [*last.parts, *said])

    def _told(self, part: Part) -> Part:
        match part.WhichOneof("kind"):
            case "tool_call" if not is_object(part.tool_call.arguments or "{}"):
                call = part.tool_call
                self._broken[call.id] = call.name
                return Part(text=f"(I tried to call {call.name} with what is no JSON object: {call.arguments})")
            case "tool_call":
                self._broken.pop(part.tool_call.id, None)  # some providers number their calls anew in every answer
            case "tool_result" if part.tool_result.call_id in self._broken:
                name = self._broken[part.tool_result.call_id]
                said = "\n".join(each.text for each in part.tool_result.parts)
                return Part(text=f"(The call of {name} was broken. {said})")
        return part
