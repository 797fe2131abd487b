"""One measured figure beside its baseline, and how to take it fairly."""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

ROUNDS = 10
small = False  # whether benchmarks that can take less do: to try them, not to measure


@dataclass(frozen=True)
class Figure:
    """What was measured. A fixed limit is a baseline named "limit" with a ratio of 1."""

    name: str
    value: float
    unit: str
    baseline_name: str = ""
    baseline: float | None = None  # in the same unit, from the same run
    limit_ratio: float | None = None  # what value / baseline may be at most, or at least
    higher_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Value by baseline; None where there is none."""
        return self.value / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if self.ratio is None or self.limit_ratio is None:
            return None
        return self.ratio >= self.limit_ratio if self.higher_is_better else self.ratio <= self.limit_ratio


async def in_turns(measures: Mapping[str, Callable[[], Awaitable[float]]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each measure over `rounds` rounds, each round taking all of them once.

    The machine's mood changes from second to second; in turns it is the same for all.
    """
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():
        await measure()  # warm
    for _ in range(rounds):
        for name, measure in measures.items():
            taken[name].append(await measure())
    return {name: statistics.median(values) for name, values in taken.items()}
