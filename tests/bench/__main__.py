"""`python -m tests.bench [NAME ...] [--json FILE]`: measures, prints a table, and never fails on time.

Each module of this package with `async def run() -> list[Figure]` is a benchmark. A figure that misses its limit is
marked; the exit code is 1 only where a benchmark could not be run at all. One that says `LONG = True` is run only where
it is named, or with MADLAB_FULL=1.
"""

import argparse
import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

import tests.bench
from tests.bench import figure
from tests.bench.figure import Figure
from tests.sizes import full

Run = Callable[[], Awaitable[list[Figure]]]


def find(names: list[str]) -> dict[str, Run]:
    """The benchmarks, or those of `names`."""
    found = {}
    for module in pkgutil.iter_modules(tests.bench.__path__):
        if module.name != "__main__" and (not names or module.name in names):
            found_in = importlib.import_module(f"tests.bench.{module.name}")
            is_wanted = names or full() or not getattr(found_in, "LONG", False)
            if is_wanted and (run := getattr(found_in, "run", None)) is not None:
                found[module.name] = run
    return found


def table(figures: list[Figure]) -> Table:
    shown = Table("figure", "value", "baseline", "ratio", "limit", "")
    for column in (1, 2, 3, 4):
        shown.columns[column].justify = "right"
    for each in figures:
        limit = "" if each.limit_ratio is None else f"{'≥' if each.higher_is_better else '≤'} {each.limit_ratio:g}"
        shown.add_row(
            each.name,
            f"{amount(each.value)} {each.unit}",
            "" if each.baseline is None else f"{amount(each.baseline)} {each.baseline_name}",
            "" if each.ratio is None else f"{each.ratio:.2f}",
            limit,
            {True: "[green]kept[/]", False: "[red]missed[/]", None: ""}[each.met],
        )
    return shown


def amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures the lab beside its baselines.")
    parser.add_argument("names", nargs="*", help="benchmarks to run; all without")
    parser.add_argument("--json", type=Path, help="write the figures here, instead of behind the tables")
    parser.add_argument("--small", action="store_true", help="less of everything where that is possible: to try it")
    asked = parser.parse_args()
    figure.small = asked.small
    console = Console()
    benchmarks = find(asked.names)
    if missing := set(asked.names) - set(benchmarks):
        console.print(f"no benchmark is called {', '.join(sorted(missing))}; there are {', '.join(find([]))}")
        return 2
    figures: dict[str, list[Figure]] = {}
    failed = False
    for name, run in benchmarks.items():
        console.rule(name)
        try:
            figures[name] = anyio.run(run)
        except Exception:  # noqa: BLE001  the next one may run
            failed = True
            console.print(traceback.format_exc(), markup=False)
            continue
        console.print(table(figures[name]))
    data = {
        name: [asdict(each) | {"ratio": each.ratio, "met": each.met} for each in taken]
        for name, taken in figures.items()
    }
    if asked.json:
        asked.json.write_text(json.dumps(data, indent=2) + "\n")
    else:
        print(json.dumps(data))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
