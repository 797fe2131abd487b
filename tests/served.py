"""A model that plays (`tests.model_server.Play`) behind the real contract: it dials a real gate, and is served by the
real host of workers. What a play says of HTTP means nothing here."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio import create_task_group, fail_after, sleep, sleep_forever

from core.fiedler.line import Line
from core.fiedler.provider import Kind, Trouble
from core.gate import Session, hash_of, open_door
from protos.errors import Denied, Exhausted, InvalidArgument, Unavailable
from protos.host import host
from protos.llm import Say
from protos.mad import Context, Inbox
from protos.v1 import llm_pb2 as pb
from protos.v1.llm_pb2 import CompletionEvent, Serving
from protos.v1.session_pb2 import Assignment
from tests.model_server import TOKEN_CHARACTERS, Play

REASONS = {"": pb.FINISH_STOP, "stop": pb.FINISH_STOP, "length": pb.FINISH_LENGTH, "filter": pb.FINISH_REFUSED}


class Died(BaseException):
    """The worker of a model ends in the middle of an answer, whatever would catch an exception."""


class Wordy:
    """Does not come up, and says why at the end of much."""

    def __init__(self) -> None:
        raise RuntimeError("\x1b[31mno" * 200 + "\nthere are no weights")


@dataclass(frozen=True)
class Asked:
    """What the model was asked."""

    body: pb.CompleteRequest

    @property
    def input_tokens(self) -> int:
        """About one token for four bytes."""
        return self.body.ByteSize() // TOKEN_CHARACTERS + 1


@dataclass
class PlayingModel:
    """A model that plays."""

    script: Callable[[Any], Play] = lambda _: Play()
    at_once: int = 2
    load_s: float = 0
    requests: list[Asked] = field(default_factory=list)
    bill: list[tuple[int, int]] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    is_model: bool = True

    async def load(self) -> Serving:
        await sleep(self.load_s)
        return Serving(model="a model that plays", context_tokens=4096, at_once=self.at_once)

    async def answer(self, request: pb.CompleteRequest, say: Say) -> None:
        asked = Asked(request)
        self.requests.append(asked)
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await self._play(asked, self.script(asked), say)
        finally:
            self.open_now -= 1

    async def _play(self, asked: Asked, play: Play, say: Say) -> None:
        match play.error_event:
            case "invalid":
                raise InvalidArgument("It is invalid.")
            case "overloaded":
                raise Exhausted("It is overloaded.")
            case "status":
                raise RuntimeError("The model is gone.")
        if play.hang == "at once":
            await sleep_forever()
        place, made = len(self.bill), play.hidden
        self.bill.append((asked.input_tokens, made))
        pieces = [CompletionEvent(text=each) for each in play.tokens]
        if play.reasoning:
            thought = [pb.Reasoning(text=play.reasoning), pb.Reasoning(signature=play.signature)]
            pieces[:0] = [CompletionEvent(reasoning=each) for each in thought]
        for index, (name, arguments) in enumerate(play.calls):
            fragment = pb.ToolCallFragment(index=index, id=f"call_{index}", name=name)
            pieces.append(CompletionEvent(tool_call_fragment=fragment))
            for at in range(0, len(arguments), 7):
                piece = pb.ToolCallFragment(index=index, arguments=arguments[at : at + 7])
                pieces.append(CompletionEvent(tool_call_fragment=piece))
        for number, each in enumerate(pieces):
            made += 1
            self.bill[place] = (asked.input_tokens, made)
            await say(each)
            if play.pause_s:
                await sleep(play.pause_s)
            if play.cut == "middle" and number >= len(pieces) // 2:
                raise Died
        self.bill[place] = (asked.input_tokens, play.output_tokens)
        if play.usage == "told":
            usage = pb.Usage(
                input_tokens=asked.input_tokens,
                cached_tokens=play.cached,
                output_tokens=play.output_tokens,
                reasoning_tokens=play.hidden,
            )
            await say(CompletionEvent(usage=usage))
        reason = pb.FINISH_TOOL_CALLS if play.calls and not play.finish else REASONS[play.finish]
        await say(CompletionEvent(finished=pb.Finished(reason=reason)))


@dataclass
class OneHost:
    """Keeps one worker (`core.fiedler.providers.hosted.Hosts`)."""

    line: Line
    claims: int = 0

    async def claim(self, model: str, idle_s: float) -> Line:
        with fail_after(60):
            await self.line.ready.wait()
        if self.line.closed.is_set():
            raise Trouble(Kind.UNREACHABLE, "The worker is gone.")
        self.claims += 1
        return self.line

    def release(self, model: str) -> None:
        self.claims -= 1

    def state(self, model: str) -> tuple[str, str]:
        return "ready", ""

    def models(self) -> Sequence[str]:
        return ["scripted", "other"]


class _Refuses:
    """A port that this worker may not use."""

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Inbox]:
        raise Denied("A model is asked through the core.")
        yield


@asynccontextmanager
async def served(model: object, directory: Path) -> AsyncIterator[OneHost]:
    """A worker that serves `model` through a gate of its own."""
    token = secrets.token_urlsafe(16)
    line = Line()
    session = Session(lease_s=60, token=hash_of(token), line=line)
    directory.mkdir(exist_ok=True)

    async def work() -> None:
        try:
            await host(model, f"unix:{directory / 'gate.sock'}", token)
        except* (Died, Unavailable):
            pass  # the line tells of it

    try:
        async with open_door(directory, session), create_task_group() as tasks:
            tasks.start_soon(work)
            # Its ports are looked up and never reached: the early inbox of every worker is refused.
            session.assign(Context(_Refuses(), _Refuses(), Assignment(participant="llama")))  # type: ignore[arg-type]
            yield OneHost(line)
            session.tell_end("the test is over", 1)
            tasks.cancel_scope.cancel()
    except* Trouble as troubles:  # of the body: a group of one says no more than the one
        raise troubles.exceptions[0] from None
