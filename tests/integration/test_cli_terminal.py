"""The command line where a person sits: help, slips of the finger, completion, colours, widths, and `watch`."""

import os
import pty
import re
import select
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from core.grace.cli.main import app, run
from core.grace.cli.manual import EXAMPLES, PANELS
from tests.commands import COMMAND, ECHO, ROOT, Madlab, a_lab, environment
from tests.integration.completing import completed, pressed
from tests.labs import a_home


@pytest.fixture(scope="module")
def madlab() -> Iterator[Madlab]:
    with a_lab(ECHO) as lab:
        yield lab


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    whole: Any = command or typer.main.get_command(app)
    for name, each in whole.commands.items():
        yield (*path, name), each
        if hasattr(each, "commands"):
            yield from commands(each, (*path, name))


def test_every_command_stands_in_a_panel_and_each_that_works_alone_has_examples() -> None:
    top = {path[0]: each for path, each in commands() if len(path) == 1}
    named = [each for names in PANELS.values() for each in names]
    assert sorted(named) == sorted(set(named)) == sorted(top)
    assert set(EXAMPLES) <= set(top)
    assert {name for name, each in top.items() if not hasattr(each, "commands")} == set(EXAMPLES)
    assert all(line.split()[0] in ("madlab", "claude") for lines in EXAMPLES.values() for line in lines)


def test_examples_name_what_every_lab_has_and_those_that_need_nothing_else_work(madlab: Madlab) -> None:
    lines = [line for examples in EXAMPLES.values() for line in examples]
    shipped = {path.name for path in (ROOT / "periphery").iterdir() if (path / "manifest.toml").exists()}
    known = shipped | {"dewey", "fiedler", "foreman"}
    named = {mad for line in lines for mad in re.findall(r"madlab (?:call|say|tools) ([a-z]+)", line)}
    named |= {mad for line in lines for mad in re.findall(r"--mad ([a-z]+)", line)}
    assert {"dewey", "hopper", "mcnamara"} <= named <= known, "echo, say, is a MAD of the tests alone"
    without_a_model = ("status", "tools", "call", "runs", "models", "costs", "approvals", "audit", "incidents")
    for line in [each for name in without_a_model for each in EXAMPLES[name]]:
        if not re.search(r" -f| [|<] | hopper", line):
            told = madlab(*shlex.split(line)[1:])
            assert told.code == 0, f"{line}: {told.err}"


def test_whatever_prints_data_prints_json_too() -> None:
    without = {
        " ".join(path)
        for path, each in commands()
        if not hasattr(each, "commands") and not any("--json" in getattr(one, "opts", ()) for one in each.params)
    }
    prints_none = {"down", "mcp", "model remove", "model use", "provider add", "provider remove"}
    prints_none |= {"secret export", "secret remove"}
    assert {each for each in without if not each.startswith("completion ")} == prints_none


def test_help_fits_eighty_columns_and_needs_no_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    assert "--home" in capsys.readouterr().out
    whole: Any = typer.main.get_command(app)  # made once: `run` makes it for every question
    for path, _ in commands(whole):
        assert whole.main([*path, "--help"], prog_name="madlab", standalone_mode=False) == 0
        shown = capsys.readouterr().out
        assert shown.strip(), path
        assert max(len(line) for line in shown.splitlines()) <= 80, path


