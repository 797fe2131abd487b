"""The engine: starts one program in isolation, says how it ended, removes every trace, reaps what a crash left.

An engine has no exec and no file copy. The program dials the core through the one directory mounted into it and asks
for what it needs in messages. That is what makes a container, a namespace, a swarm task and a pod interchangeable,
and it leaves an attacker nothing of ours to drive from within.

An engine belongs to one lab: it is made with the lab's id, labels everything it creates with it, and lists, adopts
and reaps nothing else.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sandbox.profile import Profile

DOOR = "/run/madlab"  # where a program finds its socket directory
LAST_WORDS = 300  # characters: with the sentence around them they fit wherever a reason is told


class SandboxError(Exception):
    """The engine failed, not the program in it: no engine, no image, no such runtime. The message says what to do."""


@dataclass(frozen=True)
class Program:
    """What to run: a profile's entry, one line on its standard input, one directory to dial out through."""

    profile: Profile
    stdin: bytes  # written once, then closed or left open: the end of standard input means nothing
    door: Path  # on the host; mounted read-only at DOOR. The program is another user: mode 0711 at least, sockets 0666


@dataclass(frozen=True)
class Exit:
    """How the program ended. A result, never an error.

    `code` is None when it was killed from outside before it ended, and when nobody is left who knows (a host process
    that an earlier core started). `log` is the tail of what it wrote, at most 16 KiB, as data.
    """

    code: int | None
    reason: Literal["exited", "killed", "out_of_memory"]
    log: str = ""

    def last_words(self, most: int = LAST_WORDS) -> str:
        """The end of the log as a quoted literal of at most `most` characters; empty where it wrote nothing.

        What went wrong is on a program's last line, so a sentence that is to be short gives up the beginning.
        """
        words = self.log.strip()[-most:]
        while (over := len(repr(words)) - most) > 0:
            words = words[max(1, over // 10) :]  # the longest escape is ten characters
        return repr(words) if words else ""


@dataclass(frozen=True)
class Usage:
    """What a sandbox costs now."""

    memory_bytes: int
    cpu_seconds: float
    pids: int


Meter = Callable[[], Usage]  # reads a few small files; raises OSError, ValueError or KeyError once it has ended


class Sandbox(Protocol):
    """One running program."""

    name: str

    async def wait(self) -> Exit:
        """Returns when the program has ended. May be called again and by several tasks.

        Raises:
            SandboxError: the engine went away and did not come back.
        """
        ...

    async def kill(self) -> None:
        """Ends the program now. Killing what has ended is no error."""
        ...

    async def usage(self) -> Usage:
        """Memory, processor time and processes of the sandbox.

        Raises:
            SandboxError: it has ended, or the engine cannot tell.
        """
        ...

    async def meter(self) -> Meter:
        """A way to look at its usage again and again without asking the engine: from the kernel's own files.

        Raises:
            SandboxError: it has ended, or its files cannot be seen from here; the message says which.
        """
        ...

    def leave(self) -> None:
        """Leaving the context will not destroy this sandbox: another core adopts it by name."""
        ...


class Engine(Protocol):
    """Where sandboxes come from."""

    name: str

    async def about(self, runtime: str) -> str:
        """What the engine says of itself and a runtime: versions, programs, arguments.

        It proves nothing. Where it is the same text as before, what was tried before need not be tried again.

        Raises:
            SandboxError: the engine does not answer.
        """
        ...

    def open(self, name: str, program: Program) -> AbstractAsyncContextManager[Sandbox]:
        """Starts `program` in a new sandbox called `name`; leaving the context destroys it without a trace.

        A cancelled open leaves nothing behind.

        Raises:
            SandboxError: it could not be started.
        """
        ...

    def adopt(self, name: str) -> AbstractAsyncContextManager[Sandbox]:
        """Takes back a sandbox that an earlier core left, running or ended; leaving the context destroys it.

        Raises:
            SandboxError: there is no such sandbox.
        """
        ...

    async def names(self) -> list[str]:
        """This lab's sandboxes, running or ended.

        Raises:
            SandboxError: the engine does not answer.
        """
        ...

    async def reap(self, keep: Collection[str]) -> list[str]:
        """Destroys this lab's sandboxes that are not in `keep` and returns their names.

        Raises:
            SandboxError: the engine does not answer.
        """
        ...
