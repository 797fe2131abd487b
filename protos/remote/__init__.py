"""The ports over gRPC: how a worker joins the lab, and how it outlives a restart of the core.

The worker dials, once, through the one socket it was given. `connect` keeps three things going beside the MAD's code:
the directive stream (attach, assignment, end), the heartbeat, and the count of seconds since the core last answered.

When the core goes away every call waits and is made again: publishing is idempotent by id, a subscription goes on
from what was last yielded, a download from its offset. Only an upload cannot be rewound: it fails with `Unavailable`,
and `protos.blobs.store` makes it again from its source. When nothing has answered for a whole lease the session is
over: whoever waits gets `Unavailable`, and the host ends the process, since the core has given it up by then.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc
from anyio import create_task_group

from protos.mad import Context
from protos.remote.bus import RemoteBus
from protos.remote.files import RemoteFiles
from protos.remote.llm import RemoteLlm
from protos.remote.secrets import RemoteSecrets
from protos.remote.session import OPTIONS, RemoteSession
from protos.remote.web import RemoteWeb
from protos.v1.session_pb2 import Assignment


@asynccontextmanager
async def connect(
    address: str, token: str, *, host: str = "", tools: Sequence[str] = (), on_end: Callable[[], None]
) -> AsyncIterator[RemoteSession]:
    """Dials `address`, attaches with the one-use `token` and keeps the session until the body ends.

    `on_end` is called, once, when the core says that the work must end or has not answered for a lease.

    Raises:
        Unauthenticated: the token was used before, or the session is over.
    """
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        session = RemoteSession(channel, token, host, tools)
        async with create_task_group() as tasks:
            tasks.start_soon(session.listen, on_end)
            tasks.start_soon(session.beat, on_end)
            yield session
            tasks.cancel_scope.cancel()


def ports_of(session: RemoteSession, assignment: Assignment) -> Context:
    """The ports of a session that has work."""
    return Context(
        RemoteBus(session),
        RemoteFiles(session),
        assignment,
        llm=RemoteLlm(session),
        web=RemoteWeb(session),
        secrets=RemoteSecrets(session),
    )
