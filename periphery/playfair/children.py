"""Starts jobs in processes of their own, and ends them in time."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any

from anyio import CancelScope, fail_after, open_process
from anyio.abc import Process

from protos.errors import BY_CODE, Exhausted, InvalidArgument, Unavailable

ANSWER_BYTES = 64 * 1024**2


@dataclass
class Job:
    """A job that was started, and waits for its order."""

    process: Process

    async def run(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Gives it the order and returns what came of it.

        Raises:
            Error: as the job says.
            Exhausted: it took too long, or more memory than there is.
            Unavailable: it ended otherwise.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = bytearray()
        try:
            with fail_after(seconds):
                with suppress(OSError):  # it may have ended: then its answer, or its end, says why
                    await self.process.stdin.send(json.dumps(order).encode() + b"\n")
                async for chunk in self.process.stdout:
                    answer += chunk
                    if len(answer) > ANSWER_BYTES:
                        raise Exhausted("What came of it is too large.", next="Ask for less.")
                code = await self.process.wait()
        except TimeoutError:
            raise Exhausted(
                f"It took more than {seconds:g} s.", next="Give less, or raise it: --cap seconds=N."
            ) from None
        if code == -signal.SIGKILL or (code and not answer):
            raise _ended(code)
        try:
            said: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise Unavailable("The renderer ended without an answer.") from None
        if "code" in said:
            raise BY_CODE.get(said["code"], InvalidArgument)(said["message"], next=said["next"])
        return said


def _ended(code: int) -> Exhausted | Unavailable:
    if code in (-signal.SIGKILL, -signal.SIGXCPU, -signal.SIGABRT, -signal.SIGTRAP, -signal.SIGILL):
        return Exhausted(
            "It needs more memory or time than there is.",
            next="Give less, or give Playfair more: memory_mb in [profile.playfair].",
        )
    return Unavailable(f"The renderer ended with {code}.", next="Try something smaller.")


@asynccontextmanager
async def started(what: str) -> AsyncIterator[Job]:
    """Starts a job; whatever it has come to, it is gone on leaving."""
    environment = {
        key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH")
    }
    environment |= {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with CancelScope(shield=True):
        process = await open_process(
            [sys.executable, "-m", "periphery.playfair.job", what],
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,  # what it says in its last moment is shown with the run
            env=environment,
            start_new_session=True,
        )
    try:
        yield Job(process)
    finally:
        with CancelScope(shield=True):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
