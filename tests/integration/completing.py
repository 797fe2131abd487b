"""The tab key: how a shell asks the program how a line could go on."""

import subprocess
from pathlib import Path

from tests.commands import COMMAND, ROOT, environment


def completed(home: Path, line: str) -> list[str]:
    words = line.split(" ")
    asked = {"_MADLAB_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [*COMMAND], env=environment(home) | asked, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def pressed(home: Path, line: str, names: list[str]) -> None:
    """Presses tab, and again where the lab had no time to answer at once."""
    for _ in range(20):
        if found := completed(home, line):
            assert found == names
            return
    raise AssertionError(f"nothing goes on behind {line!r}")
