"""One call, from the message that asks to what has come of it; with progress, and an end when nobody waits any more.

Rules of the file
  1. The message's id is chosen here, once. Whatever happens on the way, it is said once and answered once.
  2. Saying it may take long: a person may have to approve it. It goes on by itself when the client turns away; when
     it has started a run by then, that run is cancelled, as Ctrl-C does to `madlab scan`.
  3. A client that cancels, whose connection is over, or whose rights have ended, ends what it asked for. A stream that
     merely broke does not, where the protocol lets a client come back (a session over HTTP): the session's end does.
  4. What has come of a run is the core's word, not the worker's: a reply counts when the run's outcome is there.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from anyio import Event, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup
from mcp.server.context import ServerRequestContext

from core.grace.gateway.door import Away, Broken, Door, quoted
from core.grace.gateway.plain import line
from protos.errors import Error, Unauthenticated, Unavailable
from protos.ids import new_id

LAST_WORD_S = 5.0  # for a cancellation to reach the lab
SILENT_S = 2.0  # before a client is told that its call has not been taken up yet
TRIES = 3  # to have a message taken up, of some seconds each
WAITS = "not begun yet: the lab is busy, or a person has to approve it (madlab approvals)"
ANSWERS = ("reply", "fault")
STAGES, COUNTED = 100, 1e15  # of stages, and of what is done in them
OUTPUT = ("output", "command")  # of a coding run's log: too much of it to be told piece by piece

Context = ServerRequestContext[Any, Any]

logger = structlog.get_logger()


@dataclass(frozen=True)
class Ended:
    """What has come of a message. `run` is None where none was needed."""

    conversation: str
    run: Mapping[str, Any] | None
    answer: Mapping[str, Any] | None


class Progress:
    """Tells one client how far its call is: numbers only ever rise, whatever stages the work has, side by side or not.

    What is done is counted over all stages that say how large they are; a sentence without numbers counts as one more.
    """

    def __init__(self, context: Context) -> None:
        self._session = context.session
        self._said = 0
        self._stages: dict[str, tuple[float, float]] = {}  # done, of a total
        self._told = 0.0

    async def tell(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """`text`, and how much of how much of the stage of that name is done, where that is known."""
        if done is None or total is None:
            self._said += 1
        elif text in self._stages or len(self._stages) < STAGES:
            before = self._stages.get(text, (0.0, 0.0))[0]
            self._stages[text] = max(before, min(max(done, 0.0), total)), max(before, total)
        now = self._said + sum(each for each, _ in self._stages.values())
        if now > self._told:
            self._told = now
            whole = self._said + sum(each for _, each in self._stages.values()) if self._stages else None
            await self._session.report_progress(now, whole, line(text))

    async def hear(self, event: Mapping[str, Any]) -> None:
        """Tells of one line of a run's log."""
        if event["tool"] != "progress":
            return
        fields = event["data"] if isinstance(event["data"], Mapping) else {}
        if fields.get("what") in OUTPUT:
            return
        done, total = _number(fields.get("done")), _number(fields.get("total"))
        if done is not None and total is not None:
            await self.tell(str(fields.get("what") or event["text"]), done, total)
        else:
            await self.tell(str(event["text"]))


async def ask(tasks: TaskGroup, door: Door, message: Mapping[str, Any], progress: Progress) -> Ended:
    """Says `message`, follows what it starts, and returns what has come of it.

    Raises:
        Error: the lab refuses it.
        Unavailable: the core went away for longer than its lease; the run, where there is one, goes on without it.
    """
    saying = _Saying(door, {"id": new_id(), **message})
    said = await saying.said(tasks, progress)
    if said["run"] is None:
        return Ended(said["conversation"], None, await _answer(door, said))
    try:
        await progress.tell(f"run {said['run']} has begun: madlab://runs/{said['run']}")
        async with door.follow(f"/runs/{quoted(said['run'])}/logs") as events:
            async for each in events:
                await progress.hear(each)
        run = await door.get(f"/runs/{quoted(said['run'])}")
    except (get_cancelled_exc_class(), Unauthenticated):
        with move_on_after(LAST_WORD_S, shield=True), suppress(Error):
            await _cancel(door, said["run"])
        raise
    return Ended(said["conversation"], run, answer_among(run["messages"], said["id"]))


def answer_among(messages: list[dict[str, Any]], question: str) -> Mapping[str, Any] | None:
    """The one that answers `question`."""
    return next((each for each in messages if each["in_reply_to"] == question and each["kind"] in ANSWERS), None)


class _Saying:
    """A message on its way into the lab."""

    def __init__(self, door: Door, message: Mapping[str, Any]) -> None:
        self._door, self._message = door, message
        self._over = Event()
        self._said: dict[str, Any] = {}
        self._error: Error | None = None
        self._abandoned = False

    async def said(self, tasks: TaskGroup, progress: Progress) -> dict[str, Any]:
        """What the lab says to it: id, conversation, sequence and run.

        Raises:
            Error: no.
        """
        tasks.start_soon(self._say)
        try:
            with move_on_after(SILENT_S) as silence:
                await self._over.wait()
            if silence.cancelled_caught:
                await progress.tell(WAITS)
                await self._over.wait()
        except get_cancelled_exc_class():
            with move_on_after(LAST_WORD_S, shield=True), suppress(Error):
                if self._over.is_set():
                    await self._end()
                self._abandoned = True
                await self._over.wait()  # most often it is there in a moment, and so is its end
            raise
        if self._error is not None:
            raise self._error
        return self._said

    async def _say(self) -> None:
        try:
            self._said = await self._asked_for()
            if self._abandoned:
                await self._end()
        except Error as error:
            self._error = error
        except Exception as error:
            logger.exception("a call failed in the gateway", message=self._message["id"])
            self._error = Broken(f"the gateway made a mistake: {type(error).__name__}", next="see core.log")
        finally:
            self._over.set()

    async def _end(self) -> None:
        if run := self._said.get("run"):
            await _cancel(self._door, run)

    async def _asked_for(self) -> dict[str, Any]:
        """Says it; a lab that is too busy to take it up at once is told again, which is telling it once."""
        for left in reversed(range(TRIES)):
            try:
                said: dict[str, Any] = await self._door.post("/messages", self._message)
                return said
            except Unavailable as error:
                if isinstance(error, Away) or not left:
                    raise
        raise AssertionError


async def _cancel(door: Door, run: str) -> None:
    await door.last.post(f"/runs/{quoted(run)}/cancel", {})


async def _answer(door: Door, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of a MAD that needs no run."""
    place = f"/conversations/{quoted(said['conversation'])}/messages"
    async with door.follow(place, after=said["sequence"]) as messages:
        async for each in messages:
            if each["in_reply_to"] == said["id"] and each["kind"] in ANSWERS:
                return each
    raise Unavailable("the lab ended the conversation without an answer", next="try again")


def _number(value: object) -> float | None:
    """A number that a worker gave, where it is one that can be counted with."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < COUNTED:
        return None
    return float(value)
