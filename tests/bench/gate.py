"""What the gate costs: a call through it, and a stream of events into it, beside bare grpc.aio.

Both sides are arranged alike: the server in this process on a unix socket, the client in a process of its own, messages
of the same size. Ours is what a worker uses (`protos.remote`), so it pays for the credential, the permission, the
port, and what stands behind it. An acknowledgement is the call that waits for nothing but the core's own code; a
publish also waits for its commit, and is shown beside an echo and one lone commit. A log goes line by line, as a tool
writes it. Batches have no limit but the lab's own, 10,000 events a second of one sender: at that rate what counts is
no longer the gate but that each line is checked, copied, hashed and kept, and the bare stream does none of it.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import grpc

from core.gate import Session, hash_of, open_door
from core.lab import Lab
from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import Allowance
from protos.ids import new_id
from protos.mad import Bus
from protos.remote import connect, ports_of
from protos.remote.bus import RemoteBus
from protos.remote.session import OPTIONS
from protos.v1 import bus_pb2
from protos.v1.message_pb2 import KIND_EVENT, KIND_PROSE, Kind, Message
from protos.v1.session_pb2 import Assignment
from tests.bench.dispatch import lone_commit
from tests.bench.figure import Figure, in_turns
from tests.labs import lab_of

CALLS = 200  # a round
EVENTS = 2000  # a round
BATCH = 50
CALL_RATIO, STREAM_RATIO = 1.5, 0.6
TEXT = "x" * 200
RUN = Assignment(participant="bench", run="bench-run", conversation="bench", trigger=new_id())
SERVICE = "bench.Bare"

Ask = Callable[[str], Awaitable[float]]  # milliseconds a call, or events a second


async def run() -> list[Figure]:
    """Calls and streams, ours and the bare ones in turns."""
    async with lab_of() as lab, served(lab) as ours, bare() as theirs:
        of = await in_turns(
            {
                "call": partial(ours, "call"),
                "bare call": partial(theirs, "call"),
                "publish": partial(ours, "publish"),
                "lone commit": partial(lone_commit, lab.journal),
                "single": partial(ours, "single"),
                "bare single": partial(theirs, "single"),
                "batch": partial(ours, "batch"),
                "bare batch": partial(theirs, "batch"),
            }
        )
    assert lab.rogers.dropped == 0, "events were dropped: the stream was faster than the lab allows"
    return [
        Figure("a call through the gate", of["call"], "ms", "bare grpc.aio echo", of["bare call"], CALL_RATIO, False),
        Figure(
            "a durable publish through the gate",
            of["publish"],
            "ms",
            "bare grpc.aio echo + a lone commit",
            of["bare call"] + of["lone commit"],
            CALL_RATIO,
            False,
        ),
        Figure(
            "a worker's log, line by line",
            of["single"],
            "/s",
            "bare grpc.aio stream",
            of["bare single"],
            STREAM_RATIO,
            True,
        ),
        Figure(
            f"a worker's log, {BATCH} lines a time",
            of["batch"],
            "/s",
            "bare grpc.aio stream, nothing kept",
            of["bare batch"],
            None,
            True,
        ),
    ]


@asynccontextmanager
async def client(side: str, address: str, token: str = "") -> AsyncIterator[Ask]:
    """Starts a process that measures on request: one word in, one number out, until its standard input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.gate", side, address, token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    questions, answers = process.stdin, process.stdout

    async def ask(what: str) -> float:
        questions.write(what.encode() + b"\n")
        return float(await answers.readline())

    try:
        yield ask
    finally:
        questions.close()
        await process.wait()


@asynccontextmanager
async def served(lab: Lab) -> AsyncIterator[Ask]:
    """A worker at a door of the lab."""
    session = Session(lease_s=60, token=hash_of("bench"))
    identity = Identity("bench", frozenset({"bus"}), run=RUN.run, conversation=RUN.conversation)
    greeting = Message(id=RUN.trigger, conversation=RUN.conversation, recipient="bench", kind=KIND_PROSE, text="hello")
    await lab.rogers.publish(greeting, sender="operator")
    session.assign(context_for(lab.services, identity, RUN, Allowance(2**40, 2**40, 2**40)))
    with TemporaryDirectory(prefix="door") as directory:
        async with open_door(Path(directory), session):
            address = f"unix:{directory}/gate.sock"
            async with client("ours", address, "bench") as each:
                yield each


