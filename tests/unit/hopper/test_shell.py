"""Commands: bounded, killed with all they started, and told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from periphery.hopper.shell import TOLD_EVERY_S, Shell

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "repo").mkdir()
    return Shell(tmp_path / "repo", tmp_path / "home")


def running(mark: str) -> bool:
    """Whether a process has `mark` among its arguments."""
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and mark.encode() in (each / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


async def test_both_outputs_come_in_order_with_the_exit_code(shell: Shell) -> None:
    ran = await shell.run("echo one; echo two >&2; echo three; exit 7", seconds=60)
    assert (ran.output, ran.exit_code, ran.passed) == ("one\ntwo\nthree\n", 7, False)
    assert shell.ran == [ran]
    assert ran.ending.startswith("exit 7 after ")


async def test_a_signal_and_a_missing_program_are_results(shell: Shell) -> None:
    assert (await shell.run("kill -9 $$", seconds=60)).ending.startswith("ended by signal 9")
    assert (await shell.run("no-such-program", seconds=60)).exit_code == 127
    with pytest.raises(OSError, match="no-such-program"):
        await shell.run(["no-such-program"], seconds=60)


async def test_nothing_of_the_worker_is_inherited(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADLAB_TOKEN", "secret-1234")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-5678")
    ran = await shell.run("env; cat", seconds=60, environment={"EXTRA": "yes"})
    assert "secret" not in ran.output
    assert "EXTRA=yes" in ran.output
    assert f"HOME={shell.home}" in ran.output


async def test_a_command_gets_what_is_given_to_it(shell: Shell) -> None:
    assert (await shell.run(["cat"], seconds=60, stdin=b"given" * 50_000)).output.startswith("givengiven")


async def test_what_is_left_in_the_background_ends_with_its_command(shell: Shell) -> None:
    mark = f"left-{os.getpid()}"
    started = time.monotonic()
    ran = await shell.run(f"bash -c 'exec -a {mark} sleep 100' & echo started", seconds=60)
    assert ran.output == "started\n"
    assert time.monotonic() - started < 50
    assert not running(mark)


async def test_who_leaves_the_group_is_killed_too(shell: Shell) -> None:
    mark = f"daemon-{os.getpid()}"
    daemon = f"setsid bash -c 'setsid bash -c \"exec -a {mark} sleep 100\" & wait' & sleep 0.3; echo up"
    ran = await shell.run(daemon, seconds=60)
    assert ran.output.startswith("up\n")  # the shell may say behind it who was killed
    assert not running(mark)


FIRST = """
import anyio, os, sys
from pathlib import Path
from periphery.hopper.shell import Shell

async def main():
    shell = Shell(Path(sys.argv[1]), Path(sys.argv[1]) / "home")
    for _ in range(3):
        await shell.run("for i in 1 2 3; do (setsid sleep 0.05 &) ; done; sleep 0.2; echo", seconds=60)
    stats = [(Path("/proc") / each / "stat").read_text() for each in os.listdir("/proc") if each.isdigit()]
    print(os.getpid(), sum(") Z " in each for each in stats))

anyio.run(main)
"""


def test_the_first_process_of_a_sandbox_takes_its_dead(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", FIRST, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if ran.returncode and "unshare" in ran.stderr:
        pytest.skip("no namespace can be made here")
    assert ran.stdout.split() == ["1", "0"], ran.stderr


async def test_a_cancelled_command_leaves_nothing_behind(shell: Shell) -> None:
    mark = f"cancelled-{os.getpid()}"
    with anyio.move_on_after(0.5):
        await shell.run(f"bash -c 'exec -a {mark} sleep 100'", seconds=600)
    assert not running(mark)


async def test_a_flood_is_killed_and_memory_is_bounded(shell: Shell) -> None:
    ran = await shell.run("yes", seconds=60)
    assert ran.flooded
    assert not ran.timed_out
    assert len(ran.output) < 100_000
    assert "bytes left out" in ran.output
    assert "over 64 MiB" in ran.ending


async def test_people_hear_of_a_command_and_of_its_output_at_a_bounded_rate(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, object]]] = []

    async def tell(text: str, fields: dict[str, object]) -> None:
        told.append((text, fields))

    shell = Shell(tmp_path, tmp_path / "home", tell)
    began = time.monotonic()
    await shell.run("for i in $(seq 150); do printf '\\033[1mline %s\\n' $i; sleep 0.01; done", seconds=60)
    most = (time.monotonic() - began) / TOLD_EVERY_S + 2
    whats = [fields["what"] for _, fields in told]
    assert whats[0] == whats[-1] == "command"
    assert told[0][1]["command"] == told[-1][1]["command"]
    assert told[-1][1]["exit_code"] == 0
    assert 1 <= whats.count("output") <= most
    assert all("\x1b" not in text for text, _ in told)
    await shell.run("true", seconds=60, listed=False)
    assert len(shell.ran) == 1