@pytest.mark.parametrize("words", [[], ["index"], ["completion"]])
def test_a_group_alone_is_2_and_tells_its_commands_where_errors_go(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"Usage: {' '.join(['madlab', *words])} [OPTIONS] COMMAND" in told.err
    assert "madlab: " not in told.err


@pytest.mark.parametrize(("slip", "meant"), [("statsu", "status"), ("dispach", "dispatch"), ("sacn", "scan")])
def test_a_slip_of_the_finger_is_answered_by_what_was_meant(slip: str, meant: str) -> None:
    with a_home() as home:
        told = Madlab(home)(slip)
    assert told.code == 2
    assert f"Did you mean '{meant}'" in told.err


def test_completion_knows_commands_and_the_labs_own_names(madlab: Madlab) -> None:
    home = madlab.home.path
    assert completed(home, "madlab sta") == ["status"]
    assert "--json" in completed(home, "madlab status --j")
    pressed(home, "madlab call echo.say", ["echo.say", "echo.say_later"])
    pressed(home, "madlab say ec", ["echo"])


def test_completion_says_nothing_where_the_lab_is_down() -> None:
    with a_home() as home:
        assert completed(home.path, "madlab call ec") == []
        assert completed(home.path, "madlab sta") == ["status"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_ask_the_program(shell: str) -> None:
    with a_home() as home:
        told = Madlab(home)("completion", shell)
    assert told.code == 0
    assert "_MADLAB_COMPLETE=complete_" in told.out or "_MADLAB_COMPLETE complete_" in told.out


def on_terminal(
    home: Path, *arguments: str, keys: str = "", width: int = 80, more: Mapping[str, str] | None = None
) -> str:
    """What a terminal of that width shows."""
    ours, theirs = pty.openpty()
    shown = b""
    env = environment(home) | {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "24", **(more or {})}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT
    ) as process:
        os.close(theirs)
        deadline, sent = time.monotonic() + 60, not keys
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            if not sent and b"WHAT" in shown:
                os.write(ours, keys.encode())
                sent = True
        else:
            process.kill()
            raise AssertionError(shown.decode("utf-8", "replace"))
    os.close(ours)
    return shown.decode("utf-8", "replace")


COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


@pytest.mark.parametrize(
    ("said", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_as_the_environment_wants_them(madlab: Madlab, said: dict[str, str], coloured: bool) -> None:
    shown = on_terminal(madlab.home.path, "status", more=said)
    assert ("3" in "".join(COLOUR.findall(shown))) <= coloured
    if not coloured:
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)


def test_a_table_fits_the_terminal_and_its_first_column_is_whole(madlab: Madlab) -> None:
    for width in (40, 80):
        told = subprocess.run(
            [*COMMAND, "status"], env=environment(madlab.home.path) | {"COLUMNS": str(width)},
            capture_output=True, text=True, cwd=ROOT, timeout=60,
        )  # fmt: skip
        rows = told.stdout[told.stdout.index("MAD ") :].splitlines()
        assert max(map(len, rows)) <= width
        assert any(row.startswith("fiedler ") for row in rows)


def test_watch_draws_one_screen_and_q_ends_it(madlab: Madlab) -> None:
    shown = on_terminal(madlab.home.path, "watch", keys="jkq")
    assert "0 runs at work" in shown
    assert "q quit" in shown
    assert "\x1b[?25h" in shown[-30:]  # the cursor is back


def test_watch_is_lines_where_no_terminal_is(madlab: Madlab) -> None:
    told = madlab("watch", "--once", "--json")
    assert (told.code, set(told.json)) == (0, {"runs", "attention", "costs"})
    assert madlab("watch", "--once").code == 0


def test_what_was_done_fits_the_terminal(madlab: Madlab) -> None:
    assert madlab("secret", "set", "a-name", "--from-stdin", stdin="correct-horse-battery-staple-9").code == 0
    shown = on_terminal(madlab.home.path, "audit", width=60)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\r\n")
    assert any("operator" in each for each in lines)
    assert max(map(len, lines)) <= 60


def test_who_waits_for_over_a_second_sees_that_there_is_something_to_wait_for(madlab: Madlab) -> None:
    late = ("call", "echo.say_later", '{"text": "late", "after_s": 2.5}')
    shown = on_terminal(madlab.home.path, *late)
    assert re.search(r"… [1-9]\d* s", shown)
    assert shown.rstrip().endswith('"text": "late"\r\n}')
