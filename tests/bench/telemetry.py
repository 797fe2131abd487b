"""What telling costs: durable publishes with and without a collector that takes everything, in turns; and memory.

From the publishers' first message to the last one's acknowledgement, 64 publishers, 1 kB each, through the bus of a
whole lab. The baseline is the same lab without `[telemetry]`. Every tenth message is a call that a MAD answers, so that
there are spans to tell. `GET /metrics` is measured on the lab that sends nothing.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group, to_thread

from core.grace.cli.client import Client
from core.lab import Lab
from core.telemetry.prometheus import exposed
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_PROSE, Message
from tests.bench.figure import Figure, in_turns
from tests.collector import a_collector
from tests.commands import a_lab as a_running_lab
from tests.labs import a_home, opened

PUBLISHERS, EACH, ROUNDS = 64, 10, 6
ECHO = 'emads = []\n[residents.echo]\nclass = "tests.emads.echo:Echo"\n'
TEXT = "x" * 1000


async def run() -> list[Figure]:
    async with a_collector() as collector:
        told = f'{ECHO}[telemetry]\notlp = "{collector.address}"\nevery_s = 0.5\n'
        async with _lab(ECHO) as silent, _lab(told) as telling:
            rates = await in_turns({"ours": lambda: _rate(telling), "baseline": lambda: _rate(silent)}, ROUNDS)
            page = await in_turns({"page": lambda: _page(silent)}, ROUNDS)
        idle = [await to_thread.run_sync(_idle_core, each) for each in (told, ECHO)]
        return [
            Figure(
                "durable publishes while they are traced", rates["ours"], "1/s", "without [telemetry]",
                rates["baseline"], 0.9, higher_is_better=True,
            ),
            Figure("GET /metrics", page["page"] * 1000, "ms", "limit", 100.0, 1.0),
            Figure("an idle core that tells", idle[0] / 2**20, "MiB", "without [telemetry]", idle[1] / 2**20),
            Figure("spans told", float(len(collector.spans)), ""),
        ]  # fmt: skip


@asynccontextmanager
async def _lab(settings: str) -> AsyncIterator[Lab]:
    with a_home(settings) as home:
        async with opened(home) as lab:
            yield lab


async def _rate(lab: Lab) -> float:
    async def publish() -> None:
        talk = new_id()
        for number in range(EACH):
            said = Message(id=new_id(), conversation=talk, recipient="operator", kind=KIND_PROSE, text=TEXT)
            if number % 10 == 0:
                said.recipient, said.kind, said.tool, said.text = "echo", KIND_CALL, "say", ""
                said.data = json.dumps({"text": TEXT})
            await lab.rogers.publish(said, sender="operator")

    began = time.perf_counter()
    async with create_task_group() as tasks:
        for _ in range(PUBLISHERS):
            tasks.start_soon(publish)
    return PUBLISHERS * EACH / (time.perf_counter() - began)


async def _page(lab: Lab) -> float:
    began = time.perf_counter()
    exposed(await (await lab.telemetry.figures()).families())
    return time.perf_counter() - began


def _idle_core(settings: str) -> int:
    """Bytes of a core of its own, some moments after it was ready."""
    with a_running_lab(settings) as madlab:
        client = Client(madlab.home)
        time.sleep(3)
        return int(client.get("/api/v1/status")["memory_bytes"])
