"""What looking for secrets costs: nothing while there are none, then by the number of values and the kind of text.

The baseline of a text is one pass of the automaton over it, the least that any search costs. The journal is measured
as in `journal`: 64 publishers, 1 KiB each, with a clerk that knows nothing, 25 values, and 10,000.
"""

import json
import random
import string
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
from ahocorasick_rs import BytesAhoCorasick, Implementation

from core.app import settle_memory
from core.redaction.entries import Clerk
from core.redaction.redactor import Redactor
from core.redaction.strainer import Strainer
from core.rogers.entry import Entry
from core.rogers.journal import Journal
from protos.ids import new_id
from tests.bench.figure import Figure, in_turns
from tests.bench.journal import DISK

MIB = 1 << 20
PUBLISHERS = 64
SECONDS = 0.4
CHUNK = 64 * 1024


def values(count: int) -> list[tuple[str, bytes]]:
    """Tokens like those of providers."""
    chance = random.Random(count)
    alphabet = string.ascii_letters + string.digits
    return [
        (f"secret-{number}", f"sk-{''.join(chance.choices(alphabet, k=chance.randint(20, 48)))}".encode())
        for number in range(count)
    ]


def knowing(count: int) -> Redactor:
    """A redactor that is ready."""
    redactor = Redactor()
    redactor.learn_all(values(count))
    redactor.scan(b"ready?")
    return redactor


def texts() -> dict[str, bytes]:
    """A mebibyte of each kind."""
    chance = random.Random(1)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))) for _ in range(3000)]
    lines = []
    size = 0
    while size < MIB:
        lines.append(" ".join(chance.choices(words, k=10)))
        size += len(lines[-1]) + 1
    prose = "\n".join(lines)[:MIB]
    return {
        "prose": prose.replace("\n", " ").encode(),
        "lines": prose.encode(),
        "JSON": json.dumps(prose).encode()[:MIB],
        "binary": chance.randbytes(MIB),
    }


def strained(redactor: Redactor, data: bytes) -> None:
    """All of it, as a stream."""
    strainer = Strainer(redactor)
    for start in range(0, len(data), CHUNK):
        strainer.feed(data[start : start + CHUNK])
    strainer.flush()


async def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


async def rate(journal: Journal, body: bytes) -> float:
    """Acknowledged entries a second."""
    done = 0

    async def publish() -> None:
        nonlocal done
        while time.monotonic() < end:
            await journal.append(Entry(id=new_id(), kind="act", body=body, conversation="c", sender="bench"))
            done += 1

    end = time.monotonic() + SECONDS
    async with anyio.create_task_group() as tasks:
        for _ in range(PUBLISHERS):
            tasks.start_soon(publish)
    return done / SECONDS


async def run() -> list[Figure]:
    settle_memory()
    figures = []
    kinds = texts()
    for count in (0, 25, 10_000):
        began = time.perf_counter()
        redactor = knowing(count)
        took = (time.perf_counter() - began) * 1e3
        if count:
            figures.append(Figure(f"{count:,} values learnt at once", took, "ms"))
        for kind, data in kinds.items():
            bare = BytesAhoCorasick([each[-12:] for _, each in values(25)], implementation=Implementation.DFA)
            found = await in_turns(
                {
                    "search": partial(milliseconds, partial(strained, redactor, data)),
                    "one pass": partial(milliseconds, partial(bare.find_matches_as_indexes, data)),
                },
                rounds=5,
            )
            name = f"1 MiB of {kind}, {count:,} values known"
            figures.append(Figure(name, found["search"], "ms", "one pass", found["one pass"]))
    one_more = knowing(10_000)
    more = iter(values(200))

    def learn() -> None:
        one_more.learn(*next(more))
        one_more.scan(b"ready?")

    times = sorted([await milliseconds(learn) for _ in range(150)])
    figures.append(Figure("one more beside 10,000, median", times[75], "ms"))
    figures.append(Figure("one more beside 10,000, worst of 150", times[-1], "ms"))
    figures += await journal_figures(kinds["JSON"][:1024].rstrip(b"\\"))
    return figures


async def journal_figures(body: bytes) -> list[Figure]:
    """The journal with a clerk, beside one without."""
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DISK)))
        measures = {}
        for name, count in (("no clerk", None), ("nothing", 0), ("25", 25), ("10,000", 10_000)):
            clean = None if count is None else Clerk(knowing(count)).clean
            journal = await stack.enter_async_context(Journal(place / f"{name}.db", clean=clean))
            measures[name] = partial(rate, journal, body)
        found = await in_turns(measures, rounds=6)
    limits = {"nothing": 0.9}
    return [
        Figure(
            f"journal, 1 KiB of JSON, a clerk that knows {name}",
            found[name],
            "/s",
            "no clerk",
            found["no clerk"],
            limits.get(name),
            higher_is_better=True,
        )
        for name in ("nothing", "25", "10,000")
    ]
