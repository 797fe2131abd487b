"""What a lab costs: to start, to stand idle, to keep a worker warm, and to do much at once.

The core is the real one, started by `madlab up` in a process of its own. Memory is what is resident, also where
shared with other processes count by their share. A worker's memory is its container's, without the page cache, which
the kernel takes back when it needs it, but with what it holds in memory file systems.

Each figure stands beside the least that could do: an interpreter that has imported the core, a container whose Python
sleeps, as many plain containers as the engine takes well at a time.
"""

import statistics
import sys
import time
from pathlib import Path

import anyio
from anyio import CapacityLimiter, create_task_group, sleep

from core.lab import Lab
from core.run import Outcome, Run
from tests.bench.crowd import ECHO, ECHO_IMAGES, ECHO_RUNS, SCAN, SCAN_IMAGES, SCANS, at_once, echo, scan, traces
from tests.bench.dispatch import POOL, filled
from tests.bench.figure import ROUNDS, Figure, in_turns
from tests.bench.plain import SLEEPS, plain_docker
from tests.commands import Madlab, environment
from tests.labs import EMADS, a_home, lab_of

READY_S, IDLE_MIB, WORKER_MIB = 2.0, 120.0, 20.0
AT_ONCE = 4  # plain containers: what the engine takes best
IDLE_S = 2.0
THE_CORE = "import core.app, core.grace.cli.main"


async def run() -> list[Figure]:
    """The core's start and memory, a warm worker's memory, and fifty runs and eight scans at once."""
    return [*await start(), await worker(), *await many()]


async def start() -> list[Figure]:
    """`madlab up` until it returns, and the core's memory a moment later."""
    sizes: dict[str, list[float]] = {"core": [], "import": []}
    with a_home(EMADS) as home:
        madlab = Madlab(home)

        async def up() -> float:
            began = time.perf_counter()
            await anyio.to_thread.run_sync(madlab.up)
            took = time.perf_counter() - began
            try:
                await sleep(IDLE_S)
                pid = home.holder()
                assert pid is not None
                sizes["core"].append(memory_of(pid))
            finally:
                ended = await anyio.to_thread.run_sync(madlab, "down")
                assert ended.code == 0, ended.err
            return took

        async def imports() -> float:
            began = time.perf_counter()
            program = f"{THE_CORE}\nprint(1, flush=True)\ninput()"
            async with await anyio.open_process([sys.executable, "-c", program], env=environment(home.path)) as process:
                assert process.stdout is not None
                assert process.stdin is not None
                await process.stdout.receive()
                took = time.perf_counter() - began
                sizes["import"].append(memory_of(process.pid))
                await process.stdin.send(b"\n")
            return took

        of = await in_turns({"up": up, "import": imports})
    core, bare = (statistics.median(sizes[each]) for each in ("core", "import"))
    imported = f"an interpreter that imported the core: {of['import']:.2f} s"
    return [
        Figure("madlab up, to ready", of["up"], "s", f"limit ({imported})", READY_S, 1.0),
        Figure("core, idle, resident", core, "MiB", f"limit (imports alone: {bare:.0f} MiB)", IDLE_MIB, 1.0),
    ]


def memory_of(pid: int) -> float:
    """A process's resident memory, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


async def worker() -> Figure:
    """What an idle warm worker costs, beside a sandbox whose Python only sleeps."""
    async with lab_of(EMADS + f"[profile.echo]\nwarm = {POOL}\n", images=ECHO_IMAGES) as lab:
        await filled(lab)
        with plain_docker(lab.home.lab) as plain:
            warm = plain.containers()
            assert len(warm) == POOL
            async with plain.container(SLEEPS) as (sleeper, _):
                await sleep(IDLE_S)
                sizes = [plain.memory(each) for _ in range(ROUNDS) for each in warm]
                bare = statistics.median(plain.memory(sleeper) for _ in range(ROUNDS))
    name = f"limit (a Python that sleeps: {bare:.1f} MiB)"
    return Figure("an idle warm worker", statistics.median(sizes), "MiB", name, WORKER_MIB, 1.0)


async def many() -> list[Figure]:
    """Fifty runs at once beside as many plain containers; eight scans at once beside one alone."""
    async with lab_of(ECHO, images=ECHO_IMAGES) as lab:
        limiter = CapacityLimiter(AT_ONCE)

        async def one() -> None:
            async with limiter:
                await plain.start()

        with plain_docker(lab.home.lab) as plain:
            began = time.perf_counter()
            async with create_task_group() as tasks:
                for _ in range(ECHO_RUNS):
                    tasks.start_soon(one)
            by_hand = time.perf_counter() - began
        echoes, runs = await at_once(lab, ECHO_RUNS, echo)
        await clean(lab, runs)
    async with lab_of(SCAN, images=SCAN_IMAGES) as lab:
        alone, _ = await at_once(lab, 1, scan)
        scans, runs = await at_once(lab, SCANS, scan)
        await clean(lab, runs)
    return [
        Figure(f"{ECHO_RUNS} runs of echo at once", echoes, "s", f"plain containers, {AT_ONCE} at a time", by_hand),
        Figure(f"{SCANS} scans at once", scans, "s", "one alone", alone),
    ]


async def clean(lab: Lab, runs: list[Run]) -> None:
    """Nothing may be left, or the time means nothing."""
    assert {each.outcome for each in runs} == {Outcome.SUCCEEDED}
    left = await traces(lab)
    assert left.nothing, left
