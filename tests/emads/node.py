"""Makes the eMAD in Node ready to run."""

import shutil
import subprocess
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "node-echo"


def node_echo() -> list[str]:
    """The command that serves it; its packages are installed, as the lock file names them, where they are missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node on this machine")
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    with (FOLDER / "package.json").open() as turn:  # tests run side by side, and npm does not
        flock(turn, LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            done = subprocess.run([npm, "ci"], cwd=FOLDER, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"npm could not install the packages: {done.stderr[-500:]}")
    return [node, str(FOLDER / "echo.mjs")]
