"""The scanners, each in a file of its own. `catalogue` is the list; a scanner that is not in it does not run."""

from periphery.mcnamara.own import Own
from periphery.mcnamara.scanner import Scanner
from periphery.mcnamara.scanners.bandit import Bandit
from periphery.mcnamara.scanners.betterleaks import Betterleaks
from periphery.mcnamara.scanners.shellcheck import ShellCheck
from periphery.mcnamara.scanners.zizmor import Zizmor

INSPECTORS = ("dataflow", "structure", "patterns", "secrets", "hooks", "dockerfile")


def catalogue() -> list[Scanner]:
    """One of each, the slowest first."""
    return [Bandit(), Betterleaks(), ShellCheck(), Zizmor(), *(Own(name) for name in INSPECTORS)]