@asynccontextmanager
async def bare() -> AsyncIterator[Ask]:
    """The least that grpc.aio can be: it takes a message and gives it back, or counts them."""

    async def echo(request: bus_pb2.AcknowledgeRequest, context: Any) -> bus_pb2.AcknowledgeRequest:
        return request

    async def count(requests: AsyncIterator[bus_pb2.ReportRequest], context: Any) -> bus_pb2.ReportReply:
        events = 0
        async for request in requests:
            events += len(request.events)
        return bus_pb2.ReportReply(accepted=events)

    server = grpc.aio.server()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            echo, bus_pb2.AcknowledgeRequest.FromString, bus_pb2.AcknowledgeRequest.SerializeToString
        ),
        "Count": grpc.stream_unary_rpc_method_handler(
            count, bus_pb2.ReportRequest.FromString, bus_pb2.ReportReply.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    with TemporaryDirectory(prefix="bare") as directory:
        address = f"unix:{directory}/bare.sock"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with client("bare", address) as each:
                yield each
        finally:
            await server.stop(grace=0.1)


# --- within the measuring process


async def measure_ours(address: str, token: str) -> None:
    """A worker of the contract, that has its assignment and a message in hand."""
    async with connect(address, token, on_end=lambda: None) as session:
        ctx = ports_of(session, await session.assigned())
        async with ctx.bus.subscribe() as inbox, aclosing(aiter(inbox)) as messages:  # type: ignore[type-var]
            message = await anext(messages)

            await answer_requests(
                {
                    "call": partial(timed_calls, lambda: inbox.acknowledge(message.sequence)),
                    "publish": partial(timed_calls, lambda: ctx.bus.publish(said(KIND_PROSE))),
                    "single": lambda: events_a_second(partial(reported, ctx.bus, 1)),
                    "batch": lambda: events_a_second(partial(reported, ctx.bus, BATCH)),
                }
            )


async def measure_bare(address: str) -> None:
    """The same with nothing but grpc.aio."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        echo = channel.unary_unary(
            f"/{SERVICE}/Echo", bus_pb2.AcknowledgeRequest.SerializeToString, bus_pb2.AcknowledgeRequest.FromString
        )
        count = channel.stream_unary(
            f"/{SERVICE}/Count", bus_pb2.ReportRequest.SerializeToString, bus_pb2.ReportReply.FromString
        )
        await answer_requests(
            {
                "call": partial(timed_calls, lambda: echo(bus_pb2.AcknowledgeRequest(sequence=1))),
                "single": lambda: events_a_second(partial(streamed, count, 1)),
                "batch": lambda: events_a_second(partial(streamed, count, BATCH)),
            }
        )


async def answer_requests(measurements: dict[str, Callable[[], Awaitable[float]]]) -> None:
    """One word in, one number out, until standard input ends."""
    while what := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
        print(await measurements[what](), flush=True)


async def timed_calls(call: Callable[[], Awaitable[object]]) -> float:
    """The median of one call after the other, in milliseconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def events_a_second(send: Callable[[list[Message]], Awaitable[None]]) -> float:
    """Events a second, until the other side has said that it has them all."""
    events = [said(KIND_EVENT) for _ in range(EVENTS)]
    began = time.perf_counter()
    await send(events)
    return EVENTS / (time.perf_counter() - began)


async def reported(bus: Bus, size: int, events: list[Message]) -> None:
    """By the port."""
    assert isinstance(bus, RemoteBus)
    for start in range(0, len(events), size):
        await bus.report(events[start : start + size])
    await bus._settle_reports()


async def streamed(count: Any, size: int, events: list[Message]) -> None:
    """By hand."""
    stream = count()
    for start in range(0, len(events), size):
        await stream.write(bus_pb2.ReportRequest(events=events[start : start + size]))
    await stream.done_writing()
    assert (await stream).accepted == len(events)


def said(kind: Kind.ValueType) -> Message:
    """A message of the size of a line of a log."""
    return Message(id=new_id(), conversation=RUN.conversation, kind=kind, tool="log", text=TEXT)


if __name__ == "__main__":
    side, address, token = sys.argv[1:]
    anyio.run(partial(measure_ours, address, token) if side == "ours" else partial(measure_bare, address))
