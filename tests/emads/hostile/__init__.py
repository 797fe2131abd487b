"""A MAD that attacks: each act is one attempt to break out, to read, to forge, to flood or to exhaust.

It judges nothing. An act says what came of it, raw: "done", the name of an error, a code, or what was read. What the
right answer is stands on the other side, in `tests/security`, where a sandbox cannot touch it.
"""

import json
import sys
import time
from typing import Any

import anyio
from typing_extensions import TypedDict

from protos.tools import Call, tool
from tests.emads.hostile import bombs, wire


class Came(TypedDict):
    """What came of it."""

    of: Any


class Measured(TypedDict):
    """How long round trips took, in milliseconds."""

    ms: list[float]


class Hostile:
    """A MAD without manners."""

    @tool(effects="read")
    async def push(self, call: Call, *, given: dict[str, Any]) -> Came:
        """Pushes every wall of the sandbox, in a process of its own, and says how each held."""
        command = [sys.executable, "-m", "tests.emads.hostile.walls", json.dumps(given)]
        done = await anyio.run_process(command, check=False)
        if done.returncode:
            return {"of": {"walls": f"ended with {done.returncode}: {done.stderr.decode()[-2000:]}"}}
        return {"of": json.loads(done.stdout)}

    @tool(effects="write")
    async def speak(self, call: Call, *, name: str, given: dict[str, Any]) -> Came:
        """Says something that no honest worker would say, past the library that would keep it from it."""
        return {"of": await wire.ACTS[name](wire.Wire(call), given)}

    @tool(effects="write")
    async def explode(self, call: Call, *, name: str) -> Came:
        """Uses up whatever there is of one thing."""
        return {"of": await bombs.ACTS[name]()}

    @tool(effects="read")
    async def measure(self, call: Call, *, seconds: float) -> Measured:
        """An honest run: says something durable again and again, each time how long the one before had taken."""
        line = wire.Wire(call)
        taken: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            await call.ctx.bus.publish(line.prose(json.dumps(taken[-1:])))
            taken.append(round((time.perf_counter() - began) * 1000, 3))
            await anyio.sleep(0.03)
        return {"ms": taken[-1000:]}
