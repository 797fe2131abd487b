"""A full workspace: the run says so, and hands over what fits."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hopper_bench import BUGGY, acts, bench, finish, mend

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "sandbox"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


async def test_a_workspace_that_is_left_full_is_out_of_disk_and_what_fits_comes_out(small_disk: Path) -> None:
    fill = acts(("run", {"command": "head -c 900000000 /dev/zero > zeroes; true"}))
    async with bench([acts(mend()), fill, finish()], small_disk) as tried:
        done = await tried.work(BUGGY)
    assert done.outcome == "out_of_disk"
    assert list(done.changed) == ["calc.py"]
    assert "'zeroes' stays behind" in " ".join(done.told("note"))


async def test_a_workspace_that_was_full_for_a_while_is_no_matter(small_disk: Path) -> None:
    fill = acts(("run", {"command": "head -c 900000000 /dev/zero > zeroes; rm zeroes"}))
    async with bench([fill, acts(mend()), finish()], small_disk) as tried:
        done = await tried.work(BUGGY)
    assert done.outcome == "succeeded", done.verdict.reason
    assert list(done.changed) == ["calc.py"]
