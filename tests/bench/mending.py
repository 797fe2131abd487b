"""How many of ten small real bugs the local model mends, through `madlab code` and real sandboxes.

Its rate is printed as it is; nothing is gated. Without installed weights there is nothing to measure.
"""

import tempfile
import time
from pathlib import Path

from anyio import to_thread

from core.fiedler.store import Store
from tests.bench.figure import Figure
from tests.commands import a_lab
from tests.labs import ROOT
from tests.repositories import small

IMAGES = ("base", "hopper", "llama")
LIMIT_S = 600


async def run() -> list[Figure]:
    """The rate, and how long one takes."""
    store = Store.locate()
    if store is None or not store.installed():
        return []
    return await to_thread.run_sync(mend, store.installed()[0].name)


def mend(name: str) -> list[Figure]:
    """All ten, one after another."""
    mended, took = [], []
    settings = f'emads = ["{ROOT / "periphery/hopper"}"]\n'
    with tempfile.TemporaryDirectory() as place, a_lab(settings, images=IMAGES, limit_s=LIMIT_S) as madlab:
        for each in small().values():
            made = each.make(Path(place))
            began = time.perf_counter()
            done = madlab("code", each.goal, "--repo", made.root, "--test", each.test, "--time", "5m", "--json")
            took.append(time.perf_counter() - began)
            outcome = done.json["outcome"] if done.out else done.err.strip()[-200:]
            if outcome == "succeeded":
                mended.append(each.name)
            print(f"{each.name}: {outcome} in {took[-1]:.0f} s")
    return [
        Figure(f"{name}: of {len(took)} small bugs it mends", len(mended), ""),
        Figure(f"{name}: a run of madlab code", sorted(took)[len(took) // 2], "s"),
    ]
