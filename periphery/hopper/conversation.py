"""What the model is shown: the goal, and everything since, kept within what it can take in.

What does not fit is taken away where it is missed least, and always with a note that says so: first the old results of
tools (the model can ask again), then the long arguments of its own old calls, then whole old steps. The goal, the last
steps and the plan stay. It is done in large bites, so that a provider's prompt cache is not lost at each step.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from periphery.hopper.printable import shortened
from protos.llm import Completion
from protos.v1.llm_pb2 import (
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_USER,
    CompleteRequest,
    Model,
    Part,
    Sampling,
    ToolCall,
    ToolOffer,
    ToolResult,
    Turn,
)

UNKNOWN_CONTEXT = 64_000  # tokens, of a model that does not say
MOST_CONTEXT = 200_000  # more is dear and rarely helps
MOST_ANSWER = 16_000
MARGIN = 1_000
FULL, LIGHT = 0.85, 0.5  # from how full, down to how full
FIRST_GUESS = 3.0  # bytes of a request for one token
LATEST = 6  # turns that are kept whole as long as anything else can go
KEPT_CHARACTERS = 200


@dataclass(frozen=True)
class Result:
    """What came of a call."""

    call: ToolCall
    text: str
    failed: bool = False


class Conversation:
    """The turns so far."""

    def __init__(self, system: str, goal: str, tools: Iterable[ToolOffer], model: Model) -> None:
        self._system = Turn(role=ROLE_SYSTEM, parts=[Part(text=system, cache=True)])
        self._tools = list(tools)
        self._model = model
        self._turns = [Turn(role=ROLE_USER, parts=[Part(text=goal)])]
        self._dropped = 0  # steps
        self._bytes_per_token = FIRST_GUESS
        self._asked_bytes = 0
        self._answer = min(model.max_tokens or MOST_ANSWER, MOST_ANSWER, self.context // 3)

    @property
    def context(self) -> int:
        """The tokens that the model can take in and give out together."""
        return min(self._model.context_tokens or UNKNOWN_CONTEXT, MOST_CONTEXT)

    def request(self, alias: str) -> CompleteRequest:
        """What to ask next, without an id."""
        self._fit()
        turns = [self._system, *self._turns]
        request = CompleteRequest(
            model=alias, turns=turns, tools=self._tools, sampling=Sampling(max_tokens=self._answer)
        )
        request.turns[-1].parts[-1].cache = True
        self._asked_bytes = request.ByteSize()
        return request

    def answered(self, completion: Completion, results: Iterable[Result], words: Iterable[str]) -> None:
        """Adds the model's turn, and the user's turn that answers it: what came of its calls, and what else there is
        to say."""
        if completion.usage.input_tokens and not completion.usage.assumed:
            measured = self._asked_bytes / completion.usage.input_tokens
            self._bytes_per_token = min(max(measured, 1.5), 6.0)
        results = list(results)
        parts = [Part(reasoning=each) for each in completion.reasoning]
        if completion.text.strip() or not results:
            parts.append(Part(text=completion.text or "(nothing)"))
        parts += [Part(tool_call=each.call) for each in results]
        self._turns.append(Turn(role=ROLE_ASSISTANT, parts=parts))
        back = [
            Part(tool_result=ToolResult(call_id=each.call.id, failed=each.failed, parts=[Part(text=each.text)]))
            for each in results
        ]
        back += [Part(text=each) for each in words]
        self._turns.append(Turn(role=ROLE_USER, parts=back or [Part(text="Go on.")]))

    def say(self, text: str) -> None:
        """Adds to what the model is told next."""
        self._turns[-1].parts.append(Part(text=text))

    @property
    def tokens(self) -> int:
        """About how many tokens the next request has."""
        size = self._system.ByteSize() + sum(each.ByteSize() for each in (*self._turns, *self._tools))
        return int(size / self._bytes_per_token)

    def _fit(self) -> None:
        room = self.context - self._answer - MARGIN
        if self.tokens <= room * FULL:
            return
        for ease in (self._drop_results, self._drop_arguments, self._drop_steps, self._drop_more):
            ease(int(room * LIGHT))
            if self.tokens <= room * FULL:
                return

    def _drop_results(self, wanted: int) -> None:
        for turn in self._turns[1:-LATEST]:
            if self.tokens <= wanted:
                return
            for part in turn.parts:
                if part.WhichOneof("kind") == "tool_result":
                    _abbreviate(part, KEPT_CHARACTERS)

    def _drop_arguments(self, wanted: int) -> None:
        for turn in self._turns[1:-LATEST]:
            if self.tokens <= wanted:
                return
            for part in turn.parts:
                if part.WhichOneof("kind") == "tool_call" and len(part.tool_call.arguments) > 2 * KEPT_CHARACTERS:
                    part.tool_call.arguments = _abbreviated(part.tool_call.arguments)

    def _drop_steps(self, wanted: int) -> None:
        while len(self._turns) > LATEST + 1 and self.tokens > wanted:
            del self._turns[1:3]  # an answer and what came back
            self._dropped += 1
        if self._dropped:
            note = f"(Your first {self._dropped} steps were dropped to save room. What you changed is in the files.)"
            del self._turns[0].parts[1:]
            self._turns[0].parts.append(Part(text=note))

    def _drop_more(self, wanted: int) -> None:
        for kept in (4000, 1000, KEPT_CHARACTERS):
            for turn in self._turns[1:]:
                if self.tokens <= wanted:
                    return
                for part in turn.parts:
                    if part.WhichOneof("kind") == "tool_result":
                        _abbreviate(part, kept)


def _abbreviate(part: Part, kept: int) -> None:
    text = part.tool_result.parts[0].text
    if len(text) > kept + 150:
        note = f"\n[… {len(text) - kept:,} characters of this old result were dropped to save room; ask again for them]"
        part.tool_result.parts[0].text = text[:kept] + note


def _abbreviated(arguments: str) -> str:
    """The arguments of a call with its long texts cut: still a JSON object."""
    given = json.loads(arguments)
    cut = {key: shortened(value, KEPT_CHARACTERS) if isinstance(value, str) else value for key, value in given.items()}
    return json.dumps(cut, ensure_ascii=False)
