"""The scanners, each in a file of its own. `catalogue` is the list; a scanner that is not in it does not run."""

from periphery.mcnamara.scanner import Scanner
from periphery.mcnamara.scanners.bandit import Bandit
from periphery.mcnamara.scanners.betterleaks import Betterleaks


def catalogue() -> list[Scanner]:
    """One of each, the slowest first."""
    return [Bandit(), Betterleaks()]
