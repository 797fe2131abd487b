"""The host of anything that lives outside the core: `python -m protos.host MODULE:CLASS`.

Reads a one-use token as one line from standard input, dials the socket `gate.sock` in the directory MADLAB_DOOR
(default /run/madlab), attaches, waits for its assignment, serves, reports how it ended, and exits: 0 when it was done
or told to end, 3 when the core did not answer for a whole lease, 4 when the session was refused.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, cast

import anyio

from protos.errors import Error, Unavailable
from protos.mad import Verdict
from protos.remote import connect, ports_of
from protos.remote.llm import RemoteModelHost
from protos.serve import serve

if TYPE_CHECKING:
    from protos.llm import ServedModel

HOST = f"madlab-host/1 python/{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


async def host(mad: object, address: str, token: str) -> int:
    """Serves `mad` for one session; returns the exit code."""
    with anyio.CancelScope() as work:
        async with connect(address, token, host=HOST, on_end=work.cancel) as session:
            assignment = await session.assigned()
            if getattr(mad, "is_model", False):  # it is asked through the core, and by nobody on the bus
                await RemoteModelHost(session).serve(cast("ServedModel", mad))
                return 0
            ctx = ports_of(session, assignment)
            await serve(mad, ctx)
            if assignment.run:
                await session.finish(ctx.verdict, evidence_of(ctx.verdict))
            return 0
    return 0 if session.ended is not None else 3


def evidence_of(verdict: Verdict) -> str:
    """The evidence as the JSON object the contract asks for."""
    return json.dumps(verdict.evidence, ensure_ascii=False)


def main() -> None:
    """Runs the host and ends the process."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    module, _, attribute = sys.argv[1].partition(":")
    mad = getattr(import_module(module), attribute)()
    token = sys.stdin.buffer.readline(4096).decode().strip()
    address = f"unix:{os.environ.get('MADLAB_DOOR', '/run/madlab')}/gate.sock"
    try:
        code = anyio.run(host, mad, address, token)
    except* Unavailable:
        code = 3
    except* Error as refused:
        logging.getLogger(__name__).error("the session ended: %s", refused)
        code = 4
    except* SystemExit as ended:  # the MAD's own doing
        first = next(_leaves(ended))
        code = first.code if isinstance(first.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # interpreter tear-down costs 14 ms and has nothing left to say


def _leaves(group: BaseExceptionGroup[SystemExit]) -> Iterator[SystemExit]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


if __name__ == "__main__":
    main()
